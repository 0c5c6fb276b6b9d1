"""Apps that answer without reading: ``?size=…&how=`` whole, pieces (streamed) or file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

PIECE = 65536
FILE = tempfile.NamedTemporaryFile()  # noqa: SIM115  it is there as long as the app


def wanted(query: str) -> tuple[int, str]:
    words = dict(word.split("=") for word in query.split("&"))
    return int(words["size"]), words["how"]


def file_of(size: int) -> str:
    FILE.truncate(size)
    return FILE.name


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise RuntimeError("no lifespan")
    size, how = wanted(scope["query_string"].decode())
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
    if how == "file" and "http.response.pathsend" in scope["extensions"]:
        await send({"type": "http.response.pathsend", "path": file_of(size)})
    elif how == "pieces":
        for start in range(0, size, PIECE):
            piece = bytes(min(PIECE, size - start))
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})
    else:
        await send({"type": "http.response.body", "body": bytes(size)})


def wsgi(environ: dict[str, Any], start_response: Any) -> Any:
    size, how = wanted(environ["QUERY_STRING"])
    start_response("200 OK", [("Content-Length", str(size))])
    if how == "file":
        return environ["wsgi.file_wrapper"](open(file_of(size), "rb"), PIECE)
    return pieces(size) if how == "pieces" else [bytes(size)]


def pieces(size: int) -> Iterator[bytes]:
    for start in range(0, size, PIECE):
        yield bytes(min(PIECE, size - start))
