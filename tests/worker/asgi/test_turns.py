"""An event loop always turns: apps that wait for nothing but ``send`` and ``receive`` leave the others their time."""

from __future__ import annotations

import contextlib
import json
import resource
import select
import socket
import statistics
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.rawhttp import RawClient
from support.streams import RECEIVING, SENDING, UPGRADE, ask, beside, work_of_others
from support.worker import PATIENCE_S, Worker, running, settings

HERE = Path(__file__).parent
MANY = 10


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    with running(settings("turning_apps:app", "asgi", HERE, loop=request.param, sendfile=True)) as started:
        yield started


@pytest.mark.parametrize("kind", SENDING)
def test_others_are_answered_beside_streams_whose_clients_read_as_fast_as_is_sent(worker: Worker, kind: str) -> None:
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(worker.connect()) for _ in range(MANY)]
        for sock in socks:
            ask(sock, kind)
        with beside(socks, lambda sock, _: sock.recv(1 << 20), select.EPOLLIN):
            assert statistics.median(work_of_others(worker.connect, [worker.pid])) < 1.0
    # All of them have left, which the apps are told by the next send.
    assert statistics.median(work_of_others(worker.connect, [worker.pid])) < 1.0
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
            assert statistics.median(work_of_others(worker.connect, [worker.pid])) < 1.0
    worker.drop_duplicates()


@pytest.mark.parametrize("kind", ["deaf", "deaf_to_errors", "asking"])
def test_others_are_answered_beside_an_app_that_does_not_hear_that_it_is_over(worker: Worker, kind: str) -> None:
    with worker.connect() as sock:
        ask(sock, kind)
        if kind != "deaf_to_errors":
            assert sock.recv(4096)
    assert statistics.median(work_of_others(worker.connect, [worker.pid])) < 1.0
    worker.drop_duplicates()


def connect_by_tcp(worker: Worker) -> socket.socket:
    """As Caddy on another machine."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), PATIENCE_S)
        worker.give(listener.accept()[0])
    return client


@pytest.mark.parametrize("connect", [Worker.connect, connect_by_tcp], ids=["unix", "tcp"])
@pytest.mark.parametrize("kind", ["told", "told_at_the_end", "told_websocket", "told_websocket_that_heard"])
def test_a_send_to_a_client_that_left_raises_before_the_loop_has_turned(
    worker: Worker, kind: str, connect: Callable[[Worker], socket.socket]
) -> None:
    with RawClient(worker.connect()) as other:
        before = json.loads(other.get("/notes").body)
    with connect(worker) as sock:
        sock.sendall(b"GET /%s HTTP/1.1\r\nHost: a\r\n%s\r\n" % (kind.encode(), UPGRADE if "web" in kind else b""))
        seen = b""
        while b"first" not in seen:
            seen += sock.recv(4096)
        if kind == "told_websocket_that_heard":
            sock.sendall(b"\x82\x80abcd")
            time.sleep(0.2)  # it is heard, and the app does not let the loop turn
    with RawClient(worker.connect()) as other:
        deadline = time.monotonic() + PATIENCE_S
        notes: list[str] = []
        while len(notes) <= len(before):
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
        work_of_others(worker.connect, [worker.pid])
        assert resident_bytes(worker.pid) - before < 120 << 20  # of 480 MiB: what is made, and its copy
    worker.drop_duplicates()


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize("kind", ["small", "websocket"])
def test_streams_are_served_alike(worker: Worker, kind: str) -> None:
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(worker.connect()) for _ in range(MANY)]
        got = dict.fromkeys(socks, 0)
        for sock in socks:
            ask(sock, kind)

        def turn(sock: socket.socket, _: int) -> None:
            got[sock] += len(sock.recv(1 << 16))

        with beside(socks, turn, select.EPOLLIN):
            deadline = time.monotonic() + PATIENCE_S
            # Some begin before the others: in the end that does not count.
            while sum(got.values()) < 5 << 20 or min(got.values()) <= max(got.values()) / 10:
                assert time.monotonic() < deadline, got
                time.sleep(0.01)
    worker.drop_duplicates()
