"""A socket that somebody has removed under a running daemon, and a signal that comes before it can be handled."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from support.admin import call, command, socket_of
from support.daemon import PATIENCE_S, Process, UnixHTTPConnection, daemon, get, python_site
from support.load import app

pytestmark = pytest.mark.system


def caddyfile(folder: Path) -> str:
    return python_site(f"unix/{folder}/v/a.sock|0640", "module_wsgi main:wsgi", "workers 1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(app("1"))
    (tmp_path / "v").mkdir()
    return tmp_path


def answers(path: Path) -> bool:
    """As soon as somebody answers there."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            return get("/", path=path)[0] == 200
        except OSError:
            time.sleep(0.02)
    return False


@pytest.mark.parametrize("what", ["file", "contents", "folder"])
def test_a_socket_that_is_gone_is_made_anew(folder: Path, what: str) -> None:
    path = folder / "v/a.sock"
    with daemon(folder, caddyfile(folder)) as process:
        kept = UnixHTTPConnection(path)
        kept.request("GET", "/")
        kept.getresponse().read()
        if what == "file":
            path.unlink()
        else:
            shutil.rmtree(folder / "v")
            (folder / "v").mkdir()
        process.wait_for_log("a socket was gone, and is made anew")
        assert answers(path)
        assert path.stat().st_mode & 0o777 == 0o640
        kept.request("GET", "/")  # who was there stays
        assert kept.getresponse().status == 200
        kept.close()
        assert command(process, folder, "reload").returncode == 0
        assert answers(path)
        assert process.log.count("made anew") == 1
        assert process.stop() == 0
    assert list((folder / "v").iterdir()) == []


def test_a_socket_that_cannot_be_made_anew_is_told_and_a_reload_fails(folder: Path) -> None:
    path = folder / "v/a.sock"
    with daemon(folder, caddyfile(folder)) as process:
        shutil.rmtree(folder / "v")
        process.wait_for_log("a socket is gone, and cannot be made anew for now")
        done = command(process, folder, "reload")
        assert done.returncode == 1
        assert f"the folder {folder}/v" in done.stderr
        assert f"unix/{path}: its socket is gone" in command(process, folder, "status").stdout
        assert f"the folder of {path} is not there" in command(process, folder, "doctor").stdout
        (folder / "v").mkdir()
        assert answers(path)
        assert "its socket is gone" not in command(process, folder, "status").stdout


def test_the_socket_of_another_is_left_alone(folder: Path) -> None:
    path = folder / "v/a.sock"
    with daemon(folder, caddyfile(folder)) as process:
        shutil.rmtree(folder / "v")
        (folder / "v").mkdir()
        path.write_text("mine")
        process.wait_for_log("exists and is not a socket")
        assert path.read_text() == "mine"
    assert path.read_text() == "mine"


def test_the_admin_socket_is_made_anew(folder: Path) -> None:
    with daemon(folder, caddyfile(folder)) as process:
        process.wait_for_log("admin API ready")
        path = socket_of(process)
        shutil.rmtree(path.parent)
        process.wait_for_log("the admin API's socket was gone, and is made anew")
        assert call(path, "GET", "/health/live").status == 200
        assert command(process, folder, "reload").returncode == 0


def test_a_reload_that_is_asked_for_before_the_daemon_can_hear_it_is_carried_out_later(folder: Path) -> None:
    (folder / "Caddyfile").write_text(caddyfile(folder))
    process = Process([sys.executable, "-m", "caddysnake", "run"], folder, "daemon")
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not _is_set(process.pid, "SigBlk"):
            assert not _is_set(process.pid, "SigCgt")
            assert time.monotonic() < deadline
        assert process.log == ""
        os.kill(process.pid, signal.SIGHUP)
        process.wait_for_log(" ready in ")
        process.wait_for_log('"reloaded"')
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            assert not _is_set(int(child), "SigBlk")
        assert process.stop() == 0
    finally:
        process.close()


def _is_set(pid: int, field: str) -> bool:
    """Whether SIGHUP is in a set of signals of the process (proc_pid_status(5))."""
    text = Path(f"/proc/{pid}/status").read_text()
    (mask,) = [line.split()[1] for line in text.splitlines() if line.startswith(field)]
    return bool(int(mask, 16) >> (signal.SIGHUP - 1) & 1)
