"""What is wrong in Caddy's part of a file: its own reason is shown, with our file and the line that somebody wrote, by
whatever reads it; and nothing is left behind."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.admin import command
from support.caddies import caddy as find_caddy
from support.daemon import PATIENCE_S, daemon, free_port

pytestmark = pytest.mark.system

APP = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'ok']\n"
OPTION = "\ton_demand_tls {\n\t\tpermission python_dir {\n\t\t\troot /srv\n\t\t}\n\t}\n"
SNIPPET = "}\n(common) {\n\trespond one two three four\n"
MISTAKES = {
    "too many words": ("", "\trespond one two three four\n", "Caddyfile:5: ", "respond one two three four"),
    "a plugin's option": (OPTION, "", "Caddyfile:4: ", "python_dir"),
    "in a block": ("", "\thandle /a {\n\t\troot * x y z\n\t}\n", "Caddyfile:6: ", "root * x y z"),
    "in a snippet": (SNIPPET, "\timport common\n", "Caddyfile:5: ", "respond one two three four"),
    "nowhere in particular": ("", "\ttls /nothing.pem /nothing.key\n", "Caddyfile: ", "/nothing.pem"),
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


def text(option: str = "", directive: str = "", port: int = 0) -> str:
    block = "\tpython {\n\t\tmodule_wsgi main:app\n\t\tworkers 1\n\t}\n"
    address = f"{'https' if 'tls' in directive else 'http'}://127.0.0.1:{port or free_port()}"
    return f"{{\n\tadmin off\n{option}}}\n{address} {{\n{directive}{block}}}\n"


def write(folder: Path, caddyfile: str) -> None:
    (folder / "main.py").write_text(APP)
    (folder / "Caddyfile").write_text(caddyfile)


def caddysnake(folder: Path, environ: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "caddysnake", *words]
    return subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """What the daemon says last; what others have written until then may come behind it."""
    assert done.returncode == 1, done.stderr
    *_, last = (each for each in map(json.loads, done.stderr.splitlines()) if each["level"] == "error")
    return f"{last['msg']}\n{last.get('error', '')}".rstrip()


def test_run_names_the_line_that_caddy_refuses(tmp_path: Path, environ: dict[str, str]) -> None:
    option, directive, place, wrong = MISTAKES["too many words"]
    write(tmp_path, text(option, directive))
    said = refused(caddysnake(tmp_path, environ, "run", "--caddy"))
    assert said.startswith(f"Error: {place}caddy refuses its part of the file: ")
    assert wrong in said
    assert environ["TMPDIR"] not in said
    done = caddysnake(tmp_path, environ, "validate", "--caddy")
    assert (done.returncode, done.stdout, done.stderr.rstrip()) == (1, "", said)


@pytest.mark.parametrize("name", MISTAKES)
@pytest.mark.parametrize("environ", ["current"], indirect=True)
def test_validate_names_it_wherever_it_stands(tmp_path: Path, environ: dict[str, str], name: str) -> None:
    option, directive, place, wrong = MISTAKES[name]
    write(tmp_path, text(option, directive))
    done = caddysnake(tmp_path, environ, "validate", "--caddy")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Error: {place}caddy refuses its part of the file: ")
    assert wrong in done.stderr
    assert "made for it" not in done.stderr


@pytest.mark.parametrize("environ", ["current"], indirect=True)
def test_a_reload_names_it_too_and_validate_has_nothing_against_a_good_file(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    option, directive, place, wrong = MISTAKES["too many words"]
    write(tmp_path, "")
    good = text()
    with daemon(tmp_path, good, "--caddy", environ={"PATH": environ["PATH"]}) as process:
        process.wait_for_log("admin API ready")
        done = caddysnake(tmp_path, environ, "validate", "--caddy")
        assert (done.returncode, done.stdout) == (0, "Valid configuration\n"), done.stderr
        (tmp_path / "Caddyfile").write_text(text("", directive).replace("\tadmin off\n", "\tgrace_period 1s\n"))
        refusal = command(process, tmp_path, "reload")
    assert refusal.returncode == 1
    assert "with `admin off` it cannot be told" in refusal.stderr
    with daemon(tmp_path, good.replace("\tadmin off\n", ""), "--caddy", environ={"PATH": environ["PATH"]}) as process:
        process.wait_for_log("admin API ready")
        (tmp_path / "Caddyfile").write_text(text(option, directive).replace("\tadmin off\n", ""))
        refusal = command(process, tmp_path, "reload")
    assert refusal.returncode == 1
    assert f"{place.replace('5', '4')}caddy refuses its part of the file: " in refusal.stderr
    assert wrong in refusal.stderr


@pytest.mark.parametrize("environ", ["current"], indirect=True)
def test_a_port_that_is_taken_is_one_line_and_what_it_advises_names_who_has_it(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        write(tmp_path, text(directive="\tbind 127.0.0.1\n", port=port))
        said = refused(caddysnake(tmp_path, environ, "run", "--caddy"))
        assert said.startswith(f"Error: caddy cannot listen on port {port}, address already in use: end what")
        assert "\n" not in said
        advice = said.partition("`")[2].partition("`")[0]
        found = subprocess.run(advice, shell=True, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
        assert f"pid={os.getpid()}," in found.stdout


@pytest.mark.parametrize("environ", ["current"], indirect=True)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root has what is taken away here")
def test_a_port_that_needs_rights_is_one_line(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    write(tmp_path, text(port=80))
    without = ["setpriv", "--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service"]
    run = [sys.executable, "-m", "caddysnake", "run", "--caddy", "--admin", "off"]
    done = subprocess.run(
        [*without, *run], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    said = refused(done)
    assert said.startswith("Error: caddy cannot listen on port 80, permission denied: ports below 1024 need root or ")
    assert "\n" not in said


@pytest.mark.parametrize("environ", ["current"], indirect=True)
def test_a_file_that_is_refused_before_leaves_no_folder(tmp_path: Path, environ: dict[str, str]) -> None:
    write(tmp_path, text(directive="\tpython {\n\t\tnonsense\n\t}\n"))
    assert caddysnake(tmp_path, environ, "run", "--caddy").returncode == 1
