"""What is short, or too much, costs only what it must: descriptors, disk, one app's flood of requests."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import (
    PATIENCE_S,
    UnixHTTPConnection,
    children,
    cpu_s,
    daemon,
    descriptors,
    eventually,
    get,
    python_site,
    workers,
)

pytestmark = pytest.mark.system

APP = """
import os, tempfile, time

def app(environ, start_response):
    path = environ["PATH_INFO"]
    content = environ["wsgi.input"].read()
    if path == "/slow":
        time.sleep(0.2)
    if path == "/file":
        with tempfile.TemporaryFile() as file:
            file.write(b"x" * 100_000)
    if path == "/log":
        print("something to say " * 20, flush=True)
    start_response("200 OK", [])
    return [b"%d" % len(content)]
"""


def site(name: str, *lines: str) -> str:
    return python_site(f"unix/{name}.sock", "module_wsgi main:app", "workers 1", *lines)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(APP)
    return tmp_path


def connected(stack: contextlib.ExitStack, path: Path) -> socket.socket:
    """A client's connection, which ends with ``stack``."""
    client = socket.socket(socket.AF_UNIX)
    stack.callback(client.close)
    client.settimeout(PATIENCE_S)
    client.connect(str(path))
    return client


def test_a_daemon_without_a_descriptor_left_waits_and_serves_on(folder: Path) -> None:
    """Whoever has a connection is answered meanwhile; nothing spins, and whoever waits is served in the end."""
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(daemon(folder, site("a")))
        kept = UnixHTTPConnection(folder / "a.sock")
        stack.callback(kept.close)

        def served() -> bool:
            kept.request("GET", "/")
            return kept.getresponse().read() == b"0"

        assert served()
        before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (descriptors(process.pid) + 5, before[1]))
        clients = []
        for _ in range(30):
            client = connected(stack, folder / "a.sock")
            clients.append(client)
        process.wait_for_log("cannot accept connections for now")
        begun = cpu_s(process.pid)
        time.sleep(1.0)
        assert cpu_s(process.pid) - begun < 0.5
        assert served()
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, before)
        for client in clients:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        for client in clients:
            assert client.recv(16).startswith(b"HTTP/1.1 200")
        assert process.stop() == 0


def test_a_daemon_that_can_write_no_file_serves_replaces_workers_and_reloads(folder: Path) -> None:
    """As on a full disk: neither its apps can, nor its log."""
    with daemon(folder, site("a")) as process:
        (first,) = workers(process.pid)
        for pid in children(process.pid):  # the log process, too; memory files, which are the daemon's, are no disk
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, 0))
        assert get("/log", path=folder / "a.sock") == (200, b"0")
        assert get("/file", path=folder / "a.sock")[0] == 500
        os.kill(first, 9)
        eventually(lambda: bool(workers(process.pid) - {first}), process)
        assert get("/", path=folder / "a.sock") == (200, b"0")
        (second,) = workers(process.pid)
        command = [sys.executable, "-m", "caddysnake", "reload"]
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "XDG_RUNTIME_DIR": process.runtime_dir},
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        eventually(lambda: second not in workers(process.pid), process)
        assert get("/", path=folder / "a.sock") == (200, b"0")
        assert process.stop() == 0


@contextlib.contextmanager
def flooding(path: Path, count: int) -> Iterator[list[int]]:
    """``count`` clients that ask for ``/slow`` without a pause; the statuses that they got."""
    statuses: list[int] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):
                statuses.append(get("/slow", path=path)[0])

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield statuses
    finally:
        over.set()
        for thread in threads:
            thread.join(PATIENCE_S)


def test_a_flood_on_one_app_leaves_the_others_served(folder: Path) -> None:
    """One thread of 'a' has forty times what it can do; 'b' does not notice."""
    with daemon(folder, site("a", "threads 1") + site("b")) as process:
        assert get("/", path=folder / "b.sock")[0] == 200
        with flooding(folder / "a.sock", 40) as statuses:
            eventually(lambda: len(statuses) > 2, process)
            took = []
            for _ in range(50):
                begun = time.monotonic()
                assert get("/", path=folder / "b.sock") == (200, b"0")
                took.append(time.monotonic() - begun)
        # In the queue of 'a' it would be eight seconds.
        assert sorted(took)[25] < 4
        assert set(statuses) <= {200, 503}


def test_those_who_find_too_many_waiting_are_told_so_at_once(folder: Path) -> None:
    """300 ask an app that has one thread. 64 are with its worker, and ten may wait for it to take them."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(daemon(folder, site("a", "threads 1", "max_queue 10")))
        clients = []
        for _ in range(300):
            client = connected(stack, folder / "a.sock")
            client.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            clients.append(client)
        answers = []
        for client in clients:
            received = b""
            while more := client.recv(4096):
                received += more
            answers.append(received)
        served = [each for each in answers if each.startswith(b"HTTP/1.1 200")]
        refused = [each for each in answers if each.startswith(b"HTTP/1.1 503")]
        assert len(served) + len(refused) == 300
        assert len(served) >= 10
        assert len(refused) >= 20  # how many come at once depends on the machine
        assert all(b"caddysnake-code: queue-full" in each and b"retry-after: 1" in each for each in refused)
        assert get("/", path=folder / "a.sock") == (200, b"0")


def test_slow_clients_hold_no_thread(folder: Path) -> None:
    """Twenty that send a body a byte at a time, and twenty that do not finish their head, before two threads."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(daemon(folder, site("a", "threads 2")))
        slow = []
        for number in range(40):
            client = connected(stack, folder / "a.sock")
            head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n"
            client.sendall(head + (b"\r\n1" if number % 2 else b""))
            slow.append(client)
        time.sleep(0.3)
        for _ in range(10):
            begun = time.monotonic()
            assert get("/", path=folder / "a.sock") == (200, b"0")
            assert time.monotonic() - begun < 10
        for number, client in enumerate(slow):
            client.sendall(b"23" if number % 2 else b"\r\n123")
        for client in slow:
            assert client.recv(16).startswith(b"HTTP/1.1 200")
