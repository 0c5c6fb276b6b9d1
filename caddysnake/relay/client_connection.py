"""One connection of Caddy's, or of a client's, at the relay: a ``BufferedProtocol`` around parser and exchange.

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
from collections.abc import Callable
from enum import Enum
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..channel.vitals import SLOT_HEAD_SENT, SLOT_IDLE, SLOT_READING
from ..http1.answers import refusal
from ..http1.errors import ProtocolError
from ..http1.request import RequestHead, RequestParser
from . import to_worker
from .answers import encoded
from .forwarding import Another, Answer, Command, Cut, EndLink, Exchange, Over, Stage, ToClient, ToLink, Tunnel
from .link_connection import WRITE_HIGH_BYTES
from .links import AppId

if TYPE_CHECKING:
    from .link_connection import LinkConnection
    from .server import RelayServer

BODY_HIGH_BYTES = 64 * 1024
"""Reading pauses while this much of a request waits for a link."""

LINGER_IDLE_S = 5.0
LINGER_TOTAL_S = 30.0
"""How long the rest of a request that nobody wants is read: without a byte, and at most. As the workers do."""


class Phase(Enum):
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
_IDLE, _HEAD, _REQUEST, _TUNNEL, _DRAIN, _LINGER, _CLOSING, _RETURNING, _CLOSED = Phase
_WAITING = Stage.WAITING

# Why reading is paused; it goes on when no reason is left.
_LINK_FULL = 1  # the worker does not take what was written to its link
_BODY_HELD = 2  # enough of the request waits for a link
_NEXT_HELD = 4  # the next request has begun
_CLIENT_FULL = 8  # the client does not take what was written to it, and asks for more


class ClientConnection(asyncio.BufferedProtocol):
    """Forwards the requests of one connection. Everything here runs on the server's loop.

    ``peer``: the address at the other end, empty when it has none. ``is_borrowed``: it goes back at the next boundary.
    """

    __slots__ = (
        "_app_id",
        "_exchange",
        "_holds",
        "_is_borrowed",
        "_is_half_closed",
        "_is_trusted",
        "_is_waiting",
        "_is_write_paused",
        "_linger_until",
        "_link",
        "_listener",
        "_peer",
        "_server",
        "_sock",
        "_started",
        "_transport",
        "_view",
        "_watched_since",
        "_write_left",
        "_write_since",
        "parser",
        "phase",
        "slot",
    )

    def __init__(
        self, server: RelayServer, sock: socket.socket, slot: int, listener: int, is_trusted: bool, is_borrowed: bool
    ) -> None:
        self.slot = slot
        self.parser = RequestParser(server.limits, server.sections)
        self.phase = _IDLE
        self._server = server
        self._sock = sock
        self._listener = listener
        self._is_trusted = is_trusted
        self._is_borrowed = is_borrowed
        self._peer = _peer_of(sock)
        self._view = server.view
        self._transport: Any = None
        self._exchange: Exchange | None = None
        self._link: LinkConnection | None = None
        self._app_id: AppId = (0, "")
        self._holds = 0
        self._is_half_closed = False
        self._is_waiting = False
        self._is_write_paused = False
        self._started = 0.0
        self._linger_until = 0.0
        self._watched_since = 0.0
        self._write_since = 0.0
        self._write_left = 0

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._transport.set_write_buffer_limits(WRITE_HIGH_BYTES)
        if self.phase is not _IDLE:
            self._transport.close()  # told to leave in the meantime
        elif self._server.is_leaving:
            self.leave()

    def get_buffer(self, sizehint: int) -> memoryview:
        # Called before the recv: should we die in between, the daemon knows that something may have been read.
        if self.phase is _IDLE:
            self._server.slots[self.slot] = SLOT_READING
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(self._view[:nbytes])
        self._server.tally.bytes_in += nbytes
        phase = self.phase
        try:
            if phase is _IDLE or phase is _HEAD:
                self.parser.feed(data)
                if self.parser.head is not None:
                    self._begin()
                else:
                    self._head_incomplete()
            elif phase is _REQUEST:
                self._more_request(data)
            elif phase is _TUNNEL:
                if self._link is not None:
                    self._link.write(data)
            elif phase is _DRAIN:
                self._more_unwanted(data)
            elif phase is _LINGER:
                self._watched_since = monotonic()
        except ProtocolError as error:
            self._refuse(error)

    def eof_received(self) -> bool:
        """True to keep our own side open."""
        exchange = self._exchange
        if exchange is None or (self.phase is not _TUNNEL and self._is_gone()):
            return False  # what was read of a tunnel goes on, whoever is gone
        self._is_half_closed = True
        self._carry_out(exchange.client_ended(self.parser.complete))
        return self.phase is _REQUEST

    def connection_lost(self, exc: BaseException | None) -> None:
        returned = self.phase is _RETURNING and exc is None
        self.phase = _CLOSED
        self._let_go()
        if not returned:
            try:
                self._sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the other side was first
        self._server.connection_lost(self, returned)

    def pause_writing(self) -> None:
        self._is_write_paused = True
        self._write_since = monotonic()
        self._write_left = self._transport.get_write_buffer_size()
        self._server.watch(self)
        if self._link is not None:
            self._link.pause_reading()

    def resume_writing(self) -> None:
        self._is_write_paused = False
        if self._link is not None:
            self._link.resume_reading()
        elif self._holds & _CLIENT_FULL:
            self._unhold(_CLIENT_FULL)
            if self.phase is _REQUEST:
                self._begin()

    def _is_gone(self) -> bool:
        """The other side is closed altogether, and not only its sending half: a unix socket tells."""
        poller = select.poll()
        poller.register(self._sock, 0)
        return bool(poller.poll(0))

    # Requests

    def _begin(self) -> None:
        """The head of a request is complete: find its app, and a link to that."""
        parser = self.parser
        head = parser.head
        assert head is not None
        server = self._server
        self.phase = _REQUEST
        self._watched_since = 0.0
        self._started = server.begins()
        if parser.pending:
            self._hold(_NEXT_HELD)
        elif self._holds:
            self._unhold(_NEXT_HELD)
        closes = server.is_orphaned or not head.keep_alive
        target = server.route(self._listener, head, self._peer, self._is_trusted)
        if isinstance(target, Answer):
            self._answer(target, head, closes)
            return
        outgoing = to_worker.head_for(head, target, self._peer, self._is_trusted)
        self._exchange = exchange = Exchange(head, outgoing, closes, continues=not self._is_trusted)
        self._app_id = app_id = (target.route, target.key)
        link = server.free_link(app_id, exchange.is_repeatable)
        if link is not None:
            self.linked(link)
        else:
            self._wait()

    def _wait(self) -> None:
        if self.parser.body_bytes > BODY_HIGH_BYTES:
            self._hold(_BODY_HELD)
        self._is_waiting = True
        self._server.wait(self._app_id, self)

    def _wait_no_more(self) -> None:
        if self._is_waiting:
            self._is_waiting = False
            self._server.waits_no_more(self._app_id, self)

    def linked(self, link: LinkConnection) -> None:
        """There is a link for the request."""
        exchange = self._exchange
        assert exchange is not None
        self._is_waiting = False
        self._link = link
        link.client = self
        if self._is_write_paused:
            link.pause_reading()
        if link.is_write_paused:
            self._hold(_LINK_FULL)
        self._carry_out(exchange.linked(self.parser.take_body(), self.parser.complete))
        self._unhold(_BODY_HELD)

    def refused(self, answer: Answer) -> None:
        """There will be no link."""
        exchange = self._exchange
        assert exchange is not None
        self._is_waiting = False
        self._carry_out(exchange.refused(answer))

    def _head_incomplete(self) -> None:
        if self.parser.at_boundary:
            self.phase = _IDLE
            self._server.slots[self.slot] = SLOT_IDLE
        elif self.phase is _IDLE:
            self.phase = _HEAD
            self._watched_since = monotonic()
            self._server.watch(self)

    def _more_request(self, data: bytes) -> None:
        parser = self.parser
        exchange = self._exchange
        assert exchange is not None
        was_complete = parser.complete
        try:
            parser.feed(data)
        except ProtocolError as error:
            self._carry_out(exchange.request_broken(error))
            return
        if parser.pending:
            self._hold(_NEXT_HELD)
        if was_complete:
            return
        if exchange.stage is _WAITING:
            if parser.body_bytes > BODY_HIGH_BYTES:
                self._hold(_BODY_HELD)
        else:
            self._carry_out(exchange.content(parser.take_body(), parser.complete))

    def _more_unwanted(self, data: bytes) -> None:
        self._watched_since = monotonic()
        self.parser.feed(data)
        self.parser.take_body()
        if self.parser.complete:
            self._boundary()

    # The link's side

    def link_data(self, data: bytes) -> None:
        if self.phase is _TUNNEL:
            self._write(data)
            return
        exchange = self._exchange
        assert exchange is not None
        self._carry_out(exchange.response(data))

    def link_ended(self, is_orderly: bool) -> None:
        self._link = None
        if self._exchange is not None:
            self._unhold(_LINK_FULL)
            self._carry_out(self._exchange.link_ended(is_orderly))

    def link_full(self) -> None:
        self._hold(_LINK_FULL)

    def link_drained(self) -> None:
        self._unhold(_LINK_FULL)

    def _drop_link(self, flushes: bool = False) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.discard(flushes)

    # Commands

    def _carry_out(self, commands: list[Command]) -> None:
        for command in commands:
            if type(command) is ToClient:
                self._write(command.data)
            elif type(command) is ToLink:
                if self._link is not None:
                    self._link.write(command.data)
            else:
                _CARRY_OUT[type(command)](self, command)

    def _end_link(self, _: EndLink) -> None:
        if self._link is not None:
            self._link.write_eof()

    def _another(self, _: Another) -> None:
        self._drop_link()
        self._wait()

    def _tunnel(self, _: Tunnel) -> None:
        self.phase = _TUNNEL
        self._server.count(101, self._started)
        parser = self.parser
        if parser.pending and self._link is not None:
            data, parser.pending = parser.pending, b""
            self._link.write(data)
        self._unhold(_NEXT_HELD)

    def _over(self, command: Over) -> None:
        """The response is complete: the connection goes on."""
        exchange = self._exchange
        assert exchange is not None
        self._exchange = None
        if self.phase is not _TUNNEL:
            self._server.count(exchange.status, self._started)
        link = self._link
        if command.is_clean and link is not None and (not exchange.head.has_body or link.is_flushed):
            self._link = None
            link.client = None
            if self._is_write_paused:
                link.resume_reading()
            self._server.release(link)
        else:
            self._drop_link(flushes=self.phase is _TUNNEL)
        self._response_done(command.keeps_client)

    def _answer_instead(self, command: Answer) -> None:
        exchange = self._exchange
        assert exchange is not None
        self._exchange = None
        self._wait_no_more()
        self._drop_link()
        self._server.failed(command, self._app_id)
        self._answer(command, exchange.head, exchange.closes)

    def _answer(self, answer: Answer, head: RequestHead, closes: bool) -> None:
        server = self._server
        self._write(encoded(answer, head, closes, server.server_header, server.settings.development))
        server.count(answer.status, self._started)
        self._response_done(not closes)

    def _cut(self, command: Cut) -> None:
        self._server.cut(command, self._app_id)
        self._let_go(502)
        self.abort()

    def _response_done(self, keeps_client: bool) -> None:
        if self._holds:
            self._unhold(_LINK_FULL | _BODY_HELD)
        if not keeps_client or self._is_half_closed:
            self._finish()
        elif self.parser.complete:
            self._boundary()
        else:
            self._linger_from_now(_DRAIN)
            self.parser.take_body()

    def _boundary(self) -> None:
        """Both sides of a request are complete, and the connection stays."""
        self.phase = _IDLE
        server = self._server
        parser = self.parser
        has_more = bool(parser.pending)
        server.slots[self.slot] = SLOT_READING if has_more else SLOT_IDLE
        try:
            parser.next_message()
        except ProtocolError as error:
            self._refuse(error)
            return
        if self._is_write_paused:
            self._hold(_CLIENT_FULL)
        if has_more:
            if parser.head is not None:
                # Not at once: a client could send any number of requests that are answered as they are read.
                self.phase = _REQUEST
                self._hold(_NEXT_HELD)
                if not self._is_write_paused:
                    server.call_soon(self._begin_held)
                return
            self._head_incomplete()
        if self._holds:
            self._unhold(_NEXT_HELD)
        if (server.is_leaving or self._is_borrowed) and self.phase is _IDLE:
            self.leave()

    def _begin_held(self) -> None:
        if self.phase is _REQUEST and self._exchange is None:
            self._begin()

    # Ends

    def leave(self) -> None:
        """Give the connection back, or end it when there is nobody to give it to; only if it is idle."""
        if self.phase is not _IDLE:
            return
        self.phase = _CLOSING if self._server.is_orphaned else _RETURNING
        if self._transport is not None:
            self._close(self.phase)

    def ends_after_answer(self) -> None:
        """The daemon is gone: what is being answered now is the last answer."""
        if self._exchange is not None:
            self._exchange.closes = True

    def abort(self) -> None:
        """Cut the connection: what was sent is not a whole response, and must not look like one."""
        if self.phase is _CLOSED or self._transport is None:
            return
        self.phase = _CLOSING
        self._let_go()
        self._transport.abort()

    def _let_go(self, status: int = 499) -> None:
        """Leave the request that is being forwarded, if any: nobody wants its response. ``status`` is for counting."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None and exchange.stage is not Stage.TUNNEL:
            self._server.count(status, self._started)
        self._wait_no_more()
        self._drop_link()

    def _finish(self) -> None:
        """The last response is out."""
        if self.parser.complete and not self.parser.pending:
            self._close(_CLOSING)
        else:
            self._linger()

    def _close(self, phase: Phase) -> None:
        """End it, or give it back, once what was written has left. A client that does not read is watched."""
        self.phase = phase
        self._transport.close()
        left = self._transport.get_write_buffer_size()
        if left:
            self._write_left, self._write_since = left, monotonic()
            self._server.watch(self)

    def _linger(self) -> None:
        """End our side, and read on until the client has ended its own: what it still writes must not fail."""
        if self._is_half_closed or self._transport.is_closing():
            self._close(_CLOSING)
            return
        self._linger_from_now(_LINGER)
        try:
            self._transport.write_eof()
        except OSError:
            pass  # the client was first; the next read will say so

    def _linger_from_now(self, phase: Phase) -> None:
        self.phase = phase
        self._watched_since = monotonic()
        self._linger_until = self._watched_since + LINGER_TOTAL_S
        self._server.watch(self)
        self._unhold(self._holds)

    def _refuse(self, error: ProtocolError) -> None:
        """Answer a request that no app will see, and end the connection."""
        if self.phase is _DRAIN:
            self._linger()
            return
        head = self.parser.head or self.parser.draft
        self._write(refusal(error, head, self._server.server_header))
        self._server.count_refusal(error)
        self._linger()

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

    def overdue(self, now: float) -> bool:
        """Act if something takes too long; False when there is nothing to watch any more."""
        settings = self._server.settings
        phase = self.phase
        if self._is_write_paused or phase is _CLOSING or phase is _RETURNING:
            left = self._transport.get_write_buffer_size()
            if left != self._write_left:
                self._write_left, self._write_since = left, now
            elif now - self._write_since > settings.write_timeout_s:
                self.abort()
            return True
        waited = now - self._watched_since
        if phase is _HEAD:
            if waited > settings.head_timeout_s:
                self._refuse(ProtocolError(408, "head-timeout", "the request head did not arrive in time"))
            return True
        if phase is _DRAIN or phase is _LINGER:
            if waited > LINGER_IDLE_S or now > self._linger_until:
                self._close(_CLOSING)
            return True
        return False


_CARRY_OUT: dict[type, Callable[[ClientConnection, Any], None]] = {
    EndLink: ClientConnection._end_link,
    Another: ClientConnection._another,
    Tunnel: ClientConnection._tunnel,
    Over: ClientConnection._over,
    Answer: ClientConnection._answer_instead,
    Cut: ClientConnection._cut,
}


def _peer_of(sock: socket.socket) -> str:
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return ""
    try:
        address: str = sock.getpeername()[0]
    except OSError:
        return ""  # already gone; the first read will say so
    return address.removeprefix("::ffff:") if "." in address else address
