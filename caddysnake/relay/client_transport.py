"""How a connection from Caddy, or from a client, begins, pauses, waits and ends at the relay; nothing of requests.

=============  ====================================================================================
phase          meaning
=============  ====================================================================================
IDLE           at a request boundary, nothing read: may be given back to the daemon
HEAD           part of a request's head has been read
REQUEST        a request is being forwarded, or waits for a link (see ``forwarding``)
TUNNEL         bytes go both ways, unread
DRAIN          the response is out, the rest of its request is read and dropped
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
import select
import socket
from enum import Enum
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..channel.vitals import SLOT_HEAD_SENT
from .link_connection import WRITE_HIGH_BYTES

if TYPE_CHECKING:
    from .server import RelayServer

LINGER_IDLE_S = 5.0
LINGER_TOTAL_S = 30.0
"""How long the rest of a request that nobody wants is read: without a byte, and at most. As the workers do."""


class TransportPhase(Enum):
    """Where a connection stands: what its next bytes are, or how it ends."""

    IDLE = "idle"
    HEAD = "head"
    REQUEST = "request"
    TUNNEL = "tunnel"
    DRAIN = "drain"
    LINGER = "linger"
    CLOSING = "closing"
    RETURNING = "returning"
    CLOSED = "closed"


# CPython 3.11 reaches a member through its class by a descriptor written in Python: too slow for each request.
_IDLE, _HEAD, _REQUEST, _TUNNEL, _DRAIN, _LINGER, _CLOSING, _RETURNING, _CLOSED = TransportPhase

# Why reading is paused; it goes on when no reason is left.
LINK_FULL = 1
"""The worker does not take what was written to its link."""
BODY_HELD = 2
"""Enough of the request waits for a link."""
NEXT_HELD = 4
"""The next request has begun."""
CLIENT_FULL = 8
"""The client does not take what was written to it, and would ask for more."""
PUT_OFF = 16
"""Its app has had its share of this turn of the loop."""


class ClientTransport(asyncio.BufferedProtocol):
    """One connection, without its requests: those are ``ClientConnection``'s, in the methods that raise here."""

    __slots__ = (
        "_counted",
        "_holds",
        "_is_half_closed",
        "_is_write_paused",
        "_linger_until",
        "_server",
        "_sock",
        "_transport",
        "_watched_since",
        "_write_left",
        "_write_since",
        "phase",
        "slot",
    )

    def __init__(self, server: RelayServer, sock: socket.socket, slot: int) -> None:
        self.slot = slot
        self.phase = _IDLE
        self._server = server
        self._sock = sock
        self._transport: Any = None
        self._holds = 0
        self._is_half_closed = False
        """The client has ended its side, and may still be reading."""
        self._is_write_paused = False
        self._counted = 0
        """What is held for the client, which does not read."""
        self._linger_until = 0.0
        self._watched_since = 0.0
        self._write_since = 0.0
        self._write_left = 0

    # What requests are concerned with

    def _let_go(self) -> None:
        """Leave the request that is being forwarded, if any: nobody is there for its response."""
        raise NotImplementedError

    def _client_drained(self) -> None:
        """The client takes more again."""
        raise NotImplementedError

    def _client_full(self) -> None:
        """The client takes no more for now."""
        raise NotImplementedError

    def _head_overdue(self) -> None:
        """A head has taken too long."""
        raise NotImplementedError

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the transport is there. One that comes while the relay leaves is given back at once."""
        self._transport = transport
        self._transport.set_write_buffer_limits(WRITE_HIGH_BYTES)
        if self.phase is not _IDLE:
            self._transport.close()  # told to leave in the meantime
        elif self._server.is_leaving:
            self.leave()

    def connection_lost(self, exc: BaseException | None) -> None:
        """asyncio: the transport is closed. The other side sees the end, unless the connection was given back."""
        returned = self.phase is _RETURNING and exc is None
        self.phase = _CLOSED
        self._server.backlog.change(-self._counted)
        self._counted = 0
        self._let_go()
        if not returned:
            try:
                self._sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the other side was first
        self._server.connection_lost(self, returned)

    def pause_writing(self) -> None:
        """asyncio: ``WRITE_HIGH_BYTES`` wait for the client. The link is read no more, and the write deadline runs."""
        self._is_write_paused = True
        self._watch_writing()
        self._counted = self._write_left
        self._server.backlog.change(self._counted)
        self._client_full()

    def resume_writing(self) -> None:
        """asyncio: the client has read enough."""
        self._is_write_paused = False
        self._server.backlog.change(-self._counted)
        self._counted = 0
        self._client_drained()

    def _is_gone(self) -> bool:
        """The other side is closed altogether, and not only its sending half: a unix socket tells."""
        poller = select.poll()
        poller.register(self._sock, 0)
        return bool(poller.poll(0))

    # Ends

    def leave(self) -> None:
        """Give the connection back, or end it when there is nobody to give it to; only if it is idle."""
        if self.phase is not _IDLE:
            return
        self.phase = _CLOSING if self._server.is_orphaned else _RETURNING
        if self._transport is not None:
            self._close(self.phase)

    def abort(self) -> None:
        """Cut the connection: what was sent is not a whole response, and must not look like one."""
        if self.phase is _CLOSED or self._transport is None:
            return
        self.phase = _CLOSING
        self._let_go()
        self._transport.abort()

    def _close(self, phase: TransportPhase = TransportPhase.CLOSING) -> None:
        """End it, or give it back, once what was written has left. A client that does not read is watched."""
        self.phase = phase
        self._transport.close()
        if self._transport.get_write_buffer_size():
            self._watch_writing()

    def _linger(self) -> None:
        """End our side, and read on until the client has ended its own: what it still writes must not fail."""
        if self._is_half_closed or self._transport.is_closing():
            self._close()
            return
        self._linger_from_now(_LINGER)
        try:
            self._transport.write_eof()
        except OSError:
            pass  # the client was first; the next read will say so

    def _linger_from_now(self, phase: TransportPhase) -> None:
        self.phase = phase
        self._watched_since = monotonic()
        self._linger_until = self._watched_since + LINGER_TOTAL_S
        self._server.watch(self)
        self._unhold(self._holds)

    # Writing and reading

    def _write(self, data: bytes) -> None:
        server = self._server
        server.slots[self.slot] = SLOT_HEAD_SENT
        server.tally.bytes_out += len(data)
        self._transport.write(data)

    def _hold(self, reason: int) -> None:
        if not self._holds and not self._transport.is_closing():
            self._transport.pause_reading()
        self._holds |= reason

    def _unhold(self, reason: int) -> None:
        if self._holds & reason:
            self._holds &= ~reason
            if not self._holds and not self._transport.is_closing():
                self._transport.resume_reading()

    # Time

    def _watch_writing(self) -> None:
        self._write_since = monotonic()
        self._write_left = self._transport.get_write_buffer_size()
        self._server.watch(self)

    def _watch_head(self) -> None:
        self._watched_since = monotonic()
        self._server.watch(self)

    def overdue(self, now: float) -> bool:
        """Act if something takes too long; False when there is nothing to watch any more."""
        settings = self._server.settings
        phase = self.phase
        if self._is_write_paused or phase is _CLOSING or phase is _RETURNING:
            left = self._transport.get_write_buffer_size()
            if not left and not self._is_write_paused:
                return False  # it closes at the end of this turn; cutting it now would end what is only given back
            if left != self._write_left:
                self._write_left, self._write_since = left, now
            elif now - self._write_since > settings.write_timeout_s:
                self.abort()
            return True
        waited = now - self._watched_since
        if phase is _HEAD:
            if waited > settings.head_timeout_s:
                self._head_overdue()
            return True
        if phase is _DRAIN or phase is _LINGER:
            if waited > LINGER_IDLE_S or now > self._linger_until:
                self._close()
            return True
        return False
