"""A mistake in Caddy's part of a file: its own reason is shown, with the line, and nothing is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.caddies import caddy as find_caddy
from support.daemon import PATIENCE_S, free_port

pytestmark = pytest.mark.system

APP = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'ok']\n"
MISTAKES = {
    "respond one two three four": ("", "\trespond one two three four\n"),
    "permission python_dir {": ("\ton_demand_tls {\n\t\tpermission python_dir {\n\t\t\troot /srv\n\t\t}\n\t}\n", ""),
}


@pytest.fixture(params=["current", "debian"])
def environ(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    """A PATH with the Caddy that the test is about, and a temporary folder in which nothing may be left. Its name is
    short, as sockets are made in it."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "caddy").symlink_to(find_caddy(request.param))
    with tempfile.TemporaryDirectory(prefix="cs-") as temporary:
        found = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "TMPDIR": temporary}
        found.pop("XDG_RUNTIME_DIR", None)
        yield found
        assert os.listdir(temporary) == []


def write(folder: Path, option: str = "", directive: str = "") -> None:
    (folder / "main.py").write_text(APP)
    block = "\tpython {\n\t\tmodule_wsgi main:app\n\t\tworkers 1\n\t}\n"
    site = f"http://127.0.0.1:{free_port()} {{\n{directive}{block}}}\n"
    (folder / "Caddyfile").write_text(f"{{\n\tadmin off\n{option}}}\n{site}")


def caddysnake(folder: Path, environ: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "caddysnake", *words]
    return subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


@pytest.mark.parametrize("line", MISTAKES)
def test_run_says_what_caddy_has_against_it(tmp_path: Path, environ: dict[str, str], line: str) -> None:
    write(tmp_path, *MISTAKES[line])
    done = caddysnake(tmp_path, environ, "run", "--caddy")
    assert done.returncode == 1
    reason = done.stderr.rpartition("Error: caddy does not start:\n")[2]
    assert "caddy refuses its part of the file" in reason
    assert line.partition(' ')[0] in reason
    assert environ["TMPDIR"] not in reason


@pytest.mark.parametrize("line", MISTAKES)
def test_validate_asks_caddy_too(tmp_path: Path, environ: dict[str, str], line: str) -> None:
    write(tmp_path, *MISTAKES[line])
    done = caddysnake(tmp_path, environ, "validate", "--caddy")
    assert (done.returncode, done.stdout) == (1, "")
    assert "Error: caddy refuses its part of the file" in done.stderr
    assert line.partition(' ')[0] in done.stderr
    write(tmp_path)
    done = caddysnake(tmp_path, environ, "validate", "--caddy")
    assert (done.returncode, done.stdout) == (0, "Valid configuration\n"), done.stderr


def test_a_file_that_is_refused_before_leaves_no_folder(tmp_path: Path, environ: dict[str, str]) -> None:
    write(tmp_path, directive="\tpython {\n\t\tnonsense\n\t}\n")
    assert caddysnake(tmp_path, environ, "run", "--caddy").returncode == 1
