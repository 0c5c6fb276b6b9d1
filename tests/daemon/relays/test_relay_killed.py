"""The end of a relay, which carries the requests of many apps, is made up for at once."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from support.daemon import PATIENCE_S, children, command_line, daemon, eventually

APP = """
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"well"})
"""
SITE = "http://{}.test {{\n\tbind unix/{}/r.sock\n\tpython {{\n\t\tmodule_asgi hello:app\n\t\tworkers 1\n\t}}\n}}\n"


def relays(pid: int) -> dict[int, str]:
    """The relay processes of the daemon, with what they were started with."""
    lines = {child: command_line(child) for child in children(pid)}
    return {child: line.decode() for child, line in lines.items() if b"relay.main" in line}


@contextlib.contextmanager
def asking(path: Path) -> Iterator[list[int]]:
    """Eight clients that ask over and over, connecting again when a connection ends: how many answers each has had."""
    answers = [0] * 8
    is_over = threading.Event()

    def ask(number: int) -> None:
        while not is_over.is_set():
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(PATIENCE_S)
                sock.connect(str(path))
                while not is_over.is_set():
                    sock.sendall(b"GET / HTTP/1.1\r\nHost: %c.test\r\n\r\n" % b"ab"[number % 2])
                    if not sock.recv(65536):
                        break
                    answers[number] += 1

    clients = [threading.Thread(target=ask, args=(number,)) for number in range(len(answers))]
    for client in clients:
        client.start()
    try:
        yield answers
    finally:
        is_over.set()
        for client in clients:
            client.join()


def test_nobody_waits_for_a_relay_to_start_when_one_is_killed(tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text(APP)
    text = SITE.format("a", tmp_path) + SITE.format("b", tmp_path)
    with daemon(tmp_path, text) as process:
        eventually(lambda: len(relays(process.pid)) == 2, "a relay that stands by")
        before = relays(process.pid)
        (victim,) = (pid for pid, options in before.items() if "channel" in options)
        (spare,) = (pid for pid, options in before.items() if "control" in options)
        with asking(tmp_path / "r.sock") as answers:
            eventually(lambda: all(answers), "an answer for each")
            os.kill(victim, signal.SIGKILL)
            eventually(lambda: relays(process.pid).keys() - before, "one more that stands by")
            (another,) = relays(process.pid).keys() - before
            os.kill(another, signal.SIGSTOP)  # while it starts, or nearly so: it is not the one that answers
            had = list(answers)
            eventually(lambda: all(now > then + 1 for now, then in zip(answers, had, strict=True)), "answers for all")
            os.kill(another, signal.SIGCONT)
        assert relays(process.pid).keys() == {spare, another}
        process.stop()
        assert not relays(process.pid)


def test_one_that_stands_by_and_ends_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text(APP)
    with daemon(tmp_path, SITE.format("a", tmp_path) + SITE.format("b", tmp_path)) as process:
        eventually(lambda: len(relays(process.pid)) == 2, "a relay that stands by")
        (spare,) = (pid for pid, options in relays(process.pid).items() if "control" in options)
        os.kill(spare, signal.SIGKILL)
        eventually(lambda: len(relays(process.pid)) == 2 and spare not in relays(process.pid), "another stands by")
