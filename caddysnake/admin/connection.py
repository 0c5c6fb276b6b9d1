"""A client's connection: its requests, one at a time, and how each is answered.

What HTTP/1.1 asks for is in ``http1``. Here is what takes time: a request has one in which it must have come, an answer
one in which it must have been fetched. Who has left is noticed, but what was begun for them goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from typing import NamedTuple, SupportsIndex

from ..http1.errors import ProtocolError
from ..http1.limits import Limits
from ..http1.request import RequestHead, RequestParser
from ..http1.response import Output, Response

HEAD_S = 10.0
"""In this time the first request of a connection must have begun, its head being whole."""

BODY_S = 30.0
IDLE_S = 75.0
"""In this time an answer must have been fetched, and the next request begun."""

_LIMITS = Limits(max_head_bytes=64 * 1024, max_target_bytes=32 * 1024, max_header_count=128)
_READ_BYTES = 64 * 1024


class Answer(NamedTuple):
    """To a request. ``body`` None: it has been written."""

    status: int
    body: bytes | None
    headers: dict[str, str]


class _Reader(asyncio.StreamReader):
    """``has_come``: something that nobody has read yet, or whose reader has not had its turn yet."""

    has_come = False

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        """Called by the transport."""
        self.has_come = True
        super().feed_data(data)

    async def read(self, n: int = -1) -> bytes:
        data = await super().read(n)
        self.has_come = False
        return data


class HttpConnection:
    """One, until it is closed. ``since``: when we began to wait for the client; None: it waits for us."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.since: float | None = asyncio.get_running_loop().time()
        self._parser = RequestParser(_LIMITS)
        self._response = Response(None)
        self._reader = _Reader(_READ_BYTES)
        self._writer: asyncio.StreamWriter  # once it is open

    async def open(self) -> None:
        """Begin. Raises ``OSError``."""
        loop = asyncio.get_running_loop()
        protocol = asyncio.StreamReaderProtocol(self._reader, loop=loop)
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, self.sock)
        transport.set_write_buffer_limits(0)  # what was written has left
        self._writer = asyncio.StreamWriter(transport, protocol, self._reader, loop)

    def abort(self) -> None:
        """End at once."""
        self._writer.transport.abort()

    @property
    def is_there(self) -> bool:
        """The client has not left, nor said that it sends no more."""
        return not self._writer.is_closing() and not self._reader.at_eof()

    @property
    def is_unread(self) -> bool:
        """Something that the client has sent waits for us."""
        try:
            return self._reader.has_come or bool(self.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False

    @property
    def is_idle(self) -> bool:
        """It is between two requests."""
        return self._parser.head is None

    async def turn(self, answer: Answer | None, is_last: bool) -> RequestHead | None:
        """Have ``answer`` fetched, if there is one, and wait for the next request; None: there is none any more.

        ``is_last``: after this answer there is none. Raises ``ProtocolError``, and ``OSError`` for one that has left.
        """
        parser = self._parser
        async with self._waiting(HEAD_S if answer is None else IDLE_S):
            if answer is not None:
                self._response.close |= is_last
                await self._finish(answer)
                if self._response.close:
                    if self.is_there and not is_last:
                        await self._linger()
                    return None
                await asyncio.sleep(0)  # others have their turn, however many requests of this client wait
                parser.next_message()
            while (head := parser.head) is None:
                if not await self._feed():
                    return None
        self.since = None
        self._response = Response(head, not head.keep_alive)
        return head

    async def read(self, most: int) -> bytes:
        """The body of the request. Raises ``ProtocolError``, also for one of more than ``most`` bytes."""
        parser, head = self._parser, self._parser.head
        assert head is not None
        error = ProtocolError(413, "body-too-large", f"the body has more than {most} bytes")
        try:
            async with self._waiting(BODY_S):
                while max(parser.received, head.content_length or 0) <= most:
                    if parser.complete:
                        return parser.take_body()
                    if head.expect_continue and not parser.received:
                        await self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
                        head.expect_continue = False
                    if not await self._feed():
                        raise ProtocolError(400, "framing", "the body ends early")
        except TimeoutError:
            error = ProtocolError(408, "request-timeout", f"the body did not come within {BODY_S:g} s")
        except OSError:
            error = ProtocolError(400, "framing", "the connection was reset")
        except ProtocolError as exc:
            error = exc
        self._response.close = True
        raise error

    async def stream(self, headers: Mapping[str, str], pieces: AsyncGenerator[bytes, None]) -> Answer:
        """Answer with ``pieces`` as they come; with an empty one it is looked whether anybody is there."""
        response = self._response
        try:
            self._start(200, headers)
            await self._write(response.flush_head())
            if response.has_content:
                async for piece in pieces:
                    if piece:
                        await self._write(response.send(piece, more=True))
                    elif not self.is_there:
                        break
            await self._write(response.send(b"", more=False))
        except ConnectionError:
            pass  # whoever asked has left
        except BaseException:
            self.abort()  # it must not look whole
            raise
        finally:
            await pieces.aclose()
        return Answer(200, None, {})

    async def take(self) -> socket.socket:
        """The connection itself, of which nothing more is read here. Raises ``OSError`` when it is gone, and
        ``ProtocolError`` when something has come behind the request: it would be lost.
        """
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]
        self._reader.feed_eof()
        if self._parser.pending or await self._reader.read():
            self._response.close = True
            raise ProtocolError(400, "malformed", "something came behind the request, before its answer")
        own = socket.socket(fileno=os.dup(self.sock.fileno()))
        self.abort()  # of its own descriptor, not of the connection
        return own

    # -- parts ------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _waiting(self, limit_s: float) -> AsyncIterator[None]:
        """Meanwhile it is waited for the client, but no longer than ``limit_s``. Raises ``TimeoutError``."""
        before = self.since
        self.since = before or asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(None if limit_s == math.inf else limit_s):
                yield
        finally:
            self.since = before

    async def _feed(self) -> bool:
        """Parse what comes next; False: nothing more does."""
        data = await self._reader.read(_READ_BYTES)
        if data:
            self._parser.feed(data)
        return bool(data)

    def _start(self, status: int, headers: Mapping[str, str]) -> None:
        self._response.close |= not self._parser.complete  # what was not read would be taken for a request
        named = tuple((name.lower().encode(), headers[name].encode()) for name in headers)
        self._response.start(status, ((b"server", b"caddysnake"), *named))

    async def _finish(self, answer: Answer) -> None:
        if self._parser.head is None:  # of which no request could be made
            self._response = Response(self._parser.draft, close=True)
        if answer.body is None:
            return
        if self._response.head_sent:
            raise ConnectionResetError
        self._start(answer.status, answer.headers)
        await self._write(self._response.send(answer.body, more=False))

    async def _write(self, output: Output) -> None:
        if self._writer.is_closing():
            raise ConnectionResetError
        self._writer.write(output if isinstance(output, bytes) else b"".join(output))
        async with self._waiting(math.inf):
            await self._writer.drain()

    async def _linger(self) -> None:
        """Let the client read the last answer: closed at once, with something on its way, that would be lost."""
        self._writer.write_eof()
        while await self._reader.read(_READ_BYTES):
            pass
