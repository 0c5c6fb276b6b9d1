"""ASGI apps for the tests, one behaviour a path. Notes and gates are shared by all requests."""

from __future__ import annotations

import asyncio
import contextvars
import json
import os
from pathlib import Path
from typing import Any

GATES: dict[str, asyncio.Event] = {}
NOTES: list[str] = []
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
variable.set("imported")


def gate(name: str) -> asyncio.Event:
    return GATES.setdefault(name, asyncio.Event())


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
        return
    name = scope["path"].strip("/").replace("/", "_") or "hello"
    await globals()["do_" + name](scope, receive, send)


async def lifespan(scope: Any, receive: Any, send: Any) -> None:
    assert (await receive()) == {"type": "lifespan.startup"}
    scope["state"]["started"] = "yes"
    scope["state"]["shared"] = []
    await send({"type": "lifespan.startup.complete"})
    assert (await receive()) == {"type": "lifespan.shutdown"}
    await send({"type": "lifespan.shutdown.complete"})


async def start(send: Any, status: int = 200, *headers: tuple[bytes, bytes], **more: Any) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers), **more})


async def body(send: Any, data: bytes = b"", more: bool = False) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})


async def answer(send: Any, data: bytes) -> None:
    await start(send, 200, (b"content-type", b"text/plain"), (b"content-length", str(len(data)).encode()))
    await body(send, data)


async def read(receive: Any) -> bytes:
    data = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RuntimeError("disconnected in the body")
        data += message["body"]
        if not message["more_body"]:
            return data


def plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"bytes": value.decode("latin-1")}
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value


async def do_hello(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, b"hello")


async def do_scope(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, json.dumps(plain(scope)).encode())


async def do_echo(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, await read(receive))


async def do_count(scope: Any, receive: Any, send: Any) -> None:
    total = 0
    while True:
        message = await receive()
        total += len(message["body"])
        if not message["more_body"]:
            break
    await answer(send, str(total).encode())


async def do_stream_echo(scope: Any, receive: Any, send: Any) -> None:
    await start(send)
    while True:
        message = await receive()
        await body(send, message["body"], True)
        if not message["more_body"]:
            break
    await body(send)


async def do_refuse(scope: Any, receive: Any, send: Any) -> None:
    await start(send, 413, (b"content-length", b"4"))
    await body(send, b"no!\n")


async def do_stream(scope: Any, receive: Any, send: Any) -> None:
    await start(send)
    await body(send, b"one", True)
    await body(send, b"", True)
    await body(send, b"two", True)
    await body(send)


async def do_at_once(scope: Any, receive: Any, send: Any) -> None:
    await start(send)
    await body(send, b"all of it")


async def do_events(scope: Any, receive: Any, send: Any) -> None:
    await start(send, 200, (b"content-type", b"text/event-stream"))
    await gate("events").wait()
    await body(send, b"data: 1\n\n", True)
    await gate("more").wait()
    await body(send, b"data: 2\n\n")


async def do_open(scope: Any, receive: Any, send: Any) -> None:
    gate(scope["query_string"].decode()).set()
    await answer(send, b"open")


async def do_shut(scope: Any, receive: Any, send: Any) -> None:
    gate(scope["query_string"].decode()).clear()
    await answer(send, b"shut")


async def do_notes(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, json.dumps(NOTES).encode())


async def do_headers(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the status and headers that the request's body names."""
    wanted = json.loads(await read(receive))
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in wanted.get("headers", [])]
    await start(send, wanted.get("status", 200), *headers)
    for piece in wanted.get("body", [])[:-1]:
        await body(send, piece.encode(), True)
    await body(send, wanted.get("body", [""])[-1].encode())


async def do_long_poll(scope: Any, receive: Any, send: Any) -> None:
    await read(receive)
    NOTES.append("polling")
    message = await receive()
    NOTES.append(message["type"])
    gate("polled").set()


