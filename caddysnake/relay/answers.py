"""Answers of the relay's own: a short stable code in a header, Retry-After where waiting helps, a page in development.

Codes are in ``channel.codes``; those of requests that break a rule in ``http1``.
"""

from __future__ import annotations

from ..channel.codes import STATUS
from ..http1.answers import plain
from ..http1.request import RequestHead
from ..http1.response import Response
from .exchange import Answer


def _answer(code: str, detail: str = "", retry_after_s: int = 0) -> Answer:
    return Answer(STATUS[code], code, detail, retry_after_s)


HEALTHY = _answer("healthy")
NO_ROUTE = _answer("no-route")
KEY_TOO_LONG = _answer("key-too-long")
NO_LINK = _answer("no-link", "the connection to the app could not be taken", 1)
QUEUE_FULL = _answer("queue-full", "too many requests wait for apps", 1)
ROUTING_LIMIT = _answer("routing-limit", "the request is too long for what looks at it to find its app")
ROUTING_FAILED = _answer("routing", "looking for the app failed")
STOPPING = _answer("stopping", "the daemon is gone", 1)


def encoded(answer: Answer, head: RequestHead, closes: bool, development: bool) -> bytes:
    """The whole response. ``closes``: the connection ends after it. Without ``development``, seldom why."""
    detail = answer.detail if development or answer.is_told else ""
    if "\n" in detail.strip():
        from ..http1.traceback_page import accepted, traceback_page

        how = head.method, accepted(head.headers)
        headers, body = traceback_page(answer.status, answer.code, _last_line(detail), detail, *how)
    else:
        headers, body = plain(answer.status, answer.code, detail.strip())
    if answer.retry_after_s:
        headers.append((b"retry-after", b"%d" % answer.retry_after_s))
    response = Response(head, close=closes)
    response.start(answer.status, headers)
    output = response.send(body, more=False)
    return output if isinstance(output, bytes) else b"".join(output)


def _last_line(text: str) -> str:
    """What a traceback says in the end."""
    return text.strip().rpartition("\n")[2].strip()
