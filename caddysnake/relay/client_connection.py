"""The requests of one connection at the relay: a ``BufferedProtocol`` around parser and exchange.

How the connection itself begins and ends is ``ClientTransport``'s, and so are the phases.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..channel.vitals import SLOT_IDLE, SLOT_READING
from ..http1.answers import refusal
from ..http1.errors import ProtocolError
from ..http1.request import RequestHead, RequestParser
from . import link_connection, to_worker
from .answers import encoded
from .client_transport import BODY_HELD, CLIENT_FULL, LINK_FULL, NEXT_HELD, PUT_OFF, ClientTransport, TransportPhase
from .exchange import (
    Abort,
    Answer,
    Command,
    Complete,
    EndLink,
    Exchange,
    ExchangeStage,
    Retry,
    ToClient,
    ToLink,
    Tunnel,
)
from .link_pool import AppId
from .turns import COPY_SHIFT, CREDIT_UNITS, EVENT_UNITS

if TYPE_CHECKING:
    from .link_connection import LinkConnection
    from .server import RelayServer

HEAD_HIGH_BYTES = 16 * 1024
"""A head of a response that is not whole may be so long while memory is tight."""

DENSE_SHIFT = 8
"""Bytes, shifted so: as many chunks are no more than an honest client sends."""

# CPython 3.11 reaches a member through its class by a descriptor written in Python: too slow for each request.
_IDLE, _HEAD, _REQUEST, _TUNNEL, _DRAIN, _LINGER, _CLOSING, _RETURNING, _CLOSED = TransportPhase
_WAITING = ExchangeStage.WAITING


class ClientConnection(ClientTransport):
    """Forwards the requests of one connection. Everything here runs on the server's loop.

    ``peer``: the address at the other end, empty when it has none. ``is_borrowed``: it goes back at the next boundary.
    ``is_last``: the next answer ends it.
    """

    __slots__ = (
        "_debt",
        "_exchange",
        "_is_borrowed",
        "_is_last",
        "_is_trusted",
        "_is_waiting",
        "_link",
        "_listener",
        "_parser",
        "_peer",
        "_started",
        "_view",
        "app_id",
    )

    def __init__(
        self,
        server: RelayServer,
        sock: socket.socket,
        slot: int,
        listener: int,
        is_trusted: bool,
        is_borrowed: bool,
        is_last: bool,
    ) -> None:
        super().__init__(server, sock, slot)
        self._listener = listener
        self._is_trusted = is_trusted
        self._is_borrowed = is_borrowed
        self._is_last = is_last
        self._peer = _peer_of(sock)
        self._view = server.head_view
        self._debt = 0
        """Units of work for content that its app has not been charged for."""
        self._parser = RequestParser(server.limits, server.heads)
        self._exchange: Exchange | None = None
        self._link: LinkConnection | None = None
        self.app_id: AppId = (0, "")
        """Whose the request is that is being forwarded, or was last."""
        self._is_waiting = False
        """For a link."""
        self._started = 0.0

    # The transport's side

    def get_buffer(self, sizehint: int) -> memoryview:
        """asyncio: where to put what arrives. ``sizehint`` is not needed."""
        # Called before the recv: should we die in between, the daemon knows that something may have been read.
        if self.phase is _IDLE:
            server = self._server
            server.slots[self.slot] = SLOT_READING
            self._view = server.head_view
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        """asyncio: ``nbytes`` have arrived. A breach of HTTP is answered and ends the connection; nothing is raised."""
        data = bytes(self._view[:nbytes])
        self._server.tally.bytes_in += nbytes
        phase = self.phase
        try:
            if phase is _IDLE or phase is _HEAD:
                self._parser.feed(data)
                if self._parser.head is not None:
                    self._begin(data if phase is _IDLE else b"")
                else:
                    self._head_incomplete()
            elif phase is _REQUEST:
                self._more_request(data)
            elif phase is _TUNNEL:
                if self._link is not None:
                    self._link.write(data)
                    self._owes(nbytes >> COPY_SHIFT)
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
        self._carry_out(exchange.client_ended(self._parser.complete))
        return self.phase is _REQUEST

    def _client_full(self) -> None:
        if self._link is not None:
            self._link.hold(link_connection.CLIENT_FULL)

    def _client_drained(self) -> None:
        if self._link is not None:
            self._link.unhold(link_connection.CLIENT_FULL)
        elif self._holds & CLIENT_FULL:
            self._unhold(CLIENT_FULL)
            if self.phase is _REQUEST:
                self._begin()

    # Requests

    def _begin(self, came: bytes = b"") -> None:
        """The head of a request is complete: find its app, and a link to that. ``came``: what was read, when the head
        came at once.
        """
        parser = self._parser
        head = parser.head
        assert head is not None
        server = self._server
        self.phase = _REQUEST
        self._watched_since = 0.0
        self._started = server.begins()
        if parser.pending:
            self._hold(NEXT_HELD)
        elif self._holds:
            self._unhold(NEXT_HELD)
        if head.chunked:
            self._view = server.chunks_view
        closes = server.is_orphaned or self._is_last or not head.keep_alive
        target = server.route(self._listener, head, self._peer, self._is_trusted)
        if isinstance(target, Answer):
            self._answer(target, head, closes)
            return
        outgoing = to_worker.head_for(head, target, self._peer, self._is_trusted, came)
        self._exchange = exchange = Exchange(head, outgoing, closes, continues=not self._is_trusted)
        self.app_id = app_id = (target.route, target.key)
        link = server.free_link(app_id, exchange.is_repeatable)
        if link is not None:
            self.linked(link)
        else:
            self._wait()

    def _wait(self) -> None:
        if self._parser.body_bytes > self._server.body_high_bytes:
            self._hold(BODY_HELD)
        self._is_waiting = True
        self._server.wait(self.app_id, self)

    def _wait_no_more(self) -> None:
        if self._is_waiting:
            self._is_waiting = False
            self._server.waits_no_more(self.app_id, self)

    def linked(self, link: LinkConnection) -> None:
        """There is a link for the request."""
        exchange = self._exchange
        assert exchange is not None
        self._is_waiting = False
        self._link = link
        link.client = self
        if self._is_write_paused:
            link.hold(link_connection.CLIENT_FULL)
        if link.is_write_paused:
            self._hold(LINK_FULL)
        whole = exchange.linked_whole()
        if whole is not None:
            link.write(whole)
            return
        self._owes(len(self._parser.body))
        self._carry_out(exchange.linked(self._parser.take_body(), self._parser.complete))
        self._unhold(BODY_HELD)

    def refused(self, answer: Answer) -> None:
        """There will be no link."""
        exchange = self._exchange
        assert exchange is not None
        self._is_waiting = False
        self._carry_out(exchange.refused(answer))

    def _head_incomplete(self) -> None:
        if self._parser.at_boundary:
            self.phase = _IDLE
            self._server.slots[self.slot] = SLOT_IDLE
        elif self.phase is _IDLE:
            self.phase = _HEAD
            self._watch_head()

    def _more_request(self, data: bytes) -> None:
        parser = self._parser
        exchange = self._exchange
        assert exchange is not None
        was_complete = parser.complete
        try:
            parser.feed(data)
        except ProtocolError as error:
            self._carry_out(exchange.request_broken(error))
            return
        if parser.pending:
            self._hold(NEXT_HELD)
        if was_complete:
            return
        self._content_came(len(data))
        if exchange.stage is _WAITING:
            if parser.body_bytes > self._server.body_high_bytes:
                self._hold(BODY_HELD)
        else:
            self._carry_out(exchange.content(parser.take_body(), parser.complete))

    def _more_unwanted(self, data: bytes) -> None:
        self._watched_since = monotonic()
        self._parser.feed(data)
        self._content_came(len(data))
        self._parser.take_body()
        if self._parser.complete:
            self._boundary()

    def _content_came(self, size: int) -> None:
        """Charge for ``size`` bytes of content that were parsed. A client chooses how many chunks there are in them:
        as long as there are many, less is read at a time.
        """
        chunks = len(self._parser.body)
        server = self._server
        self._view = server.backlog.view if chunks <= size >> DENSE_SHIFT else server.chunks_view
        self._owes((size >> COPY_SHIFT) + chunks)

    def _owes(self, units: int) -> None:
        """Charge for an event of so much work; when its app has had its share, read on when it is its turn."""
        self._debt += EVENT_UNITS + units
        if self._debt < CREDIT_UNITS:
            return
        turns = self._server.turns
        if turns.may(self.app_id):
            turns.spend(self.app_id, self._debt)
            self._debt = 0
        else:
            self._hold(PUT_OFF)
            turns.later(self.app_id, self._go_on)

    def _go_on(self) -> None:
        self._server.turns.spend(self.app_id, self._debt)
        self._debt = 0
        self._unhold(PUT_OFF)

    # The link's side

    def link_data(self, data: bytes) -> None:
        """The worker has sent ``data``, one or more bytes of its answer or, in a tunnel, of what follows a 101."""
        if self.phase is not _TUNNEL:
            exchange = self._exchange
            assert exchange is not None
            whole = exchange.answered_whole(data)
            if whole is not None:
                answer, over = whole
                self._write(answer)
                self._over(over)
                return
        link = self._link
        assert link is not None
        if link.may_go_on():
            self.link_step(data, is_hurried=True)
        else:
            link.put_off(data)

    def link_step(self, data: bytes, is_hurried: bool = False) -> None:
        """Go on with what the worker has sent: ``data``, or nothing more than what the exchange is behind with.

        ``is_hurried``: with a little of it, since others wait.
        """
        link = self._link
        assert link is not None
        if self.phase is _TUNNEL:
            link.owes(EVENT_UNITS + (len(data) >> COPY_SHIFT))
            self._write(data)
            return
        exchange = self._exchange
        assert exchange is not None
        commands = exchange.response(data, is_hurried)
        link.owes(EVENT_UNITS + exchange.units + (len(data) >> COPY_SHIFT))
        link.holds_head(exchange.begun_bytes)
        if exchange.begun_bytes > HEAD_HIGH_BYTES and self._server.backlog.is_tight:
            commands = exchange.failed(502, "bad-response", "a head too large for the memory that there is")
        self._carry_out(commands)
        if exchange.is_behind:
            link.put_off()

    def read_less(self) -> None:
        """Memory has become tight, or no longer is."""
        self._view = self._server.head_view

    def link_ended(self, is_orderly: bool) -> None:
        """The link has ended; ``is_orderly``: by the worker's end of file, not by an error. It is not ours any more."""
        self._link = None
        if self._exchange is not None:
            self._unhold(LINK_FULL)
            self._carry_out(self._exchange.link_ended(is_orderly))

    def link_full(self) -> None:
        """The worker does not read: take no more from the client until ``link_drained``."""
        self._hold(LINK_FULL)

    def link_drained(self) -> None:
        """The worker reads again."""
        self._unhold(LINK_FULL)

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

    def _another(self, _: Retry) -> None:
        self._drop_link()
        self._wait()

    def _tunnel(self, _: Tunnel) -> None:
        self.phase = _TUNNEL
        self._server.count(101, self._started)
        parser = self._parser
        if parser.pending and self._link is not None:
            data, parser.pending = parser.pending, b""
            self._link.write(data)
        self._unhold(NEXT_HELD)

    def _over(self, command: Complete) -> None:
        """The response is complete: the connection goes on."""
        exchange = self._exchange
        assert exchange is not None
        self._exchange = None
        if self.phase is not _TUNNEL:
            self._server.count(exchange.status, self._started)
        link = self._link
        if command.is_clean and link is not None and (not exchange.has_body or link.is_flushed):
            self._link = None
            link.client = None
            if self._is_write_paused:
                link.unhold(link_connection.CLIENT_FULL)
            self._server.release(link)
        else:
            self._drop_link(flushes=self.phase is _TUNNEL)
        if command.keeps_client and not self._holds and not self._is_half_closed and self._parser.complete:
            self._boundary()  # as below, for most
        else:
            self._response_done(command.keeps_client)

    def _answer_instead(self, command: Answer) -> None:
        exchange = self._exchange
        assert exchange is not None
        self._exchange = None
        self._wait_no_more()
        self._drop_link()
        self._server.failed(command, self.app_id)
        self._answer(command, exchange.head, exchange.closes)

    def _answer(self, answer: Answer, head: RequestHead, closes: bool) -> None:
        server = self._server
        self._write(encoded(answer, head, closes, server.server_header, server.settings.development))
        server.count(answer.status, self._started)
        self._response_done(not closes)

    def _cut(self, command: Abort) -> None:
        self._server.cut(command, self.app_id)
        self._let_go(502)
        self.abort()

    def _response_done(self, keeps_client: bool) -> None:
        if self._holds:
            self._unhold(LINK_FULL | BODY_HELD)
        if not keeps_client or self._is_half_closed:
            self._finish()
        elif self._parser.complete:
            self._boundary()
        else:
            self._linger_from_now(_DRAIN)
            self._parser.take_body()

    def _boundary(self) -> None:
        """Both sides of a request are complete, and the connection stays."""
        self.phase = _IDLE
        server = self._server
        parser = self._parser
        has_more = bool(parser.pending)
        server.slots[self.slot] = SLOT_READING if has_more else SLOT_IDLE
        try:
            parser.next_message()
        except ProtocolError as error:
            self._refuse(error)
            return
        if self._is_write_paused:
            self._hold(CLIENT_FULL)
        if has_more:
            if parser.head is not None:
                # Not at once: a client could send any number of requests that are answered as they are read.
                self.phase = _REQUEST
                self._hold(NEXT_HELD)
                if not self._is_write_paused:
                    server.call_soon(self._begin_held)
                return
            self._head_incomplete()
        if self._holds:
            self._unhold(NEXT_HELD)
        if (server.is_leaving or self._is_borrowed) and self.phase is _IDLE:
            self.leave()

    def _begin_held(self) -> None:
        if self.phase is _REQUEST and self._exchange is None:
            self._begin()

    # Ends

    def ends_after_answer(self) -> None:
        """The daemon is gone: what is being answered now is the last answer."""
        if self._exchange is not None:
            self._exchange.closes = True

    def _let_go(self, status: int = 499) -> None:
        """Leave the request that is being forwarded, if any. ``status`` is for counting."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None and exchange.stage is not ExchangeStage.TUNNEL:
            self._server.count(status, self._started)
        self._wait_no_more()
        self._drop_link()

    def _finish(self) -> None:
        """The last response is out."""
        if self._parser.complete and not self._parser.pending:
            self._close()
        else:
            self._linger()

    def _head_overdue(self) -> None:
        self._refuse(ProtocolError(408, "head-timeout", "the request head did not arrive in time"))

    def _refuse(self, error: ProtocolError) -> None:
        """Answer a request that no app will see, and end the connection."""
        if self.phase is _DRAIN:
            self._linger()
            return
        head = self._parser.head or self._parser.draft
        self._write(refusal(error, head, self._server.server_header))
        self._server.count_refusal(error)
        self._linger()


_CARRY_OUT: dict[type, Callable[[ClientConnection, Any], None]] = {
    EndLink: ClientConnection._end_link,
    Retry: ClientConnection._another,
    Tunnel: ClientConnection._tunnel,
    Complete: ClientConnection._over,
    Answer: ClientConnection._answer_instead,
    Abort: ClientConnection._cut,
}


def _peer_of(sock: socket.socket) -> str:
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return ""
    try:
        address: str = sock.getpeername()[0]
    except OSError:
        return ""  # already gone; the first read will say so
    return address.removeprefix("::ffff:") if "." in address else address
