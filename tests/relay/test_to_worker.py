from __future__ import annotations

import pytest

from caddysnake.http1.limits import Limits
from caddysnake.http1.request import HEADS_MAX, Heads, RequestHead, RequestParser
from caddysnake.matchers.target import Target
from caddysnake.relay.to_worker import framed, head_for

PLAIN = Target(0)


def head_of(raw: bytes) -> RequestHead:
    parser = RequestParser(Limits())
    parser.feed(raw)
    assert parser.head is not None
    return parser.head


def sent(raw: bytes, target: Target = PLAIN, peer: str = "", is_trusted: bool = True) -> bytes:
    return head_for(head_of(raw), target, peer, is_trusted)


def fields(head: bytes) -> dict[bytes, bytes]:
    return dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:-2])


def test_what_caddy_says_is_passed_on() -> None:
    raw = (
        b"POST /a%2Fb?c=%20 HTTP/1.1\r\nHost: ex.com:80\r\nContent-Length: 3\r\nCookie: a=1\r\nCookie: b=\xe9\r\n"
        b"TE: trailers\r\nTrailer: X\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\n\r\n"
    )
    assert sent(raw) == (
        b"POST /a%2Fb?c=%20 HTTP/1.1\r\nhost: ex.com:80\r\ncontent-length: 3\r\ncookie: a=1\r\ncookie: b=\xe9\r\n"
        b"te: trailers\r\ntrailer: X\r\nx-forwarded-for: 1.2.3.4\r\nx-forwarded-proto: https\r\n\r\n"
    )


def test_fields_of_the_connection_stay_here() -> None:
    raw = (
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close, x-secret\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\n"
        b"X-Secret: kept\r\nX-Other: 1\r\n\r\n"
    )
    assert sent(raw) == b"GET / HTTP/1.1\r\nhost: a\r\nx-other: 1\r\n\r\n"


def test_a_client_cannot_take_host_or_what_is_said_of_it_away() -> None:
    raw = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\nConnection: host, x-forwarded-for\r\n\r\n"
    assert sent(raw) == b"GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 1.2.3.4\r\n\r\n"


def test_trailers_are_asked_for_again() -> None:
    raw = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: TE\r\nTE: gzip, trailers\r\n\r\n"
    assert sent(raw) == b"GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\n\r\n"


def test_an_upgrade_is_asked_for_again() -> None:
    raw = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\r\n"
    assert sent(raw) == b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    alone = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket\r\n\r\n"
    assert sent(alone) == b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


def test_chunked_content_stays_chunked() -> None:
    raw = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n"
    assert sent(raw) == b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"


