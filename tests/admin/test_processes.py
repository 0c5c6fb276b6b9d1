"""The admin API and processes that an app of the daemon's own user has started."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import kernels
from support.admin import call, command
from support.daemon import PATIENCE_S, Process, children, daemon, get
from support.tenants import needs_root

pytestmark = pytest.mark.system

APP = '''
import os, socket, subprocess, sys, time
from urllib.parse import parse_qs

PATH = {path!r}
HEAD = ["POST /load?file=/x HTTP/1.1", "Host: localhost", "Content-Type: text/caddyfile", "Content-Length: 3"]
LOAD = "\\r\\n".join([*HEAD, "", "{{\\n}}"]).encode()

def connected():
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(10)
    sock.connect(PATH)
    return sock

def ask(sock):
    sock.sendall(LOAD)
    return sock.recv(65536)

def here():
    return ask(connected())

def of_a_child(forks, session):
    """Asked by a process whose parents have ended."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        for _ in range(forks - 1):
            if session:
                os.setsid()
            if os.fork():
                os._exit(0)
        parent = os.getppid()
        time.sleep(0.3)  # the daemon inherits it
        try:
            os.write(writing, here())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        return file.read()

def of_one_that_has_ended():
    """Asked on a connection that a child, which is no more, has made."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(10)
    if os.fork() == 0:
        sock.connect(PATH)
        os._exit(0)
    os.wait()
    return ask(sock)

WAYS = {{
    "here": here,
    "child": lambda: of_a_child(1, False),
    "orphan": lambda: of_a_child(2, False),
    "daemonized": lambda: of_a_child(3, True),
    "ended": of_one_that_has_ended,
    "command": lambda: subprocess.run(
        [sys.executable, "-m", "caddysnake", "reload", "--address", "unix/" + PATH], capture_output=True
    ).stderr,
}}

def app(environ, start_response):
    start_response("200 OK", [])
    return [WAYS[environ["QUERY_STRING"]]()]
'''


def site(folder: Path) -> str:
    (folder / "main.py").write_text(APP.format(path=str(folder / "admin.sock")))
    return (
        "{\n\tadmin unix/admin.sock\n}\nunix/a.sock {\n\tpython {\n\t\tmodule_wsgi main:app\n"
        f"\t\tworking_dir {folder}\n\t\tworkers 1\n\t\tpass_env PYTHONPATH\n\t}}\n}}\n"
    )


@pytest.mark.parametrize("way", ["here", "child", "orphan", "daemonized", "ended"])
def test_no_process_that_descends_from_the_daemon_may_call(tmp_path: Path, way: str) -> None:
    with daemon(tmp_path, site(tmp_path)) as process:
        process.wait_for_log("admin API ready")
        status, body = get(f"/?{way}", path=tmp_path / "a.sock")
        assert status == 200
        head, _, answer = body.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 403 "), body
        told = json.loads(answer)
        assert told["code"] == "forbidden-process"
        assert "from outside" in told["hint"]
        assert call(tmp_path / "admin.sock", "GET", "/upgrade").status == 200
        assert "reloading" not in process.log


def test_a_command_inside_says_to_call_from_outside(tmp_path: Path) -> None:
    with daemon(tmp_path, site(tmp_path)) as process:
        process.wait_for_log("admin API ready")
        _, said = get("/?command", path=tmp_path / "a.sock")
        assert b"call it from outside of the apps" in said
        done = command(process, tmp_path, "reload", "--address", f"unix/{tmp_path}/admin.sock")
        assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def started(folder: Path, *before: str) -> Iterator[Process]:
    (folder / "Caddyfile").write_text(site(folder))
    process = Process([*before, sys.executable, "-m", "caddysnake", "run"], folder, "daemon")
    try:
        process.wait_for_log("admin API ready")
        yield process
    finally:
        process.close()


@pytest.mark.parametrize("way", ["here", "daemonized", "ended"])
def test_an_older_kernel_tells_enough(tmp_path: Path, way: str) -> None:
    with started(tmp_path, sys.executable, kernels.__file__):
        _, body = get(f"/?{way}", path=tmp_path / "a.sock")
        assert b'"forbidden-process"' in body
        assert call(tmp_path / "admin.sock", "GET", "/upgrade").status == 200


def test_a_caller_who_cannot_be_looked_at_for_want_of_descriptors_is_not_called_an_app(tmp_path: Path) -> None:
    with daemon(tmp_path, site(tmp_path)) as process:
        process.wait_for_log("admin API ready")
        before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        deadline = time.monotonic() + PATIENCE_S
        codes: list[str] = []
        try:
            while "resources" not in codes and time.monotonic() < deadline:
                taken = {int(fd) for fd in os.listdir(f"/proc/{process.pid}/fd")}
                lowest = next(fd for fd in range(len(taken) + 1) if fd not in taken)
                resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (lowest + 1, before[1]))  # for the connection
                answer = call(tmp_path / "admin.sock", "GET", "/upgrade")
                codes.append(answer.json["code"] if answer.status != 200 else "")
                assert answer.status in (200, 503), answer
        finally:
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, before)
        assert codes[-1] == "resources"
        assert call(tmp_path / "admin.sock", "GET", "/upgrade").status == 200


@needs_root
def test_in_a_container_who_comes_by_exec_may_call_and_nobody_else(tmp_path: Path) -> None:
    with started(tmp_path, "unshare", "--pid", "--fork", "--mount-proc") as process:
        (first,) = (pid for pid in children(process.pid) if parent_is(pid, process.pid))
        enter = ["nsenter", "--target", str(first), "--pid", "--mount", sys.executable, "-m", "caddysnake"]
        asked = [*enter, "reload", "--address", f"unix/{tmp_path}/admin.sock"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        assert done.returncode == 0, done.stderr
        for way in ("here", "daemonized"):
            _, body = get(f"/?{way}", path=tmp_path / "a.sock")
            assert b'"forbidden-process"' in body
            assert b"by exec" in body
        os.kill(first, signal.SIGTERM)  # unshare waits for it, whatever it is told itself
        assert process.wait() == 0


def parent_is(pid: int, parent: int) -> bool:
    stat = Path(f"/proc/{pid}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[1]) == parent
