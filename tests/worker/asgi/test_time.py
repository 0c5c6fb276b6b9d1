"""What an ASGI worker does when the other side takes too long."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import eventually
from support.rawhttp import RawClient
from support.worker import Worker, running, settings

from caddysnake.channel import vitals

HERE = Path(__file__).parent


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    wanted = settings(
        "asgi_apps:app",
        "asgi",
        HERE,
        loop=request.param,
        head_timeout_s=0.4,
        body_timeout_s=0.4,
        write_timeout_s=0.4,
    )
    with running(wanted) as started:
        yield started


def test_a_head_that_does_not_end_is_a_408(client: RawClient) -> None:
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n")
    answer = client.answer()
    assert (answer.status, answer.header("caddysnake-code")) == (408, "head-timeout")
    assert client.is_ended()


def test_a_head_that_trickles_is_a_408(client: RawClient) -> None:
    for byte in b"GET /hello HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 100:
        client.send(bytes((byte,)))
        if not client.is_quiet(0.02):
            break
    assert client.answer().status == 408


def test_a_body_that_does_not_come_is_a_408(client: RawClient) -> None:
    client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab")
    answer = client.answer()
    assert (answer.status, answer.header("caddysnake-code")) == (408, "body-timeout")
    assert client.is_ended()


def test_a_body_that_does_not_come_cuts_a_response_that_has_begun(client: RawClient) -> None:
    client.send(b"POST /stream_echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab")
    answer = client.answer()
    assert (answer.status, answer.body, answer.whole) == (200, b"ab", False)


def test_a_body_that_comes_slowly_but_steadily_is_waited_for(client: RawClient) -> None:
    client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n")
    for _ in range(12):
        time.sleep(0.1)
        client.send(b"x")
    assert client.answer().body == b"x" * 12


def test_a_reader_that_stands_still_is_cut_off(client: RawClient, worker: Worker) -> None:
    with RawClient(worker.connect()) as slow:
        slow.send(b"GET /large?64 HTTP/1.1\r\nHost: a\r\n\r\n")
        slow.head()
        time.sleep(1.2)
        assert len(slow.rest()) < 10 << 20


def test_an_idle_connection_is_never_ended(client: RawClient) -> None:
    client.get("/hello")
    time.sleep(1.2)
    assert client.get("/hello").body == b"hello"


def test_an_app_may_take_its_time(client: RawClient, worker: Worker) -> None:
    with RawClient(worker.connect()) as waiting:
        waiting.send(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
        waiting.head()
        time.sleep(1)
        client.get("/open?events")
        client.get("/open?more")
        assert waiting.exactly(33) == b"9\r\ndata: 1\n\n\r\n9\r\ndata: 2\n\n\r\n0\r\n\r\n"


def test_a_reader_that_does_not_take_the_end_of_a_response_is_cut_off(client: RawClient, worker: Worker) -> None:
    before = worker.page.word(vitals.WORD_CONNECTIONS)
    with RawClient(worker.connect()) as slow:
        slow.send(b"GET /many HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        slow.head()
        eventually(lambda: worker.page.word(vitals.WORD_CONNECTIONS) <= before)
