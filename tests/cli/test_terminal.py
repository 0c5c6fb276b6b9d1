"""What a command prints: nothing in it is obeyed by a terminal, wherever it came from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.admin import command
from support.daemon import PATIENCE_S, daemon
from support.load import app
from support.terminals import on_terminal

ESC = "\x1b]0;OWN\x07\x9b31m\u202eX\u2066\x7f"
RAW = [mark.encode() for mark in ("\x1b", "\x07", "\x9b", "\u202e", "\u2066", "\x7f", "\x00")]
SITE = 'unix/a.sock {{\n\tpython {{\n\t\tmodule_asgi app:app\n\t\tworking_dir "{}"\n\t}}\n}}\n'


def run(folder: Path, *words: str | bytes, environ: dict[str, str] | None = None) -> tuple[int, bytes, bytes]:
    done = subprocess.run(
        [sys.executable, "-m", "caddysnake", *words],
        cwd=folder,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "XDG_RUNTIME_DIR": str(folder), **(environ or {})},
    )
    return done.returncode, done.stdout, done.stderr


def raw(said: bytes) -> list[bytes]:
    return [mark for mark in RAW if mark in said]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / ESC).mkdir()
    (tmp_path / ESC / "Caddyfile").write_text(SITE.format("."))
    (tmp_path / "Caddyfile").write_text(SITE.format(tmp_path / ESC))
    (tmp_path / "bad").write_text(f"unix/a.sock {{\n\tpython {{\n\t\t{ESC} x\n\t}}\n}}\n")
    (tmp_path / "import").write_text(f'import "{ESC}/gone"\n')
    (tmp_path / "env").write_text("unix/{$E}/a.sock {\n\tpython {\n\t\tmodule_wsgi app:app\n\t}\n}\n")
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        (ESC,),
        ("--" + ESC,),
        ("fmt", ESC),
        ("fmt", "--zz" + ESC),
        ("fmt", "--overwrite", ESC),
        ("run", "--zz" + ESC),
        ("run", "--config", ESC),
        ("run", "--config", "bad"),
        ("run", "--config", "env"),
        ("run", "--admin", ESC),
        ("run", "--caddy", "--socket-dir", ESC, "--config", "bad"),
        ("serve", ESC),
        ("serve", "main:app", "--listen", ESC),
        ("reload", "--config", ESC),
        ("reload", "--address", ESC),
        ("reload", "--app", ESC),
        ("status", "--address", f"unix//{ESC}"),
        ("stop", "--address", ESC),
        ("upgrade", "--config", ESC),
        ("validate",),
        ("validate", "--config", "bad"),
        ("validate", "--config", "import"),
        ("validate", "--config", "env"),
        ("adapt",),
        ("adapt", "--pretty"),
        ("adapt", "--config", ESC),
        ("caddyfile", "--config", "bad"),
        ("doctor",),
        ("doctor", "--json"),
        ("doctor", "--caddy-user", ESC),
        ("systemd", "--user" + ESC),
        ("runtime", "install", "--python", ESC),
        ("completion", ESC),
        ("environ",),
        ("help", ESC),
    ],
)
def test_nothing_raw_is_printed_whatever_the_words_the_files_and_the_environment_hold(
    folder: Path, words: tuple[str, ...]
) -> None:
    _, out, err = run(folder, *words, environ={"E": ESC.replace("\x00", ""), ESC: ESC})
    assert out + err
    assert raw(out + err) == []


def test_bytes_that_are_no_text_are_shown_as_escapes(folder: Path) -> None:
    _, out, err = run(folder, b"fmt", b"\x9b31m\xff\x1b[2J")
    assert b"\\x1b[2J" in err
    assert raw(out + err) == []
    assert b"\x9b" not in err


@pytest.mark.parametrize("words", [("fmt", "bad"), ("fmt", "--diff", "bad"), ("caddyfile",)])
def test_the_content_of_a_file_is_kept_to_the_byte_but_on_a_terminal(folder: Path, words: tuple[str, ...]) -> None:
    _, out, _ = run(folder, *words)
    shown = on_terminal(folder, *words)
    assert ESC.encode() in out or words == ("caddyfile",)
    assert shown
    assert raw(shown) == []


@pytest.mark.parametrize("words", [("adapt",), ("adapt", "--pretty"), ("doctor", "--json")])
def test_json_stays_json_and_says_the_same(folder: Path, words: tuple[str, ...]) -> None:
    _, out, _ = run(folder, *words)
    said = json.loads(out)
    if words[0] == "adapt":
        assert ESC in json.dumps(said, ensure_ascii=False).replace("\\u001b", "\x1b").replace("\\u0007", "\x07")


def test_a_terminal_on_which_somebody_watches_gets_our_own_sequences_only(folder: Path) -> None:
    place = folder / ESC
    (place / "main.py").write_text(app("1"))
    config = f'unix/{folder}/x.sock {{\n\tpython {{\n\t\tmodule_wsgi main:wsgi\n\t\tworking_dir "{place}"\n\t}}\n}}\n'
    with daemon(folder, config) as process:
        process.wait_for_log("admin API ready")
        for words in (("status",), ("status", "--json"), ("reload",), ("doctor",)):
            done = command(process, folder, *words)
            assert raw((done.stdout + done.stderr).encode()) == []
        assert json.loads(command(process, folder, "status", "--json").stdout)["apps"]
        assert raw(process.log_path.read_bytes()) == []


@pytest.mark.parametrize(("number", "words", "status"), [(1, ("fmt",), 0), (1, ("version",), 0), (2, ("fmt", "no"), 1)])
def test_a_stream_that_was_closed_before_the_start_leads_nowhere(
    folder: Path, number: int, words: tuple[str, ...], status: int
) -> None:
    script = f'exec {number}>&-; exec "$@"'
    asked = ["sh", "-c", script, "sh", sys.executable, "-m", "caddysnake", *words]
    done = subprocess.run(asked, cwd=folder, capture_output=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (status, b"", b"")
