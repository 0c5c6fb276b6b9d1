"""Loads of every shape: what a worker's memory makes of them, and that nobody is answered wrongly.

The sizes here are small. With ``CADDYSNAKE_LOAD=full`` they are those that the documentation promises (1 GiB, 1000
connections, 2000 WebSockets, 500 streams); ``-s`` shows the figures.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
from support.caddies import caddy as find_caddy
from support.daemon import PATIENCE_S, Process, caddy, daemon, python_site, workers
from support.rawhttp import RawClient

FULL = os.environ.get("CADDYSNAKE_LOAD") == "full"
pytestmark = [pytest.mark.system, pytest.mark.timeout(900 if FULL else 120)]

MIB = 1 << 20
CONTENT_BYTES = 1024 * MIB if FULL else 64 * MIB
CONNECTIONS = 1000 if FULL else 200
SOCKETS = 2000 if FULL else 100
STREAMS = 500 if FULL else 60

BODY_ALLOWANCE = 40 * MIB
IDLE_ALLOWANCE = 8 * 1024
SOCKET_ALLOWANCE = 60 * 1024
PIECE = bytes(range(256)) * 256

APP = """
import asyncio
PIECE = bytes(range(256)) * 256

async def asgi(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})
        return
    if scope["type"] != "http":
        return
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    if scope["path"] == "/download":
        for _ in range(int(scope["query_string"])):
            await send({"type": "http.response.body", "body": PIECE, "more_body": True})
    elif scope["path"] == "/events":
        for number in range(3):
            await send({"type": "http.response.body", "body": b"data: %d\\n\\n" % number, "more_body": True})
            await asyncio.sleep(0.5)
    await send({"type": "http.response.body", "body": b"%d" % size})

def wsgi(environ, start_response):
    size = 0
    while piece := environ["wsgi.input"].read(65536):
        size += len(piece)
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    if environ["PATH_INFO"] == "/download":
        for _ in range(int(environ["QUERY_STRING"])):
            yield PIECE
    yield b"%d" % size
