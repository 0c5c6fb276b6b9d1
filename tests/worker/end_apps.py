"""Apps whose end can be seen: each step of it is a line in the file that ``NOTES`` names."""

from __future__ import annotations

import asyncio
import atexit
import os
import time
from collections.abc import Iterator
from typing import Any


def note(step: str) -> None:
    with open(os.environ["NOTES"], "a") as file:
        file.write(step + "\n")


atexit.register(note, "atexit")


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await asyncio.sleep(0.1)
        note("shutdown")
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] == "/short":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
        return
    try:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"piece", "more_body": True})
            await asyncio.sleep(0.05)
    except asyncio.CancelledError:
        note("cancelled")
        raise
    finally:
        await asyncio.sleep(0.1)
        note("cleaned up")


def wsgi(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    if environ["PATH_INFO"] == "/short":
        start_response("200 OK", [("Content-Length", "2")])
        yield b"ok"
        return
    start_response("200 OK", [])
    try:
        while True:
            yield b"piece" if environ["PATH_INFO"] == "/loud" else b""
            time.sleep(0.05)
    finally:
        note("closed")
