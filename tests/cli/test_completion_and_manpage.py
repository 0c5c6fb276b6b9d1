"""The shell completes commands and options, and the manual page is one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.daemon import daemon

from caddysnake.cli.completion import SHELLS
from caddysnake.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[2]


def caddysnake(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "caddysnake", *words], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == ""
    return done.stdout


def completed(script: Path, *words: str, cwd: Path | None = None, **environ: str) -> set[str]:
    """What bash offers for the last of ``words``, in ``cwd`` and with these variables."""
    quoted = " ".join(f"'{word}'" for word in words)
    text = f"""
    source {script}
    COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; COMP_LINE="${{COMP_WORDS[*]}}"; COMP_POINT=${{#COMP_LINE}}
    $(complete -p caddysnake | sed 's/.*-F \\([^ ]*\\).*/\\1/')
    printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", text], capture_output=True, text=True, check=True, timeout=60, cwd=cwd,
        env={**os.environ, "PATH": path, **environ},
    )  # fmt: skip
    return set(done.stdout.split())


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "caddysnake"
    path.write_text(caddysnake("completion", "bash"))
    return path


def test_bash_completes_commands(script: Path) -> None:
    assert completed(script, "caddysnake", "") == set(COMMANDS)
    assert completed(script, "caddysnake", "va") == {"validate"}


def test_bash_completes_options_and_choices(script: Path) -> None:
    assert {"--config", "--caddy"} <= completed(script, "caddysnake", "run", "--")
    assert completed(script, "caddysnake", "completion", "z") == {"zsh"}


def test_bash_completes_files_where_an_option_takes_one(script: Path, tmp_path: Path) -> None:
    (tmp_path / "Caddyfile.mine").touch()
    assert completed(script, "caddysnake", "run", "--config", f"{tmp_path}/Ca") == {f"{tmp_path}/Caddyfile.mine"}


def test_bash_completes_names_of_the_apps_that_run(script: Path, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("def app(environ, start_response): ...\ndef api(environ, start_response): ...\n")
    text = "".join(f"unix/{tmp_path}/{name}.sock {{\n\tpython main:{name}\n}}\n" for name in ("app", "api"))
    with daemon(tmp_path, text) as process:
        here = {"cwd": tmp_path, "XDG_RUNTIME_DIR": process.runtime_dir}
        assert completed(script, "caddysnake", "reload", "--app", "ma", **here) == {"main:app", "main:api"}
        assert completed(script, "caddysnake", "status", "n", **here) == set()
        for rest in ([":"], [":", "a"]):  # as readline takes it apart, of which the rest is completed
            assert completed(script, "caddysnake", "status", "main", *rest, **here) == {"app", "api"}
        there = {"cwd": Path("/"), "XDG_RUNTIME_DIR": process.runtime_dir}
        words = ("caddysnake", "exec", "--config", str(tmp_path / "Caddyfile"), "m")
        assert completed(script, *words, **there) == {"main:app", "main:api"}


@pytest.mark.once
@pytest.mark.skipif(sys.version_info >= (3, 12), reason="argparse words its help otherwise in each version of Python")
def test_the_generated_files_are_those_of_the_command_line_as_it_is() -> None:
    check = [sys.executable, str(ROOT / ".ci" / "generate.py"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize("shell", SHELLS)
def test_there_is_a_script_for_each_shell_that_names_every_command(shell: str) -> None:
    text = caddysnake("completion", shell)
    assert [name for name in COMMANDS if name not in text] == []


def test_the_manual_page_has_every_command_and_option(tmp_path: Path) -> None:
    path = tmp_path / "man8" / "caddysnake.8"
    assert caddysnake("manpage", "--directory", str(path.parent)) == f"{path}\n"
    page = path.read_text()
    assert page.startswith(".TH CADDYSNAKE")
    assert [name for name in COMMANDS if f"caddysnake {name}" not in page.replace("\\-", "-")] == []
    assert "--socket-dir" in page.replace("\\-", "-")
    groff = shutil.which("groff")
    if groff is not None:
        done = subprocess.run(
            [groff, "-man", "-Tutf8", "-ww", "-z", str(path)], capture_output=True, text=True, check=True, timeout=60
        )
        assert [line for line in done.stderr.splitlines() if "break" not in line and "adjust" not in line] == []


def test_a_manual_page_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = subprocess.run(
        [sys.executable, "-m", "caddysnake", "manpage", "--directory", str(tmp_path / "file")],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("Error: cannot write ")
