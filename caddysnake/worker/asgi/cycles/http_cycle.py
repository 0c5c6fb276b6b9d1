"""One ASGI HTTP request: ``receive`` and ``send`` for the app, between a connection's parser and its transport.

Two halves that end independently. The request half is the parser's (``HttpConnection.parser``); this one hands its
body to the app. The response half is a ``Response``, whose phases are the states of ``send``:

=============  ==================================================================================
phase          what the app may send
=============  ==================================================================================
WAITING        http.response.start, http.response.early_hint
STARTED        http.response.body, .pathsend, .early_hint; the head leaves at once with it, or at the end of
               this turn of the loop, so that a slow stream opens immediately
STREAMING      http.response.body
TRAILERS       http.response.trailers
DONE           nothing; the connection has gone on to its next request by then
BROKEN         nothing; the connection is being cut
=============  ==================================================================================

Small pieces that follow each other within a millisecond leave together: at the end of the turn of the loop in which
they were sent, or as soon as they are many. A piece after a longer while leaves at once, whatever else the app does.

The app is never cancelled because a client left: ``receive`` says so, and ``send`` raises ``ClientDisconnected``.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import MutableMapping
from time import monotonic
from typing import Any

from ....aio.early_answers import LARGE_BYTES, may_converse
from ....http1.errors import ResponseError
from ....http1.response import ResponsePhase, informational
from ..turns import SLICE_S
from .cycle import BURST_S, LOOK_S, PIECE_MAX_BYTES, ClientDisconnected, Cycle
from .sendfile import open_file, send_file

Message = MutableMapping[str, Any]

_STARTED = ResponsePhase.STARTED
_STREAMING = ResponsePhase.STREAMING
_DONE = ResponsePhase.DONE
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_EARLY_HINTS = 103
ANSWERED_S = 5.0
"""So long an app may go on to send behind the last that its client can get; then it is told that nobody is there."""


class HttpCycle(Cycle):
    """One request and its response."""

    __slots__ = ()

    # For the app

    async def receive(self) -> Message:
        """The next ``http.request``, or ``http.disconnect`` at the end of either side (ASGI HTTP 2.5)."""
        connection = self.connection
        parser = connection.parser
        gave_way = False
        while True:
            is_lost = connection.is_request_lost  # while its answer's end waits, an app that listens would cut that
            if connection.cycle is not self or self.is_gone or (is_lost and not connection.is_reading_ahead):
                await self.refuse()
                return {"type": "http.disconnect"}
            if not (self.request_given or is_lost) and (parser.body or parser.complete):
                if not parser.complete and not gave_way:
                    gave_way = True
                    await self.share()
                    continue
                body = parser.take_body()
                more = not parser.complete
                self.request_given = not more
                if more:
                    connection.resume_reading()
                connection.context.counters.bytes_in += len(body)
                return {"type": "http.request", "body": body, "more_body": more}
            if self.head.expect_continue and not self.request_given:
                self._continue()
            await self._wait()

    async def send(self, message: Message) -> None:
        """Take one event of the response; waits for the client. Raises ``ClientDisconnected``, ``ResponseError``."""
        kind = message["type"]
        connection = self.connection
        response = self.response
        if self.is_gone:
            await self._send_to_nobody(kind, message)
            return
        try:
            if kind == "http.response.body":
                body = message.get("body", b"")
                if type(body) is not bytes:
                    body = _to_bytes(body)
                if message.get("more_body", False):
                    now = monotonic()
                    if now - self.looked > LOOK_S:
                        self.look_for_client(now)
                    if not connection.parser.complete and response.declared_length == len(body):
                        await self._hold_declared_end()
                    output = response.send(body, True)
                    is_small = type(output) is bytes and len(output) <= PIECE_MAX_BYTES
                    if is_small and now - self.wrote <= BURST_S:
                        self._let_wait(output, len(body))
                    else:
                        if connection.is_closing():
                            self.look_for_client(now)
                        if is_small:
                            self.wrote = now
                        self._write(output, len(body))
                        if response.is_satisfied:
                            self._answered()
                    if connection.is_write_paused:
                        await connection.drain()
                        now = monotonic()
                    turns = connection.context.turns
                    if not turns.since:  # `turns.is_over`, written out
                        turns.begin(now)
                    elif now - turns.since > SLICE_S:
                        await turns.give_way()
                else:
                    if not connection.parser.complete:
                        body = await self._read_rest(body)
                    now = monotonic()
                    if now - self.looked > LOOK_S:
                        self.look_for_client(now)
                    self._write(response.send(body, False), len(body))
                    if response.phase is _DONE:
                        connection.response_done(self)
                    if connection.is_write_paused:
                        await connection.drain()
            elif kind == "http.response.start":
                parser = connection.parser
                if not parser.complete or parser.body_bytes > LARGE_BYTES:
                    await self._read_ahead()
                trailers = message.get("trailers", False)
                response.start(message.get("status", 0), message.get("headers", ()), None, trailers)
                connection.context.head_waits(self)
            else:
                await self._send_extension(kind, message)
        except ResponseError:
            await self.refuse()
            raise

    async def _send_extension(self, kind: str, message: Message) -> None:
        """The messages of the extensions that the scope names."""
        if kind not in self.scope["extensions"]:
            raise ResponseError(f"{kind!r} is not a message of an HTTP response")
        connection = self.connection
        response = self.response
        self.look_for_client(monotonic())
        if kind == "http.response.early_hint":
            hint = informational(_EARLY_HINTS, [(b"link", link) for link in message.get("links", ())])
            if response.phase is _DONE:
                raise ResponseError("an early hint after the end of the response")
            if not response.head_sent:  # else too late to be of use, which the app cannot know
                connection.write(hint, 0)
        elif kind == "http.response.trailers":
            self._write(response.send_trailers(message.get("headers", ()), message.get("more_trailers", False)), 0)
            if response.phase is _DONE:
                connection.response_done(self)
        elif kind == "http.response.pathsend":
            await self._send_path(message.get("path"))
        else:
            raise ResponseError(f"{kind!r} is not a message of an HTTP response")
        await connection.drain()
        await self.share()

    async def _send_path(self, path: object) -> None:
        connection = self.connection
        file, size = open_file(path)
        try:
            if not connection.parser.complete:
                await self._read_rest(b"")
            before, behind = self.response.frame_file(size)
            self._write(before, 0)
            if size and self.response.has_content:
                await send_file(connection, file, size)
                connection.count_sent(size)
            connection.write(behind, 0)
        except BaseException:
            if self.response.head_sent:
                connection.abort()
            raise
        finally:
            os.close(file)
        if not self.is_gone:
            connection.response_done(self)

    # Behind an answer

    def flush_head(self) -> None:
        """Let a head leave whose content did not come in the same turn of the loop."""
        super().flush_head()
        if self.response.is_satisfied:
            self._answered()

    def _answered(self) -> None:
        """The client has all that there can be, such as the head of a 304: the connection, on which Caddy's next
        request may be another user's, does not wait for the app to say that this is all.
        """
        connection = self.connection
        if self.is_gone or not (self.request_given or (connection.parser.complete and not self.head.has_body)):
            return
        self.flush_pieces()
        self.is_answered = self.is_gone = True
        self.looked = monotonic()
        connection.response_done(self)

    async def _send_to_nobody(self, kind: str, message: Message) -> None:
        """What the app sends to a client that is gone is looked at all the same, and it has some time to end."""
        connection = self.connection
        is_over = not self.is_answered or monotonic() - self.looked > ANSWERED_S
        if is_over or connection.is_closing() or connection.is_client_gone():
            await self.refuse()
            raise ClientDisconnected("the client is gone")
        try:
            if kind == "http.response.body":
                self.response.send(_to_bytes(message.get("body", b"")), message.get("more_body", False))
            elif kind == "http.response.trailers":
                self.response.send_trailers(message.get("headers", ()), message.get("more_trailers", False))
        except ResponseError:
            await self.refuse()
            raise
        await self.share()

    # Before an answer to half a request

    async def _read_ahead(self) -> None:
        """The app answers, and has not read its request, nor does meanwhile: let it come, up to a bound."""
        if self.head.expect_continue and self._refuse_unread():
            return
        if not self.is_waiting_for_body:
            await self._hold(keep=True)

    async def _read_rest(self, body: bytes) -> bytes:
        """The app has given all of its answer, so that nothing of the request is wanted any more. ``body`` is the last
        of it; what is left of that.
        """
        response = self.response
        if self.head.expect_continue and self._refuse_unread():
            return body
        if response.phase is _STARTED:
            is_split = len(body) > 1 and response.has_content and response.declared_length in (None, len(body))
            if not (await self._hold(keep=False) and is_split):
                return body
            self._write(response.send(body[:-1], True), len(body) - 1)
            body = body[-1:]
        if response.phase is _STREAMING and response.declared_length != 0:
            await self._hold(keep=False, is_end=True)
        return body

    async def _hold_declared_end(self) -> None:
        """The next piece is the last that there can be. Not where the app reads its request."""
        parser = self.connection.parser
        if not self.is_waiting_for_body and parser.received == parser.body_bytes:
            await self._read_rest(b"")

    async def _hold(self, keep: bool, is_end: bool = False) -> bool:
        connection = self.connection
        if connection.is_reading_ahead or may_converse(self.head):
            return False
        comes = await connection.read_ahead(keep, is_end)
        if self.is_gone:
            raise ClientDisconnected("the client is gone")
        return comes

    def flush_pieces(self) -> None:
        """Let the pieces leave that were sent in the same turn of the loop."""
        if self.pieces and not self.is_gone:
            super().flush_pieces()
            if self.response.is_satisfied:
                self._answered()

    # For the connection

    def wake(self) -> None:
        """Have a waiting ``receive`` look again."""
        if self.event is not None:
            self.event.set()

    async def _wait(self) -> None:
        event = self.event
        if event is None:
            event = self.event = asyncio.Event()
        event.clear()
        if self.request_given:
            await event.wait()
            return
        self.is_waiting_for_body = True
        self.connection.watch_reading()
        try:
            await event.wait()
        finally:
            self.is_waiting_for_body = False

    def _continue(self) -> None:
        # Caddy has sent one already; a second would reach the browser (seen with 2.11.7).
        connection = self.connection
        if self.continued or self.response.head_sent or connection.peer.is_trusted or connection.parser.received:
            return
        self.continued = True
        connection.write(_CONTINUE, 0)

    def _refuse_unread(self) -> bool:
        """A client that still waits for its 100 may send its body all the same, or another request: the next bytes
        cannot be told apart, so this is the last answer (RFC 9110 section 10.1.1). Caddy has had its 100.
        """
        connection = self.connection
        if self.continued or connection.parser.received or connection.peer.is_trusted:
            return False
        self.response.close = True
        return True


def _to_bytes(body: object) -> bytes:
    if isinstance(body, (bytearray, memoryview, bytes)):
        return bytes(body)
    raise ResponseError(f"the body of a response must be bytes, not {type(body).__name__}")
