"""How a connection from Caddy, or from a client, begins, pauses, waits and ends; nothing of requests.

=============  ====================================================================================
phase          meaning
=============  ====================================================================================
IDLE           at a request boundary, nothing read: may be given back to the daemon
HEAD           part of a request's head has been read
REQUEST        a request is being answered; it may still be arriving, the next one may be waiting
FLUSH          both are complete, but the client does not read: nothing more is begun until it does
DRAIN          the response is out, the rest of its request is read and dropped
UPGRADED       speaks WebSocket, or whatever a tunnel holds
LINGER         the last response is out; what comes is dropped until the client has read it and ends
CLOSING        flushing what is left, then ending
RETURNING      flushing what is left, then closing our copy without an end: the daemon goes on with its
CLOSED
=============  ====================================================================================

A connection that ends is shut down before it is closed, since the daemon holds a duplicate. An idle one is never
ended by us, and none while the client may still be writing: it would lose our answer (Caddy makes it a 502).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine
from enum import Enum
from time import monotonic
from typing import Any

from .context import Context

LINGER_IDLE_S = 5.0
LINGER_TOTAL_S = 30.0
"""How long the rest of a request that nobody wants is read: without a byte, and at most. nginx uses the same."""


class ConnectionPhase(Enum):
    """Where a connection stands: what its next bytes are, or how it ends."""

    IDLE = "idle"
    HEAD = "head"
    REQUEST = "request"
    FLUSH = "flush"
    DRAIN = "drain"
    LINGER = "linger"
    CLOSING = "closing"
    RETURNING = "returning"
    UPGRADED = "upgraded"
    CLOSED = "closed"


# CPython 3.11 reaches a member through its class by a descriptor written in Python: too slow for each request.
_IDLE, _HEAD, _REQUEST, _FLUSH, _DRAIN, _LINGER, _CLOSING, _RETURNING, _UPGRADED, _CLOSED = ConnectionPhase
_FLUSHING = frozenset((_CLOSING, _RETURNING))
UNWANTED = frozenset((_DRAIN, _LINGER))


class Transport(asyncio.BufferedProtocol):
    """One connection, without its requests: those are in the methods that raise here."""

    __slots__ = (
        "_linger_until",
        "_sock",
        "_transport",
        "_watched_since",
        "_write_left",
        "_write_since",
        "context",
        "is_awaited",
        "is_half_closed",
        "is_write_paused",
        "phase",
        "slot",
    )

    def __init__(self, context: Context, sock: socket.socket, slot: int) -> None:
        self.context = context
        self.slot = slot
        self.phase = _IDLE
        self.is_awaited = False
        """It was taken although the server leaves, for a request that is on its way."""
        self.is_half_closed = False
        """The client has ended its side, and may still read."""
        self.is_write_paused = False
        self._sock = sock
        self._transport: Any = None
        self._linger_until = 0.0
        self._watched_since = 0.0
        self._write_since = 0.0
        self._write_left = 0

    # What requests are concerned with

    def _let_go(self) -> None:
        """Leave the request that is being answered, if any: nobody is there for its response."""
        raise NotImplementedError

    def resume_reading(self) -> None:
        """Read, whatever it was that reading waited for."""
        raise NotImplementedError

    def _is_late(self, now: float) -> bool:
        """Act if the request takes too long; False when there is nothing to watch."""
        raise NotImplementedError

    def _stalls(self, now: float) -> None:
        """Act if the client reads nothing because it waits for something itself."""

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the transport is there. One that comes while the server leaves is given back at once."""
        self._transport = transport
        if self.phase is not _IDLE:
            self._transport.close()  # told to leave in the meantime
        elif self.context.is_leaving and not self.is_awaited:
            self.leave()

    def connection_lost(self, exc: BaseException | None) -> None:
        """asyncio: the transport is closed. The other side sees the end, unless the connection was given back."""
        returned = self.phase is _RETURNING and exc is None
        self.phase = _CLOSED
        if not returned:
            with contextlib.suppress(OSError):  # the other side was first
                self._sock.shutdown(socket.SHUT_RDWR)
        self.context.connection_lost(self, self.slot, returned)

    def pause_writing(self) -> None:
        """asyncio: more than the high-water mark waits for the client, against the write deadline."""
        self.is_write_paused = True
        self._watch_writing()

    # Ends

    def leave(self) -> None:
        """Give the connection back, or end it when there is nobody to give it to; only if it is idle."""
        if self.phase is _IDLE:
            self.phase = _CLOSING if self.context.is_orphaned else _RETURNING
            if self._transport is not None:
                self._close(self.phase)

    def cut(self) -> None:
        """Cut the connection: what was sent is not a whole response, and must not look like one."""
        if self.phase is _CLOSED or self._transport is None:
            return
        self.phase = _CLOSING
        self._let_go()
        self._transport.abort()

    def _close(self, phase: ConnectionPhase = ConnectionPhase.CLOSING) -> None:
        """End it, or give it back, once what was written has left. A client that does not read is watched."""
        self.phase = phase
        self._transport.close()
        if self._transport.get_write_buffer_size():
            self._watch_writing()

    def _linger(self) -> None:
        """End our side, and read on until the client has ended its own: what it still writes must not fail."""
        if self.is_half_closed or self._transport.is_closing():
            self._close()
            return
        self._linger_from_now(_LINGER)
        with contextlib.suppress(OSError):  # the client was first; the next read will say so
            self._transport.write_eof()

    def _linger_from_now(self, phase: ConnectionPhase) -> None:
        self.phase = phase
        self.watch_reading()
        self._linger_until = self._watched_since + LINGER_TOTAL_S
        self.resume_reading()

    # Time

    def _watch_writing(self) -> None:
        """The client has something to read."""
        self._write_since = monotonic()
        self._write_left = self._transport.get_write_buffer_size()
        self.context.watch(self)

    def watch_reading(self) -> None:
        """The client has something to send."""
        self._watched_since = monotonic()
        self.context.watch(self)

    def overdue(self, now: float) -> bool:
        """Act if something takes too long; False when there is nothing to watch any more."""
        phase = self.phase
        if self.is_write_paused or phase in _FLUSHING:
            left = self._transport.get_write_buffer_size()
            if not left and phase in _FLUSHING:
                return False  # it closes at the end of this turn; cutting it now would end what is only given back
            if left != self._write_left:
                self._write_left, self._write_since = left, now
            elif now - self._write_since > self.context.settings.write_timeout_s:
                self.cut()
            else:
                self._stalls(now)
            return True
        if phase in UNWANTED:
            if now - self._watched_since > LINGER_IDLE_S or now > self._linger_until:
                self._close()
            return True
        return self._is_late(now)


def adopt(
    loop: asyncio.AbstractEventLoop,
    protocol: asyncio.BaseProtocol,
    sock: socket.socket,
    failed: Callable[[OSError], None],
) -> None:
    """Make a transport of ``sock`` for ``protocol``; ``failed`` is told when that cannot be."""
    _go_on(loop.connect_accepted_socket(lambda: protocol, sock), failed)


def _go_on(opening: Coroutine[Any, Any, Any], failed: Callable[[OSError], None]) -> None:
    """Go on with ``opening``, which waits for nothing but one future: a task would cost more than all of it."""
    try:
        waits_for = opening.send(None)
    except StopIteration:
        return
    except OSError as exc:
        failed(exc)
        return
    waits_for.add_done_callback(lambda _: _go_on(opening, failed))
