"""The threaded server as an HTTP/1.1 server: framing, limits, clients that misbehave."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from support.rawhttp import RawClient
from support.worker import Worker, running, settings

from caddysnake.channel import vitals
from caddysnake.channel.endpoint import Endpoint, pair
from caddysnake.worker.wsgi.counters import Counters
from caddysnake.worker.wsgi.server import WsgiServer

HERE = Path(__file__).parent
LIMITS = {"max_head_bytes": 20_000, "max_target_bytes": 2_000, "max_header_count": 50, "max_body_bytes": 3_000_000}


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with running(settings("wsgi_apps:application", "wsgi", HERE, threads=4, **LIMITS)) as started:
        yield started


# Contexts (PEP 567)


def test_each_call_has_a_context_of_its_own_from_its_begin_to_the_end_of_its_iterable(worker: Worker) -> None:
    for _ in range(8):  # more than there are threads
        with RawClient(worker.connect()) as client:
            assert client.get("/context").body == b"imported, then set"
    worker.drop_duplicates()


# Expect (RFC 9110 section 10.1.1)


def test_content_that_waits_for_a_100_gets_it_when_the_app_reads(stranger: RawClient) -> None:
    stranger.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
    assert stranger.answer().status == 100
    stranger.send(b"late")
    assert stranger.answer().body == b"late"


def test_an_app_that_does_not_read_asks_for_no_content(stranger: RawClient) -> None:
    stranger.send(b"POST /refuses HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
    answer = stranger.answer()
    assert answer.status == 413
    assert answer.header("connection") == "close"
    stranger.sock.shutdown(socket.SHUT_WR)
    assert stranger.is_ended()


def test_content_that_did_not_wait_for_its_100_gets_none(stranger: RawClient) -> None:
    stranger.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\nhere")
    assert stranger.answer().body == b"here"


def test_caddy_never_gets_a_100_for_it_has_sent_one_itself(client: RawClient) -> None:
    client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
    assert client.is_quiet()
    client.send(b"late")
    assert client.answer().body == b"late"


def test_another_expectation_is_refused(client: RawClient) -> None:
    assert client.get("/plain", "Expect: miracles").status == 417


# Limits


def test_a_target_too_long_is_414(client: RawClient) -> None:
    assert client.get("/" + "a" * 2_000).status == 414
    assert client.is_ended()


def test_a_head_too_large_is_431(client: RawClient) -> None:
    assert client.get("/plain", "X-Large: " + "a" * 20_000).status == 431


def test_too_many_headers_are_431(client: RawClient) -> None:
    assert client.get("/plain", *(f"X-{i}: 1" for i in range(60))).status == 431


def test_declared_content_over_the_limit_is_413_at_once(client: RawClient) -> None:
    client.send(b"POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 3000001\r\n\r\n")
    answer = client.answer()
    assert (answer.status, answer.header("connection")) == (413, "close")


def test_content_over_the_limit_is_413_behind_a_client_that_keeps_sending(client: RawClient) -> None:
    client.send(b"POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n")
    client.send(bytes(9_000_000))
    assert client.answer().status == 413


@pytest.mark.parametrize("path", ["/count", "/nested", "/first_bytes"])
def test_chunked_content_over_the_limit_is_never_taken_for_whole(client: RawClient, path: str) -> None:
    client.send(f"POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    piece = b"%x\r\n%s\r\n" % (100_000, bytes(100_000))
    for _ in range(31):
        client.send(piece)
    client.send(b"0\r\n\r\n")
    answer = client.answer()
    assert answer.status == (200 if path == "/first_bytes" else 413)
    if answer.status == 413:
        assert answer.header("connection") == "close"


def test_malformed_chunks_are_400_whoever_reads_them(client: RawClient) -> None:
    client.send(b"POST /count HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    client.send(b"%x\r\n%s\r\n" % (2_000_000, bytes(2_000_000)))
    time.sleep(0.1)
    client.send(b"zz\r\n")
    answer = client.answer()
    assert (answer.status, answer.header("connection")) == (400, "close")


# Connections


def test_the_content_of_a_pipelined_request_may_come_after_the_answer_before_it(client: RawClient) -> None:
    client.send(b"GET /plain HTTP/1.1\r\nHost: a\r\n\r\nPOST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n")
    assert client.answer().body == b"plain"
    client.send(b"abc")
    assert client.answer().body == b"abc"


def test_pipelined_requests_are_answered_in_order(client: RawClient) -> None:
    paths = ["plain", "generator", "echo", "closing", "file?1", "refuses", "plain"]
    request = "".join(
        f"POST /{path} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n{index:04}" for index, path in enumerate(paths)
    )
    client.send(request.encode())
    bodies = [client.answer().body for _ in paths]
    assert bodies == [b"plain", b"onetwo", b"0002", b"closed", b"0123456789", b"too large for me", b"plain"]


def test_a_request_behind_one_that_ends_the_connection_is_not_answered(client: RawClient) -> None:
    client.send(b"GET /plain HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /plain HTTP/1.1\r\nHost: a\r\n\r\n")
    answer = client.answer()
    assert (answer.body, answer.header("connection")) == (b"plain", "close")
    client.sock.shutdown(socket.SHUT_WR)
    assert client.is_ended()


@pytest.mark.parametrize("path", ["plain", "generator", "closing", "file?2"])
def test_a_client_that_has_finished_speaking_still_gets_its_answers(client: RawClient, path: str) -> None:
    client.send(f"GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n".encode() * 5)
    client.sock.shutdown(socket.SHUT_WR)
    assert len({client.answer().body for _ in range(5)}) == 1
    assert client.is_ended()


@pytest.mark.parametrize("cut", [1, 10, 40, 60, 75])
def test_a_connection_that_ends_anywhere_ends_quietly(worker: Worker, client: RawClient, cut: int) -> None:
    request = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n01234567890123456789"
    with RawClient(worker.connect()) as leaver:
        leaver.send(request[:cut])
        leaver.sock.shutdown(socket.SHUT_WR)
        assert leaver.is_ended() or cut > len(request)
    assert client.get("/plain").body == b"plain"


def test_a_refused_request_is_answered_and_the_rest_is_dropped(client: RawClient) -> None:
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" + b"GET /plain HTTP/1.1\r\nHost: a\r\n\r\n" * 100)
    answer = client.answer()
    assert (answer.status, answer.header("connection")) == (400, "close")
    assert answer.header("caddysnake-code") == "host"
    client.sock.shutdown(socket.SHUT_WR)
    assert client.is_ended()


def test_a_client_that_leaves_a_stream_is_noticed_with_the_next_chunk(worker: Worker, client: RawClient) -> None:
    with RawClient(worker.connect()) as leaver:
        leaver.send(b"GET /large_generator?64 HTTP/1.1\r\nHost: a\r\n\r\n")
        leaver.head()
    deadline = time.monotonic() + 20
    while worker.page.total(vitals.CELL_STARTED, 4) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert worker.page.total(vitals.CELL_STARTED, 4) == 0
    assert client.get("/plain").body == b"plain"


def test_a_kept_alive_connection_serves_many_requests(client: RawClient) -> None:
    for index in range(300):
        assert client.post("/echo", b"%d" % index).body == b"%d" % index


def test_many_connections_at_once_are_all_served(worker: Worker) -> None:
    clients = [RawClient(worker.connect()) for _ in range(200)]
    for index, client in enumerate(clients):
        client.send(f"GET /environ/{index} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    for index, client in enumerate(clients):
        with client:
            assert json.loads(client.answer().body)["PATH_INFO"] == f"/environ/{index}"
    worker.drop_duplicates()


# Size


def test_memory_stays_flat_through_large_content_both_ways() -> None:
    with (
        running(settings("wsgi_apps:application", "wsgi", HERE, threads=2)) as worker,
        RawClient(worker.connect()) as client,
    ):
        client.post("/count", bytes(3_000_000))
        before = int(client.get("/memory").body)
        client.send(b"POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 209715200\r\n\r\n")
        piece = bytes(1 << 20)
        for _ in range(200):
            client.send(piece)
        assert client.answer().body == b"209715200"
        client.send(b"GET /large_generator?200 HTTP/1.1\r\nHost: a\r\n\r\n")
        client.head()
        for _ in range(200):
            assert client.exactly(1 << 20) == piece
        after = int(client.get("/memory").body)
    assert after - before < 20 << 20


# Splitting


class ByHand:
    """The server without its threads: each piece sent is seen to at once, so that a test decides what one read gets."""

    def __init__(self) -> None:
        self.page_fd = vitals.create("by-hand")
        self.page = vitals.Page(self.page_fd)
        self.ours, self.theirs = pair()
        sys.path.insert(0, str(HERE))
        try:
            import wsgi_apps  # type: ignore[import-not-found]
        finally:
            sys.path.remove(str(HERE))
        wanted = settings("wsgi_apps:application", "wsgi", HERE, threads=1)
        self.server = WsgiServer(wsgi_apps.application, wanted, Endpoint(self.ours), self.page)
        self.server._table.open()
        self.server._controller.open()
        self.counters = Counters(self.page.thread(0))

    def close(self) -> None:
        self.server._table.close()
        self.server._controller.close()
        self.ours.close()
        self.theirs.close()
        os.close(self.page_fd)

    def converse(self, pieces: list[bytes]) -> bytes:
        """What comes back for ``pieces``, each of them read by itself."""
        client, sock = socket.socketpair()
        with client:
            table = self.server._table
            table.admit(self.server._admit(sock, 1, True))
            said = b""
            for piece in pieces:
                with contextlib.suppress(BrokenPipeError):  # it has ended
                    client.sendall(piece)
                self._see_to()
                said += _available(client)
            client.shutdown(socket.SHUT_WR)
            self._see_to()
            said += _available(client)
            for connection in list(table.held.values()):
                table.parked.pop(connection.fd)
                table.end(connection)
            return re.sub(rb"date: [^\r]*", b"date: -", said)

    def _see_to(self) -> None:
        for _ in range(100):
            events = self.server._table.epoll.poll(0, 1)
            if not events:
                return
            fd, seen = events[0]
            connection = self.server._table.parked.pop(fd, None)
            if connection is not None:
                connection.hung |= seen != select.EPOLLIN
                self.server._driver.handle(connection, self.counters)
        raise AssertionError("it never comes to rest")


def _available(client: socket.socket) -> bytes:
    poller = select.poll()
    poller.register(client, select.POLLIN)
    data = b""
    while poller.poll(0):
        piece = client.recv(1 << 16)
        if not piece:
            break
        data += piece
    return data


CONVERSATIONS = [
    b"GET /plain HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /generator HTTP/1.1\r\nHost: a\r\n\r\nGET /plain HTTP/1.0\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET /plain HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nT: 1\r\n\r\n"
    b"HEAD /generator HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /refuses HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET /closing HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\r\nGET /raises_midway HTTP/1.1\r\nHost: a\r\n\r\nGET /plain HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /plain HTTP/1.1\r\nHost: a\r\n\r\nGET /plain HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\nrest",
    b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\nzz\r\n",
    b"GET /file?3 HTTP/1.1\r\nHost: a\r\n\r\nGET /writes HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET / ",
]


@pytest.fixture(scope="module")
def by_hand() -> Iterator[ByHand]:
    server = ByHand()
    yield server
    server.close()


@pytest.mark.parametrize("index", range(len(CONVERSATIONS)))
def test_a_split_at_any_byte_changes_nothing(by_hand: ByHand, index: int) -> None:
    request = CONVERSATIONS[index]
    whole = by_hand.converse([request])
    assert whole.startswith(b"HTTP/1.1 ")
    for at in range(1, len(request)):
        assert by_hand.converse([request[:at], request[at:]]) == whole


@given(st.data())
@hypothesis_settings(max_examples=150, deadline=None)
def test_any_number_of_splits_changes_nothing(by_hand: ByHand, data: st.DataObject) -> None:
    request = data.draw(st.sampled_from(CONVERSATIONS))
    cuts = sorted(data.draw(st.lists(st.integers(min_value=1, max_value=len(request) - 1), max_size=30, unique=True)))
    pieces = [request[a:b] for a, b in zip([0, *cuts], [*cuts, len(request)], strict=True)]
    assert by_hand.converse(pieces) == by_hand.converse([request])
