from __future__ import annotations

import pytest

from caddysnake.http1.errors import ProtocolError
from caddysnake.http1.limits import Limits
from caddysnake.http1.request import RequestHead, RequestParser


def parse(data: bytes, limits: Limits | None = None) -> RequestParser:
    parser = RequestParser(limits or Limits())
    parser.feed(data)
    return parser


def head_of(parser: RequestParser) -> RequestHead:
    assert parser.head is not None
    return parser.head


def refused(data: bytes, limits: Limits | None = None) -> int:
    with pytest.raises(ProtocolError) as caught:
        parse(data, limits)
    return caught.value.status


def test_a_plain_request_is_parsed() -> None:
    parser = parse(b"GET /a%20b?c=d HTTP/1.1\r\nHost: example.org\r\nX-One:  1 \r\nx-one: 2\r\n\r\n")
    head = head_of(parser)
    assert (head.method, head.target, head.path, head.query, head.version) == (
        "GET",
        b"/a%20b?c=d",
        b"/a%20b",
        b"c=d",
        "1.1",
    )
    assert head.headers == [(b"host", b"example.org"), (b"x-one", b"1"), (b"x-one", b"2")]
    assert head.keep_alive
    assert parser.complete


def test_a_request_in_single_bytes_is_the_same() -> None:
    head = b"\r\nPOST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    data = head + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: 1\r\n\r\n"
    parser = RequestParser(Limits())
    for at in range(len(data)):
        assert not parser.complete
        parser.feed(data[at : at + 1])
    assert parser.complete
    assert parser.take_body() == b"abcde"


def test_the_next_request_waits_until_the_first_is_answered() -> None:
    parser = parse(
        b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nxyGET /2 HTTP/1.1\r\nHost: b\r\n\r\nGET /3",
    )
    assert head_of(parser).path == b"/1"
    assert parser.take_body() == b"xy"
    parser.next_message()
    assert head_of(parser).path == b"/2"
    parser.next_message()
    assert parser.head is None
    assert not parser.at_boundary
    parser.feed(b" HTTP/1.1\r\nHost: b\r\n\r\n")
    assert head_of(parser).path == b"/3"
    parser.next_message()
    assert parser.at_boundary


def test_an_upgrade_that_is_not_made_keeps_its_body_and_its_connection() -> None:
    parser = parse(
        b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc"
        b"GET /2 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n"
        b"GET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
    )
    assert head_of(parser).upgrade == b"h2c"
    assert parser.take_body() == b"abc"
    parser.next_message()
    assert head_of(parser).upgrade == b"websocket"
    parser.next_message()
    assert head_of(parser).path == b"/3"


@pytest.mark.parametrize(
    ("status", "data"),
    [
        (400, b"GET / HTTP/1.1\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        (400, b"GET /#a HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET /\r\n\r\n"),
        (400, b"\x16\x03\x01"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n"),
        (400, b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (501, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
        (501, b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n"),
        (505, b"GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
        (505, b"GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
        (417, b"GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n"),
    ],
)
def test_what_is_not_a_request_is_refused(status: int, data: bytes) -> None:
    assert refused(data) == status


def test_limits_are_counted_on_the_bytes_fed() -> None:
    limits = Limits(max_head_bytes=200, max_target_bytes=50, max_header_count=3)
    assert refused(b"GET /" + b"a" * 50 + b" HTTP/1.1\r\nHost: a\r\n\r\n", limits) == 414
    assert refused(b"GET /" + b"a" * 150, limits) == 414
    assert refused(b"GET / HTTP/1.1\r\nHost: a\r\nA:" + b" " * 200, limits) == 431
    assert refused(b"GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nA: 2\r\nA: 3\r\n\r\n", limits) == 431
    assert refused(b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"b" * 200 + b"\r\n\r\n", limits) == 431


def test_a_body_over_the_limit_is_refused_whether_declared_or_not() -> None:
    limits = Limits(max_body_bytes=5)
    assert refused(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n", limits) == 413
    chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert parse(chunked + b"5\r\nabcde\r\n0\r\n\r\n", limits).complete
    assert refused(chunked + b"3\r\nabc\r\n3\r\nabc\r\n", limits) == 413


def test_chunk_extensions_cannot_go_on_for_ever() -> None:
    chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert parse(chunked + b"1\r\nx\r\n" * 10_000).take_body() == b"x" * 10_000
    assert refused(chunked + b"1;a=" + b"b" * 20_000) == 400
    assert refused(chunked + b"0\r\nT: " + b"b" * 20_000) == 400


def test_names_with_an_underscore_are_dropped() -> None:
    parser = parse(b"GET / HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 6.6.6.6\r\nContent_Length: 3\r\n\r\n")
    assert head_of(parser).headers == [(b"host", b"a")]


def test_the_authority_of_an_absolute_target_is_the_host() -> None:
    head = head_of(parse(b"GET http://other:8080?q HTTP/1.1\r\nHost: a\r\n\r\n"))
    assert (head.path, head.query, head.host, head.headers) == (b"/", b"q", b"other:8080", [(b"host", b"other:8080")])


def test_http_1_0_closes_unless_it_asks_to_keep_alive() -> None:
    assert not head_of(parse(b"GET / HTTP/1.0\r\n\r\n")).keep_alive
    assert head_of(parse(b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")).keep_alive
    assert not head_of(parse(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: foo, Close\r\n\r\n")).keep_alive


def test_a_request_that_comes_before_the_first_is_answered_waits_too() -> None:
    parser = parse(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert not parser.at_boundary
    parser.feed(b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert head_of(parser).path == b"/1"
    parser.next_message()
    assert head_of(parser).path == b"/2"


def test_a_large_body_ends_where_content_length_says() -> None:
    size = 200_000
    data = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
    parser = parse(data + b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert parser.complete
    assert len(parser.take_body()) == parser.received == size
    parser.next_message()
    assert head_of(parser).path == b"/2"
    assert parser.complete


def test_a_header_section_seen_before_does_not_make_a_bad_request_line_good() -> None:
    section = b"Host: remembered\r\n\r\n"
    for _ in range(2):
        assert parse(b"GET / HTTP/1.1\r\n" + section).complete
    for line in (b"GET /\x01", b"GET /\xe9", b"GET /\x7f", b"GET /#a", b"GET a", b"GET ?a", b"GET *"):
        assert refused(line + b" HTTP/1.1\r\n" + section) == 400
    assert refused(b"GET / HTTP/1.1\r\n" + section, Limits(max_header_count=0)) == 431
    assert not head_of(parse(b"GET / HTTP/1.0\r\n" + section)).keep_alive


def test_a_remembered_header_section_is_not_shared() -> None:
    data = b"GET / HTTP/1.1\r\nHost: shared\r\nX: y\r\n\r\n"
    for _ in range(3):
        head = head_of(parse(data))
        assert head.headers == [(b"host", b"shared"), (b"x", b"y")]
        head.headers.clear()
