"""The least a WSGI app can do: what is measured is the server."""

from __future__ import annotations

from typing import Any

BODY = b"Hello, World!"
HEADERS = [("Content-Type", "text/plain"), ("Content-Length", "13")]


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", list(HEADERS))
    return [BODY]
