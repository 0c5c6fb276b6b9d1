"""Which build of the code answers, told in front of the app to the page that shows a traceback, which so knows when to
load itself again. In development only.
"""

from __future__ import annotations

from typing import Any

from ...http1.traceback_page import BUILD_TYPE

_TYPE = BUILD_TYPE.encode()


def before_asgi(app: Any, build: str) -> Any:
    """``app``, an ASGI 3 app, behind an answer to whoever accepts ``BUILD_TYPE`` alone."""

    async def answering(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and (b"accept", _TYPE) in scope["headers"]:
            headers = [(b"content-type", _TYPE), (b"cache-control", b"no-store")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": build.encode()})
            return
        await app(scope, receive, send)

    return answering


def before_wsgi(app: Any, build: str) -> Any:
    """``app``, a WSGI app, behind the same."""

    def answering(environ: Any, start_response: Any) -> Any:
        if environ.get("HTTP_ACCEPT") == BUILD_TYPE:
            start_response("200 OK", [("Content-Type", BUILD_TYPE), ("Cache-Control", "no-store")])
            return [build.encode()]
        return app(environ, start_response)

    return answering
