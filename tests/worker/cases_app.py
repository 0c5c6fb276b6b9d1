"""The app behind ``cases_http``, for both interfaces: each request is answered with what it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any


def describe(method: str, path: bytes, query: bytes, content: bytes) -> bytes:
    return b"%s %s %s %s" % (method.encode(), path, query or b"-", content)


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    content = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        content += message["body"]
        if not message["more_body"]:
            break
    body = describe(scope["method"], scope["path"].encode(), scope["query_string"], content)
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    content = environ["wsgi.input"].read()
    path = environ["PATH_INFO"].encode("latin-1") or b"*"
    body = describe(environ["REQUEST_METHOD"], path, environ["QUERY_STRING"].encode("latin-1"), content)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
