"""One connection of an ASGI worker: a ``BufferedProtocol`` between the parser and the requests.

=============  ====================================================================================
phase          meaning
=============  ====================================================================================
IDLE           at a request boundary, nothing read: may be given back to the daemon
HEAD           part of a request's head has been read
REQUEST        an app is answering; the request may still be arriving, the next one may be waiting
FLUSH          both are complete, but the client does not read: nothing more is begun until it does
DRAIN          the response is out, the rest of its request is read and dropped
UPGRADED       speaks WebSocket
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

from ...channel.vitals import SLOT_HEAD_SENT, SLOT_IDLE, SLOT_READING, WORD_ACTIVE
from ...http1.answers import refusal
from ...http1.errors import ProtocolError
from ...http1.plain import FORWARDED, HOST_FIELD
from ...http1.request import RequestHead, RequestParser
from ...http1.response import Output, Response
from .. import early_answers
from .cycles.cycle import ClientDisconnected, Cycle
from .cycles.http_cycle import HttpCycle
from .scope import Peer

if TYPE_CHECKING:
    from .cycles.websocket_cycle import WebSocketCycle
    from .server import AsgiServer

BODY_HIGH_BYTES = 64 * 1024
"""Reading pauses while the app has this much of a body to take."""

TINY_CHUNK_BYTES = 128
SMALL_PIECES_BYTES = 2048
"""A read of so much that holds a piece of a body for each 128 bytes is one of tiny chunks."""

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
_ENDING = frozenset((_CLOSING, _RETURNING, _CLOSED))
_FLUSHING = frozenset((_CLOSING, _RETURNING))
_UNWANTED = frozenset((_DRAIN, _LINGER))


class HttpConnection(asyncio.BufferedProtocol):
    """Serves the requests of one connection. Everything here runs on the server's loop."""

    __slots__ = (
        "_ahead",
        "_ahead_over",
        "_drain_event",
        "_drops",
        "_joins",
        "_linger_until",
        "_sock",
        "_transport",
        "_view",
        "_watched_since",
        "_websocket",
        "_write_left",
        "_write_since",
        "cycle",
        "is_closing",
        "is_half_closed",
        "is_last",
        "is_reading_paused",
        "is_write_paused",
        "parser",
        "peer",
        "phase",
        "server",
        "slot",
    )

    def __init__(self, server: AsgiServer, sock: socket.socket, slot: int, peer: Peer) -> None:
        self.server = server
        self.slot = slot
        self.peer = peer
        reader = server.reader
        if reader is not None:
            self.parser = RequestParser(server.limits, reader=reader)
            self.parser.start = peer.address, FORWARDED if peer.is_trusted else HOST_FIELD
        else:
            self.parser = RequestParser(server.limits, server.heads)
        self.phase = _IDLE
        self.cycle: Cycle | None = None
        self.is_last = False
        """The next answer ends it."""
        self.is_half_closed = False
        """The client has ended its side, and may still read."""
        self.is_write_paused = False
        self._sock = sock
        self._view = server.first_view
        self._transport: Any = None
        self.is_closing: Callable[[], bool]
        """Nothing more can be written: the connection was ended, or a write has failed."""
        self._joins = False
        self._drain_event: asyncio.Event | None = None
        self._ahead: asyncio.Future[bool] | None = None
        self._ahead_over = 0.0
        self._drops = False
        self.is_reading_paused = False
        self._websocket: WebSocketCycle | None = None
        self._linger_until = 0.0
        self._watched_since = 0.0
        self._write_since = 0.0
        self._write_left = 0

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the transport is there. One that comes while the worker leaves is given back at once."""
        self._transport = transport
        self.is_closing = transport.is_closing
        # asyncio's own `writelines` never pauses the protocol on Python 3.12 and 3.13.0: no flow control at all.
        self._joins = type(transport).__module__.startswith("asyncio.")
        if self.server.is_leaving:
            self.leave()

    def get_buffer(self, sizehint: int) -> memoryview:
        """asyncio: where to put what arrives; ``sizehint`` is not needed. The buffer is shared by all of a
        server's connections.
        """
        # Called before the recv: should we die in between, the daemon knows that something may have been read.
        if self.phase is _IDLE:
            self.server.slots[self.slot] = SLOT_READING
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
            self.server.watch(self)
            return cycle.half_closed()
        if cycle is not None:
            cycle.disconnect()
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        """asyncio: the transport is closed. The app hears of it, and the other side sees the end unless it was
        given back.
        """
        returned = self.phase is _RETURNING and exc is None
        self.phase = _CLOSED
        if self.cycle is not None:
            self.cycle.disconnect()
            self.cycle = None
        self._wake_writers()
        if not returned:
            try:
                self._sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the other side was first
        self.server.connection_lost(self, returned)

    def pause_writing(self) -> None:
        """asyncio: more than the high-water mark waits for the client. Writers wait in ``drain``, against the
        write deadline.
        """
        self.is_write_paused = True
        self._watch_writing()

    def resume_writing(self) -> None:
        """asyncio: the client has read enough. Whoever waits in ``drain`` goes on."""
        self._wake_writers()
        if self._drops and not self.parser.complete:
            self.pause_reading()  # no more than it takes to have the client read
        if self.phase is _FLUSH:
            self._boundary()
        elif self._websocket is not None:
            self._websocket.writable()

    def _wake_writers(self) -> None:
        self.is_write_paused = False
        if self._drain_event is not None:
            self._drain_event.set()
            self._drain_event = None

    # Requests

    def _begin(self, head: RequestHead) -> None:
        """The head of a request is complete: call the app."""
        server = self.server
        self.phase = _REQUEST
        if head.upgrade is not None and self._begin_websocket(head):
            return
        response = Response(head, server.is_orphaned or self.is_last or not head.keep_alive, server.server_header)
        cycle = self.cycle = HttpCycle(self, head, response, server.scopes.http(head, self.peer))
        server.cycles.add(cycle)  # `server.begin`, written out
        server.active += 1
        server.header[WORD_ACTIVE] = server.active
        cycle.task = server.context.copy().run(server.create_task, cycle.run(server.app), name="request")
        parser = self.parser
        if parser.pending or parser.body_bytes > BODY_HIGH_BYTES:
            self.pause_reading()

    def _begin_websocket(self, head: RequestHead) -> bool:
        """Call the app for a WebSocket; False when the upgrade is to something else, which is a plain request."""
        from ..websocket import handshake  # on the first upgrade: most apps never see one
        from .cycles.websocket_cycle import WebSocketCycle

        if not handshake.is_upgrade(head):
            return False
        try:
            offer = handshake.read(head)
        except ProtocolError as error:
            self._refuse(error)
            return True
        server = self.server
        response = Response(head, server.is_orphaned or self.is_last or not head.keep_alive, server.server_header)
        scope = server.scopes.websocket(head, self.peer, offer.subprotocols)
        cycle = self.cycle = WebSocketCycle(self, head, response, scope, offer)
        server.begin(cycle)
        return True

    def upgraded(self, websocket: WebSocketCycle) -> None:
        """The handshake is out: everything from here on is frames."""
        self._websocket = websocket
        self.phase = _UPGRADED
        self._count(websocket, 101)
        pending, self.parser.pending = self.parser.pending, b""
        self.resume_reading()
        self.server.watch(self)
        if pending:
            websocket.received(pending)
        if self.server.is_leaving:
            self.leave()

    def upgrade_ended(self, is_clean: bool) -> None:
        """The closing handshake is complete, or (not ``is_clean``) the client must be told first why it is not."""
        if self.phase is not _UPGRADED:
            return
        if is_clean:
            self._close(_CLOSING)
        else:
            self._linger()

    def _head_incomplete(self) -> None:
        if self.parser.at_boundary:
            self.phase = _IDLE
            self.server.slots[self.slot] = SLOT_IDLE
        elif self.phase is _IDLE:
            self.phase = _HEAD
            self._watched_since = monotonic()
            self.server.watch(self)

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
            if is_dense:
                self.pause_reading()  # `read_ahead` goes on
            _resolve(ahead, True)
        elif self._drops:
            parser.take_body()
            if parser.received > early_answers.DROPPED_MAX_BYTES:
                self.pause_reading()
            elif is_dense:
                self._drop_slowly()
        elif is_dense or parser.body_bytes > BODY_HIGH_BYTES or parser.pending:
            self.pause_reading()
        cycle.wake()

    @property
    def is_reading_ahead(self) -> bool:
        """An answer waits for the rest of its request."""
        return self._ahead is not None

    async def read_ahead(self, keep: bool) -> None:
        """Read on before an answer leaves that does not wait for its request (``early_answers``); ``keep`` what comes
        for the app, or drop it.
        """
        parser = self.parser
        loop = self.server.loop
        cycle = self.cycle
        if cycle is None or cycle.started == self._ahead_over:
            return  # it was waited for already
        until = loop.time() + early_answers.TOTAL_S
        first = parser.received
        try:
            while not parser.complete and self.phase is _REQUEST and not self.is_half_closed:
                if keep and parser.body_bytes >= early_answers.KEPT_MAX_BYTES:
                    break
                if not keep:
                    parser.take_body()
                    if parser.received - first > early_answers.DROPPED_MAX_BYTES:
                        break
                ahead = self._ahead = loop.create_future()
                self.resume_reading()
                wait_s = max(0.0, min(early_answers.IDLE_S, until - loop.time()))
                timer = loop.call_later(wait_s, _resolve, ahead, False)
                try:
                    if not await ahead:
                        self._ahead_over = cycle.started
                        break
                finally:
                    timer.cancel()
            if parser.complete and parser.received > early_answers.LARGE_BYTES:
                self._ahead = loop.create_future()
                await asyncio.sleep(early_answers.SETTLE_S)
        finally:
            self._ahead = None
            if self.phase is _REQUEST and (parser.body_bytes > BODY_HIGH_BYTES or parser.pending):
                self.pause_reading()

    def _drop_unread(self) -> None:
        """The client does not read the answer, perhaps because it sends its request first, of which the app has asked
        for nothing: drop that, so that the answer can go on.
        """
        self._drops = True
        self.parser.take_body()
        self.resume_reading()

    def _is_deadlocked(self, now: float) -> bool:
        parser = self.parser
        is_untouched = self.cycle is not None and parser.received == parser.body_bytes and not parser.complete
        return is_untouched and self.is_reading_paused and now - self._write_since > early_answers.STALL_S

    @property
    def is_request_lost(self) -> bool:
        """Content was dropped that nobody had asked for: ``receive`` has nothing to give any more."""
        return self._drops

    def _more_unwanted(self, data: bytes) -> None:
        self._watched_since = monotonic()
        self.parser.feed(data)
        if self._is_dense(len(data)):
            self._drop_slowly()
        self.parser.take_body()
        if self.parser.complete:
            self._boundary()

    def _drop_slowly(self) -> None:
        self.pause_reading()
        self.server.turns.call_later(self._drop_more)

    def _drop_more(self) -> None:
        if self.phase is _DRAIN or self._drops:
            self.resume_reading()

    def _is_dense(self, read_bytes: int) -> bool:
        """A body comes in tiny chunks, which cost much: then one short read a turn of the loop (libuv makes many)."""
        server = self.server
        if self.parser.complete:
            self._view = server.first_view
            return False
        is_dense = len(self.parser.body) * TINY_CHUNK_BYTES > read_bytes >= SMALL_PIECES_BYTES
        self._view = server.small_view if is_dense else server.view
        return is_dense

    def response_done(self, cycle: Cycle) -> None:
        """The response is complete: the connection goes on, whatever else the app may be doing."""
        self.cycle = None
        if cycle.event is not None:
            cycle.event.set()  # whoever still waits in `receive` learns that it is over
        self._count(cycle, cycle.response.status)
        if cycle.response.close or self.is_half_closed:
            self._finish()
        elif self.parser.complete:
            self._boundary()
        else:
            self._linger_from_now(_DRAIN)
            self.parser.take_body()
            self._read_on_later()

    def _count(self, cycle: Cycle, status: int) -> None:
        server = self.server
        cycle.is_counted = True
        server.active -= 1
        server.header[WORD_ACTIVE] = server.active
        server.tally.finished(status, monotonic() - cycle.started)
        if not server.is_publishing:
            server.publish_soon()

    def _boundary(self) -> None:
        """Both sides of a request are complete, and the connection stays."""
        if self.is_write_paused:
            self.phase = _FLUSH
            self.pause_reading()
            return
        server = self.server
        self.phase = _IDLE
        self._drops = False
        server.slots[self.slot] = SLOT_IDLE
        parser = self.parser
        if parser.pending:
            self._begin_pending()
        else:
            parser.next_message()
            if self.is_reading_paused:
                self.resume_reading()
        if server.is_leaving:
            self.leave()

    def _begin_pending(self) -> None:
        """Go on with what was read behind the last request."""
        self.server.slots[self.slot] = SLOT_READING
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
        """Give the connection back, or end it when there is nobody to give it to; only if it is idle."""
        if self._websocket is not None and not self.server.keeps_websockets:
            self._websocket.go_away(self.server.is_orphaned)
        if self.phase is not _IDLE or self._transport is None:
            return
        self._close(_CLOSING if self.server.is_orphaned else _RETURNING)

    def _close(self, phase: ConnectionPhase) -> None:
        """Flush what is left, then close; ``phase`` says whether that ends the connection."""
        self.phase = phase
        self._transport.close()
        if self._transport.get_write_buffer_size():
            self._watch_writing()

    def abort(self) -> None:
        """Cut the connection: what was sent is not a whole response, and must not look like one."""
        if self.phase in _ENDING:
            return
        self.phase = _CLOSING
        if self.cycle is not None:
            self.cycle.is_gone = True
        self._transport.abort()

    def is_client_gone(self) -> bool:
        """The client has ended both sides, and not only its own: nobody would read an answer. Asks the kernel.

        A unix socket tells; of TCP Caddy, and a relay, are known never to end only one.
        """
        poller = select.poll()
        poller.register(self._sock, select.POLLRDHUP)
        found = poller.poll(0)
        if not found:
            return False
        is_hung_up = bool(found[0][1] & (select.POLLHUP | select.POLLERR))
        return is_hung_up or (self.peer.is_trusted and self.peer.local is not None)

    def _finish(self) -> None:
        """The last response is out."""
        if self.parser.complete and not self.parser.pending:
            self._close(_CLOSING)
            return
        self._linger()
        if self.phase is _LINGER and not self.parser.complete:
            self._read_on_later()

    def _read_on_later(self) -> None:
        """An answer is complete, its request is not: the rest is read when the client has read the answer.

        Or when it takes nothing of that for a while (``early_answers``).
        """
        self.pause_reading()
        self._look_whether_read(-1, self._watched_since)

    def _look_whether_read(self, unread: int, since: float) -> None:
        if self.phase not in _UNWANTED or not self.is_reading_paused:
            return
        now = monotonic()
        left = self._transport.get_write_buffer_size() + early_answers.unread_bytes(self._sock)
        if left != unread:
            since = now
        if not left or now - since >= early_answers.STALL_S:
            self._linger_from_now(self.phase)
            return
        self._linger_until += now - self._watched_since
        self._watched_since = now
        self.server.loop.call_later(early_answers.LOOK_S, self._look_whether_read, left, since)

    def _linger(self) -> None:
        """End our side, and read on until the client has ended its own: what it still writes must not fail."""
        if self.is_half_closed or self._transport.is_closing():
            self._close(_CLOSING)
            return
        self._linger_from_now(_LINGER)
        try:
            self._transport.write_eof()
        except OSError:
            pass  # the client was first; the next read will say so

    def _linger_from_now(self, phase: ConnectionPhase) -> None:
        self.phase = phase
        self._watched_since = monotonic()
        self._linger_until = self._watched_since + LINGER_TOTAL_S
        self.server.watch(self)
        self.resume_reading()

    def _refuse(self, error: ProtocolError) -> None:
        """Answer a request that no app will see, and end the connection."""
        if self.phase is _DRAIN:
            self._linger()
            return
        head = self.parser.head or self.parser.draft
        self.write(refusal(error, head, self.server.server_header), 0)
        self.server.count_refusal(error)
        self._linger()

    # Writing and reading

    def write(self, output: Output, content_bytes: int) -> None:
        """Write a piece of a response, ``content_bytes`` of which are content."""
        server = self.server
        server.slots[self.slot] = SLOT_HEAD_SENT
        server.tally.bytes_out += content_bytes
        if isinstance(output, bytes):
            self._transport.write(output)
        elif self._joins:
            self._transport.write(b"".join(output))
        else:
            self._transport.writelines(output)

    def count_sent(self, size: int) -> None:
        """So much content was sent in another way."""
        self.server.tally.bytes_out += size

    def fileno(self) -> int:
        """The descriptor of our copy of the socket; it stays the connection's."""
        return self._sock.fileno()

    async def flush(self) -> None:
        """Wait until the kernel has everything that was written. Raises ``ClientDisconnected``."""
        if self.phase not in _ENDING:
            self._transport.set_write_buffer_limits(high=0)
            await self.drain()
        if self.phase in _ENDING:
            raise ClientDisconnected("the client is gone")
        self._transport.set_write_buffer_limits()

    async def drain(self) -> None:
        """Wait until the client has taken enough of what was written, or is gone."""
        while self.is_write_paused:
            if self._drain_event is None:
                self._drain_event = asyncio.Event()
            await self._drain_event.wait()

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
            self.server.context.copy().run(self._transport.resume_reading)

    # Time

    def _watch_writing(self) -> None:
        """The client has something to read."""
        self._write_since = monotonic()
        self._write_left = self._transport.get_write_buffer_size()
        self.server.watch(self)

    def watch_body(self) -> None:
        """The app waits for the body."""
        self._watched_since = monotonic()
        self.server.watch(self)

    def overdue(self, now: float) -> bool:
        """Act if something takes too long; False when there is nothing to watch any more."""
        settings = self.server.settings
        phase = self.phase
        if self.is_write_paused or phase in _FLUSHING:
            left = self._transport.get_write_buffer_size()
            if not left and phase in _FLUSHING:
                return False  # it closes at the end of this turn; cutting it now would end what is only given back
            if left != self._write_left:
                self._write_left, self._write_since = left, now
            elif now - self._write_since > settings.write_timeout_s:
                self.phase = _CLOSING
                if self.cycle is not None:
                    self.cycle.is_gone = True
                self._transport.abort()
            elif phase is _REQUEST and self._is_deadlocked(now):
                self._drop_unread()
            return True
        waited = now - self._watched_since
        if phase is _HEAD:
            if waited > settings.head_timeout_s:
                self._refuse(ProtocolError(408, "head-timeout", "the request head did not arrive in time"))
            return True
        if phase is _REQUEST and self.cycle is not None and self.cycle.is_waiting_for_body:
            if waited > settings.body_timeout_s:
                self.cycle.fail(ProtocolError(408, "body-timeout", "the request body did not arrive in time"))
            return True
        if phase is _REQUEST and self.is_half_closed:
            if self.cycle is not None and self.is_client_gone():
                self.cycle.disconnect()
                self._close(_CLOSING)
            return True
        if phase is _UPGRADED and self._websocket is not None:
            self._websocket.tick(now)
            return True
        if phase is _DRAIN or phase is _LINGER:
            if waited > LINGER_IDLE_S or now > self._linger_until:
                self._close(_CLOSING)
            return True
        return False


def _resolve(future: asyncio.Future[bool], result: bool) -> None:
    if not future.done():
        future.set_result(result)
