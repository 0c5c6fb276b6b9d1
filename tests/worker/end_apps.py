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
    if scope["path"] == "/inner":
        # As frameworks do it that listen meanwhile.
        tasks = [asyncio.create_task(stream(send, 60)), asyncio.create_task(until_left(receive))]
        _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
    else:
        await stream(send)


async def until_left(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def stream(send: Any, pause_s: float = 0.05) -> None:
    try:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"piece", "more_body": True})
            await asyncio.sleep(pause_s)
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
