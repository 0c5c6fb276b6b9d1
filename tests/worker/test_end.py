"""The end of a worker is orderly, also when the grace is over or a signal says so."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from support.rawhttp import RawClient
from support.worker import Worker, running, settings

from caddysnake.channel.messages import Drained

HERE = Path(__file__).parent


def begin(worker: Worker, path: str) -> RawClient:
    client = RawClient(worker.connect())
    client.send(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    if path != "/silent":
        client.head()
    return client


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("path", ["/loud", "/inner"])
@pytest.mark.parametrize("how", ["drain", "term"])
def test_an_open_stream_of_an_asgi_app_is_ended_in_order(how: str, path: str, loop: str, tmp_path: Path) -> None:
    assert ended("asgi", how, path, tmp_path, loop=loop) == ["cancelled", "cleaned up", "shutdown", "atexit"]


@pytest.mark.parametrize("path", ["/loud", "/silent"])
@pytest.mark.parametrize("how", ["drain", "term"])
def test_an_open_stream_of_a_wsgi_app_is_closed(how: str, path: str, tmp_path: Path) -> None:
    closed = ["closed"] * (1 if path == "/loud" else 2)
    assert ended("wsgi", how, path, tmp_path, threads=2) == [*closed, "atexit"]


def ended(interface: str, how: str, path: str, folder: Path, **more: object) -> list[str]:
    notes = folder / "notes"
    wanted = settings(f"end_apps:{interface}", interface, HERE, environ={**os.environ, "NOTES": str(notes)}, **more)
    with running(wanted) as worker, begin(worker, path):
        if path == "/silent":
            with RawClient(worker.connect()) as other:
                other.send(b"GET /loud HTTP/1.1\r\nHost: a\r\n\r\n")
                other.head()  # so the first has begun, too
        if how == "drain":
            worker.drain(grace_s=0.3)
        else:
            os.kill(worker.pid, signal.SIGTERM)
        while not isinstance(worker.message(), Drained):
            pass
    return notes.read_text().split("\n")[:-1]
