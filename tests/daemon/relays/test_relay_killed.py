"""The end of a relay, which carries the requests of many apps, is made up for at once."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from pathlib import Path

from support.daemon import children, daemon, eventually

APP = """
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"well"})
"""
WANTED_S = 0.3
SITE = "http://{}.test {{\n\tbind unix/{}/r.sock\n\tpython {{\n\t\tmodule_asgi hello:app\n\t\tworkers 1\n\t}}\n}}\n"


def relays(pid: int) -> dict[int, str]:
    """The relay processes of the daemon, with what they were started with."""
    found = {}
    for child in children(pid):
        words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        if any(word.endswith(b"relay.main") for word in words):
            found[child] = words[-2].decode()
    return found


def longest_wait(path: Path, seconds: float) -> float:
    """Of eight clients that ask over and over, connecting again when a connection ends."""
    took: list[float] = []
    end = time.monotonic() + seconds

    def ask(number: int) -> None:
        sock: socket.socket | None = None
        while time.monotonic() < end:
            began = time.monotonic()
            try:
                if sock is None:
                    sock = socket.socket(socket.AF_UNIX)
                    sock.settimeout(30)
                    sock.connect(str(path))
                sock.sendall(b"GET / HTTP/1.1\r\nHost: %c.test\r\n\r\n" % b"ab"[number % 2])
                if not sock.recv(65536):
                    raise ConnectionResetError
            except OSError:
                assert sock is not None
                sock.close()
                sock = None
            took.append(time.monotonic() - began)
            time.sleep(0.01)
        if sock is not None:
            sock.close()

    clients = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return max(took)


def test_nobody_waits_for_a_relay_to_start_when_one_is_killed(tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text(APP)
    text = SITE.format("a", tmp_path) + SITE.format("b", tmp_path)
    with daemon(tmp_path, text) as process:
        eventually(lambda: len(relays(process.pid)) == 2, "a relay that stands by")
        time.sleep(0.5)  # it is there when it has been imported
        before = relays(process.pid)
        (victim,) = (pid for pid, options in before.items() if "channel" in options)
        killer = threading.Timer(0.5, os.kill, (victim, signal.SIGKILL))
        killer.start()
        waited = longest_wait(tmp_path / "r.sock", 2.0)
        killer.join()
        assert waited < WANTED_S
        eventually(lambda: len(relays(process.pid)) == 2 and victim not in relays(process.pid), "another stands by")
        (spare,) = (pid for pid, options in before.items() if "control" in options)
        assert spare in relays(process.pid)
        process.stop()
        assert not relays(process.pid)


def test_one_that_stands_by_and_ends_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text(APP)
    with daemon(tmp_path, SITE.format("a", tmp_path) + SITE.format("b", tmp_path)) as process:
        eventually(lambda: len(relays(process.pid)) == 2, "a relay that stands by")
        (spare,) = (pid for pid, options in relays(process.pid).items() if "control" in options)
        os.kill(spare, signal.SIGKILL)
        eventually(lambda: len(relays(process.pid)) == 2 and spare not in relays(process.pid), "another stands by")
