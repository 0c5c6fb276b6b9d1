"""ASGI apps that speak WebSocket, one behaviour a path. Notes and gates are shared by all of them."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from pathlib import Path
from typing import Any

NOTES: list[Any] = []
GATES: dict[str, asyncio.Event] = {}


def gate(name: str) -> asyncio.Event:
    return GATES.setdefault(name, asyncio.Event())


async def app(scope: Any, receive: Any, send: Any) -> None:
    name = scope["path"].strip("/")
    if scope["type"] == "http":
        await globals()["http_" + name](scope, receive, send)
    elif scope["type"] == "websocket":
        await globals()["ws_" + name](scope, receive, send)
    else:
        raise AssertionError(scope["type"])


async def answer(send: Any, data: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": data})


async def http_notes(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, json.dumps(NOTES).encode())


async def http_forget(scope: Any, receive: Any, send: Any) -> None:
    NOTES.clear()
    GATES.clear()
    await answer(send, b"")


async def http_open(scope: Any, receive: Any, send: Any) -> None:
    gate(scope["query_string"].decode()).set()
    await answer(send, b"")


async def http_upgrade(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, b"plain")


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def http_memory(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, str(resident_bytes()).encode())


async def accept(receive: Any, send: Any, **more: Any) -> None:
    assert (await receive()) == {"type": "websocket.connect"}
    await send({"type": "websocket.accept", **more})


async def ws_echo(scope: Any, receive: Any, send: Any) -> None:
    await accept(receive, send)
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            NOTES.append(message)
            return
        await send({**message, "type": "websocket.send"})


async def ws_scope(scope: Any, receive: Any, send: Any) -> None:
    await accept(receive, send, subprotocol=next(iter(scope["subprotocols"]), None))
    scope = {key: value for key, value in scope.items() if key != "headers"}
    await send({"type": "websocket.send", "text": json.dumps(scope, default=lambda raw: raw.decode())})
    await receive()


async def ws_headers(scope: Any, receive: Any, send: Any) -> None:
    await accept(receive, send, headers=[(b"x-one", b"1"), (b"connection", b"close"), (b"set-cookie", b"a=b")])
    await receive()


async def ws_bad_header(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    try:
        await send({"type": "websocket.accept", "headers": [(b"x", b"y\r\nz: 1")]})
    except RuntimeError:
        NOTES.append("told")
        raise


async def ws_bad_subprotocol(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept", "subprotocol": "not offered"})


async def ws_reject(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.close"})
    NOTES.append(await receive())


async def ws_deny(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.http.response.start", "status": 401, "headers": [(b"www-authenticate", b"Basic")]})
    await send({"type": "websocket.http.response.body", "body": b"who ", "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b"are you?"})
    NOTES.append(await receive())


async def ws_raise_first(scope: Any, receive: Any, send: Any) -> None:
    raise ValueError("before the handshake")


async def ws_return_first(scope: Any, receive: Any, send: Any) -> None:
    await receive()


async def ws_raise(scope: Any, receive: Any, send: Any) -> None:
    await accept(receive, send)
    raise ValueError("after the handshake")


async def ws_return(scope: Any, receive: Any, send: Any) -> None:
    await accept(receive, send)


async def ws_close(scope: Any, receive: Any, send: Any) -> None:
    await accept(receive, send)
    await send({"type": "websocket.close", "code": 4002, "reason": "bye"})
    NOTES.append(await receive())
    try:
        await send({"type": "websocket.send", "text": "late"})
    except RuntimeError as exc:
        NOTES.append(str(exc))


async def ws_send_when_gone(scope: Any, receive: Any, send: Any) -> None:
    await accept(receive, send)
    NOTES.append((await receive())["type"])
    await send({"type": "websocket.close"})
    try:
        await send({"type": "websocket.send", "text": "late"})
    except OSError as exc:
        NOTES.append(type(exc).__name__)


MISTAKES: dict[str, Any] = {
    "both": {"type": "websocket.send", "text": "a", "bytes": b"b"},
    "neither": {"type": "websocket.send"},
    "nothing": {"type": "websocket.send", "text": None, "bytes": None},
    "wrong": {"type": "websocket.send", "bytes": "text"},
    "text_bytes": {"type": "websocket.send", "text": b"bytes"},
    "unknown": {"type": "websocket.unknown"},
    "accept": {"type": "websocket.accept"},
    "http": {"type": "http.response.start", "status": 200},
    "code_1006": {"type": "websocket.close", "code": 1006},
    "code_text": {"type": "websocket.close", "code": "1000"},
}


async def ws_mistake(scope: Any, receive: Any, send: Any) -> None:
    await accept(receive, send)
    try:
        await send(MISTAKES[scope["query_string"].decode()])
    except (RuntimeError, TypeError, AttributeError) as exc:
        NOTES.append(type(exc).__name__)
        raise


async def ws_none_keys(scope: Any, receive: Any, send: Any) -> None:
    await accept(receive, send)
    await send({"type": "websocket.send", "text": None, "bytes": b"b"})
    await send({"type": "websocket.send", "text": "t", "bytes": None})
    await receive()


async def ws_leaving(scope: Any, receive: Any, send: Any) -> None:
    """Says what happened to it through the file that the query names."""
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": "open"})
    said = []
    try:
        while True:
            await send({"type": "websocket.send", "text": "tick"})
            await asyncio.sleep(0.02)
    except Exception as exc:
        said.append("OSError" if isinstance(exc, OSError) else repr(exc))
    await send({"type": "websocket.close"})
    said += [message.get("text", message["type"]) for message in (await receive(), await receive())]
    Path(scope["query_string"].decode()).write_text(json.dumps(said))  # noqa: ASYNC240
    raise OSError("as an app does that lets it pass") from None


async def ws_slow(scope: Any, receive: Any, send: Any) -> None:
    """Accepts, and reads nothing until told to."""
    await accept(receive, send)
    await gate("slow").wait()
    total = 0
    while (message := await receive())["type"] == "websocket.receive":
        total += len(message["bytes"])
        if total == 50 << 20:
            await send({"type": "websocket.send", "text": str(total)})


async def ws_flood(scope: Any, receive: Any, send: Any) -> None:
    await accept(receive, send)
    for _ in range(50):
        NOTES.append("sending")
        await send({"type": "websocket.send", "bytes": bytes(1 << 20)})


async def ws_burst(scope: Any, receive: Any, send: Any) -> None:
    await accept(receive, send)
    for number in range(500):
        await send({"type": "websocket.send", "text": f"{number}" + "." * (5000 if number % 100 == 99 else 0)})
    await send({"type": "websocket.close", "code": 4001})


async def ws_large_at_once(scope: Any, receive: Any, send: Any) -> None:
    """One large message is given up, then several are sent at once. Notes how long the loop stood still."""
    await accept(receive, send)
    large = [random.Random(number).randbytes(3_000_000 + number) for number in range(3)]
    given_up = asyncio.create_task(send({"type": "websocket.send", "bytes": large[0]}))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    messages = ({"type": "websocket.send", "bytes": each} for each in (*large, b"small"))
    sending = asyncio.gather(*(send(each) for each in messages))
    longest_s = 0.0
    while not sending.done():
        since = time.thread_time()
        await asyncio.sleep(0)
        longest_s = max(longest_s, time.thread_time() - since)
    NOTES.extend([given_up.cancelled(), longest_s])
    await receive()


async def ws_burst_and_silence(scope: Any, receive: Any, send: Any) -> None:
    await accept(receive, send)
    for number in range(10):
        await send({"type": "websocket.send", "text": f"{number}"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def ws_late_accept(scope: Any, receive: Any, send: Any) -> None:
    assert (await receive()) == {"type": "websocket.connect"}
    NOTES.append("connecting")
    NOTES.append(await receive())
