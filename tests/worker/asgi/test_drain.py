"""How an ASGI worker takes connections, gives them back, and leaves."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import eventually
from support.rawhttp import RawClient
from support.worker import Worker, running, settings

from caddysnake.channel import vitals
from caddysnake.channel.endpoint import ChannelClosed
from caddysnake.channel.messages import Drained, Dump, Returned, Shed

HERE = Path(__file__).parent


@pytest.fixture(params=["uvloop", "asyncio"])
def worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    with running(settings("asgi_apps:app", "asgi", HERE, loop=request.param)) as started:
        yield started


def ends(worker: Worker) -> bool:
    """The worker has said everything and its process has left."""
    try:
        worker.message()
    except ChannelClosed:
        return True
    return False


def test_the_slot_says_how_far_a_connection_is(worker: Worker) -> None:
    slots = worker.page.slots
    with RawClient(worker.connect()) as client, RawClient(worker.connect()) as other:
        eventually(lambda: slots[0] == vitals.SLOT_IDLE)
        client.send(b"GET /events HTTP/1.1\r\n")
        eventually(lambda: slots[0] == vitals.SLOT_READING)
        client.send(b"Host: a\r\n\r\n")
        client.head()
        assert slots[0] == vitals.SLOT_HEAD_SENT
        assert worker.page.word(vitals.WORD_ACTIVE) == 1
        assert worker.page.word(vitals.WORD_CONNECTIONS) == 2
        other.get("/open?events")
        other.get("/open?more")
        assert client.exactly(33) == b"9\r\ndata: 1\n\n\r\n9\r\ndata: 2\n\n\r\n0\r\n\r\n"
        eventually(lambda: slots[0] == vitals.SLOT_IDLE)
    eventually(lambda: slots[0] == slots[1] == vitals.SLOT_CLOSED)
    eventually(lambda: worker.page.word(vitals.WORD_CONNECTIONS) == 0)


def test_requests_are_counted(worker: Worker) -> None:
    with RawClient(worker.connect()) as client:
        for _ in range(3):
            client.get("/hello")
        client.post("/echo", b"12345")
        client.get("/raise")
        page = worker.page
        eventually(lambda: page.total(vitals.CELL_REQUESTS, 1) == 5)
        assert page.total(vitals.CELL_CLASS_1XX + 1, 1) == 4
        assert page.total(vitals.CELL_CLASS_1XX + 4, 1) == 1
        assert page.total(vitals.CELL_ERRORS, 1) == 1
        assert page.total(vitals.CELL_BYTES_IN, 1) == 5
        assert page.total(vitals.CELL_BYTES_OUT, 1) >= 3 * 5 + 5
        bounds = len(vitals.LATENCY_BOUNDS_S) + 1
        eventually(lambda: sum(page.total(vitals.CELL_LATENCY + at, 1) for at in range(bounds)) == 5)
        assert page.word(vitals.WORD_ACTIVE) == 0
        first = page.word(vitals.WORD_TICK)
        eventually(lambda: page.word(vitals.WORD_TICK) > first)


def test_a_drained_worker_gives_back_what_is_idle_and_leaves(worker: Worker) -> None:
    clients = [RawClient(worker.connect()) for _ in range(3)]
    for client in clients:
        client.get("/hello")
    worker.drain()
    assert {worker.message() for _ in clients} == {Returned(0), Returned(1), Returned(2)}
    assert bytes(worker.page.slots[:3]) == bytes([vitals.SLOT_RETURNED]) * 3
    assert worker.message() == Drained()
    assert ends(worker)
    for client in clients:
        assert client.is_quiet()  # given back, not ended
        client.close()


def test_a_returned_connection_goes_on_elsewhere_with_what_was_not_read(worker: Worker) -> None:
    with RawClient(worker.connect()) as client:
        client.get("/hello")
        worker.drain()
        client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nkept")
        message = worker.message()
        if message == Returned(0):
            with running(settings("asgi_apps:app", "asgi", HERE)) as next_worker:
                next_worker.give(worker.duplicate(0))
                assert client.answer().body == b"kept"
        else:  # it was read before the drain was
            assert client.answer().body == b"kept"


def test_a_busy_connection_is_given_back_at_its_boundary(worker: Worker) -> None:
    with RawClient(worker.connect()) as client, RawClient(worker.connect()) as other:
        other.send(b"GET /after HTTP/1.1\r\nHost: a\r\n\r\n")
        assert other.answer().body == b"done"
        client.send(b"POST /stream_echo HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
        client.head()
        assert client.exactly(8) == b"3\r\nabc\r\n"
        worker.drain()
        assert worker.message() == Returned(1)
        client.send(b"def")
        assert client.exactly(13) == b"3\r\ndef\r\n0\r\n\r\n"
        assert worker.message() == Returned(0)
        assert client.is_quiet()


def test_a_pipelined_request_is_served_before_the_connection_goes_back(worker: Worker) -> None:
    with RawClient(worker.connect()) as client, RawClient(worker.connect()) as other:
        client.send(b"POST /stream_echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n")
        client.head()
        worker.drain()
        assert worker.message() == Returned(1)
        client.send(b"abcGET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.exactly(13) == b"3\r\nabc\r\n0\r\n\r\n"
        assert client.answer().body == b"hello"
        assert worker.message() == Returned(0)
        assert client.is_quiet()
        assert other.is_quiet()


def test_a_head_that_has_begun_is_served_before_the_connection_goes_back(worker: Worker) -> None:
    with RawClient(worker.connect()) as client:
        client.send(b"GET /hello HTTP/1.1\r\n")
        eventually(lambda: worker.page.slots[0] == vitals.SLOT_READING)
        worker.drain()
        client.send(b"Host: a\r\n\r\n")
        assert client.answer().body == b"hello"
        assert worker.message() == Returned(0)
        assert worker.message() == Drained()


def test_a_connection_that_comes_during_the_drain_goes_straight_back(worker: Worker) -> None:
    with RawClient(worker.connect()) as client, RawClient(worker.connect()) as other:
        client.send(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
        client.head()
        worker.drain()
        assert worker.message() == Returned(1)
        with RawClient(worker.connect()) as late:
            assert worker.message() == Returned(2)
            assert late.is_quiet()
        assert other.is_quiet()


def test_shedding_returns_as_many_idle_connections_as_asked(worker: Worker) -> None:
    clients = [RawClient(worker.connect()) for _ in range(4)]
    for client in clients[1:]:
        client.get("/hello")
    clients[0].send(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
    clients[0].head()
    worker.endpoint.send(Shed(2))
    returned = {worker.message(), worker.message()}
    assert returned < {Returned(1), Returned(2), Returned(3)}
    kept = next(slot for slot in (1, 2, 3) if Returned(slot) not in returned)
    assert clients[kept].get("/hello").body == b"hello"
    for client in clients:
        client.close()


def test_what_is_not_done_within_the_grace_is_cut(worker: Worker) -> None:
    with RawClient(worker.connect()) as client:
        client.send(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
        client.head()
        worker.drain(0.2)
        assert worker.message() == Drained()
        assert client.rest() == b""
        assert ends(worker)


def test_an_orphan_answers_what_it_has_and_ends_the_rest(worker: Worker) -> None:
    idle, busy, gatekeeper = (RawClient(worker.connect()) for _ in range(3))
    idle.get("/hello")
    busy.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab")
    gatekeeper.send(b"GET /hello HTTP/1.1\r\n")
    eventually(lambda: worker.page.slots[1] == worker.page.slots[2] == vitals.SLOT_READING)
    worker.drop_duplicates()
    worker.endpoint._sock.shutdown(socket.SHUT_RDWR)
    assert idle.is_ended()
    busy.send(b"cd")
    answer = busy.answer()
    assert (answer.body, answer.header("connection")) == (b"abcd", "close")
    gatekeeper.send(b"Host: a\r\n\r\n")
    answer = gatekeeper.answer()
    assert (answer.body, answer.header("connection")) == (b"hello", "close")
    for client in (idle, busy, gatekeeper):
        assert client.is_ended()
        client.close()


def test_a_connection_that_ends_is_ended_for_the_daemons_duplicate_too(worker: Worker) -> None:
    with RawClient(worker.connect()) as client:
        assert client.get("/hello", "Connection: close").status == 200
        assert client.is_ended()
        assert worker.duplicate(0).recv(1) == b""
    eventually(lambda: worker.page.slots[0] == vitals.SLOT_CLOSED)


def test_a_dump_writes_stacks_and_goes_on(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with running(settings("asgi_apps:app", "asgi", HERE)) as worker, RawClient(worker.connect()) as client:
        client.send(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
        client.head()
        worker.endpoint.send(Dump())
        with RawClient(worker.connect()) as other:
            assert json.loads(other.get("/notes").body) == []
        written = capfd.readouterr().err
        assert "Current thread" in written
        assert "do_events" in written
        worker.drop_duplicates()
