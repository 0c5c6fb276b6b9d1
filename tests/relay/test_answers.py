from __future__ import annotations

from caddysnake.http1.limits import Limits
from caddysnake.http1.request import RequestParser
from caddysnake.relay.answers import NO_ROUTE, encoded
from caddysnake.relay.exchange import Answer

TRACE = "Traceback (most recent call last):\n  File \"app.py\", line 1\nImportError: <no module>"


def answered(answer: Answer, method: bytes = b"GET", closes: bool = False, development: bool = False) -> bytes:
    parser = RequestParser(Limits())
    parser.feed(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert parser.head is not None
    return encoded(answer, parser.head, closes, development)


def test_an_answer_of_ours_carries_its_code() -> None:
    raw = answered(NO_ROUTE)
    assert raw.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert b"\r\ncaddysnake-code: no-route\r\n" in raw
    assert raw.endswith(b"\r\n\r\nNot Found\n")
    assert b"retry-after" not in raw
    assert b"connection: close" not in raw


def test_an_answer_says_when_to_come_back_and_that_the_connection_ends() -> None:
    raw = answered(Answer(503, "starting", "", 7), closes=True)
    assert b"\r\nretry-after: 7\r\n" in raw
    assert b"\r\nconnection: close\r\n" in raw


def test_why_an_app_does_not_start_is_for_developers_only() -> None:
    no = Answer(500, "import-failed", TRACE)
    assert b"ImportError" not in answered(no)
    page = answered(no, development=True)
    assert b"text/html" in page
    assert b"ImportError: &lt;no module&gt;" in page
    assert b"caddysnake-code: import-failed\r\n" in page
    assert b"one line" in answered(Answer(502, "x", "one line"), development=True)
    assert b"one line" not in answered(Answer(502, "x", "one line"))
    assert b"one line" in answered(Answer(502, "x", "one line", is_told=True))


def test_head_gets_no_content() -> None:
    assert answered(NO_ROUTE, method=b"HEAD").endswith(b"\r\n\r\n")
