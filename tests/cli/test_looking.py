"""What commands tell of a daemon and of a file: within the width of a terminal, of one app, of one worker."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.admin import command
from support.daemon import PATIENCE_S, daemon, python_site, workers
from support.pythons import find_python, make_venv

import caddysnake.config.language.block  # registers subdirectives
from caddysnake.cli.status_table import Columns, table, wrapped
from caddysnake.config.language.directives import SUBDIRECTIVES
from caddysnake.config.language.registry import ELSEWHERE

APP = "def {}(environ, start_response):\n    start_response('200 OK', [])\n    return [b'ok']\n"


def caddysnake(folder: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "caddysnake", *words],
        cwd=folder,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def block(folder: Path, *lines: str, name: str = "a") -> str:
    return python_site(f"unix/{folder}/{name}.sock", *lines)


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (None, ["NAME          STATE  COUNT  WHY", "a longer name  fine      10  because"]),
        (30, ["NAME           STATE  COUNT", "a longer name  fine      10"]),
        (22, ["NAME           COUNT", "a longer name     10"]),
        (17, ["NAME        COUNT", "a longer …     10"]),
        (4, ["NAME      COUNT", "a longe…     10"]),
    ],
)
def test_columns_give_way_in_their_order_before_a_name_is_cut(width: int | None, expected: list[str]) -> None:
    rows = [("a longer name", "fine", "10", "because")]
    lines = table(Columns(("NAME", "STATE", "COUNT", "WHY"), rows, frozenset({2}), (3, 1)), width)
    assert [re.sub(" +", " ", line) for line in lines] == [re.sub(" +", " ", line) for line in expected]
    assert all(len(line) <= max(width or 99, 15) for line in lines)


def test_text_goes_on_further_in() -> None:
    assert wrapped(["short", "- one two three", "    four five six seven"], 14) == [
        *("short", "- one two", "  three"),
        *("    four five", "        six", "        seven"),
    ]


def test_what_is_to_be_written_in_the_place_of_a_word_of_others_exists() -> None:
    named = {found for hint in ELSEWHERE.values() for found in re.findall(r"\bwrite (\w+)", hint)}
    assert named - SUBDIRECTIVES.settings.keys() <= {"handle_path"}


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("env DEBUG 1", "write env_var NAME VALUE, or env_file PATH"),
        ("host 127.0.0.1", "the site's address says where: unix//run/app.sock"),
        ("root /srv", "write working_dir PATH; files are Caddy's to serve"),
        ("reload", "write autoreload"),
        ("graceful-timeout 3", "write grace_period TIME"),
        ("max_memory 20", "max_memory: 20 bytes are too few for a process (say the unit: 20MB)"),
        ("max_memory 20kB", "too few for a process (write 1MB or more)"),
        ("limits {\n memory 512\n}", "512 bytes are too few for a process (say the unit: 512MB)"),
    ],
)
def test_words_of_others_get_their_counterpart_and_memory_its_unit(tmp_path: Path, line: str, hint: str) -> None:
    (tmp_path / "Caddyfile").write_text(block(tmp_path, "module_wsgi main:app", line))
    done = caddysnake(tmp_path, "validate")
    assert done.returncode == 1
    assert hint in done.stderr


def test_validate_imports_as_a_worker_would_when_it_is_asked_to(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("import os\nprint('in', os.getcwd(), os.environ['A'])\n" + APP.format("app"))
    (tmp_path / "bad.py").write_text("import nothing_of_this_name\n")
    good = block(tmp_path, "module_wsgi main:app", "env_var A b", "workers 3")
    (tmp_path / "Caddyfile").write_text(good)
    done = caddysnake(tmp_path, "validate", "--import")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"in {tmp_path} b"
    assert re.fullmatch(r"main:app: imported in [\d.]+ s\nValid configuration\n", done.stdout.partition("\n")[2])
    assert not (tmp_path / "a.sock").exists()
    (tmp_path / "Caddyfile").write_text(good + block(tmp_path, "module_wsgi bad:app", name="b"))
    assert caddysnake(tmp_path, "validate").returncode == 0
    done = caddysnake(tmp_path, "validate", "--import")
    assert done.returncode == 1
    assert "main:app: imported" in done.stdout
    assert "Error: app bad:app cannot be imported (import" in done.stderr
    assert "No module named 'nothing_of_this_name'" in done.stderr


def test_validate_says_when_libraries_for_another_python_are_missing(tmp_path: Path) -> None:
    python = find_python("3.12" if sys.version_info[:2] != (3, 12) else "3.13")
    venv = make_venv(python, tmp_path / "venv")
    (tmp_path / "main.py").write_text(APP.format("app"))
    (tmp_path / "Caddyfile").write_text(block(tmp_path, "module_wsgi main:app", f"venv {venv}"))
    done = caddysnake(tmp_path, "validate", CADDYSNAKE_RUNTIME_DIR=str(tmp_path / "runtime"))
    assert done.returncode == 1
    assert f"caddysnake runtime install --python {venv}/bin/python3" in done.stderr
    assert "Caddyfile:4" in done.stderr
    (tmp_path / "runtime" / f"cpython-{find_version(python)}-x" / "httptools").mkdir(parents=True)
    assert caddysnake(tmp_path, "validate", CADDYSNAKE_RUNTIME_DIR=str(tmp_path / "runtime")).returncode == 0


def find_version(python: str) -> str:
    asked = "import sys; print('%d%d' % sys.version_info[:2])"
    return subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True).stdout.strip()


def test_status_fits_shows_one_app_and_dump_writes_the_stacks_of_one_worker(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(APP.format("app"))
    (tmp_path / "other.py").write_text(APP.format("an_application_with_a_rather_long_name"))
    name = "other:an_application_with_a_rather_long_name"
    text = block(tmp_path, "module_wsgi main:app") + block(tmp_path, f"module_wsgi {name}", "workers 1", name="b")
    with daemon(tmp_path, text) as process:
        process.wait_for_log("admin API ready")
        for width in (80, 60):
            shown = command(process, tmp_path, "status", COLUMNS=str(width)).stdout
            assert max(map(len, shown.splitlines())) <= width, shown
            assert re.search(r"^main:app +serving +\d/\d", shown, re.MULTILINE)
        one = command(process, tmp_path, "status", name, COLUMNS="200").stdout
        assert "main:app" not in one.partition("not isolated")[0]
        assert str(tmp_path / "b.sock") in one
        told = json.loads(command(process, tmp_path, "status", "--json", name).stdout)
        (pid,) = [each["pid"] for each in told["workers"]]
        assert re.search(rf"^ *{pid}  ready ", one, re.MULTILINE)
        lost = command(process, tmp_path, "status", "mian:app")
        assert (lost.returncode, lost.stderr) == (1, "Error: there is no app mian:app: there is main:app\n")
        done = command(process, tmp_path, "dump", str(pid))
        assert done.returncode == 0
        assert done.stdout.endswith(f"The stacks of worker {pid} ({name}) are in the daemon's log\n")
        assert "(most recent call first):" in done.stdout
        process.wait_for_log("(most recent call first):")
        wrong = command(process, tmp_path, "dump", "1")
        assert wrong.returncode == 1
        assert all(str(each) in wrong.stderr for each in workers(process.pid))


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("main:app",), "did you mean `caddysnake serve main:app`?"),
        (("site.caddy",), "did you mean `caddysnake run --config site.caddy`?"),
        (("run", "main.py"), "caddysnake serve main.py serves one app"),
        (("serve", "main:app", "--timeout", "30"), "`caddysnake import COMMAND…` prints a Caddyfile"),
    ],
)
def test_a_command_line_of_another_server_gets_a_hint(tmp_path: Path, words: tuple[str, ...], hint: str) -> None:
    (tmp_path / "site.caddy").touch()
    done = caddysnake(tmp_path, *words)
    assert done.returncode == 1
    assert hint in done.stderr
