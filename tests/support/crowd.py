"""Many clients at once that a reload must not hurt: kept-alive connections that ask, post and pause, and WebSockets."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from pathlib import Path
from types import TracebackType

from websockets.asyncio.client import connect, unix_connect
from websockets.exceptions import ConnectionClosed, WebSocketException

PATIENCE_S = 30.0

SOURCE = '''
VERSION = "1"


async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] != "websocket.disconnect":
            await send({"type": "websocket.send", "text": message["text"]})
    elif scope["type"] == "http":
        size, more = 0, True
        while more:
            message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        body = f"{VERSION} {scope['method']} {size}".encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})
    else:
        raise NotImplementedError
'''


def source(version: int, first: str = "") -> str:
    """The app; longer with each version, since bytecode is told from its source by size and second."""
    return first + SOURCE.replace('"1"', f'"{version}"') + "#" * version


class Crowd:
    """``clients`` and ``sockets`` of them at ``target``: a port on loopback, or the path of a unix socket.

    Half the clients post. A third ask without a pause, the others idle for up to ``pause_s`` between requests, so that
    a reload meets connections at every point. A WebSocket that is told to come again (1012) does so.
    """

    def __init__(
        self, target: int | Path, clients: int = 50, sockets: int = 50, pause_s: float = 1.0, seed: int = 1
    ) -> None:
        self.failures: list[str] = []
        self.done = 0
        self.echoed = 0
        self.told_to_return = 0
        self.versions: Counter[str] = Counter()
        self.slowest: list[tuple[float, float, str]] = []
        """Seconds, when it began (the loop's time), who: the slowest requests since ``forget``."""
        self._target = target
        self._pause_s = pause_s
        self._random = random.Random(seed)
        self._counts = clients, sockets
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Crowd:
        clients, sockets = self._counts
        self._tasks = [asyncio.create_task(self._client(number)) for number in range(clients)]
        self._tasks += [asyncio.create_task(self._socket(number)) for number in range(sockets)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        async with asyncio.timeout(PATIENCE_S * 2):
            await asyncio.gather(*self._tasks)

    def forget(self) -> None:
        """Count stalls from now on."""
        self.slowest.clear()

    @property
    def longest_s(self) -> float:
        return max((took for took, _, _ in self.slowest), default=0.0)

    async def more(self, count: int) -> None:
        """Wait until ``count`` more requests are done."""
        goal = self.done + count
        async with asyncio.timeout(PATIENCE_S * 2):
            while self.done < goal:  # noqa: ASYNC110  # counted in a hot path
                await asyncio.sleep(0.01)

    def _note(self, began: float, who: str) -> None:
        took = asyncio.get_running_loop().time() - began
        self.slowest.append((took, began, who))
        if len(self.slowest) > 200:
            self.slowest = sorted(self.slowest, reverse=True)[:20]

    async def _pause(self, number: int) -> None:
        if number % 3:
            await asyncio.sleep(self._random.random() * self._pause_s)

    # HTTP

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
                keeps = await asyncio.wait_for(self._ask(reader, writer, number, turn), PATIENCE_S)
                self.done += 1
                self._note(began, f"client {number}")
            except (OSError, EOFError, ValueError, TimeoutError) as exc:
                keeps = False
                self.failures.append(f"client {number} turn {turn} at {began:.3f}: {type(exc).__name__} {exc}"[:300])
            if not keeps:
                writer.close()
                reader, writer = await self._connect()
            await self._pause(number)
            if number % 3 == 0:
                await asyncio.sleep(0.005)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int, turn: int) -> bool:
        posts = number % 2
        body = b"x" * (turn * 37 % 20_000) if posts else b""
        method = b"POST" if posts else b"GET"
        length = b"Content-Length: %d\r\n" % len(body) if posts else b""
        writer.write(method + b" /p HTTP/1.1\r\nHost: localhost\r\n" + length + b"\r\n" + body)
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        told = (await reader.readexactly(int(fields[b"content-length"]))).decode(errors="replace")
        if not head.startswith(b"HTTP/1.1 200"):
            raise ValueError(f"{head[:60]!r} {told[:100]}")
        version, asked, received = told.split()
        if (asked, received) != (method.decode(), str(len(body))):
            raise ValueError(f"another's answer: {told}")
        self.versions[version] += 1
        return fields.get(b"connection") != b"close"

    # WebSockets

    async def _socket(self, number: int) -> None:
        while not self._stop.is_set():
            opening = (
                connect(f"ws://127.0.0.1:{self._target}/", open_timeout=PATIENCE_S)
                if isinstance(self._target, int)
                else unix_connect(str(self._target), uri="ws://localhost/", open_timeout=PATIENCE_S)
            )
            try:
                async with opening as socket:
                    turn = 0
                    while not self._stop.is_set():
                        turn += 1
                        began = asyncio.get_running_loop().time()
                        await socket.send(f"{number} {turn}")
                        said = await asyncio.wait_for(socket.recv(), PATIENCE_S)
                        if said != f"{number} {turn}":
                            raise ValueError(f"another's echo: {said!r}")
                        self.echoed += 1
                        self._note(began, f"socket {number}")
                        await asyncio.sleep(0.05 + self._random.random() * self._pause_s / 2)
            except ConnectionClosed as exc:
                if exc.rcvd is not None and exc.rcvd.code == 1012:
                    self.told_to_return += 1
                else:
                    self.failures.append(f"socket {number}: {exc}"[:300])
            except (OSError, EOFError, ValueError, TimeoutError, WebSocketException) as exc:
                self.failures.append(f"socket {number}: {type(exc).__name__} {exc}"[:300])
