"""Large and long things over ASGI: bodies, streams, a file, events, a WebSocket. By path."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

HELLO = b"Hello, World!"
CHUNK = bytes(64 * 1024)
MEBIBYTE = bytes(1 << 20)
GIBIBYTE_CHUNKS = (1 << 30) // len(CHUNK)
EVENT = b"data: " + b"x" * 64 + b"\n\n"
EVENT_S = 0.1
FILE = Path(os.environ["BENCHMARK_FILE"]) if "BENCHMARK_FILE" in os.environ else None


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    elif scope["type"] == "websocket":
        await echo(receive, send)
    else:
        await PATHS[scope["path"]](scope, receive, send)


async def echo(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        data = message.get("bytes")
        if data is not None:
            await send({"type": "websocket.send", "bytes": data})
        else:
            await send({"type": "websocket.send", "text": message["text"]})


async def start(send: Any, length: int | None, kind: bytes = b"application/octet-stream") -> None:
    headers = [(b"content-type", kind)]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await start(send, len(HELLO), b"text/plain")
    await send({"type": "http.response.body", "body": HELLO})


async def length(scope: Any, receive: Any, send: Any) -> None:
    total, more = 0, True
    while more:
        message = await receive()
        total += len(message.get("body", b""))
        more = message.get("more_body", False)
    body = str(total).encode()
    await start(send, len(body), b"text/plain")
    await send({"type": "http.response.body", "body": body})


async def mebibyte(scope: Any, receive: Any, send: Any) -> None:
    await start(send, len(MEBIBYTE))
    await send({"type": "http.response.body", "body": MEBIBYTE})


async def gibibyte(scope: Any, receive: Any, send: Any) -> None:
    await start(send, GIBIBYTE_CHUNKS * len(CHUNK))
    for _ in range(GIBIBYTE_CHUNKS):
        await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def stream(scope: Any, receive: Any, send: Any) -> None:
    """A thousand small pieces of unknown total."""
    await start(send, None)
    for _ in range(1000):
        await send({"type": "http.response.body", "body": EVENT, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def file(scope: Any, receive: Any, send: Any) -> None:
    assert FILE is not None
    await start(send, FILE.stat().st_size)
    if "http.response.pathsend" in scope.get("extensions", {}):
        await send({"type": "http.response.pathsend", "path": str(FILE)})
        return
    # As Starlette's FileResponse does it: pieces, read in a thread.
    with FILE.open("rb") as opened:
        while chunk := await asyncio.to_thread(opened.read, len(CHUNK)):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def events(scope: Any, receive: Any, send: Any) -> None:
    """Ten events a second, until the client has gone."""
    await start(send, None, b"text/event-stream")
    gone = asyncio.ensure_future(disconnected(receive))
    while not gone.done():
        await send({"type": "http.response.body", "body": EVENT, "more_body": True})
        await asyncio.sleep(EVENT_S)


async def disconnected(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


PATHS = {
    "/": hello,
    "/length": length,
    "/mebibyte": mebibyte,
    "/gibibyte": gibibyte,
    "/stream": stream,
    "/file": file,
    "/events": events,
}
