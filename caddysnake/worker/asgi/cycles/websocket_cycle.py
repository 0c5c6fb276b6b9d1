"""One ASGI WebSocket: ``receive`` and ``send`` for the app over the frames of one connection.

=============  =====================================  ====================================================
phase          the app may send                       leads to
=============  =====================================  ====================================================
CONNECTING     websocket.accept                       OPEN
               websocket.close                        DENIED, by a plain 403
               websocket.http.response.start, .body   DENIED, by the app's own answer
OPEN           websocket.send                         OPEN
               websocket.close                        CLOSING, until the client answers with its own close
CLOSING        nothing more
CLOSED         nothing: ``send`` raises ``ClientDisconnected``; websocket.close is ignored
DENIED         the rest of its answer
=============  =====================================  ====================================================

Flow control goes both ways: reading pauses while the app has ``HIGH_BYTES`` or ``HIGH_MESSAGES`` to take, and
``send`` waits while the client does not read.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import MutableMapping
from enum import Enum
from time import monotonic
from typing import Any

from ....http1.encoding import encode_anew
from ....http1.errors import ResponseError
from ....http1.request import RequestHead
from ....http1.response import Response, ResponsePhase
from ...app.loader import foreign_traceback
from ...websocket.deflate import Deflate, negotiate
from ...websocket.frames import (
    ABNORMAL,
    BINARY,
    CLOSE,
    FAIL,
    GOING_AWAY,
    INTERNAL_ERROR,
    NO_STATUS,
    NORMAL,
    PING,
    PONG,
    SERVICE_RESTART,
    TEXT,
    Event,
    Receiver,
    close_frame,
    control_frame,
    frame,
    is_sendable,
)
from ...websocket.handshake import Offer
from ...websocket.keepalive import Due, KeepAlive
from ..turns import SLICE_S
from .cycle import (
    BURST_S,
    LOOK_S,
    PIECE_MAX_BYTES,
    PIECES_MAX,
    ClientDisconnected,
    Cycle,
    CycleTransport,
    is_about_leaving,
)

Message = MutableMapping[str, Any]

HIGH_BYTES = 64 * 1024
HIGH_MESSAGES = 64
CLOSE_TIMEOUT_S = 10.0
"""How long the client's close frame is awaited, after ours."""

SLICE_BYTES = 32 * 1024
"""So much of a message is deflated before others have their turn: a millisecond or two."""

RESTART_SPREAD_S = 2.0
"""Sockets that are told to reconnect elsewhere are told at random moments within this time."""

_STATUS_LINE = b"HTTP/1.1 101 Switching Protocols"
_MESSAGES = frozenset((TEXT, BINARY))
_OURS = frozenset(
    (b"connection", b"upgrade", b"sec-websocket-accept", b"sec-websocket-extensions", b"sec-websocket-version")
)


class WebSocketPhase(Enum):
    """Where the WebSocket stands; OPEN and CLOSING as in RFC 6455 section 7."""

    CONNECTING = "connecting"
    OPEN = "open"
    CLOSING = "closing"  # our close frame is out, the client's is not here
    CLOSED = "closed"
    DENIED = "denied"  # answered with plain HTTP


_CONNECTING, _OPEN, _CLOSING, _CLOSED, _DENIED = WebSocketPhase


