"""Health checks that are answered in front of the app, which never sees them.

A check that is answered says that this worker takes requests and answers: it goes the way of every request. What the
app itself thinks of its health is a route of the app's own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_METHODS = ("GET", "HEAD")
_BODY = b"ok\n"
_FIELDS = (
    ("content-type", "text/plain; charset=utf-8"),
    ("content-length", str(len(_BODY))),
    ("cache-control", "no-store"),
)


def before_asgi(app: Any, path: str) -> Any:
    """``app``, an ASGI 3 app, behind an answer for GET and HEAD of ``path`` (decoded, as ``scope["path"]``)."""
    headers = [(name.encode(), value.encode()) for name, value in _FIELDS]

    def answering(scope: Scope, receive: Any, send: Send) -> Awaitable[None]:
        if scope["type"] == "http" and scope["path"] == path and scope["method"] in _METHODS:
            return answer(send)
        returned: Awaitable[None] = app(scope, receive, send)
        return returned

    async def answer(send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": _BODY})

    return answering


def before_wsgi(app: Any, path: str) -> Any:
    """``app``, a WSGI app, behind an answer for GET and HEAD of ``path`` (decoded)."""
    raw = path.encode().decode("latin-1")  # as PEP 3333 has it

    def answering(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] == raw and environ["REQUEST_METHOD"] in _METHODS:
            start_response("200 OK", list(_FIELDS))
            return [_BODY]
        returned: Iterable[bytes] = app(environ, start_response)
        return returned

    return answering
