"""The daemon's duplicates of connections, watched by a real epoll."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import time
from collections.abc import AsyncIterator
from typing import cast

import pytest
from support.house import run, until

from caddysnake.daemon.apps.app import App
from caddysnake.daemon.apps.queue import ConnectionQueue
from caddysnake.daemon.sockets.connections import Connection, Connections

NO_APP = cast(App, None)


class Watched:
    """One connection: the client's end, the worker's copy, and what the daemon is told."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.copy = server.dup()
        self.told: list[str] = []
        self.connections = Connections(
            asyncio.get_running_loop(),
            lambda connection: self.hear("over", connection),
            lambda connection: self.hear("request", connection),
        )
        self.connection = Connection(server.detach(), 0, NO_APP)
        self.connections.adopt(self.connection)

    def hear(self, what: str, connection: Connection) -> None:
        assert connection is self.connection
        self.told.append(what)
        self.connections.hold(connection) if what == "request" else self.connections.end(connection)

    async def nothing_is_told(self) -> None:
        await asyncio.sleep(0.03)
        assert self.told == []

    async def is_told(self, what: str) -> None:
        await until(lambda: self.told)
        assert self.told == [what]


@contextlib.asynccontextmanager
async def watched(tcp: bool = False) -> AsyncIterator[Watched]:
    if tcp:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.create_connection(listener.getsockname())
            server, _ = listener.accept()
    else:
        client, server = socket.socketpair()
    made = Watched(client, server)
    yield made
    made.connections.close()
    made.client.close()
    made.copy.close()


def test_requests_to_a_connection_that_a_worker_has_wake_nobody() -> None:
    async def work() -> None:
        async with watched() as it:
            it.connections.watch(it.connection)
            it.client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            await it.nothing_is_told()
            before = time.process_time()
            await asyncio.sleep(0.1)
            assert time.process_time() - before < 0.05

    run(work())


@pytest.mark.parametrize("tcp", [False, True])
def test_the_end_of_a_connection_that_a_worker_has_is_told_once(tcp: bool) -> None:
    async def work() -> None:
        async with watched(tcp) as it:
            it.connections.watch(it.connection)
            it.client.close()
            await it.is_told("over")
            assert len(it.connections) == 0

    run(work())


def test_a_worker_that_ends_a_connection_is_heard() -> None:
    async def work() -> None:
        async with watched() as it:
            it.connections.watch(it.connection)
            it.copy.shutdown(socket.SHUT_RDWR)
            await it.is_told("over")
            assert it.client.recv(1) == b""

    run(work())


def test_a_client_that_waits_may_have_said_all() -> None:
    async def work() -> None:
        async with watched() as it:
            it.connections.hold(it.connection)
            it.client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            it.client.shutdown(socket.SHUT_WR)
            await it.nothing_is_told()
            it.client.close()
            await it.is_told("over")

    run(work())


def test_the_next_request_of_a_parked_connection_is_told() -> None:
    async def work() -> None:
        async with watched() as it:
            it.connections.park(it.connection)
            await it.nothing_is_told()
            it.client.sendall(b"G")
            await it.is_told("request")

    run(work())


def test_the_end_of_a_parked_connection_is_no_request() -> None:
    async def work() -> None:
        async with watched() as it:
            it.connections.park(it.connection)
            it.client.close()
            await it.is_told("over")

    run(work())


def test_the_last_request_of_a_parked_connection_is_a_request() -> None:
    async def work() -> None:
        async with watched() as it:
            it.connections.park(it.connection)
            it.client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            it.client.shutdown(socket.SHUT_WR)
            await it.is_told("request")

    run(work())


def test_a_connection_that_is_reset_is_over() -> None:
    async def work() -> None:
        async with watched(tcp=True) as it:
            it.connections.park(it.connection)
            it.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            it.client.close()
            await it.is_told("over")

    run(work())


def test_ending_a_connection_ends_it_for_the_worker_too() -> None:
    async def work() -> None:
        async with watched() as it:
            it.connections.watch(it.connection)
            it.connections.end(it.connection)
            it.connections.end(it.connection)
            assert it.copy.recv(1) == b""
            assert it.client.recv(1) == b""
            assert len(it.connections) == 0

    run(work())


def test_forgetting_a_connection_leaves_it_to_the_worker() -> None:
    async def work() -> None:
        async with watched() as it:
            it.connections.watch(it.connection)
            before = len(os.listdir("/proc/self/fd"))
            it.connections.forget(it.connection)
            it.connections.forget(it.connection)
            assert len(os.listdir("/proc/self/fd")) == before - 1
            it.copy.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            assert it.client.recv(100)
            it.client.close()
            await it.nothing_is_told()

    run(work())


def test_closing_all_ends_all() -> None:
    async def work() -> None:
        async with watched() as it:
            it.connections.park(it.connection)
            it.connections.close()
            assert it.client.recv(1) == b""
            it.connections = Connections(asyncio.get_running_loop(), lambda _: None, lambda _: None)

    run(work())


def test_a_connection_that_cannot_be_seen_to_is_ended_and_others_are_heard() -> None:
    async def work() -> None:
        async with watched() as it, watched() as other:
            it.hear = _fail  # type: ignore[method-assign]
            for each in (it, other):
                each.connections.park(each.connection)
                each.client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            await other.is_told("request")
            await until(lambda: not len(it.connections))
            assert it.client.recv(1) == b""

    run(work())


def test_a_connection_that_cannot_be_given_to_a_worker_does_not_hold_up_those_behind_it() -> None:
    async def work() -> None:
        async with watched() as it:
            theirs, ours = socket.socketpair()
            with theirs:
                second = Connection(ours.detach(), 0, NO_APP)
                it.connections.adopt(second)
                given: list[Connection] = []

                def give(connection: Connection) -> bool:
                    if connection is it.connection:
                        _fail()
                    given.append(connection)
                    return True

                queue = ConnectionQueue(it.connections, give, lambda: True)
                queue.add(it.connection)
                queue.add(second)
                queue.serve()
                assert given == [second]
                assert it.client.recv(1) == b""
                it.connections.end(second)

    run(work())


def _fail(*_: object) -> None:
    raise RuntimeError("an error of ours")
