"""How fast one client is read and written, and what becomes of a request that its app answers without reading it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from time import monotonic

from ...aio import early_answers
from ...aio.connection import Connection
from ...aio.transport import ConnectionPhase
from ...channel.vitals import SLOT_HEAD_SENT
from ...http1.response import Output
from .context import AsgiContext
from .cycles.cycle import ClientDisconnected, Cycle

BODY_HIGH_BYTES = 64 * 1024
"""Reading pauses while the app has this much of a body to take."""

TINY_CHUNK_BYTES = 128
SMALL_PIECES_BYTES = 2048
"""A read of so much that holds a piece of a body for each 128 bytes is one of tiny chunks."""

# CPython 3.11 reaches a member through its class by a descriptor written in Python: too slow for each request.
_REQUEST, _DRAIN, _LINGER = ConnectionPhase.REQUEST, ConnectionPhase.DRAIN, ConnectionPhase.LINGER
ENDING = frozenset((ConnectionPhase.CLOSING, ConnectionPhase.RETURNING, ConnectionPhase.CLOSED))


class FlowControl(Connection):
    """Reads no faster than the app takes, and has writers wait until the client takes what was written."""

    __slots__ = (
        "_ahead",
        "_ahead_comes",
        "_ahead_over",
        "_drain_event",
        "_drops",
        "_drops_all",
        "_joins",
        "_view",
        "cycle",
        "is_closing",
    )

    context: AsgiContext

    def __init__(self, context: AsgiContext, sock: socket.socket, slot: int, is_last: bool) -> None:
        super().__init__(context, sock, slot, is_last)
        self.cycle: Cycle | None = None
        self.is_closing: Callable[[], bool]
        """Nothing more can be written: the connection was ended, or a write has failed."""
        self._view = context.first_view
        self._joins = False
        self._drain_event: asyncio.Event | None = None
        self._ahead: asyncio.Future[bool] | None = None
        self._ahead_comes = False
        self._ahead_over = 0.0
        self._drops = False
        self._drops_all = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the transport is there."""
        self.is_closing = transport.is_closing
        # asyncio's own `writelines` never pauses the protocol on Python 3.12 and 3.13.0: no flow control at all.
        self._joins = type(transport).__module__.startswith("asyncio.")
        super().connection_made(transport)

    # Writing

    def write(self, output: Output, content_bytes: int) -> None:
        """Write a piece of a response, ``content_bytes`` of which are content."""
        context = self.context
        context.slots[self.slot] = SLOT_HEAD_SENT
        context.counters.bytes_out += content_bytes
        if isinstance(output, bytes):
            self._transport.write(output)
        elif self._joins:
            self._transport.write(b"".join(output))
        else:
            self._transport.writelines(output)

    def count_sent(self, size: int) -> None:
        """So much content was sent in another way."""
        self.context.counters.bytes_out += size

    def fileno(self) -> int:
        """The descriptor of our copy of the socket; it stays the connection's."""
        return self._sock.fileno()

    async def flush(self) -> None:
        """Wait until the kernel has everything that was written. Raises ``ClientDisconnected``."""
        if self.phase not in ENDING:
            self._transport.set_write_buffer_limits(high=0)
            await self.drain()
        if self.phase in ENDING:
            raise ClientDisconnected("the client is gone")
        self._transport.set_write_buffer_limits()

    async def drain(self) -> None:
        """Wait until the client has taken enough of what was written, or is gone."""
        while self.is_write_paused:
            if self._drain_event is None:
                self._drain_event = asyncio.Event()
            await self._drain_event.wait()

    def _wake_writers(self) -> None:
        self.is_write_paused = False
        if self._drain_event is not None:
            self._drain_event.set()
            self._drain_event = None

    # Reading

    def pause_reading(self) -> None:
        """Take no more from the client, whose kernel then slows it down. No harm twice."""
        if not self.is_reading_paused:
            self.is_reading_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Undo ``pause_reading``. No harm twice."""
        if self.is_reading_paused:
            self.is_reading_paused = False
            # What it will call back must not run in, and keep, the context of the request whose app asks for it.
            self.context.variables.copy().run(self._transport.resume_reading)

    def _is_dense(self, read_bytes: int) -> bool:
        """A body comes in tiny chunks, which cost much: then one short read a turn of the loop (libuv makes many)."""
        context = self.context
        if self.parser.complete:
            self._view = context.first_view
            return False
        is_dense = len(self.parser.body) * TINY_CHUNK_BYTES > read_bytes >= SMALL_PIECES_BYTES
        self._view = context.small_view if is_dense else context.view
        return is_dense

    def _content_came(self, size: int) -> None:
        if self._is_dense(size):
            self._drop_slowly()

    def _drop_slowly(self) -> None:
        self.pause_reading()
        self.context.turns.call_later(self._drop_more)

    def _drop_more(self) -> None:
        if self.phase is _DRAIN or self._drops:
            self.resume_reading()

    # A request that its app answers, and has not read

    @property
    def is_reading_ahead(self) -> bool:
        """An answer waits for the rest of its request."""
        return self._ahead is not None

    async def read_ahead(self, keep: bool, is_end: bool = False) -> bool:
        """Read on before an answer leaves that does not wait for its request (``early_answers``), or before its end
        does; ``keep`` what comes for the app, or drop it. False when no more of it comes.
        """
        parser = self.parser
        loop = self.context.loop
        cycle = self.cycle
        if cycle is None or (cycle.started == self._ahead_over and not is_end and (keep or not self._ahead_comes)):
            return self._ahead_comes  # it was waited for already
        begun = monotonic()
        limit_s = self.context.settings.request_timeout_s
        most_s = early_answers.most_s(None if limit_s is None else limit_s - (begun - cycle.started))
        self._drops = self._drops or not keep
        try:
            while not parser.complete and self.phase is _REQUEST and not self.is_half_closed:
                is_enough = is_end or (keep and parser.body_bytes >= early_answers.KEPT_MAX_BYTES)
                if is_enough and early_answers.is_near_end(cycle.head, parser.received) is is_end:
                    break
                if not keep:
                    parser.take_body()
                ahead = self._ahead = loop.create_future()
                self.resume_reading()
                waited_s = monotonic() - begun
                left_s = most_s - waited_s
                if not is_end:
                    left_s = early_answers.wait_s(cycle.head, parser.received, waited_s, keep, most_s)
                timer = loop.call_later(max(0.0, min(early_answers.IDLE_S, left_s)), resolve, ahead, False)
                try:
                    if not await ahead:
                        self._ahead_over = cycle.started
                        self._ahead_comes = left_s < early_answers.IDLE_S
                        return self._ahead_comes
                finally:
                    timer.cancel()
            if parser.complete and parser.received > early_answers.LARGE_BYTES:
                self._ahead = loop.create_future()
                await asyncio.sleep(early_answers.SETTLE_S)
            return not parser.complete
        finally:
            self._ahead = None
            if self.phase is _REQUEST and (parser.body_bytes > BODY_HIGH_BYTES or parser.pending):
                self.pause_reading()

    def _stalls(self, now: float) -> None:
        """Drop what is unread if the client reads no answer because it sends its request first, of which the app has
        asked for nothing: so the answer can go on.
        """
        parser = self.parser
        if self.phase is not _REQUEST or self.cycle is None or parser.complete or not self.is_reading_paused:
            return
        is_unwanted = self._drops or parser.received == parser.body_bytes
        if is_unwanted and now - self._write_since > early_answers.STALL_S:
            self._drops_all = self._drops
            self._drops = True
            self._write_since = now  # the last of it only if that was of no use
            parser.take_body()
            self.resume_reading()

    @property
    def is_request_lost(self) -> bool:
        """Content was dropped that nobody had asked for: ``receive`` has nothing to give any more."""
        return self._drops


def resolve(future: asyncio.Future[bool], result: bool) -> None:
    """Set the result, if there is none yet and nobody has given up."""
    if not future.done():
        future.set_result(result)
