"""One app's connections leave descriptors to the others, to links, to starts and to the operator."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.admin import command
from support.daemon import PATIENCE_S, Process, eventually, get, workers
from support.probe import write

pytestmark = pytest.mark.system

LIMIT = 512


def block(matcher: str = "", number: int = 0) -> str:
    return f"\tpython {matcher} {{\n\t\tmodule_asgi probe:asgi\n\t\tworkers 1\n\t\tenv_var N {number}\n\t}}\n"


def caddyfile(folder: Path) -> str:
    shared = "".join(f"\t@{host} host {host}\n{block('@' + host, number)}" for number, host in enumerate("ab", 1))
    sites = [("attacked", block()), ("other", block()), ("shared", shared)]
    return "".join(f"unix/{folder}/{name}.sock {{\n{text}}}\n" for name, text in sites)


@contextlib.contextmanager
def few_descriptors(folder: Path) -> Iterator[Process]:
    (folder / "Caddyfile").write_text(caddyfile(folder))
    run = f"ulimit -n {LIMIT}; exec {sys.executable} -m caddysnake run"
    process = Process(["sh", "-c", run], folder, "daemon")
    try:
        process.wait_for_log(" ready in ")
        yield process
    finally:
        process.close()


@pytest.mark.parametrize("attacked", ["attacked", "shared"])
@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nHost: a\r\n"])
def test_others_and_the_operator_are_served_while_one_listener_is_flooded(
    tmp_path: Path, attacked: str, begun: bytes
) -> None:
    write(tmp_path, "import os\n\ndef pid():\n    return os.getpid()\n")
    with few_descriptors(tmp_path) as process, contextlib.ExitStack() as held:
        for _ in range(LIMIT + 100):
            client = held.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(PATIENCE_S)
            client.connect(str(tmp_path / f"{attacked}.sock"))
            client.sendall(begun)
        process.wait_for_log("a listener has all the connections it may have")
        for name in {"attacked", "other", "shared"} - {attacked}:
            assert get("/pid", path=tmp_path / f"{name}.sock", Host="b")[0] == 200
        assert command(process, tmp_path, "status").returncode == 0
        for pid in workers(process.pid):  # starts need descriptors too
            os.kill(pid, signal.SIGKILL)
        assert get("/pid", path=tmp_path / "other.sock")[0] == 200
        assert command(process, tmp_path, "reload").returncode == 0
        assert len(os.listdir(f"/proc/{process.pid}/fd")) < LIMIT
        assert "cannot accept connections" not in process.log
        held.close()
        eventually(lambda: get("/pid", path=tmp_path / f"{attacked}.sock", Host="a")[0] == 200)


def test_requests_that_wait_for_an_answer_leave_links_to_others(tmp_path: Path) -> None:
    """Each relayed request has a connection and a link."""
    write(tmp_path, "import time\n\ndef wait():\n    time.sleep(8)\n\ndef quick():\n    return 1\n")
    with few_descriptors(tmp_path) as process, contextlib.ExitStack() as held:
        for _ in range(LIMIT):
            client = held.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(PATIENCE_S)
            client.connect(str(tmp_path / "shared.sock"))
            client.sendall(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        process.wait_for_log("a listener has all the connections it may have")
        assert get("/quick", path=tmp_path / "other.sock")[0] == 200
        assert command(process, tmp_path, "status").returncode == 0
        assert len(os.listdir(f"/proc/{process.pid}/fd")) < LIMIT
