"""What a server remembers of heads: used while they come again, and let be while they do not."""

from __future__ import annotations

from caddysnake.http1.heads import REMEMBERED_MAX
from caddysnake.http1.limits import Limits
from caddysnake.http1.request import Heads, RequestHead, RequestParser, Sections

SAME = b"GET / HTTP/1.1\r\nHost: a.example\r\nAccept: */*\r\n\r\n"


def request(number: int) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: a.example\r\nAccept: */*\r\nX-Request-Id: %d\r\n\r\n" % number


def parsed(raw: bytes, sections: Sections, heads: Heads) -> RequestHead:
    parser = RequestParser(Limits(), sections, heads)
    parser.feed(raw)
    assert parser.head is not None
    assert parser.complete
    return parser.head


def test_heads_that_come_again_are_one_head() -> None:
    sections, heads = Sections(), Heads()
    found = [parsed(SAME, sections, heads) for _ in range(4)]
    assert found[2] is found[3]
    assert found[0].headers == found[3].headers == [(b"host", b"a.example"), (b"accept", b"*/*")]


def test_nothing_is_kept_for_a_while_of_heads_that_never_come_again() -> None:
    sections, heads = Sections(), Heads()
    for number in range(2 * REMEMBERED_MAX):
        head = parsed(request(number), sections, heads)
        assert head.headers[-1] == (b"x-request-id", b"%d" % number)
        assert head.host == b"a.example"
    assert sections.rest
    assert len(sections) <= 1
    for _ in range(20 * REMEMBERED_MAX):
        parsed(SAME, sections, heads)
    assert parsed(SAME, sections, heads) is parsed(SAME, sections, heads)