class WebSocketCycle(Cycle):
    """One WebSocket, from the request that asks for it to its end."""

    __slots__ = (
        "_closing_since",
        "_connect_given",
        "_deflate",
        "_deflating",
        "_disconnect",
        "_has_waited",
        "_heard_at",
        "_is_called",
        "_keep_alive",
        "_offer",
        "_phase",
        "_pong",
        "_queue",
        "_queued_bytes",
        "_receiver",
        "_waiters",
    )

    def __init__(
        self, connection: CycleTransport, head: RequestHead, response: Response, scope: dict[str, Any], offer: Offer
    ) -> None:
        super().__init__(connection, head, response, scope)
        self._offer = offer
        self._phase = _CONNECTING
        self._receiver: Receiver | None = None
        self._deflate: Deflate | None = None
        self._deflating = asyncio.Lock()  # held for a large message
        self._connect_given = False
        self._queue: deque[Message] = deque()
        self._queued_bytes = 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._disconnect: Message | None = None
        self._pong: bytes | None = None  # the answer to a ping, while the client does not read
        self._has_waited = False  # the app, in `receive`, since it last sent
        self._is_called = False  # in a turn to come, to go on with what was read
        self._heard_at = 0.0
        settings = connection.context.settings
        self._keep_alive = KeepAlive(settings.websocket_ping_interval_s, settings.websocket_ping_timeout_s)
        self._closing_since = 0.0

    async def run(self, app: Any) -> None:
        """As ``Cycle.run``; it counts as open until the app is done with it."""
        context = self.connection.context
        context.count_websocket(1)
        try:
            await super().run(app)
        finally:
            context.count_websocket(-1)

    # For the app

    async def receive(self) -> Message:
        """``websocket.connect`` first, then messages, then ``websocket.disconnect`` as often as it is asked for.

        ASGI WebSocket 2.5. Reading goes on when the app has caught up with half of what may wait for it.
        """
        if not self._connect_given:
            self._connect_given = True
            return {"type": "websocket.connect"}
        queue = self._queue
        if queue:
            await self.share()
        while not queue:
            if self._disconnect is not None:
                await self.refuse()
                return self._disconnect
            self._has_waited = True
            waiter = self.connection.context.loop.create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                if not waiter.done() or waiter.cancelled():
                    self._waiters = deque(each for each in self._waiters if each is not waiter)
        message = queue.popleft()
        if self._queued_bytes:
            content = message.get("text")
            self._queued_bytes -= len(content if content is not None else message["bytes"])
        if self.connection.is_reading_paused and self._has_room():
            self._go_on()
        return message

    async def send(self, message: Message) -> None:
        """Take one event; waits for the client. Raises ``ClientDisconnected``, ``ResponseError``."""
        kind = message["type"]
        connection = self.connection
        if kind == "websocket.send" and self._phase is _OPEN:
            has_waited = self._has_waited
            self._has_waited = False
            now = monotonic()
            if now - self.looked > LOOK_S:
                self.look_for_client(now)
            output: Any
            text = message.get("text")
            if text is not None:
                if not isinstance(text, str):
                    raise ResponseError(f"the text of websocket.send must be str, not {type(text).__name__}")
                if message.get("bytes") is not None:
                    raise ResponseError("websocket.send has text or bytes, not both")
                opcode, data = TEXT, text.encode()
            else:
                content = message.get("bytes")
                opcode, data = BINARY, content if isinstance(content, bytes) else _to_bytes(content)
            if self._deflate is not None:
                if len(data) > SLICE_BYTES or self._deflating.locked():
                    await self._deflate_and_write(self._deflate, opcode, data)
                    return
                output = frame(opcode, self._deflate.deflate(data), rsv1=True)
            else:
                output = frame(opcode, data)
            if len(data) <= PIECE_MAX_BYTES and now - self.wrote <= BURST_S and not has_waited:
                pieces = self.pieces
                if pieces and len(pieces) < PIECES_MAX - 1:  # `_let_wait`, written out
                    pieces.append(output)
                    self.held_bytes += len(data)
                else:
                    self._let_wait(output, len(data))
            else:
                self.wrote = now
                self._write(output, len(data))
            if connection.is_write_paused:
                await connection.drain()
            if not has_waited:
                turns = connection.context.turns
                if not turns.since:  # `turns.is_over`, written out
                    turns.begin(now)
                elif now - turns.since > SLICE_S:
                    await turns.give_way()
            return
        if self._phase is _CLOSED or self.is_gone:
            await self.refuse()
            if kind == "websocket.close":
                return
            raise ClientDisconnected("the WebSocket is closed")
        if self._phase is _CONNECTING:
            self._answer_handshake(kind, message)
        elif self._phase is _DENIED:
            await self._deny(kind, message)
        elif kind == "websocket.close" and self._phase is _OPEN:
            self._queue.clear()
            self._queued_bytes = 0
            self._close(_checked(message.get("code")), message.get("reason") or "")
        else:
            await self.refuse()
            raise ResponseError(f"{kind!r} cannot be sent while the WebSocket is {self._phase.value}")

    async def _deflate_and_write(self, deflate: Deflate, opcode: int, data: bytes) -> None:
        """Send a large message, which takes long to deflate, or one behind such a message."""
        view, pieces = memoryview(data), []
        async with self._deflating:
            try:
                for at in range(0, max(len(data), 1), SLICE_BYTES):
                    await self.share()
                    if self._phase is not _OPEN:
                        raise ClientDisconnected("the WebSocket is closed")
                    self.look_for_client(monotonic())
                    pieces.append(deflate.deflate(view[at : at + SLICE_BYTES], at + SLICE_BYTES >= len(data)))
            except BaseException:
                deflate.forget()
                raise
            self.wrote = monotonic()
            self._write(frame(opcode, b"".join(pieces), rsv1=True), len(data))
        await self.connection.drain()
        await self.share()

    # The handshake

    def _answer_handshake(self, kind: str, message: Message) -> None:
        if kind == "websocket.accept":
            self._accept(message.get("subprotocol"), message.get("headers") or ())
        elif kind == "websocket.close":
            self._phase = _DENIED
            self._set_disconnect(ABNORMAL, "")
            self.answer(403, [(b"content-type", b"text/plain; charset=utf-8")], b"Forbidden\n")
        elif kind == "websocket.http.response.start":
            self.response.start(message.get("status", 0), message.get("headers", ()))
            self._phase = _DENIED
            self.connection.context.head_waits(self)
        else:
            raise ResponseError(f"{kind!r} cannot be sent before the WebSocket is accepted")

    async def _deny(self, kind: str, message: Message) -> None:
        if kind != "websocket.http.response.body":
            await self.refuse()
            raise ResponseError(f"{kind!r} cannot be sent after the WebSocket was denied")
        self.look_for_client(monotonic())
        connection = self.connection
        body = _to_bytes(message.get("body", b""))
        connection.write(self.response.send(body, message.get("more_body", False)), len(body))
        if self.response.is_done:
            self._set_disconnect(ABNORMAL, "")
            connection.response_done(self)
        await connection.drain()
        await self.share()

    def _accept(self, subprotocol: str | None, headers: Any) -> None:
        fields = [(b"upgrade", b"websocket"), (b"sec-websocket-accept", self._offer.accept)]
        if subprotocol is not None:
            if subprotocol not in self._offer.subprotocols:
                raise ResponseError(f"the client did not offer the subprotocol {subprotocol!r}")
            fields.append((b"sec-websocket-protocol", subprotocol.encode("latin-1")))
        agreed = negotiate(self._offer.extensions) if self._offer.extensions else None
        if agreed is not None:
            fields.append((b"sec-websocket-extensions", agreed.header().encode()))
        for name, value in headers:
            lower = bytes(name).lower()
            if lower == b"sec-websocket-protocol":
                raise ResponseError("the subprotocol belongs into the `subprotocol` of websocket.accept")
            if lower not in _OURS:
                fields.append((name, value))
        connection = self.connection
        head = encode_anew(_STATUS_LINE, fields, drop_length=True)[0]
        self._deflate = Deflate(agreed) if agreed is not None else None
        self._receiver = Receiver(connection.context.settings.websocket_max_message_bytes, self._deflate)
        self._phase = _OPEN
        self._heard_at = monotonic()
        self.response.phase = ResponsePhase.STREAMING  # nothing else can be answered any more
        connection.write(head + b"\r\n\r\n", 0)
        connection.upgraded(self)

    # Frames

    def received(self, data: bytes) -> None:
        """Bytes behind the handshake."""
        receiver = self._receiver
        if receiver is None:
            return
        self._heard_at = self.looked = monotonic()
        while True:
            self._take(receiver.feed(data))
            if (self._queued_bytes > HIGH_BYTES or len(self._queue) > HIGH_MESSAGES) and self._phase is _OPEN:
                self.connection.pause_reading()  # `receive` goes on
                return
            if not receiver.has_more or self._phase is _CLOSED:
                return
            if self.connection.context.turns.is_over(monotonic()):
                self.connection.pause_reading()
                self._go_on()
                return
            data = b""

    def _has_room(self) -> bool:
        return self._queued_bytes < HIGH_BYTES // 2 and len(self._queue) < HIGH_MESSAGES // 2

    def _go_on(self) -> None:
        """Take more of what has been read, in a turn of the loop to come, and then of what the client sends."""
        receiver = self._receiver
        if receiver is None or not receiver.has_more:
            self.connection.resume_reading()
        elif not self._is_called:
            self._is_called = True
            self.connection.context.turns.call_later(self._called)

    def _called(self) -> None:
        self._is_called = False
        if self._phase is not _CLOSED:
            self.connection.resume_reading()
            self.received(b"")

    def _take(self, events: list[Event]) -> None:
        queue = self._queue
        pongs = []
        for kind, content in events:
            if kind in _MESSAGES:
                if self._phase is _OPEN:
                    self._queued_bytes += len(content)
                    queue.append({"type": "websocket.receive", "text" if kind == TEXT else "bytes": content})
            elif kind == PING:
                pongs.append(content)
            elif kind == CLOSE:
                self._answer_pings(pongs)
                self._peer_closes(*content)
            elif kind == FAIL:
                self._answer_pings(pongs)
                self._fail(*content)
        if pongs:
            self._answer_pings(pongs)
        if queue:
            self.wake()

    def wake(self) -> None:
        """Wake one waiting ``receive``, or all of them when there is nothing to come but the disconnect."""
        waiters = self._waiters
        while waiters:
            waiter = waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                if self._disconnect is None:
                    return

    def _answer_pings(self, contents: list[bytes]) -> None:
        if self._phase is not _OPEN or not contents or self.connection.is_closing():
            return
        if self.connection.is_write_paused:
            self._pong = contents[-1]  # only the latest need be answered (RFC 6455 section 5.5.3)
        else:
            self._write(b"".join([control_frame(PONG, content) for content in contents]))

    def writable(self) -> None:
        """The client reads again."""
        if self._pong is not None and self._phase is _OPEN:
            content, self._pong = self._pong, None
            self._write(control_frame(PONG, content))

    # The end

    def _close(self, code: int, reason: str) -> None:
        """Begin the closing handshake."""
        self._phase = _CLOSING
        self._closing_since = monotonic()
        self._set_disconnect(code, reason)
        self._write(close_frame(code, reason))
        self._go_on()

    def _peer_closes(self, code: int, reason: str) -> None:
        if self._phase is _OPEN:
            self._write(close_frame(code))
            self._set_disconnect(code, reason)
        self._phase = _CLOSED
        self.connection.upgrade_ended(is_clean=True)

    def _fail(self, code: int, reason: str) -> None:
        """Fail the connection (RFC 6455 section 7.1.7)."""
        if self._phase is _OPEN:
            self._write(close_frame(code, reason))
            self._set_disconnect(code, reason)
        self._phase = _CLOSED
        self.connection.upgrade_ended(is_clean=False)

    def half_closed(self) -> bool:
        """The client has shut its side without a closing handshake: code 1006. False: our side closes too."""
        self.disconnect()
        return False

    def disconnect(self) -> None:
        """The connection is gone: code 1006 (RFC 6455 section 7.1.5) unless a closing handshake told another."""
        self._phase = _CLOSED
        self._set_disconnect(ABNORMAL, "")
        super().disconnect()

    def go_away(self, is_orphaned: bool) -> None:
        """The worker is leaving: the client is told to connect again, not all at the same moment."""
        if self._phase is _OPEN:
            # Within the grace there must be time left for their answers.
            delay = random.random() * min(RESTART_SPREAD_S, self.connection.context.grace_s / 2)
            self.connection.context.loop.call_later(delay, self._go, GOING_AWAY if is_orphaned else SERVICE_RESTART)

    def _go(self, code: int) -> None:
        if self._phase is _OPEN:
            # Not the app's doing: it gets what has arrived, and what it sends meets a client that is gone.
            self.is_gone = True
            self._close(code, "")

    def _set_disconnect(self, code: int, reason: str) -> None:
        if self._disconnect is None:
            self._disconnect = {"type": "websocket.disconnect", "code": code, "reason": reason}
            self.wake()

    def raised(self, exc: BaseException) -> None:
        """The app ended with ``exc``: 500 before it accepted, close code 1011 when open."""
        if self._phase in (_CONNECTING, _DENIED):
            super().raised(exc)
            return
        if self._phase is not _OPEN and is_about_leaving(exc):
            return
        context = self.connection.context
        context.counters.errors += 1
        context.counters.cut()
        if not context.is_forced:
            self.log("app-error", "the app raised an exception", foreign_traceback(exc))
        if self._phase is _OPEN:
            self._close(INTERNAL_ERROR, "")

    def returned(self) -> None:
        """The app ended: 500 or a refusal before it accepted, close code 1000 when open."""
        if self._phase in (_CONNECTING, _DENIED):
            super().returned()
        elif self._phase is _OPEN:
            self._close(NORMAL, "")

    # Time

    def tick(self, now: float) -> None:
        """Ping a client that is quiet, and end it when it stays so."""
        if self._phase is _CLOSING:
            if now - self._closing_since > CLOSE_TIMEOUT_S:
                self._phase = _CLOSED
                self.connection.upgrade_ended(is_clean=True)
            return
        if self._phase is not _OPEN:
            return
        if self.connection.is_reading_paused:
            self._heard_at = now  # a client we do not read cannot answer
            return
        due = self._keep_alive.look(now, self._heard_at, not self.connection.is_write_paused)
        if due is Due.PING:
            self._write(control_frame(PING, b""))
        elif due is Due.FAIL:
            self._fail(INTERNAL_ERROR, "no answer to a ping")


def _checked(code: object) -> int:
    """The close code of an app's websocket.close. Raises ``ResponseError``."""
    if code is None:
        return NORMAL
    if not isinstance(code, int) or not (is_sendable(code) or code == NO_STATUS):
        raise ResponseError(f"not a close code: {code!r}")
    return code


def _to_bytes(data: object) -> bytes:
    if isinstance(data, (bytearray, memoryview, bytes)):
        return bytes(data)
    raise ResponseError(f"bytes are needed, not {type(data).__name__}")
