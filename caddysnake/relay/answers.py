"""Answers of the relay's own: a short stable code in a header, Retry-After where waiting helps, a page in development.

=============  ======  ==================================================================
code           status  meaning
=============  ======  ==================================================================
healthy        200     a health check of apps that are started when they are asked for
no-route       404     no app is for this request
key-too-long   404     what names the app is longer than any name can be
routing-limit  431     looking for the app would take more work than a request may cause
routing        500     looking for the app failed
worker-gone    502     the worker ended before it answered
bad-response   502     what the worker sent is no response
no-link        503     the connection to the worker could not be taken: no descriptors
queue-full     503     too many requests wait for apps
stopping       503     the daemon is gone, and this request had no worker yet
=============  ======  ==================================================================

Codes of requests that break a rule are those of ``http1``; codes of apps that do not start are the daemon's.
"""

from __future__ import annotations

from ..http1.answers import plain, traceback_page
from ..http1.request import RequestHead
from ..http1.response import Response
from .exchange import Answer

HEALTHY = Answer(200, "healthy")
NO_ROUTE = Answer(404, "no-route")
KEY_TOO_LONG = Answer(404, "key-too-long")
NO_LINK = Answer(503, "no-link", "the connection to the app could not be taken", 1)
QUEUE_FULL = Answer(503, "queue-full", "too many requests wait for apps", 1)
ROUTING_LIMIT = Answer(431, "routing-limit", "the request is too long for what looks at it to find its app")
ROUTING_FAILED = Answer(500, "routing", "looking for the app failed")
STOPPING = Answer(503, "stopping", "the daemon is gone", 1)


def encoded(answer: Answer, head: RequestHead, closes: bool, server: bytes, development: bool) -> bytes:
    """The whole response. ``closes``: the connection ends after it. Without ``development``, seldom why."""
    detail = answer.detail if development or answer.is_told else ""
    if "\n" in detail.strip():
        headers, body = traceback_page(answer.status, answer.code, _last_line(detail), detail)
    else:
        headers, body = plain(answer.status, answer.code, detail.strip())
    if answer.retry_after_s:
        headers.append((b"retry-after", b"%d" % answer.retry_after_s))
    response = Response(head, close=closes, server=server)
    response.start(answer.status, headers)
    output = response.send(body, more=False)
    return output if isinstance(output, bytes) else b"".join(output)


def _last_line(text: str) -> str:
    """What a traceback says in the end."""
    return text.strip().rpartition("\n")[2].strip()
