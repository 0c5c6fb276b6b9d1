"""ASGI apps that never wait for anything but ``send`` or ``receive``, one kind a path."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

NOTES: list[str] = []
HEADERS = [(b"content-type", b"application/octet-stream")]


async def start(send: Any, status: int = 200, **more: Any) -> None:
    await send({"type": "http.response.start", "status": status, "headers": HEADERS, **more})


async def piece(send: Any, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})


async def large(scope: Any, receive: Any, send: Any) -> None:
    await start(send)
    while True:
        await piece(send, b"x" * 65536)


async def small(scope: Any, receive: Any, send: Any) -> None:
    await start(send)
    while True:
        await piece(send, b"x" * 40)


async def slow(scope: Any, receive: Any, send: Any) -> None:
    """As an app that renders each of its pieces."""
    await start(send)
    while True:
        spent = time.thread_time() + 0.01
        while time.thread_time() < spent:
            pass
        await piece(send, b"x" * 2000)


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """A response that has no content, whatever is sent."""
    await start(send, 204)
    while True:
        await piece(send, b"x" * 2000)


async def hints(scope: Any, receive: Any, send: Any) -> None:
    while True:
        await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]})


async def trailers(scope: Any, receive: Any, send: Any) -> None:
    await start(send, trailers=True)
    await send({"type": "http.response.body", "body": b"content"})
    while True:
        await send({"type": "http.response.trailers", "headers": [(b"a", b"b" * 100)], "more_trailers": True})


async def websocket(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        await send({"type": "websocket.send", "bytes": b"x" * 100})


async def denial(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.http.response.start", "status": 403, "headers": HEADERS})
    while True:
        await send({"type": "websocket.http.response.body", "body": b"x" * 100, "more_body": True})


async def taking(scope: Any, receive: Any, send: Any) -> None:
    """Takes a WebSocket's messages as they come."""
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] == "websocket.receive":
        spent = time.thread_time() + 0.0005
        while time.thread_time() < spent:
            pass


async def not_taking(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    await asyncio.sleep(60)


async def upload(scope: Any, receive: Any, send: Any) -> None:
    while (message := await receive())["type"] == "http.request" and message["more_body"]:
        pass
    await answer(send, b"")


async def file(scope: Any, receive: Any, send: Any) -> None:
    """A file by its path."""
    with tempfile.NamedTemporaryFile() as found:
        found.truncate(64 << 30)
        await start(send)
        await send({"type": "http.response.pathsend", "path": found.name})


async def deaf(scope: Any, receive: Any, send: Any) -> None:
    """Goes on although it is told that its client is gone."""
    await start(send)
    while True:
        with contextlib.suppress(OSError):
            await piece(send, b"x" * 40)


async def deaf_to_errors(scope: Any, receive: Any, send: Any) -> None:
    while True:
        with contextlib.suppress(Exception):
            await piece(send, b"never started")


async def asking(scope: Any, receive: Any, send: Any) -> None:
    """Asks again and again although there is nothing to come."""
    await answer(send, b"done")
    while True:
        await receive()


async def told(scope: Any, receive: Any, send: Any) -> None:
    await start(send)
    await note_the_end("told", lambda content: piece(send, content))


async def told_at_the_end(scope: Any, receive: Any, send: Any) -> None:
    def body(content: bytes) -> Awaitable[None]:
        return send({"type": "http.response.body", "body": content, "more_body": content == b"first"})

    await start(send)
    await note_the_end("told_at_the_end", body)


async def told_websocket(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    await note_the_end("told_websocket", lambda content: send({"type": "websocket.send", "bytes": content}))


async def told_websocket_that_heard(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    message = partial(send, {"type": "websocket.send", "bytes": b"first"})
    await note_the_end("told_websocket_that_heard", lambda _: message(), receive)


async def note_the_end(
    name: str, send: Callable[[bytes], Awaitable[None]], receive: Callable[[], Awaitable[Any]] | None = None
) -> None:
    """Note whether the loop turns between the end of the client and the exception."""
    await send(b"first")
    await (receive() if receive is not None else asyncio.sleep(0.01))
    turned: list[bool] = []
    asyncio.get_running_loop().call_soon(turned.append, True)
    time.sleep(0.5)  # its client leaves  # noqa: ASYNC251
    try:
        await send(b"second")
    except OSError as exc:
        NOTES.append(f"{name}: {type(exc).__name__}, turned: {bool(turned)}")
        raise
    NOTES.append("sent")


async def answer(send: Any, data: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(data))]})
    await send({"type": "http.response.body", "body": data})


async def notes(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, json.dumps(NOTES).encode())


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await globals()[scope["path"].strip("/") or "notes"](scope, receive, send)
