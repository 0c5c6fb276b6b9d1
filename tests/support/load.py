"""Kept-alive clients that ask without end, and remember every request that failed."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from pathlib import Path
from types import TracebackType

PATIENCE_S = 30.0
PAUSE_S = 0.004
"""Between two requests of a client: without it they would slow down what is to be seen under them."""

APP = '''
VERSION = "1"

import os, time


def answer(method, body):
    return f"{VERSION} {method} {len(body)} {os.getpid()}".encode()


def wsgi(environ, start_response):
    time.sleep(float(environ.get("HTTP_X_SLEEP", "0")))
    told = answer(environ["REQUEST_METHOD"], environ["wsgi.input"].read())
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(told)))])
    return [told]


async def asgi(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message.get("body", b"")
        more = message.get("more_body", False)
    told = answer(scope["method"], body)
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(told))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": told})
'''
"""Answers with its version, the method, how long the body was, and its pid."""


def app(version: str, first: str = "") -> str:
    """The source of that app. Longer with each version: a bytecode file is told from its source by size and second."""
    return first + APP.replace('"1"', repr(version)) + "#" * int(version)


class Load:
    """``clients`` of them: every other one posts, with bodies of all sizes, and some pause. An async context manager.

    ``target``: the path of a unix socket, or a port on loopback. ``host``: sent with each request.
    """

    def __init__(self, target: Path | int, clients: int = 20, host: str = "test") -> None:
        self.done = 0
        self.failures: list[str] = []
        self.longest_s = 0.0
        self.versions: Counter[str] = Counter()
        self.pids: Counter[str] = Counter()
        self._target = target
        self._host = host.encode()
        self._clients = clients
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Load:
        self._tasks = [asyncio.create_task(self._client(number)) for number in range(self._clients)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        async with asyncio.timeout(PATIENCE_S + 5):
            await asyncio.gather(*self._tasks)

    async def until(self, version: str) -> None:
        """Wait until nothing else than ``version`` has been answered for a while."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                self.versions.clear()
                await asyncio.sleep(0.3)
                if set(self.versions) == {version}:
                    return

    async def more(self, count: int = 200) -> None:
        """Wait until ``count`` more requests are done."""
        goal = self.done + count
        async with asyncio.timeout(PATIENCE_S):
            while self.done < goal:  # noqa: ASYNC110  # counted in a hot path
                await asyncio.sleep(0.01)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._target, int):
            return await asyncio.open_connection("127.0.0.1", self._target)
        return await asyncio.open_unix_connection(self._target)

    async def _client(self, number: int) -> None:
        reader, writer = await self._connect()
        turn = 0
        while not self._stop.is_set():
            turn += 1
            began = asyncio.get_running_loop().time()
            try:
                await asyncio.wait_for(self._ask(reader, writer, number, turn), PATIENCE_S)
                self.done += 1
                self.longest_s = max(self.longest_s, asyncio.get_running_loop().time() - began)
            except (OSError, EOFError, ValueError) as exc:
                self.failures.append(f"client {number} turn {turn}: {type(exc).__name__} {exc}"[:300])
                writer.close()
                reader, writer = await self._connect()
            await asyncio.sleep(PAUSE_S + (0.003 * (number % 7) if turn % 5 == 0 else 0.0))
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int, turn: int) -> None:
        body = b"x" * (turn * 37 % 20_000) if number % 2 else b""
        method = b"POST" if number % 2 else b"GET"
        length = b"Content-Length: %d\r\n" % len(body) if number % 2 else b""
        writer.write(method + b" /p HTTP/1.1\r\nHost: " + self._host + b"\r\n" + length + b"\r\n" + body)
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        told = (await reader.readexactly(int(fields[b"content-length"]))).decode(errors="replace")
        if not head.startswith(b"HTTP/1.1 200"):
            raise ValueError(f"{head[:60]!r} {told[:100]}")
        version, asked, received, pid = told.split()
        if (asked, received) != (method.decode(), str(len(body))):
            raise ValueError(f"another's answer: {told}")
        self.versions[version] += 1
        self.pids[pid] += 1
