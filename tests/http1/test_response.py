"""Responses as bytes: framing, what an app may not do, and that no order of calls leads off the rails."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caddysnake.http1.answers import plain, refusal
from caddysnake.http1.errors import ProtocolError, ResponseError
from caddysnake.http1.limits import Limits
from caddysnake.http1.request import RequestHead, RequestParser
from caddysnake.http1.response import (
    JOIN_MAX_BYTES,
    Output,
    Response,
    ResponsePhase,
    date_line,
    http_date,
    informational,
)
from caddysnake.http1.traceback_page import traceback_page


def request(line: str = "GET / HTTP/1.1", *fields: str) -> RequestHead:
    parser = RequestParser(Limits())
    parser.feed("\r\n".join([line, "Host: a", *fields, "", ""]).encode())
    assert parser.head is not None
    return parser.head


def wire(*outputs: Output) -> bytes:
    return b"".join(part for output in outputs for part in ([output] if isinstance(output, bytes) else output))


def parts(data: bytes) -> tuple[bytes, set[bytes], bytes]:
    """Status line, fields but Date, content."""
    head, _, content = data.partition(b"\r\n\r\n")
    line, *fields = head.split(b"\r\n")
    return line, {field for field in fields if not field.startswith(b"date: ")}, content


def answered(
    response: Response, *pieces: bytes, status: int = 200, headers: Any = ()
) -> tuple[bytes, set[bytes], bytes]:
    response.start(status, headers)
    outputs = [response.send(piece, True) for piece in pieces[:-1]]
    outputs.append(response.send(pieces[-1] if pieces else b"", False))
    assert response.is_done
    return parts(wire(*outputs))


def test_a_response_with_a_length_is_sent_as_it_is() -> None:
    response = Response(request())
    line, fields, content = answered(response, b"ab", b"c", headers=[(b"content-length", b"3"), (b"x", b"y")])
    assert (line, fields, content) == (b"HTTP/1.1 200 OK", {b"content-length: 3", b"x: y"}, b"abc")
    assert not response.close


def test_a_whole_response_gets_its_length_and_one_in_pieces_is_chunked() -> None:
    assert answered(Response(request()), b"abc")[1:] == ({b"content-length: 3"}, b"abc")
    assert answered(Response(request()), b"ab", b"", b"c")[1:] == (
        {b"transfer-encoding: chunked"},
        b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
    )


def test_a_head_may_leave_before_its_content() -> None:
    response = Response(request())
    response.start(200, [])
    head = response.flush_head()
    assert head.endswith(b"\r\n\r\n")
    assert response.head_sent
    assert response.send(b"abc", True) == b"3\r\nabc\r\n"
    assert response.send(b"", False) == b"0\r\n\r\n"


def test_large_pieces_are_not_copied() -> None:
    data = bytes(JOIN_MAX_BYTES + 1)
    response = Response(request())
    response.start(200, [])
    output = response.send(data, True)
    assert isinstance(output, tuple)
    assert output[1] is data
    assert wire(output).endswith(b"\r\n%x\r\n" % len(data) + data + b"\r\n")


@pytest.mark.parametrize(
    ("status", "fields"), [(204, set()), (304, {b"content-length: 3"}), (205, {b"content-length: 0"})]
)
def test_statuses_without_content(status: int, fields: set[bytes]) -> None:
    found = answered(Response(request()), b"ab", b"c", status=status, headers=[(b"content-length", b"3")])
    assert found[1:] == (fields, b"")


def test_head_requests_get_the_head_of_get() -> None:
    assert answered(Response(request("HEAD / HTTP/1.1")), b"abc")[1:] == ({b"content-length: 3"}, b"")
    assert answered(Response(request("HEAD / HTTP/1.1")), b"")[1:] == (set(), b"")
    assert answered(Response(request("HEAD / HTTP/1.1")), b"a", b"b")[1:] == (set(), b"")
    declared = answered(Response(request("HEAD / HTTP/1.1")), b"", headers=[(b"content-length", b"7")])
    assert declared[1:] == ({b"content-length: 7"}, b"")


def test_http_1_0_ends_with_the_connection_when_the_length_is_unknown() -> None:
    response = Response(request("GET / HTTP/1.0", "Connection: keep-alive"))
    assert answered(response, b"a", b"b")[1:] == ({b"connection: close"}, b"ab")
    assert response.close
    response = Response(request("GET / HTTP/1.0", "Connection: keep-alive"))
    assert answered(response, b"ab")[1:] == ({b"connection: keep-alive", b"content-length: 2"}, b"ab")
    assert not response.close


def test_the_connection_is_ours() -> None:
    headers = [(b"Connection", b"Close"), (b"Transfer-Encoding", b"gzip"), (b"Keep-Alive", b"timeout=5")]
    response = Response(request())
    assert answered(response, b"a", b"b", headers=headers)[1] == {b"transfer-encoding: chunked", b"connection: close"}
    assert response.close
    found = answered(Response(request()), b"", status=426, headers=[(b"upgrade", b"h2c")])
    assert found[1] == {b"upgrade: h2c", b"connection: upgrade", b"content-length: 0"}


def test_a_date_is_added_unless_given_and_a_server_is_not() -> None:
    response = Response(request())
    response.start(200, [])
    data = wire(response.send(b"", False))
    assert b"\r\ndate: " in data
    assert b"server" not in data
    response = Response(request())
    response.start(200, [(b"Server", b"mine"), (b"Date", b"never")])
    data = wire(response.send(b"", False))
    assert data.lower().count(b"server: ") == data.lower().count(b"date: ") == 1


@pytest.mark.parametrize(
    "headers",
    [
        [(b"x", b"a\r\nb: c")],
        [(b"x", b"a\nb")],
        [(b"x", b"a\rb")],
        [(b"x", b"a\0b")],
        [(b"x", b"a\x7fb")],
        [(b"x", b"\r\n"), (b"y", b"")],
        [(b"x\r\ny", b"z")],
        [(b"x y", b"z")],
        [(b"x:", b"z")],
        [(b"", b"z")],
        [("x", b"y")],
        [(b"x", "y")],
        [(b"x", 1)],
        [(b"content-length", b"-1")],
        [(b"content-length", b"1, 1")],
        [(b"content-length", b"1"), (b"content-length", b"2")],
        [(b"content-length", b"9" * 30)],
        None,
        5,
        [5],
        [(b"x",)],
        [(b"x", b"y", b"z")],
        [([], b"y")],
    ],
)
def test_no_header_can_say_anything_else(headers: Any) -> None:
    for _ in range(2):  # also when it comes again
        response = Response(request())
        with pytest.raises(ResponseError):
            response.start(200, headers)
        assert response.phase is ResponsePhase.WAITING


def test_headers_may_come_in_lists_and_only_once() -> None:
    assert answered(Response(request()), b"", headers=iter([[b"x", b"y"]]))[1] == {b"x: y", b"content-length: 0"}


@pytest.mark.parametrize("status", [0, 99, 100, 101, 199, 1000, "200", None, 200.0, [200]])
def test_a_status_is_a_number_from_200(status: Any) -> None:
    with pytest.raises(ResponseError):
        Response(request()).start(status, [])


def test_a_reason_cannot_say_anything_else_either() -> None:
    with pytest.raises(ResponseError):
        Response(request()).start(200, [], b"OK\r\nX: y")
    response = Response(request())
    response.start(299, [], b"Rather Odd")
    assert wire(response.send(b"", False)).startswith(b"HTTP/1.1 299 Rather Odd\r\n")


@pytest.mark.parametrize("pieces", [[b"abcd"], [b"ab"], [b"ab", b"cd"], [b"ab", b""], []])
def test_a_wrong_length_is_found_before_it_is_sent(pieces: list[bytes]) -> None:
    response = Response(request())
    with pytest.raises(ResponseError, match="Content-Length"):
        answered(response, *pieces, headers=[(b"content-length", b"3")])
    if len(pieces) > 1:
        assert response.phase is ResponsePhase.BROKEN
    else:
        assert not response.head_sent
        response.reset()
        assert answered(response, b"sorry", status=500)[2] == b"sorry"


def test_trailers_follow_a_chunked_content_and_nothing_else() -> None:
    response = Response(request("GET / HTTP/1.1", "TE: gzip, Trailers"))
    response.start(200, [], trailers=True)
    data = wire(response.send(b"a", False), response.send_trailers([(b"x", b"y")], True))
    assert not response.is_done
    data += response.send_trailers([], False)
    assert response.is_done
    assert parts(data)[2] == b"1\r\na\r\n0\r\nx: y\r\n\r\n"
    response = Response(request())
    response.start(200, [(b"content-length", b"1")], trailers=True)
    assert wire(response.send(b"a", False), response.send_trailers([(b"x", b"y")], False)).endswith(b"\r\n\r\na")


def test_trailers_are_for_clients_that_take_them() -> None:
    response = Response(request())
    response.start(200, [], trailers=True)
    data = wire(response.send(b"a", False), response.send_trailers([(b"x", b"y")], False))
    assert parts(data)[2] == b"1\r\na\r\n0\r\n\r\n"


@pytest.mark.parametrize("name", [b"content-length", b"Transfer-Encoding", b"host", b"trailer"])
def test_a_trailer_cannot_frame_or_route(name: bytes) -> None:
    response = Response(request())
    response.start(200, [], trailers=True)
    response.send(b"", False)
    with pytest.raises(ResponseError):
        response.send_trailers([(name, b"1")], False)


def test_a_file_is_counted() -> None:
    response = Response(request())
    response.start(200, [])
    assert parts(response.count_file(5))[1] == {b"content-length: 5"}
    assert response.is_done
    response = Response(request())
    response.start(200, [(b"content-length", b"4")])
    with pytest.raises(ResponseError):
        response.count_file(5)


def test_an_informational_response_stands_alone() -> None:
    data = informational(103, [(b"link", b"</a>"), (b"content-length", b"5")])
    assert data == b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"


def test_answers_of_our_own_carry_their_code() -> None:
    data = refusal(ProtocolError(400, "host", "no Host"), None)
    line, fields, content = parts(data)
    assert line == b"HTTP/1.1 400 Bad Request"
    assert b"caddysnake-code: host" in fields
    assert b"connection: close" in fields
    assert content == b"Bad Request: no Host\n"
    assert refusal(ProtocolError(400, "host", "x"), request("HEAD / HTTP/1.1")).endswith(b"\r\n\r\n")
    headers, page = traceback_page(500, "app-error", "<b>", "<script>\ud800")
    assert b"<script>" not in page
    assert b"<b>" not in page.replace(b"<body>", b"")
    assert dict(headers)[b"content-type"].startswith(b"text/html")
    assert dict(plain(503, "starting")[0])[b"caddysnake-code"] == b"starting"


def test_dates_are_those_of_the_rfc() -> None:
    assert http_date(784111777) == b"Sun, 06 Nov 1994 08:49:37 GMT"
    assert date_line() is date_line() or date_line() is date_line()


CALLS = st.sampled_from(["start", "data", "end", "flush", "trailers", "last_trailers", "file", "reset", "empty"])
LINES = st.sampled_from(["GET / HTTP/1.1", "HEAD / HTTP/1.1", "GET / HTTP/1.0"])
HEADERS = st.sampled_from([(), [(b"content-length", b"3")], [(b"content-length", b"6")], [(b"connection", b"close")]])


@settings(deadline=None, derandomize=True, max_examples=500)
@given(LINES, HEADERS, st.sampled_from([200, 204, 205, 304]), st.booleans(), st.lists(CALLS, max_size=10))
def test_no_order_of_calls_makes_a_response_that_lies(
    line: str, headers: Any, status: int, trailers: bool, calls: list[str]
) -> None:
    """Whatever an app does: what went out is a prefix of one legal response, and whole only when it says it is done."""
    head = request(line)
    response = Response(head)
    out = b""
    for call in calls:
        before = response.phase
        try:
            if call == "start":
                response.start(status, headers, trailers=trailers)
            elif call in ("data", "end"):
                out += wire(response.send(b"abc", call == "data"))
            elif call == "empty":
                out += wire(response.send(b"", True))
            elif call == "flush" and before is ResponsePhase.STARTED:
                out += response.flush_head()
            elif call in ("trailers", "last_trailers"):
                out += response.send_trailers([(b"x", b"y")], call == "trailers")
            elif call == "file":
                out += response.count_file(3) + (b"abc" if response.has_content else b"")
            elif call == "reset" and not response.head_sent:
                response.reset()
        except ResponseError:
            assert response.phase in (before, ResponsePhase.BROKEN)
    assert bool(out) is response.head_sent
    if out:
        check(out, head, response)


def check(out: bytes, head: RequestHead, response: Response) -> None:
    line, fields, content = parts(out)
    assert line.startswith(b"HTTP/1.1 ")
    lengths = [int(field.partition(b": ")[2]) for field in fields if field.startswith(b"content-length: ")]
    chunked = b"transfer-encoding: chunked" in fields
    assert len(lengths) + chunked <= 1
    assert not (chunked and head.version == "1.0")
    if head.method == "HEAD" or response.status in (204, 205, 304):
        assert content == b""
    elif lengths:
        assert len(content) <= lengths[0]
        if response.is_done:
            assert len(content) == lengths[0]
    elif chunked:
        ended = b"0\r\n" in content.replace(b"3\r\nabc\r\n", b"")
        assert ended is (response.phase in (ResponsePhase.DONE, ResponsePhase.TRAILERS))
        if response.is_done:
            assert content.endswith(b"\r\n\r\n")
    else:
        assert response.close
        assert b"connection: close" in fields
