"""An event loop always turns: apps that wait for nothing but ``send`` and ``receive`` leave the others their time."""

from __future__ import annotations

import contextlib
import json
import resource
import select
import socket
import statistics
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.rawhttp import RawClient
from support.worker import PATIENCE_S, Worker, running, settings

HERE = Path(__file__).parent
UPGRADE = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
SENDING = ["large", "small", "slow", "nothing", "hints", "trailers", "websocket", "denial"]
RECEIVING = {
    "upload": b"10000\r\n" + b"x" * 65536 + b"\r\n",
    "upload_in_tiny_chunks": b"1\r\nx\r\n" * 20_000,
    "taking": b"\x82\xfe\x01\x00abcd" + b"x" * 256,
    "taking_nothing": b"\x82\x80abcd" * 20_000,
    "taking_pings": b"\x89\x80abcd" * 20_000,
}
MANY = 10


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    with running(settings("turning_apps:app", "asgi", HERE, loop=request.param)) as started:
        yield started


def ask(sock: socket.socket, kind: str) -> None:
    fields = UPGRADE if kind in ("websocket", "denial") or kind.startswith("taking") else b""
    if kind.startswith("upload"):
        sock.sendall(b"POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    else:
        path = b"taking" if kind.startswith("taking") else kind.encode()
        sock.sendall(b"GET /%s HTTP/1.1\r\nHost: a\r\n%s\r\n" % (path, fields))


@contextlib.contextmanager
def beside(socks: list[socket.socket], turn: Callable[[socket.socket, int], object], events: int) -> Iterator[None]:
    """Do ``turn`` for each of the sockets whenever it is ready, in a thread."""
    is_over = threading.Event()

    def work() -> None:
        poller = select.epoll()
        by_fd = {sock.fileno(): sock for sock in socks}
        for sock in socks:
            sock.setblocking(False)
            poller.register(sock, events)
        with poller, contextlib.suppress(ConnectionError):
            while not is_over.is_set():
                for fd, event in poller.poll(0.05):
                    with contextlib.suppress(BlockingIOError):
                        turn(by_fd[fd], event)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(PATIENCE_S)


def times_of_others(worker: Worker) -> list[float]:
    took = []
    with RawClient(worker.connect()) as other:
        for _ in range(15):
            began = time.monotonic()
            assert other.get("/notes").status == 200
            took.append(time.monotonic() - began)
    return took


@pytest.mark.parametrize("kind", SENDING)
def test_others_are_answered_beside_streams_whose_clients_read_as_fast_as_is_sent(worker: Worker, kind: str) -> None:
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(worker.connect()) for _ in range(MANY)]
        for sock in socks:
            ask(sock, kind)
        with beside(socks, lambda sock, _: sock.recv(1 << 20), select.EPOLLIN):
            assert statistics.median(times_of_others(worker)) < 1.0
    # All of them have left, which the apps are told by the next send.
    assert statistics.median(times_of_others(worker)) < 1.0
    worker.drop_duplicates()


@pytest.mark.parametrize("kind", RECEIVING)
def test_others_are_answered_beside_clients_that_write_as_fast_as_is_read(worker: Worker, kind: str) -> None:
    data = RECEIVING[kind]
    at: dict[socket.socket, int] = {}

    def turn(sock: socket.socket, event: int) -> None:
        if event & select.EPOLLIN:
            sock.recv(1 << 20)
        begin = at.get(sock, 0)
        at[sock] = (begin + sock.send(data[begin:])) % len(data)

    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(worker.connect()) for _ in range(MANY)]
        for sock in socks:
            ask(sock, kind)
        with beside(socks, turn, select.EPOLLIN | select.EPOLLOUT):
            assert statistics.median(times_of_others(worker)) < 1.0
    worker.drop_duplicates()


@pytest.mark.parametrize("kind", ["deaf", "deaf_to_errors", "asking"])
def test_others_are_answered_beside_an_app_that_does_not_hear_that_it_is_over(worker: Worker, kind: str) -> None:
    with worker.connect() as sock:
        ask(sock, kind)
        if kind != "deaf_to_errors":
            assert sock.recv(4096)
    assert statistics.median(times_of_others(worker)) < 1.0
    worker.drop_duplicates()


@pytest.mark.parametrize("kind", ["told", "told_websocket"])
def test_a_send_to_a_client_that_left_raises_before_the_loop_has_turned(worker: Worker, kind: str) -> None:
    with worker.connect() as sock:
        sock.sendall(b"GET /%s HTTP/1.1\r\nHost: a\r\n%s\r\n" % (kind.encode(), UPGRADE if "web" in kind else b""))
        seen = b""
        while b"first" not in seen:
            seen += sock.recv(4096)
    with RawClient(worker.connect()) as other:
        deadline = time.monotonic() + PATIENCE_S
        notes: list[str] = []
        while not any(note.startswith((f"{kind}:", "sent")) for note in notes):
            assert time.monotonic() < deadline
            notes = json.loads(other.get("/notes").body)
        assert notes[-1] == f"{kind}: ClientDisconnected, turned: False"
    worker.drop_duplicates()


def test_messages_that_nobody_takes_cost_no_more_than_one_of_the_largest(worker: Worker) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, -11)
    payload = (packer.compress(bytes(16 << 20)) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]
    message = b"\xc2\xfe" + struct.pack("!H", len(payload)) + bytes(4) + payload  # with the mask 0
    with worker.connect() as sock:
        sock.sendall(
            b"GET /not_taking HTTP/1.1\r\nHost: a\r\n%sSec-WebSocket-Extensions: permessage-deflate; "
            b"client_max_window_bits\r\n\r\n" % UPGRADE
        )
        assert b"client_max_window_bits=11" in sock.recv(4096)
        before = resident_bytes(worker.pid)
        sock.settimeout(1.0)
        with contextlib.suppress(TimeoutError):
            for _ in range(30):
                sock.sendall(message)
        times_of_others(worker)
        assert resident_bytes(worker.pid) - before < 120 << 20  # of 480 MiB: what is made, and its copy
    worker.drop_duplicates()


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize("kind", ["small", "websocket"])
def test_streams_are_served_alike(worker: Worker, kind: str) -> None:
    got: dict[socket.socket, int] = {}
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(worker.connect()) for _ in range(MANY)]
        for sock in socks:
            ask(sock, kind)

        def turn(sock: socket.socket, _: int) -> None:
            got[sock] = got.get(sock, 0) + len(sock.recv(1 << 16))

        with beside(socks, turn, select.EPOLLIN):
            deadline = time.monotonic() + PATIENCE_S
            while sum(got.values()) < 5 << 20:
                assert time.monotonic() < deadline, got
                time.sleep(0.01)
    assert len(got) == MANY
    assert min(got.values()) > max(got.values()) / 10
    worker.drop_duplicates()
