"""The requests of one connection at the relay: a ``BufferedProtocol`` around parser and exchange."""

from __future__ import annotations

import socket
from collections.abc import Callable
from time import monotonic
from typing import Any

from ..aio.transport import ConnectionPhase
from ..channel.vitals import SLOT_IDLE, SLOT_READING
from ..http1.errors import ProtocolError
from ..http1.request import RequestHead
from . import link_connection, to_worker
from .affinity import Wish
from .answers import encoded
from .client_flow import BODY_HELD, CLIENT_FULL, LINK_FULL, NEXT_HELD, ClientFlow
from .context import RelayContext
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
from .link_broker import LinkBroker
from .link_connection import LinkConnection
from .link_pool import AppId
from .turns import COPY_SHIFT, EVENT_UNITS

HEAD_HIGH_BYTES = 16 * 1024
"""A head of a response that is not whole may be so long while memory is tight."""

# CPython 3.11 reaches a member through its class by a descriptor written in Python: too slow for each request.
_IDLE, _HEAD, _REQUEST, _FLUSH, _DRAIN, _LINGER, _CLOSING, _RETURNING, _UPGRADED, _CLOSED = ConnectionPhase
_WAITING = ExchangeStage.WAITING


class ClientConnection(ClientFlow):
    """Forwards the requests of one connection. Everything here runs on the server's loop.

    ``peer``: the address at the other end, empty when it has none. ``is_borrowed``: it goes back at the next boundary.
    ``is_last``: the next answer ends it.
    """

    __slots__ = (
        "_broker",
        "_exchange",
        "_is_borrowed",
        "_is_trusted",
        "_is_waiting",
        "_link",
        "_listener",
        "_peer",
        "_started",
        "_wish",
    )

    def __init__(
        self,
        context: RelayContext,
        broker: LinkBroker,
        sock: socket.socket,
        slot: int,
        listener: int,
        is_trusted: bool,
        is_borrowed: bool,
        is_last: bool,
    ) -> None:
        super().__init__(context, sock, slot, is_last)
        self._broker = broker
        self._listener = listener
        self._is_trusted = is_trusted
        self._is_borrowed = is_borrowed
        self._peer = _peer_of(sock)
        self._exchange: Exchange | None = None
        self._link: LinkConnection | None = None
        self._is_waiting = False
        """For a link."""
        self._started = 0.0
        self._wish: Wish | None = None
        """Which worker the request is to go to, where its app says so."""

    # The transport's side

    def buffer_updated(self, nbytes: int) -> None:
        """asyncio: ``nbytes`` have arrived. A breach of HTTP is answered and ends the connection; nothing is raised."""
        data = bytes(self._view[:nbytes])
        self.context.counters.bytes_in += nbytes
        phase = self.phase
        try:
            if phase is _IDLE or phase is _HEAD:
                self.parser.feed(data)
                if self.parser.head is not None:
                    self._begin(data if phase is _IDLE else b"")
                else:
                    self._head_incomplete()
            elif phase is _REQUEST:
                self._more_request(data)
            elif phase is _UPGRADED:
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
        if exchange is None or (self.phase is not _UPGRADED and self._is_gone()):
            return False  # what was read of a tunnel goes on, whoever is gone
        self.is_half_closed = True
        self._carry_out(exchange.client_ended(self.parser.complete))
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
        """A head is complete: find its app, and a link. ``came``: what was read, when the head came at once."""
        parser = self.parser
        head = parser.head
        assert head is not None
        context = self.context
        self.phase = _REQUEST
        self._watched_since = 0.0
        self._started = context.begins()
        if parser.pending:
            self._hold(NEXT_HELD)
        elif self._holds:
            self._unhold(NEXT_HELD)
        if head.chunked:
            self._view = context.chunks_view
        closes = context.is_orphaned or self.is_last or not head.keep_alive
        target = context.route(self._listener, head, self._peer, self._is_trusted)
        if isinstance(target, Answer):
            self._answer(target, head, closes)
            return
        outgoing = to_worker.head_for(head, target, self._peer, self._is_trusted, came)
        self._exchange = exchange = Exchange(head, outgoing, closes, continues=not self._is_trusted)
        app_id: AppId = (target.route, target.key)
        if context.affinity:
            wish = self._wish = context.affinity.wish(app_id, head, context.now)
            if wish is not None:
                app_id = (target.route, target.key, wish.worker)
        self.app_id = app_id
        link = self._broker.free_link(app_id, exchange.is_repeatable)
        if link is not None:
            self.linked(link)
        else:
            self._wait()

    def _wait(self) -> None:
        if self.parser.body_bytes > self.context.body_high_bytes:
            self._hold(BODY_HELD)
        self._is_waiting = True
        self._broker.wait(self.app_id, self)

    def _wait_no_more(self) -> None:
        if self._is_waiting:
            self._is_waiting = False
            self._broker.waits_no_more(self.app_id, self)

    def linked(self, link: LinkConnection) -> None:
        """There is a link for the request."""
        exchange = self._exchange
        assert exchange is not None
        self._is_waiting = False
        self._link = link
        link.client = self
        if self._wish is not None and link.owner is not None:
            # Perhaps not the worker that was wished for: app and client are told.
            self.app_id = link.owner
            grant = self.context.affinity.granted
            for_app, for_client = grant(self._wish, link.owner[2], exchange.head, self._is_trusted, self.context.now)
            if for_app:
                exchange.tell(for_app)
            exchange.added = [for_client] if for_client else []
        if self.is_write_paused:
            link.hold(link_connection.CLIENT_FULL)
        if link.is_write_paused:
            self._hold(LINK_FULL)
        whole = exchange.linked_whole()
        if whole is not None:
            link.write(whole)
            return
        self._owes(len(self.parser.body))
        self._carry_out(exchange.linked(self.parser.take_body(), self.parser.complete))
        self._unhold(BODY_HELD)

    def refused(self, answer: Answer) -> None:
        """There will be no link."""
        exchange = self._exchange
        assert exchange is not None
        self._is_waiting = False
        self._carry_out(exchange.refused(answer))

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
            self._hold(NEXT_HELD)
        if was_complete:
            return
        self._content_came(len(data))
        if exchange.stage is _WAITING:
            if parser.body_bytes > self.context.body_high_bytes:
                self._hold(BODY_HELD)
        else:
            self._carry_out(exchange.content(parser.take_body(), parser.complete))

    # The link's side

    def link_data(self, data: bytes) -> None:
        """The worker has sent ``data``, one or more bytes of its answer or, in a tunnel, of what follows a 101."""
        if self.phase is not _UPGRADED:
            exchange = self._exchange
            assert exchange is not None
            whole = exchange.answered_whole(data)
            if whole is not None:
                answer, over = whole
                self.write(answer)
                self._complete(over)
                return
        link = self._link
        assert link is not None
        if link.may_go_on():
            self.link_step(data, is_hurried=True)
        else:
            link.put_off(data)

    def link_step(self, data: bytes, is_hurried: bool = False) -> None:
        """Go on with what the worker has sent, ``data``, or what is left. ``is_hurried``: with a little of it."""
        link = self._link
        assert link is not None
        if self.phase is _UPGRADED:
            link.owes(EVENT_UNITS + (len(data) >> COPY_SHIFT))
            self.write(data)
            return
        exchange = self._exchange
        assert exchange is not None
        commands = exchange.response(data, is_hurried)
        link.owes(EVENT_UNITS + exchange.units + (len(data) >> COPY_SHIFT))
        link.holds_head(exchange.begun_bytes)
        if exchange.begun_bytes > HEAD_HIGH_BYTES and self.context.backlog.is_tight:
            commands = exchange.failed(502, "bad-response", "a head too large for the memory that there is")
        self._carry_out(commands)
        if exchange.is_behind:
            link.put_off()

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
                self.write(command.data)
            elif type(command) is ToLink:
                if self._link is not None:
                    self._link.write(command.data)
            else:
                _CARRY_OUT[type(command)](self, command)

    def _end_link(self, _: EndLink) -> None:
        if self._link is not None:
            self._link.write_eof()

    def _retry(self, _: Retry) -> None:
        self._drop_link()
        self._wait()

    def _tunnel(self, _: Tunnel) -> None:
        self.phase = _UPGRADED
        self.context.count(101, self._started)
        parser = self.parser
        if parser.pending and self._link is not None:
            data, parser.pending = parser.pending, b""
            self._link.write(data)
        self._unhold(NEXT_HELD)

    def _complete(self, command: Complete) -> None:
        """The response is complete: the connection goes on."""
        exchange = self._exchange
        assert exchange is not None
        self._exchange = None
        if self.phase is not _UPGRADED:
            self.context.count(exchange.status, self._started)
        link = self._link
        if command.is_clean and link is not None and (not exchange.has_body or link.is_flushed):
            self._link = None
            link.client = None
            if self.is_write_paused:
                link.unhold(link_connection.CLIENT_FULL)
            self._broker.release(link)
        else:
            self._drop_link(flushes=self.phase is _UPGRADED)
        if command.keeps_client and not self._holds and not self.is_half_closed and self.parser.complete:
            self._boundary()  # as below, for most
        else:
            self._response_done(command.keeps_client)

    def _answer_instead(self, command: Answer) -> None:
        exchange = self._exchange
        assert exchange is not None
        self._exchange = None
        self._wait_no_more()
        self._drop_link()
        self.context.failed(command, self.app_id)
        self._answer(command, exchange.head, exchange.closes)

    def _answer(self, answer: Answer, head: RequestHead, closes: bool) -> None:
        context = self.context
        self.write(encoded(answer, head, closes, context.settings.development))
        context.count(answer.status, self._started)
        self._response_done(not closes)

    def _abort(self, command: Abort) -> None:
        if not command.is_clients:
            self.context.aborted(command, self.app_id)
        self._let_go(499 if command.is_clients else 502)
        self.cut()

    def _response_done(self, keeps_client: bool) -> None:
        if self._holds:
            self._unhold(LINK_FULL | BODY_HELD)
        if self.phase is _UPGRADED:
            self._linger()  # a client that goes on sending still gets the last that the worker said
        elif not keeps_client or self.is_half_closed:
            self._finish()
        elif self.parser.complete:
            self._boundary()
        else:
            self._drain()

    def _boundary(self) -> None:
        """Both sides of a request are complete, and the connection stays."""
        self.phase = _IDLE
        context = self.context
        parser = self.parser
        has_more = bool(parser.pending)
        context.slots[self.slot] = SLOT_READING if has_more else SLOT_IDLE
        try:
            parser.next_message()
        except ProtocolError as error:
            self._refuse(error)
            return
        if self.is_write_paused:
            self._hold(CLIENT_FULL)
        if has_more:
            if parser.head is not None:
                # Not at once: a client could send any number of requests that are answered as they are read.
                self.phase = _REQUEST
                self._hold(NEXT_HELD)
                if not self.is_write_paused:
                    context.call_soon(self._begin_held)
                return
            self._head_incomplete()
        if self._holds:
            self._unhold(NEXT_HELD)
        if (context.is_leaving or self._is_borrowed) and self.phase is _IDLE:
            self.leave()

    def _begin_held(self) -> None:
        try:
            if self.phase is _REQUEST and self._exchange is None:
                self._begin()
        except Exception as exc:
            self.context.mishap(exc)
            self.cut()

    # Ends

    def ends_after_answer(self) -> None:
        """The daemon is gone: what is being answered now is the last answer."""
        if self._exchange is not None:
            self._exchange.closes = True

    def _let_go(self, status: int = 499) -> None:
        """Leave the request that is being forwarded, if any. ``status`` is for counting."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None and exchange.stage is not ExchangeStage.TUNNEL:
            self.context.count(status, self._started)
        self._wait_no_more()
        self._drop_link()


_CARRY_OUT: dict[type, Callable[[ClientConnection, Any], None]] = {
    EndLink: ClientConnection._end_link,
    Retry: ClientConnection._retry,
    Tunnel: ClientConnection._tunnel,
    Complete: ClientConnection._complete,
    Answer: ClientConnection._answer_instead,
    Abort: ClientConnection._abort,
}


def _peer_of(sock: socket.socket) -> str:
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return ""
    try:
        address: str = sock.getpeername()[0]
    except OSError:
        return ""  # already gone; the first read will say so
    return address.removeprefix("::ffff:") if "." in address else address