"""


class Site(NamedTuple):
    """An app with one worker, and a Caddy before it."""

    process: Process
    path: Path
    port: int
    worker: int

    def connect(self, behind_caddy: bool) -> RawClient:
        if behind_caddy:
            return RawClient(socket.create_connection(("127.0.0.1", self.port), PATIENCE_S))
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE_S)
        sock.connect(str(self.path))
        return RawClient(sock)

    def memory(self) -> int:
        """Of the worker: what is its own and resident, in bytes."""
        lines = Path(f"/proc/{self.worker}/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))

    def peak(self) -> int:
        """Of the worker: the most that was ever resident, since ``forget_peak``."""
        lines = Path(f"/proc/{self.worker}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))

    def forget_peak(self) -> int:
        Path(f"/proc/{self.worker}/clear_refs").write_text("5")
        return self.peak()


@pytest.fixture(scope="module", params=["asgi", "wsgi"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    interface: str = request.param
    folder = tmp_path_factory.mktemp("site")
    (folder / "main.py").write_text(APP)
    ours = python_site(f"unix/{folder}/app.sock", f"module_{interface} main:{interface}", "workers 1")
    theirs = f"http://:{{port}} {{\n\tbind 127.0.0.1\n\treverse_proxy unix/{folder}/app.sock\n}}\n"
    with ExitStack() as stack:
        process = stack.enter_context(daemon(folder, ours))
        _, port = stack.enter_context(caddy(folder, theirs, find_caddy("current")))
        (worker,) = workers(process.pid)
        yield Site(process, folder / "app.sock", port, worker)


def warm(site: Site) -> None:
    with site.connect(behind_caddy=False) as client:
        for _ in range(20):
            assert client.get("/").status == 200


@pytest.mark.parametrize("behind_caddy", [False, True], ids=["direct", "caddy"])
def test_memory_stays_flat_whatever_is_uploaded(site: Site, behind_caddy: bool) -> None:
    warm(site)
    idle = site.forget_peak()
    begun = time.monotonic()
    with site.connect(behind_caddy) as client:
        client.send(f"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {CONTENT_BYTES}\r\n\r\n".encode())
        for _ in range(CONTENT_BYTES // len(PIECE)):
            client.send(PIECE)
        assert client.answer().body == b"%d" % CONTENT_BYTES
    _report("upload", begun, site.peak() - idle)
    assert site.peak() - idle < BODY_ALLOWANCE


@pytest.mark.parametrize("behind_caddy", [False, True], ids=["direct", "caddy"])
def test_memory_stays_flat_whatever_is_downloaded_also_by_a_slow_reader(site: Site, behind_caddy: bool) -> None:
    warm(site)
    idle = site.forget_peak()
    begun = time.monotonic()
    pieces = CONTENT_BYTES // len(PIECE)
    size, last = 0, b""
    with site.connect(behind_caddy) as slow, site.connect(behind_caddy) as client:
        slow.send(f"GET /download?{pieces} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert slow.head()[0] == 200  # and it reads no more
        client.send(f"GET /download?{pieces} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        assert client.head()[0] == 200
        # Counted with its framing: to keep all of it would take longer than to send it.
        while data := client.sock.recv(1 << 18):
            size += len(data)
            last = (last + data)[-16:]
        assert last.endswith(b"\r\n0\r\n\r\n")
        assert pieces * len(PIECE) - MIB < size
    _report("download", begun, site.peak() - idle)
    assert site.peak() - idle < BODY_ALLOWANCE


def test_an_idle_connection_is_small(site: Site, many_descriptors: None) -> None:
    warm(site)
    with ExitStack() as stack:
        first = [stack.enter_context(site.connect(False)) for _ in range(20)]
        assert all(client.get("/").status == 200 for client in first)
        before = site.memory()
        clients = [stack.enter_context(site.connect(False)) for _ in range(CONNECTIONS)]
        assert all(client.get("/").status == 200 for client in clients)
        each = (site.memory() - before) / CONNECTIONS
        _report("idle connection", 0.0, each)
        assert each < IDLE_ALLOWANCE
        assert all(client.get("/").status == 200 for client in clients)


UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
)
HELLO = b"\x81\x85\x00\x00\x00\x00hello"  # masked with nothing


@pytest.mark.parametrize("site", ["asgi"], indirect=True)
@pytest.mark.parametrize("behind_caddy", [False, True], ids=["direct", "caddy"])
def test_an_idle_websocket_is_small_with_deflate_agreed(
    site: Site, many_descriptors: None, behind_caddy: bool
) -> None:
    with ExitStack() as stack:

        def opened() -> RawClient:
            client = stack.enter_context(site.connect(behind_caddy))
            client.send(UPGRADE)
            status, _, headers = client.head()
            assert status == 101
            assert "permessage-deflate" in dict(headers)["sec-websocket-extensions"]
            return client

        def greet(client: RawClient) -> None:
            client.send(HELLO)
            head = client.exactly(2)
            assert head[0] & 0x8F == 0x81
            client.exactly(head[1])

        for _ in range(10):
            greet(opened())
        before = site.memory()
        clients = [opened() for _ in range(SOCKETS)]
        for client in clients:
            greet(client)
        each = (site.memory() - before) / SOCKETS
        _report("idle websocket", 0.0, each)
        assert each < SOCKET_ALLOWANCE
        for client in clients:
            greet(client)


@pytest.mark.parametrize("site", ["asgi"], indirect=True)
@pytest.mark.parametrize("behind_caddy", [False, True], ids=["direct", "caddy"])
def test_many_streams_of_events_all_arrive(site: Site, many_descriptors: None, behind_caddy: bool) -> None:
    begun = time.monotonic()
    with ExitStack() as stack:
        clients = [stack.enter_context(site.connect(behind_caddy)) for _ in range(STREAMS)]
        for client in clients:
            client.send(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(RawClient.answer, clients))
    assert {(answer.status, answer.body, answer.whole) for answer in answers} == {
        (200, b"data: 0\n\ndata: 1\n\ndata: 2\n\n0", True)
    }
    _report("event streams", begun, 0.0)


def _report(what: str, begun: float, extra_bytes: float) -> None:
    lasted = f", {time.monotonic() - begun:.1f} s" if begun else ""
    print(f"{what}: {extra_bytes / 1024:,.1f} kB more{lasted}")