def test_a_request_of_1_0_becomes_one_of_1_1() -> None:
    assert sent(b"GET / HTTP/1.0\r\n\r\n") == b"GET / HTTP/1.1\r\nhost: \r\n\r\n"
    assert sent(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n") == b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


def test_other_forms_of_a_target_stay_what_they_are() -> None:
    assert sent(b"GET http://b/x?y HTTP/1.1\r\nHost: a\r\n\r\n") == b"GET http://b/x?y HTTP/1.1\r\nhost: b\r\n\r\n"
    assert sent(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n") == b"OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n"


def test_what_a_route_takes_off_the_path_is_told_in_a_field() -> None:
    target = Target(0, "", b"/app%20one", b"/x")
    raw = b"GET /app%20one/x?q=1?2 HTTP/1.1\r\nHost: a\r\n\r\n"
    assert sent(raw, target) == b"GET /x?q=1?2 HTTP/1.1\r\nhost: a\r\ncaddysnake-prefix: /app%20one\r\n\r\n"
    assert sent(raw.replace(b"?q=1?2", b""), target).startswith(b"GET /x HTTP/1.1\r\n")


@pytest.mark.parametrize("prefix", [b"", b"/real"])
def test_nobody_else_may_say_what_was_taken_off(prefix: bytes) -> None:
    forged = b"CaddySnake-Prefix: /forged\r\ncaddysnake_prefix: /too\r\ncaddysnake-x: 1\r\n"
    raw = b"GET /x HTTP/1.1\r\nHost: a\r\n" + forged + b"\r\n"
    out = sent(raw, Target(0, "", prefix, b"/x"))
    assert b"forged" not in out
    assert b"too" not in out
    assert out.count(b"caddysnake-") == bool(prefix)


def test_a_stranger_cannot_say_who_it_is() -> None:
    raw = (
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\nx-forwarded-proto: https\r\nX-Request-Start: t=1\r\n"
        b"X-FORWARDED-HOST: bank\r\nX-Forwarded-For: 7.7.7.7\r\n\r\n"
    )
    known = fields(sent(raw, peer="10.0.0.9", is_trusted=False))
    assert known == {
        b"host": b"a",
        b"x-forwarded-for": b"10.0.0.9",
        b"x-forwarded-host": b"a",
        b"x-forwarded-proto": b"http",
    }
    assert b"x-forwarded-for" not in fields(sent(raw, is_trusted=False))


def test_what_was_made_of_a_remembered_head_is_not_given_to_strangers() -> None:
    parser = RequestParser(Limits(), Heads(HEADS_MAX))
    outs = []
    for is_trusted, prefix in ((True, b""), (True, b""), (True, b""), (False, b""), (True, b"/p"), (True, b"")):
        parser.feed(b"GET /p/x HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n")
        assert parser.head is not None
        outs.append(head_for(parser.head, Target(0, "", prefix, b"/x"), "2.2.2.2", is_trusted))
        parser.next_message()
    del outs[:2]
    assert outs[0] == outs[3] == b"GET /p/x HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 1.1.1.1\r\n\r\n"
    assert fields(outs[1])[b"x-forwarded-for"] == b"2.2.2.2"
    assert fields(outs[2])[b"caddysnake-prefix"] == b"/p"


def test_what_leaves_is_read_as_it_was_meant() -> None:
    raw = b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n"
    parser = RequestParser(Limits())
    parser.feed(sent(raw, Target(0, "", b"/p", b"/a")) + framed(b"abc", False) + framed(b"", False) + framed(b"", True))
    assert parser.complete
    assert parser.take_body() == b"abc"
    assert not parser.pending


@pytest.mark.parametrize("again", [False, True])
def test_a_head_of_caddys_goes_on_as_it_came(again: bool) -> None:
    head = b"POST /a?b=c HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nX-Request-Id: 7 \r\nCookie: b=\xe9\r\n\r\n"
    parser = RequestParser(Limits(), Heads(HEADS_MAX))
    for _ in range(3 if again else 1):
        parser.feed(head)
        assert parser.head is not None
        assert head_for(parser.head, PLAIN, "", True, head + b"abc") == head
        parser.feed(b"abc")
        parser.next_message()


@pytest.mark.parametrize(
    "line",
    [
        b"Connection: close",
        b"Keep-Alive: 5",
        b"Proxy-Connection: x",
        b"Upgrade: websocket",
        b"Caddysnake-Prefix: /x",
        b"X_Forwarded_For: 1.2.3.4",
        b"Transfer-Encoding: chunked",
    ],
)
def test_a_head_is_written_anew_when_a_line_is_not_for_the_worker(line: bytes) -> None:
    raw = b"POST / HTTP/1.1\r\nHost: a\r\n" + line + b"\r\nX-Last: 1\r\n\r\n"
    for came in (raw, raw + b"0\r\n\r\n"):
        out = head_for(head_of(raw), PLAIN, "", True, came)
        assert out == sent(raw)
        assert b"host: a\r\nx-last: 1\r\n" in out


def test_a_head_of_another_version_or_form_is_written_anew() -> None:
    for line in (b"GET / HTTP/1.0", b"GET http://a/ HTTP/1.1", b"OPTIONS * HTTP/1.1", b"\r\nGET / HTTP/1.1"):
        raw = line + b"\r\nHost: a\r\nAccept: x\r\n\r\n"
        assert head_for(head_of(raw), PLAIN, "", True, raw) == sent(raw) != raw


def test_what_a_client_without_caddy_says_is_always_written_anew() -> None:
    raw = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"
    assert b"6.6.6.6" not in head_for(head_of(raw), PLAIN, "1.1.1.1", False, raw)
