"""One connection of an ASGI worker: a ``BufferedProtocol`` between the parser and the requests, in their order."""

from __future__ import annotations

import select
import socket
from asyncio import Task
from time import monotonic, time
from typing import TYPE_CHECKING

from ...aio import early_answers
from ...aio.transport import ConnectionPhase
from ...channel.vitals import QUEUE_BOUNDS_S, SLOT_IDLE, SLOT_READING, WORD_ACTIVE
from ...http1.errors import ProtocolError
from ...http1.request import RequestHead
from ...http1.response import Response
from ...http1.speedups import FORWARDED, HOST_FIELD
from ..arrival import waited_since
from ..process import tracing
from .context import AsgiContext
from .cycles.cycle import Cycle
from .cycles.http_cycle import HttpCycle
from .flow import BODY_HIGH_BYTES, ENDING, FlowControl, resolve
from .scope import Peer

if TYPE_CHECKING:
    from .cycles.websocket_cycle import WebSocketCycle

_PROMPT_S = QUEUE_BOUNDS_S[0]
_ENDLESS = float("inf")
# CPython 3.11 reaches a member through its class by a descriptor written in Python: too slow for each request.
_IDLE, _HEAD, _REQUEST, _FLUSH, _DRAIN, _LINGER, _CLOSING, _RETURNING, _UPGRADED, _CLOSED = ConnectionPhase


