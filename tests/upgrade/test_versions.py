"""Another version is installed over the one that runs: it takes over, or is refused and nothing changes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.admin import socket_of
from support.daemon import Process, alive, eventually, get, workers

import caddysnake
from caddysnake.cli.calling import CallFailed, Target, call

pytestmark = pytest.mark.system

APP = """
import os


def app(environ, start_response):
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]
"""
FILE = "unix/x.sock {\n\tpython {\n\t\tmodule_wsgi main:app\n\t\tworkers 2\n\t}\n}\n"


class Installed:
    """A daemon that runs from a copy of the package, which can be changed."""

    def __init__(self, process: Process, folder: Path) -> None:
        self.process = process
        self.package = folder / "lib" / "caddysnake"
        self._folder = folder

    def change(self, module: str, old: str, new: str) -> None:
        path = self.package / module
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    def upgrade(self) -> subprocess.CompletedProcess[str]:
        environ = dict(item.split("=", 1) for item in self._environ())
        command = [sys.executable, "-m", "caddysnake", "upgrade", "--config", "Caddyfile"]
        return subprocess.run(
            command, cwd=self._folder, env=environ, capture_output=True, text=True, timeout=120, check=False
        )

    def _environ(self) -> list[str]:
        return Path(f"/proc/{self.process.pid}/environ").read_text().strip("\0").split("\0")

    def ask(self) -> int:
        """The pid of a worker that answers."""
        status, body = get("/", path=self._folder / "x.sock")
        assert status == 200
        return int(body)


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Installed]:
    package = tmp_path / "lib" / "caddysnake"
    shutil.copytree(Path(caddysnake.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "main.py").write_text(APP)
    (tmp_path / "Caddyfile").write_text(FILE)
    environ = {"PYTHONPATH": str(tmp_path / "lib"), "PYTHONSAFEPATH": "1"}
    process = Process([sys.executable, "-m", "caddysnake", "run"], tmp_path, "daemon", environ)
    with contextlib.closing(process):
        process.wait_for_log(" ready in ")
        process.wait_for_log("admin API ready")
        yield Installed(process, tmp_path)


def test_another_version_takes_over_with_the_pid_and_the_workers_of_the_first(installed: Installed) -> None:
    before = workers(installed.process.pid)
    path = installed.package / "__init__.py"
    path.write_text(path.read_text() + '\n__version__ = "99.9"\n')
    done = installed.upgrade()
    assert done.returncode == 0, done.stderr + installed.process.log
    assert "Version 99.9 runs" in done.stderr
    assert f"pid is {installed.process.pid} as before" in done.stderr
    assert installed.ask() in before
    assert workers(installed.process.pid) == before
    assert '"version":"99.9"' in installed.process.log


def test_a_version_that_does_not_load_is_refused_until_it_is_mended(installed: Installed) -> None:
    before = workers(installed.process.pid)
    installed.change("daemon/supervisor/supervisor.py", "class Supervisor:", "class Supervisor(Missing):")
    refused = installed.upgrade()
    assert refused.returncode == 1
    assert "cannot take over" in refused.stderr
    assert "NameError: name 'Missing' is not defined" in refused.stderr
    assert "upgrade refused; the old version keeps running" in installed.process.log
    assert installed.ask() in before
    installed.change("daemon/supervisor/supervisor.py", "class Supervisor(Missing):", "class Supervisor:")
    done = installed.upgrade()
    assert done.returncode == 0, done.stderr
    assert installed.ask() in before


def test_a_version_that_does_not_know_the_form_of_the_state_is_refused(installed: Installed) -> None:
    installed.change("daemon/system/state.py", "STATE_VERSION = 1", "STATE_VERSION = 2")
    refused = installed.upgrade()
    assert refused.returncode == 1
    assert "leaves a state of form 1, and form 2 is known here" in refused.stderr
    installed.ask()


def test_a_version_that_speaks_otherwise_with_workers_is_refused(installed: Installed) -> None:
    installed.change("channel/messages.py", "PROTOCOL_VERSION = ", "PROTOCOL_VERSION = 1000 + ")
    refused = installed.upgrade()
    assert refused.returncode == 1
    assert "of the channel" in refused.stderr
    installed.ask()


def test_while_another_version_loads_nobody_is_told_that_the_daemon_hangs(installed: Installed) -> None:
    held, reached = (installed.process.log_path.parent / name for name in ("held", "reached"))
    held.touch()
    asked = "    state_fd, standin, pid = _numbers(told, 3)\n"
    waits = f"    open({str(reached)!r}, 'w')\n    while os.path.exists({str(held)!r}):\n        os.sched_yield()\n"
    installed.change("daemon/upgrade/handover.py", asked, asked + waits)
    installed.process.popen.send_signal(signal.SIGUSR2)
    eventually(reached.exists)
    target = Target(str(socket_of(installed.process)))
    with pytest.raises(CallFailed, match=f"process {installed.process.pid}, is loading another version") as caught:
        call(target, "GET", "/status", 0.2)
    assert caught.value.hint == "ask again in a moment"
    held.unlink()
    installed.process.wait_for_log('"upgraded"')
    assert call(target, "GET", "/status")["daemon"]["pid"] == installed.process.pid


def test_a_version_that_fails_in_the_end_starts_everything_afresh_on_the_same_sockets(installed: Installed) -> None:
    before = workers(installed.process.pid)
    socket = os.stat(installed.process.log_path.parent / "x.sock").st_ino
    # What a rehearsal does not do.
    resuming, failing = "        self._resume_connections()\n", "        raise KeyError('oh')\n"
    installed.change("daemon/upgrade/restore.py", resuming, failing)
    installed.upgrade()
    installed.process.wait_for_log("everything is started afresh")
    installed.process.wait_for_log(" ready in ", 2)
    assert installed.ask() not in before
    assert os.stat(installed.process.log_path.parent / "x.sock").st_ino == socket
    for pid in before:
        for _ in range(500):
            if not alive(pid):
                break
            installed.ask()
        assert not alive(pid)
