"""What a server remembers of heads: used while they come again, and let be while they do not."""

from __future__ import annotations

from caddysnake.http1.limits import Limits
from caddysnake.http1.request import HEADS_MAX, Heads, RequestHead, RequestParser

SAME = b"GET / HTTP/1.1\r\nHost: a.example\r\nAccept: */*\r\n\r\n"


def request(number: int) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: a.example\r\nAccept: */*\r\nX-Request-Id: %d\r\n\r\n" % number


def parsed(raw: bytes, heads: Heads) -> RequestHead:
    parser = RequestParser(Limits(), heads)
    parser.feed(raw)
    assert parser.head is not None
    assert parser.complete
    return parser.head


def test_heads_that_come_again_are_one_head() -> None:
    heads = Heads(HEADS_MAX, rests=True)
    found = [parsed(SAME, heads) for _ in range(4)]
    assert found[2] is found[3]
    assert found[0].headers == found[3].headers == [(b"host", b"a.example"), (b"accept", b"*/*")]


def test_nothing_is_kept_for_a_while_of_heads_that_never_come_again() -> None:
    heads = Heads(HEADS_MAX, rests=True)
    for number in range(1200):
        head = parsed(request(number), heads)
        assert head.headers[-1] == (b"x-request-id", b"%d" % number)
        assert head.host == b"a.example"
    assert heads.rest
    assert not heads
    for _ in range(heads.rest + 1):
        parsed(SAME, heads)
    assert parsed(SAME, heads) is parsed(SAME, heads)


def test_what_is_kept_has_a_bound() -> None:
    heads = Heads(HEADS_MAX, rests=True)
    for number in range(2 * HEADS_MAX + 3):
        for _ in range(3):
            parsed(request(number), heads)
    assert 0 < len(heads) <= HEADS_MAX