class HttpConnection(FlowControl):
    """Serves the requests of one connection. Everything here runs on the server's loop."""

    __slots__ = ("_websocket", "arrived", "arrived_by", "asks_arrival", "peer")

    def __init__(self, context: AsgiContext, sock: socket.socket, slot: int, is_last: bool, peer: Peer) -> None:
        super().__init__(context, sock, slot, is_last)
        self.peer = peer
        self.arrived = self.arrived_by = 0.0
        """See ``worker.arrival``."""
        self.asks_arrival = True
        self._websocket: WebSocketCycle | None = None
        if context.reader is not None:
            self.parser.start = peer.address, FORWARDED if peer.is_trusted else HOST_FIELD

    # The transport's side

    def get_buffer(self, sizehint: int) -> memoryview:
        """asyncio: where to put what arrives. The buffer is shared by all of a server's connections."""
        # Called before the recv: should we die in between, the daemon knows that something may have been read.
        if self.phase is _IDLE:
            self.context.slots[self.slot] = SLOT_READING
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        """asyncio: ``nbytes`` have arrived. A breach of HTTP is answered and ends the connection; nothing is raised."""
        data = bytes(self._view[:nbytes])
        phase = self.phase
        try:
            if phase is _IDLE or phase is _HEAD:
                parser = self.parser
                parser.feed(data)
                head = parser.head
                if head is not None:
                    self._begin(head)
                else:
                    self._head_incomplete()
            elif phase is _REQUEST:
                self._more_request(data)
            elif phase is _UPGRADED:
                if self._websocket is not None:
                    self._websocket.received(data)
            elif phase is _DRAIN:
                self._more_unwanted(data)
            elif phase is _LINGER:
                self._watched_since = monotonic()
        except ProtocolError as error:
            self._refuse(error)

    def eof_received(self) -> bool:
        """True to keep our own side open."""
        if self.phase is not _REQUEST:
            return False
        cycle = self.cycle
        if cycle is not None and self.parser.complete and not self.is_client_gone():
            self.is_half_closed = True
            self.context.watch(self)
            return cycle.half_closed()
        if cycle is not None:
            cycle.disconnect()
        return False

    def is_client_gone(self) -> bool:
        """The client has ended both sides, as the kernel knows; over TCP, Caddy and relays never end only one."""
        poller = select.poll()
        poller.register(self._sock, select.POLLRDHUP)
        found = poller.poll(0)
        if not found:
            return False
        is_hung_up = bool(found[0][1] & (select.POLLHUP | select.POLLERR))
        return is_hung_up or (self.peer.is_trusted and self.peer.local is not None)

    def connection_lost(self, exc: BaseException | None) -> None:
        """asyncio: the transport is closed. The app hears of it."""
        if self.cycle is not None:
            self.cycle.disconnect()
            self.cycle = None
        self._wake_writers()
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        """asyncio: the client has read enough. Whoever waits in ``drain`` goes on."""
        self._wake_writers()
        if self._drops and self._ahead is None and not self.parser.complete:
            self.pause_reading()  # no more than it takes to have the client read
        if self.phase is _FLUSH:
            self._boundary()
        elif self._websocket is not None:
            self._websocket.writable()

    # Requests

    def _begin(self, head: RequestHead) -> None:
        """The head of a request is complete: call the app."""
        context = self.context
        self.phase = _REQUEST
        if context.bound is not None and not context.bound.admits(self, head):
            if self.arrived_by < _ENDLESS:
                self.arrived, self.arrived_by = monotonic(), _ENDLESS
            self.asks_arrival = True
            return
        self._call(head)

    def _call(self, head: RequestHead) -> None:
        context = self.context
        if head.upgrade is not None and self._begin_websocket(head):
            return
        response = Response(head, context.is_orphaned or self.is_last or not head.keep_alive)
        cycle = self.cycle = HttpCycle(self, head, response, context.scopes.http(head, self.peer))
        if self.asks_arrival:
            self._note_arrival(cycle)
        if cycle.started > context.late_at:
            context.late(cycle)
        context.calls.add(cycle)  # `context.begin`, written out
        context.active += 1
        context.header[WORD_ACTIVE] = context.active
        variables = context.variables.copy()
        if context.traced or ((context.looks or cycle.started >= context.looks_from) and context.seeks_trace(cycle)):
            variables.run(tracing.headers.set, cycle.scope["headers"])
        if context.task_factory() is None:
            cycle.task = Task(cycle.run(context.app), loop=context.loop, name="request", context=variables)
        else:
            cycle.task = variables.run(context.loop.create_task, cycle.run(context.app), name="request")
        parser = self.parser
        if parser.pending or parser.body_bytes > BODY_HIGH_BYTES:
            self.pause_reading()

    def refuse(self, error: ProtocolError) -> None:
        """Answer a request that no app will see, and end the connection."""
        self._refuse(error)

    def take_turn(self, head: RequestHead) -> None:
        """Call the app for ``head``, which has waited for others to end; not when nobody waits for an answer any more.
        """
        if self.phase is not _REQUEST or self.cycle is not None:
            return
        if self.is_client_gone():
            self._close()
            return
        self.resume_reading()
        self._call(head)

    def _note_arrival(self, cycle: Cycle) -> None:
        """The first request of a connection may have waited since before that was taken; and if its proxy says since
        when, it will go on saying so.
        """
        if cycle.started <= self.arrived_by:
            cycle.arrived = self.arrived
        self.arrived_by = 0.0
        self.asks_arrival = False
        if self.peer.is_trusted:
            for name, value in reversed(cycle.scope["headers"]):  # Caddy sorts them: it is among the last
                if name == b"x-request-start":
                    self.asks_arrival = True
                    cycle.arrived = min(cycle.arrived, cycle.started - waited_since(value, time()))
                    break

    def _begin_websocket(self, head: RequestHead) -> bool:
        """Call the app for a WebSocket; False when the upgrade is to something else, which is a plain request."""
        from ..websocket import handshake  # on the first upgrade: most apps never see one
        from ..websocket.handshake import full
        from .cycles.websocket_cycle import WebSocketCycle

        if not handshake.is_upgrade(head):
            return False
        try:
            offer = handshake.read(head)
        except ProtocolError as error:
            self._refuse(error)
            return True
        context = self.context
        most = context.settings.max_websockets
        if most is not None and context.websockets >= most:
            self._refuse(full(context.settings.app, most))
            return True
        response = Response(head, context.is_orphaned or self.is_last or not head.keep_alive)
        scope = context.scopes.websocket(head, self.peer, offer.subprotocols)
        cycle = self.cycle = WebSocketCycle(self, head, response, scope, offer)
        context.begin(cycle)
        return True

    def upgraded(self, websocket: WebSocketCycle) -> None:
        """The handshake is out: everything from here on is frames."""
        self._websocket = websocket
        self.phase = _UPGRADED
        websocket.is_counted = True
        context = self.context
        context.count(101, websocket.begun)
        if context.bound is not None:
            context.bound.go_on()
        pending, self.parser.pending = self.parser.pending, b""
        self.resume_reading()
        self.context.watch(self)
        if pending:
            websocket.received(pending)
        if self.context.is_leaving:
            self.leave()

    def upgrade_ended(self, is_clean: bool) -> None:
        """The closing handshake is complete, or (not ``is_clean``) the client must be told first why it is not."""
        if self.phase is not _UPGRADED:
            return
        if is_clean:
            self._close()
        else:
            self._linger()

    def _more_request(self, data: bytes) -> None:
        parser = self.parser
        cycle = self.cycle
        assert cycle is not None
        self._watched_since = monotonic()
        try:
            parser.feed(data)
        except ProtocolError as error:
            cycle.fail(error)
            return
        is_dense = self._is_dense(len(data))
        ahead = self._ahead
        if ahead is not None:
            if is_dense or early_answers.is_near_end(cycle.head, parser.received):
                self.pause_reading()  # libuv reads on, past where an answer ends; `read_ahead` decides whether to
            resolve(ahead, True)
        elif self._drops:
            parser.take_body()
            if not self._drops_all and early_answers.is_near_end(cycle.head, parser.received):
                self.pause_reading()
            elif is_dense:
                self._drop_slowly()
        elif is_dense or parser.body_bytes > BODY_HIGH_BYTES or parser.pending:
            self.pause_reading()
        cycle.wake()

    def response_done(self, cycle: Cycle) -> None:
        """The response is complete: the connection goes on, whatever else the app may be doing."""
        self.cycle = None
        if cycle.event is not None:
            cycle.event.set()  # whoever still waits in `receive` learns that it is over
        cycle.is_counted = True
        context = self.context
        waited = cycle.begun - cycle.arrived
        if waited > _PROMPT_S:
            context.counters.waited(waited)
        context.counters.waited_s += waited
        context.count(cycle.response.status, cycle.begun)
        if context.bound is not None:
            context.bound.go_on()
        if cycle.response.close or self.is_half_closed:
            self._finish()
        elif self.parser.complete:
            self._boundary()
        else:
            self._drain()

    def _boundary(self) -> None:
        """Both sides of a request are complete, and the connection stays."""
        if self.is_write_paused:
            self.phase = _FLUSH
            self.pause_reading()
            return
        context = self.context
        self.phase = _IDLE
        self._drops = self._drops_all = False
        context.slots[self.slot] = SLOT_IDLE
        parser = self.parser
        if parser.pending:
            self._begin_pending()
        else:
            parser.next_message()
            if self.is_reading_paused:
                self.resume_reading()
        if context.owed and self.phase is _IDLE:
            context.owed -= 1
            self.leave()

    def _begin_pending(self) -> None:
        """Go on with what was read behind the last request."""
        self.context.slots[self.slot] = SLOT_READING
        parser = self.parser
        try:
            parser.next_message()
        except ProtocolError as error:
            self._refuse(error)
            return
        # More of it, or the client's end, may still come; `_begin` pauses again when there is enough.
        self.resume_reading()
        if parser.head is not None:
            self._begin(parser.head)
        else:
            self._head_incomplete()

    # Ends

    def leave(self) -> None:
        """Give the connection back, or end it, if it is idle; a WebSocket is asked to end."""
        if self._websocket is not None and not self.context.keeps_upgraded:
            self._websocket.go_away(self.context.is_orphaned)
        super().leave()

    def abort(self) -> None:
        """Cut the connection, unless it is ending already."""
        if self.phase not in ENDING:
            self.cut()

    def _let_go(self) -> None:
        if self.cycle is not None:
            self.cycle.is_gone = True

    def _is_late(self, now: float) -> bool:
        phase = self.phase
        cycle = self.cycle
        if phase is _REQUEST and cycle is not None and cycle.is_waiting_for_body:
            if now - self._watched_since > self.context.settings.body_timeout_s:
                cycle.fail(ProtocolError(408, "body-timeout", "the request body did not arrive in time"))
            return True
        if phase is _REQUEST and self.is_half_closed:
            if cycle is not None and self.is_client_gone():
                cycle.disconnect()
                self._close()
            return True
        if phase is _UPGRADED and self._websocket is not None:
            self._websocket.tick(now)
            return True
        return super()._is_late(now)