async def do_polled(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.wait_for(gate("polled").wait(), 20)
    await answer(send, b"polled")


async def do_upload_wait(scope: Any, receive: Any, send: Any) -> None:
    while (message := await receive())["type"] == "http.request":
        pass
    NOTES.append("upload " + message["type"])
    gate("upload").set()


async def do_uploaded(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.wait_for(gate("upload").wait(), 20)
    await answer(send, b"seen")


async def do_after(scope: Any, receive: Any, send: Any) -> None:
    await read(receive)
    await answer(send, b"done")
    assert (await receive()) == {"type": "http.disconnect"}
    await gate("after").wait()
    NOTES.append("after")


async def do_unfinished(scope: Any, receive: Any, send: Any) -> None:
    """Does not say that this was all before it is let go on. The query: status, and what it sends at once."""
    status, content = scope["query_string"].decode().split("-")
    gate("unfinished").clear()
    await start(send, int(status), *([(b"content-length", b"%d" % len(content))] if content else []))
    if content:
        await body(send, content.encode(), True)
    await gate("unfinished").wait()
    await body(send, b"", True)
    await body(send, b"")
    NOTES.append("finished")


async def do_unending(scope: Any, receive: Any, send: Any) -> None:
    await start(send, 200, (b"content-type", b"text/event-stream"))
    try:
        while True:
            await body(send, b"data: 1\n\n", True)
    except OSError:
        NOTES.append("told")


async def do_send_after_end(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, b"done")
    try:
        await body(send, b"more")
    except RuntimeError as exc:
        NOTES.append(f"after end: {exc}")


async def do_raise(scope: Any, receive: Any, send: Any) -> None:
    raise ValueError("the app's own mistake")


async def do_raise_after_start(scope: Any, receive: Any, send: Any) -> None:
    await start(send)
    raise ValueError("after start")


async def do_raise_midway(scope: Any, receive: Any, send: Any) -> None:
    await start(send)
    await body(send, b"part", True)
    await asyncio.sleep(0)
    raise ValueError("midway")


async def do_burst(scope: Any, receive: Any, send: Any) -> None:
    """Many small pieces within one turn of the loop; then it waits, or raises without waiting."""
    await start(send)
    for number in range(300):
        await body(send, b"%d," % number, True)
    if scope["query_string"] == b"raise":
        raise ValueError("behind a burst")
    await gate("burst").wait()
    await body(send, b"end")


async def do_raise_at_end(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, b"done")
    raise ValueError("too late")


async def do_exit(scope: Any, receive: Any, send: Any) -> None:
    raise SystemExit(3)


async def do_cancel(scope: Any, receive: Any, send: Any) -> None:
    raise asyncio.CancelledError


async def do_nothing(scope: Any, receive: Any, send: Any) -> None:
    pass


async def do_start_only(scope: Any, receive: Any, send: Any) -> None:
    await start(send)


async def do_no_end(scope: Any, receive: Any, send: Any) -> None:
    await start(send)
    await body(send, b"part", True)


async def do_short(scope: Any, receive: Any, send: Any) -> None:
    await start(send, 200, (b"content-length", b"10"))
    await body(send, b"part", True)
    await body(send, b"")


async def do_long(scope: Any, receive: Any, send: Any) -> None:
    await start(send, 200, (b"content-length", b"3"))
    await body(send, b"parts", False)


async def do_long_midway(scope: Any, receive: Any, send: Any) -> None:
    await start(send, 200, (b"content-length", b"3"))
    await body(send, b"p", True)
    await asyncio.sleep(0)
    await body(send, b"arts", False)


LENGTH = b"content-length"
MISTAKES: dict[str, list[Any]] = {
    "body_first": [{"type": "http.response.body", "body": b""}],
    "start_twice": [{"type": "http.response.start", "status": 200}, {"type": "http.response.start", "status": 200}],
    "unknown": [{"type": "http.response.unknown"}],
    "no_type": [{}],
    "no_status": [{"type": "http.response.start"}],
    "text_status": [{"type": "http.response.start", "status": "200"}],
    "status_99": [{"type": "http.response.start", "status": 99}],
    "status_101": [{"type": "http.response.start", "status": 101}],
    "status_1000": [{"type": "http.response.start", "status": 1000}],
    "text_body": [{"type": "http.response.start", "status": 200}, {"type": "http.response.body", "body": "text"}],
    "text_name": [{"type": "http.response.start", "status": 200, "headers": [("x", b"y")]}],
    "text_value": [{"type": "http.response.start", "status": 200, "headers": [(b"x", "y")]}],
    "bad_name": [{"type": "http.response.start", "status": 200, "headers": [(b"x y", b"z")]}],
    "empty_name": [{"type": "http.response.start", "status": 200, "headers": [(b"", b"z")]}],
    "newline": [{"type": "http.response.start", "status": 200, "headers": [(b"x", b"y\r\nset-cookie: z")]}],
    "bare_newline": [{"type": "http.response.start", "status": 200, "headers": [(b"x", b"y\nz")]}],
    "nul": [{"type": "http.response.start", "status": 200, "headers": [(b"x", b"y\0z")]}],
    "two_lengths": [{"type": "http.response.start", "status": 200, "headers": [(LENGTH, b"1"), (LENGTH, b"2")]}],
    "bad_length": [{"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"+1")]}],
    "not_a_dict": ["http.response.start"],
    "websocket": [{"type": "websocket.accept"}],
}


async def do_mistake(scope: Any, receive: Any, send: Any) -> None:
    """Makes the mistake; the answer says which exception told the app."""
    try:
        for message in MISTAKES[scope["query_string"].decode()]:
            await send(message)
    except (RuntimeError, TypeError, KeyError, ValueError) as exc:
        NOTES.append(f"{type(exc).__name__}: {exc}")
        raise


STEPS: dict[str, Any] = {
    "start": {"type": "http.response.start", "status": 200, "headers": []},
    "length": {"type": "http.response.start", "status": 200, "headers": [(LENGTH, b"6")]},
    "empty": {"type": "http.response.start", "status": 204},
    "trailers": {"type": "http.response.start", "status": 200, "trailers": True},
    "more": {"type": "http.response.body", "body": b"abc", "more_body": True},
    "end": {"type": "http.response.body", "body": b"abc"},
    "trailer": {"type": "http.response.trailers", "headers": [(b"x", b"y")]},
    "hint": {"type": "http.response.early_hint", "links": [b"</a>"]},
    "file": {"type": "http.response.pathsend", "path": __file__},
    "nonsense": {"type": "nonsense"},
}


async def do_script(scope: Any, receive: Any, send: Any) -> None:
    """Does what the query says, whatever comes of it."""
    for step in scope["query_string"].decode().split(","):
        try:
            if step == "receive":
                await asyncio.wait_for(receive(), 0.01)
            elif step == "sleep":
                await asyncio.sleep(0)
            elif step == "raise":
                raise ValueError(step)
            elif step in STEPS:
                await send(STEPS[step])
        except (TimeoutError, RuntimeError):
            pass


async def do_large(scope: Any, receive: Any, send: Any) -> None:
    """Streams as many MiB as the query says, with a note for each."""
    count = int(scope["query_string"])
    await start(send)
    piece = b"x" * (1 << 20)
    for _ in range(count):
        await body(send, piece, True)
        NOTES.append("sent")
    await body(send)


async def do_until_gone(scope: Any, receive: Any, send: Any) -> None:
    await start(send)
    try:
        while True:
            await body(send, b"tick\n", True)
            await asyncio.sleep(0.01)
    except OSError as exc:
        NOTES.append(f"{type(exc).__name__} is an OSError")
        gate("gone").set()
        raise


async def do_gone(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.wait_for(gate("gone").wait(), 20)
    await answer(send, b"gone")


async def do_context(scope: Any, receive: Any, send: Any) -> None:
    before = variable.get()
    variable.set("set")
    size = len(await read(receive))
    await answer(send, f"{before}, {size} bytes".encode())


async def do_context_and_large(scope: Any, receive: Any, send: Any) -> None:
    variable.set("set")
    await answer(send, b"x" * (4 << 20))


async def do_task_factory(scope: Any, receive: Any, send: Any) -> None:
    loop = asyncio.get_running_loop()
    made = NOTES.count("task")

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **more: Any) -> asyncio.Task[Any]:
        NOTES.append("task")
        return asyncio.Task(coro, loop=loop, **more)

    loop.set_task_factory(None if made else factory)
    await answer(send, b"%d" % made)


async def do_two_receives(scope: Any, receive: Any, send: Any) -> None:
    await read(receive)
    first = asyncio.ensure_future(receive())
    second = asyncio.ensure_future(receive())
    await asyncio.sleep(0)
    first.cancel()
    NOTES.append((await second)["type"])
    gate("two").set()


async def do_two_received(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.wait_for(gate("two").wait(), 20)
    await answer(send, b"seen")


async def do_told_when_done(scope: Any, receive: Any, send: Any) -> None:
    await read(receive)
    waiting = asyncio.ensure_future(receive())
    await asyncio.sleep(0)
    await answer(send, b"done")
    NOTES.append((await asyncio.wait_for(waiting, 20))["type"])


async def do_told_then_sends(scope: Any, receive: Any, send: Any) -> None:
    if scope["query_string"] == b"begun":
        await start(send)
        await send({"type": "http.response.body", "body": b"part", "more_body": True})
    await read(receive)
    NOTES.append((await receive())["type"])
    try:
        await (answer(send, b"nobody") if scope["query_string"] != b"begun" else send({"type": "http.response.body"}))
    except OSError:
        NOTES.append("OSError")


async def do_told_then_returns(scope: Any, receive: Any, send: Any) -> None:
    await read(receive)
    NOTES.append((await receive())["type"])


async def do_pathsend(scope: Any, receive: Any, send: Any) -> None:
    assert "http.response.pathsend" in scope["extensions"]
    how, _, path = scope["query_string"].decode().rpartition(":")
    length = [(b"content-length", str(os.path.getsize(path)).encode())] if "length" in how else []  # noqa: ASYNC240
    await start(send, 200, *length)
    if "late" in how:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await send({"type": "http.response.pathsend", "path": path})


async def do_early_hint(scope: Any, receive: Any, send: Any) -> None:
    assert "http.response.early_hint" in scope["extensions"]
    await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload", b"</b.js>; rel=preload"]})
    await answer(send, b"hinted")


async def do_trailers(scope: Any, receive: Any, send: Any) -> None:
    assert "http.response.trailers" in scope["extensions"]
    await start(send, 200, (b"trailer", b"x-sum"), trailers=True)
    await body(send, b"content")
    await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"42")], "more_trailers": True})
    await send({"type": "http.response.trailers", "headers": [(b"x-more", b"y")]})


async def do_bad_trailer(scope: Any, receive: Any, send: Any) -> None:
    await start(send, 200, trailers=True)
    await body(send, b"content")
    await send({"type": "http.response.trailers", "headers": [(b"content-length", b"42")]})


async def do_many(scope: Any, receive: Any, send: Any) -> None:
    """A large response each time; the notes say how many were made."""
    NOTES.append("made")
    await answer(send, bytes(200_000))


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def do_memory(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, str(resident_bytes()).encode())


async def do_forget(scope: Any, receive: Any, send: Any) -> None:
    NOTES.clear()
    GATES.clear()
    await answer(send, b"forgotten")
