"""The dialogue between a client, an exchange and a worker: what happens, and what must be done."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from caddysnake.http1.errors import ProtocolError
from caddysnake.http1.limits import Limits
from caddysnake.http1.request import RequestParser
from caddysnake.relay.exchange import (
    Abort,
    Answer,
    Command,
    Complete,
    EndLink,
    Exchange,
    ExchangeStage,
    Retry,
    ToClient,
    ToLink,
    Tunnel,
)

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
OUT = b"<head>"
CLEAN = Complete(is_clean=True, keeps_client=True)
SPENT = Complete(is_clean=False, keeps_client=True)
LAST = Complete(is_clean=True, keeps_client=False)
LAST_SPENT = Complete(is_clean=False, keeps_client=False)


def exchange(request: bytes = GET, closes: bool | None = None, continues: bool = False) -> Exchange:
    parser = RequestParser(Limits())
    parser.feed(request)
    head = parser.head
    assert head is not None
    return Exchange(head, OUT, not head.keep_alive if closes is None else closes, continues)


def asked(request: bytes = GET, closes: bool | None = None) -> Exchange:
    """An exchange whose whole request is on its way."""
    it = exchange(request, closes)
    it.linked(b"", is_complete=True)
    return it


def answering(request: bytes = GET) -> Exchange:
    it = asked(request)
    it.response(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab")
    assert it.stage is ExchangeStage.ANSWERING
    return it


def test_a_request_waits_for_its_link_and_its_response_is_passed_on_as_it_came() -> None:
    it = exchange()
    assert it.stage is ExchangeStage.WAITING
    assert it.linked(b"", is_complete=True) == [ToLink(OUT)]
    assert it.response(OK) == [ToClient(OK), CLEAN]
    assert it.status == 200
    assert it.stage is ExchangeStage.OVER


def test_content_with_a_length_goes_on_as_it_comes() -> None:
    it = exchange(POST)
    assert it.linked(b"ab", is_complete=False) == [ToLink(OUT + b"ab")]
    assert it.content(b"cde", is_complete=True) == [ToLink(b"cde")]
    assert it.response(OK) == [ToClient(OK), CLEAN]


def test_chunked_content_is_chunked_anew() -> None:
    it = exchange(CHUNKED)
    assert it.linked(b"", is_complete=False) == [ToLink(OUT)]
    assert it.content(b"0123456789abcdef", is_complete=False) == [ToLink(b"10\r\n0123456789abcdef\r\n")]
    assert it.content(b"", is_complete=True) == [ToLink(b"0\r\n\r\n")]
    assert exchange(CHUNKED).linked(b"ab", is_complete=True) == [ToLink(OUT + b"2\r\nab\r\n0\r\n\r\n")]


def test_large_pieces_are_not_copied_behind_heads() -> None:
    large = b"x" * 100_000
    assert exchange(POST).linked(large, is_complete=False) == [ToLink(OUT), ToLink(large)]
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n"
    assert asked().response(head + large) == [ToClient(head), ToClient(large), CLEAN]


def test_a_response_that_comes_before_its_request_is_whole_spends_the_link() -> None:
    it = exchange(POST)
    it.linked(b"a", is_complete=False)
    assert it.response(OK) == [ToClient(OK), SPENT]


def test_content_goes_on_while_a_long_response_comes() -> None:
    it = exchange(CHUNKED)
    it.linked(b"", is_complete=False)
    it.response(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    assert it.content(b"ab", is_complete=True) == [ToLink(b"2\r\nab\r\n0\r\n\r\n")]
    assert it.response(b"0\r\n\r\n") == [ToClient(b"0\r\n\r\n"), CLEAN]


def test_bytes_behind_a_response_spend_the_link_and_go_nowhere() -> None:
    assert asked().response(OK + b"HTTP/1.1 200 OK\r\n") == [ToClient(OK), SPENT]


def test_a_worker_that_closes_spends_the_link_and_not_the_connection() -> None:
    raw = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"
    assert asked().response(raw) == [ToClient(OK), SPENT]


def test_fields_that_connection_names_end_at_the_relay_but_those_of_the_framing() -> None:
    named = b"connection: X-Hop, keep-alive, content-length\r\nx-hop: 1\r\nx-end: 2\r\ncontent-length: 2\r\n\r\nok"
    want = b"HTTP/1.1 200 OK\r\nx-end: 2\r\ncontent-length: 2\r\n\r\nok"
    for raw in (b"HTTP/1.1 200 OK\r\n" + named, b"HTTP/1.1 200 OK\r\nX-HOP: 0\r\n" + named):
        assert asked().response(raw) == [ToClient(want), CLEAN]
        assert asked().answered_whole(raw) == (want, CLEAN)


def test_a_101_keeps_its_upgrade_and_loses_what_else_connection_names() -> None:
    raw = b"HTTP/1.1 101 S\r\nConnection: Upgrade, X-Hop\r\nUpgrade: websocket\r\nX-Hop: 1\r\n\r\n"
    want = b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nconnection: upgrade\r\n\r\n"
    assert asked(UPGRADE).response(raw) == [ToClient(want), Tunnel()]


def test_a_worker_that_closes_within_a_request_will_not_have_the_rest_and_the_client_is_told() -> None:
    """As when the content is over a limit: else the client would send all of it to a relay that waits for the end."""
    it = exchange(POST)
    it.linked(b"a", is_complete=False)
    raw = b"HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno"
    told = b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno"
    assert it.response(raw) == [ToClient(told), LAST_SPENT]


def test_a_client_that_closes_is_told_so_and_the_link_is_kept() -> None:
    it = asked(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    told = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"
    assert it.response(OK) == [ToClient(told), LAST]


def test_the_response_to_head_ends_with_its_head() -> None:
    it = asked(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"
    assert it.response(head) == [ToClient(head), CLEAN]


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_responses_without_content_end_with_their_head(status: bytes) -> None:
    raw = b"HTTP/1.1 " + status + b"\r\nx: y\r\n\r\n"
    assert asked().response(raw) == [ToClient(raw), CLEAN]


def test_informational_responses_are_passed_on_and_100_is_not() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
    it = asked()
    assert it.response(b"HTTP/1.1 100 Continue\r\n\r\n" + hints) == [ToClient(hints)]
    assert it.response(hints + OK) == [ToClient(hints), ToClient(OK), CLEAN]


def test_a_client_of_1_0_gets_no_informational_responses_and_no_chunks() -> None:
    it = asked(b"GET / HTTP/1.0\r\n\r\n")
    assert it.response(b"HTTP/1.1 103 Early Hints\r\n\r\n") == []
    head = it.response(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r")
    assert head == [ToClient(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabc")]
    assert it.response(b"\nde\r\n0\r\nT: 1\r\n\r\n") == [ToClient(b"de"), LAST]


def test_a_client_of_1_0_may_keep_its_connection_when_the_length_is_known() -> None:
    it = asked(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    kept = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nok"
    assert it.response(OK) == [ToClient(kept), CLEAN]


def test_what_ends_with_the_link_is_chunked_for_the_client() -> None:
    it = asked()
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    assert it.response(b"HTTP/1.1 200 OK\r\n\r\nab") == [ToClient(head + b"2\r\nab\r\n")]
    assert it.response(b"c") == [ToClient(b"1\r\nc\r\n")]
    assert it.link_ended(is_orderly=True) == [ToClient(b"0\r\n\r\n"), SPENT]


def test_what_ends_with_the_link_is_cut_when_the_link_breaks() -> None:
    it = asked()
    it.response(b"HTTP/1.1 200 OK\r\n\r\nab")
    assert [type(command) for command in it.link_ended(is_orderly=False)] == [Abort]


def test_what_ends_with_the_link_ends_with_the_connection_on_1_0() -> None:
    it = asked(b"GET / HTTP/1.0\r\n\r\n")
    assert it.response(b"HTTP/1.1 200 OK\r\n\r\nab") == [ToClient(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nab")]
    assert it.link_ended(is_orderly=True) == [LAST_SPENT]


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"TRACE"])
@pytest.mark.parametrize("orderly", [True, False])
@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\nconte"])
def test_a_safe_request_is_tried_on_another_link_once(method: bytes, orderly: bool, begun: bytes) -> None:
    it = asked(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert it.response(begun) == []
    assert it.link_ended(orderly) == [Retry()]
    assert it.stage is ExchangeStage.WAITING
    assert it.linked(b"", is_complete=True) == [ToLink(OUT)]
    (answer,) = it.link_ended(orderly)
    assert isinstance(answer, Answer)
    assert (answer.status, answer.code) == (502, "worker-gone")


def test_the_second_try_is_answered_as_the_first_would_have_been() -> None:
    it = asked()
    it.response(b"HTTP/1.1 500 Oh no\r\n")
    it.link_ended(is_orderly=True)
    it.linked(b"", is_complete=True)
    assert it.response(OK) == [ToClient(OK), CLEAN]


@pytest.mark.parametrize(
    "request_",
    [
        POST + b"hello",
        b"DELETE / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
        UPGRADE,
    ],
)
def test_other_requests_are_tried_once_only(request_: bytes) -> None:
    (answer,) = asked(request_).link_ended(is_orderly=True)
    assert isinstance(answer, Answer)
    assert (answer.status, answer.code) == (502, "worker-gone")


def test_a_request_is_not_repeated_once_the_client_has_heard_of_it() -> None:
    it = asked()
    it.response(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    assert isinstance(it.link_ended(is_orderly=True)[0], Answer)


def test_a_response_that_breaks_off_cuts_the_client() -> None:
    assert [type(command) for command in answering().link_ended(is_orderly=True)] == [Abort]
    it = asked()
    it.response(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n")
    assert [type(command) for command in it.link_ended(is_orderly=True)] == [Abort]


def test_what_is_no_response_becomes_one_of_ours() -> None:
    (answer,) = asked().response(b"SSH-2.0-OpenSSH\r\n")
    assert isinstance(answer, Answer)
    assert (answer.status, answer.code) == (502, "bad-response")


def test_what_stops_being_a_response_cuts_the_client() -> None:
    it = asked()
    it.response(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n")
    assert [type(command) for command in it.response(b"zz\r\n")] == [Abort]


def test_an_upgrade_becomes_a_tunnel() -> None:
    it = asked(UPGRADE)
    raw = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    assert it.response(raw + b"\x81\x00") == [ToClient(raw + b"\x81\x00"), Tunnel()]
    assert it.status == 101
    assert it.response(b"any") == [ToClient(b"any")]
    assert it.link_ended(is_orderly=True) == [LAST_SPENT]


def test_a_tunnel_ends_when_the_client_ends() -> None:
    it = asked(UPGRADE)
    it.response(b"HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
    assert it.client_ended(is_complete=True) == [LAST_SPENT]


def test_an_upgrade_that_is_refused_is_a_response_like_others() -> None:
    raw = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n"
    assert asked(UPGRADE).response(raw) == [ToClient(raw), CLEAN]


def test_the_advice_to_upgrade_keeps_its_connection_option() -> None:
    raw = b"HTTP/1.1 426 Upgrade Required\r\nconnection: upgrade\r\nupgrade: x\r\ncontent-length: 0\r\n\r\n"
    told = b"HTTP/1.1 426 Upgrade Required\r\nupgrade: x\r\ncontent-length: 0\r\nconnection: upgrade\r\n\r\n"
    assert asked().response(raw) == [ToClient(told), CLEAN]


def test_nobody_switches_protocols_who_was_not_asked_to() -> None:
    raw = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    assert isinstance(asked().response(raw)[0], Answer)
    unfinished = exchange(UPGRADE.replace(b"Host: a", b"Host: a\r\nContent-Length: 9"))
    unfinished.linked(b"ab", is_complete=False)
    assert isinstance(unfinished.response(raw)[0], Answer)


def test_a_client_that_stops_writing_still_gets_its_response() -> None:
    it = asked()
    assert it.client_ended(is_complete=True) == [EndLink()]
    told = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"
    assert it.response(OK) == [ToClient(told), LAST_SPENT]


def test_a_client_that_stopped_writing_while_it_waited_is_passed_on_as_such() -> None:
    it = exchange()
    assert it.client_ended(is_complete=True) == []
    assert it.linked(b"", is_complete=True) == [ToLink(OUT), EndLink()]
    # It has probably left, and the worker has noticed: no reason to ask another one.
    assert isinstance(it.link_ended(is_orderly=True)[0], Answer)


def test_a_client_that_leaves_within_its_request_is_gone() -> None:
    it = exchange(POST)
    it.linked(b"ab", is_complete=False)
    assert [type(command) for command in it.client_ended(is_complete=False)] == [Abort]


def test_content_that_breaks_a_rule_is_answered_or_cut() -> None:
    error = ProtocolError(413, "body-too-large", "the body is over the limit")
    it = exchange(CHUNKED)
    it.linked(b"", is_complete=False)
    (answer,) = it.request_broken(error)
    assert isinstance(answer, Answer)
    assert (answer.status, answer.code) == (413, "body-too-large")
    assert it.closes
    it = exchange(CHUNKED)
    it.linked(b"", is_complete=False)
    it.response(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")
    assert [type(command) for command in it.request_broken(error)] == [Abort]


def test_a_client_that_may_be_asked_to_go_on_is_asked_when_there_is_a_link() -> None:
    request = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    goes_on: list[Command] = [ToLink(OUT), ToClient(b"HTTP/1.1 100 Continue\r\n\r\n")]
    assert exchange(request, continues=True).linked(b"", is_complete=False) == goes_on
    assert exchange(request, continues=True).linked(b"a", is_complete=False) == [ToLink(OUT + b"a")]
    # Caddy has sent one itself.
    assert exchange(request).linked(b"", is_complete=False) == [ToLink(OUT)]


def test_a_refusal_is_answered_as_it_is() -> None:
    no = Answer(503, "starting", "", 2)
    assert exchange().refused(no) == [no]


# Any split of the bytes, on either side, gives the same.

REQUESTS = [
    GET,
    POST + b"hello",
    CHUNKED + b"3\r\nabc\r\n2\r\nde\r\n0\r\nt: 1\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    UPGRADE,
]
RESPONSES = [
    OK,
    OK + b"more",
    b"HTTP/1.1 103 Hi\r\na: b\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + OK,
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0002\r\nbc\r\n0\r\nx: y\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 3\r\n\r\nabc",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nanything",
    b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
    # Not content that breaks a rule: whether the head has been passed on by then is a matter of when it comes.
]
places = st.lists(st.integers(1, 150), max_size=8)


def pieces(data: bytes, at: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place for place in at if place < len(data))})
    return [data[start:end] for start, end in pairwise(edges)]


def forwarded(request: list[bytes], response: list[bytes]) -> tuple[bytes, bytes, list[Command]]:
    """What reaches the worker (its content without framing) and the client, and what else is done."""
    parser = RequestParser(Limits())
    commands: list[Command] = []
    it: Exchange | None = None
    for piece in request:
        parser.feed(piece)
        if it is not None:
            commands += it.content(parser.take_body(), parser.complete)
        elif parser.head is not None:
            it = Exchange(parser.head, OUT, not parser.head.keep_alive)
            commands += it.linked(parser.take_body(), parser.complete)
    assert it is not None
    for piece in response:
        if it.stage is not ExchangeStage.OVER:
            commands += it.response(piece)
        elif isinstance(commands[-1], Complete):
            # What comes on a free link spends it, as what comes with the end of a response does (`link_connection`).
            commands[-1] = commands[-1]._replace(is_clean=False)
    if it.stage is not ExchangeStage.OVER:
        commands += it.link_ended(is_orderly=True)
    onward = b"".join(command.data for command in commands if isinstance(command, ToLink))
    if it.head.chunked:
        reader = RequestParser(Limits())
        reader.feed(CHUNKED + onward.removeprefix(OUT))
        assert reader.complete
        onward = reader.take_body()
    back = b"".join(command.data for command in commands if isinstance(command, ToClient))
    return onward, back, [command for command in commands if not isinstance(command, ToLink | ToClient)]


@example(REQUESTS[3], RESPONSES[2], [], [88])
@example(GET, OK + b"more", [], [len(OK)])
@given(st.sampled_from(REQUESTS), st.sampled_from(RESPONSES), places, places)
def test_the_result_is_the_same_however_the_bytes_come(
    request_: bytes, response: bytes, at: list[int], back: list[int]
) -> None:
    whole = forwarded([request_], [response])
    assert forwarded(pieces(request_, at), pieces(response, back)) == whole
    assert whole[2]
