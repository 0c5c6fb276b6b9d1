"""The course of a connection: what is done with one that a thread owns, from request to request to its end.

::

    IDLE -> READING -> ANSWERING -> FLUSHING -> DRAINING -> IDLE …
                \\            \\          \\           \\
                 `------------`-> LINGERING or the end

A state that has nothing to do is passed over: a request that comes whole and an answer that leaves whole go from IDLE
through ANSWERING to IDLE within one turn of one thread.
"""

from __future__ import annotations

import contextvars
import io
import time
from enum import Enum
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any

from ...aio.early_answers import DROPPED_MAX_BYTES, KEPT_MAX_BYTES, LARGE_BYTES
from ...channel.records import say
from ...channel.settings import Settings
from ...channel.vitals import QUEUE_BOUNDS_S, SLOT_HEAD_SENT, SLOT_IDLE, SLOT_READING
from ...http1.answers import refusal
from ...http1.errors import ProtocolError
from ...http1.request import RequestHead
from ..access_log import AccessLog
from ..arrival import waited_since
from .call.call import CODE, CallContext
from .call.deadlines import Deadlines
from .call.factory import call_factory, line_writer, upgrade_factory
from .call.input import NO_INPUT, LazyInput
from .connection import (
    ANSWERING,
    BROKEN,
    DRAINING,
    ENDED,
    FLUSHING,
    IDLE,
    KEPT,
    LINGERING,
    READING,
    RECEIVE_BYTES,
    ClientGone,
    Connection,
    FileCutShort,
    State,
)
from .connection_table import READ, WRITE, ConnectionTable
from .counters import Counters
from .environ import of_request
from .websockets import WebSockets, is_websocket

if TYPE_CHECKING:
    from ..app.slow import SlowRequests
    from .call.upgrade import Upgrading

_PROMPT_S = QUEUE_BOUNDS_S[0]
LINGER_S = 10.0
"""How long the rest of a refused request is dropped before the connection ends."""


def _told_arrival(connection: Connection, environ: dict[str, Any], start: float, arrived: float) -> float:
    """When a request that begins at ``start`` arrived: the first of a connection may have waited since before that was
    taken; and if its proxy says since when, it will go on saying so.
    """
    if connection.arrival is not None and start <= connection.arrival[1]:
        arrived = connection.arrival[0]
    stamp = environ.get("HTTP_X_REQUEST_START") if connection.trusted else None
    connection.arrival = None if stamp is None else (0.0, 0.0)
    return arrived if stamp is None else min(arrived, start - waited_since(stamp, time.time()))


def _nothing() -> None:
    pass


class _Next(Enum):
    """What is to become of a connection."""

    PARK = "park"
    PROCEED = "proceed"  # a further request has come already
    GONE = "gone"  # ended or given back


_PARK, _PROCEED, _GONE = _Next


class Driver:
    """Sees connections of ``table`` through, each time as far as it goes without waiting. For any thread."""

    def __init__(
        self,
        app: Any,
        settings: Settings,
        table: ConnectionTable,
        slots: memoryview,
        deadlines: Deadlines | None = None,
        access: AccessLog | None = None,
        websockets: WebSockets | None = None,
    ) -> None:
        self._context = CallContext(
            app,
            settings.app,
            settings.development,
            settings.build,
            settings.body_timeout_s,
            self.hand_on,
        )
        self._variables = contextvars.copy_context()  # what importing the app has left: each call begins with a copy
        self._slow: SlowRequests | None = None
        self._under_way: dict[int, tuple[dict[str, Any], float]] = {}
        if settings.slow_request_s is not None:
            from ..app.slow import of_threads

            self._slow = of_threads(settings, settings.slow_request_s, self._under_way)
        self._head_timeout_s = settings.head_timeout_s
        self._table = table
        self._slots = slots
        self._new_call = call_factory(deadlines, access is not None)
        self._new_upgrade = partial(upgrade_factory, deadlines, access is not None)
        self._websockets = websockets
        self._log = None if access is None else line_writer(access)
        self.flush_log = _nothing if access is None else access.flush

    def handle(self, connection: Connection, counters: Counters) -> None:
        """See an owned connection as far as it goes now."""
        try:
            parked = self._table.parked
            while True:
                connection.signalled = False
                state = connection.state
                if state is IDLE or state is READING:
                    keeps = self._read(connection, counters)
                else:
                    keeps = self._resume(connection, state, counters)
                if not keeps:
                    return
                # Table.park, written out: park first, look after.
                parked[connection.fd] = connection
                if not connection.signalled or parked.pop(connection.fd, None) is None:
                    return
        except Exception as exc:
            counters.write()
            self._give_up(connection, exc)

    def _give_up(self, connection: Connection, exc: Exception) -> None:
        """A bug of ours costs its connection, not the thread."""
        self._table.mishap(exc)
        if connection.state is not ENDED:
            self._table.end(connection)

    def _resume(self, connection: Connection, state: State, counters: Counters) -> bool:
        """Go on after a response. True when it is to be parked, False when it is no longer ours."""
        if state is FLUSHING:
            following = self._flush(connection)
        elif state is DRAINING:
            following = self._drain(connection)
        else:
            following = self._linger(connection)
        if following is _PROCEED:
            return self._proceed(connection, counters)
        return following is _PARK

    # A request.

    def _read(self, connection: Connection, counters: Counters) -> bool:
        """Read once, and call the app for each request that has come far enough. As ``_resume``."""
        self._slots[connection.slot] = SLOT_READING
        if connection.kicked:
            connection.kicked = False
            self._table.arm(connection, READ)
            return self._proceed(connection, counters)  # with what is there; what is not will be told
        data: bytes | None
        try:
            data = connection.recv(RECEIVE_BYTES)
        except BlockingIOError:
            data = None
        except OSError:
            data = b""
        if data is None:  # and not from within the exception's handler: what the app raises would refer to it
            return self._proceed(connection, counters)
        if not data:
            self._table.end(connection)
            return False
        if len(data) == RECEIVE_BYTES or connection.hung:
            connection.signalled = True  # there may be more, or the end, of which nobody will be told
        parser = connection.parser
        try:
            parser.feed(data)
        except ProtocolError as exc:
            return self._refuse(connection, exc) is _PARK
        if not parser.complete:
            return self._proceed(connection, counters)
        # A whole request, as most are: the first turn of _proceed, written out.
        assert parser.head is not None
        if not self._call(connection, parser.head, counters):
            return False
        following = self._settle(connection)
        return following is _PARK or (following is _PROCEED and self._proceed(connection, counters))

    def _proceed(self, connection: Connection, counters: Counters) -> bool:
        """Call the app for each request that has come far enough. As ``_resume``."""
        parser = connection.parser
        while True:
            head = parser.head
            if head is None or not (parser.complete or self._is_enough(connection, head)):
                self._await(connection, head)
                return True
            if not self._call(connection, head, counters):
                return False
            following = self._settle(connection)
            if following is not _PROCEED:
                return following is _PARK

    def _is_enough(self, connection: Connection, head: RequestHead) -> bool:
        """Whether the app can be called although content is missing: it will have to wait for it."""
        return (
            connection.hurried
            or connection.parser.body_bytes >= KEPT_MAX_BYTES
            or (head.expect_continue and not connection.trusted)  # the client waits for the app to ask
        )

    def _await(self, connection: Connection, head: RequestHead | None) -> None:
        """A request, or the rest of one, is still to arrive."""
        if head is None and connection.parser.at_boundary:
            connection.state = IDLE
            self._slots[connection.slot] = SLOT_IDLE
            return
        now = time.monotonic()
        if connection.state is not READING:
            connection.state = READING
            connection.since = now
        connection.free_at = now
        # A head has so long from its first byte, content from its last.
        deadline = connection.since + self._head_timeout_s if head is None else now + self._context.body_timeout_s
        self._table.wait(connection, deadline)

    def _call(self, connection: Connection, head: RequestHead, counters: Counters) -> bool:
        """Run the app. False when the connection has been handed on meanwhile."""
        if head.upgrade is not None and self._websockets is not None and is_websocket(head):
            return self._upgrade(connection, head, counters, self._websockets)
        connection.state = ANSWERING
        connection.deadline = 0.0
        start = counters.begin()
        table = self._table
        arrived = connection.free_at
        if arrived < table.floor:
            arrived = table.floor
        else:
            table.floor = arrived
        close = connection.ending is not KEPT or table.closing or not head.keep_alive
        call = self._new_call(self._context, connection, head, close)
        environ = of_request(connection.base, head, connection.origin)
        parser = connection.parser
        if not head.chunked and not head.content_length:
            environ["wsgi.input"] = NO_INPUT
        elif parser.complete:
            content = parser.take_body()
            file = environ["wsgi.input"] = io.BytesIO(content)
            if len(content) > LARGE_BYTES:
                call.arrived = file
            environ["CONTENT_LENGTH"] = str(len(content))  # of a chunked one too, now that it is known
        else:
            connection.dropped = 0
            call.lazy = LazyInput(parser.take_body(), call.pull)
            environ["wsgi.input"] = call.lazy
        if head.version == "1.1":
            environ["wsgi.early_hints"] = call.early_hints
        if connection.arrival is not None:
            arrived = _told_arrival(connection, environ, start, arrived)
        if self._slow is not None:
            self._under_way[get_ident()] = environ, start
        received = parser.received
        owned = self._variables.copy().run(call.run, environ)
        if received:
            counters.receive(parser.received if owned else received)
        if not call.failed:
            counters.end(start, call.status, call.sent_bytes)
        elif call.is_late:
            counters.pass_over()
        else:
            if call.has_raised:
                counters.fail()
            counters.end(start, 500 if call.is_cut else call.answered, call.sent_bytes)
        if self._slow is not None:
            del self._under_way[get_ident()]
            if (took_s := time.monotonic() - start) >= self._slow.limit_s:
                self._slow.end(environ, took_s)
        waited = start - arrived
        if waited > 0.0:
            counters.waited_s += waited
            if waited > _PROMPT_S:
                counters.waited(waited)
        if owned:
            connection.free_at = counters.now
        if self._log is not None:
            took_s = time.monotonic() - start
            self._log(call, connection, parser.received if owned else received, took_s, waited)
        return owned

    def _upgrade(self, connection: Connection, head: RequestHead, counters: Counters, websockets: WebSockets) -> bool:
        """Run the app for a WebSocket, on a thread of its own. As ``_call``; False too when it has been refused."""
        if not websockets.admit():
            self._turn_away(connection, websockets.full(), counters)
            return False
        connection.state = ANSWERING
        connection.deadline = 0.0
        close = connection.ending is not KEPT or self._table.closing or not head.keep_alive
        call = self._new_upgrade()(self._context, connection, head, close)
        websockets.begin(call, partial(self._run_upgrade, call, connection, head))
        return False

    def _turn_away(self, connection: Connection, exc: ProtocolError, counters: Counters) -> None:
        """Refuse a request that there is no room for; it counts."""
        counters.end(counters.begin(), exc.status, 0)
        if self._refuse(connection, exc) is _PARK:
            self._table.leave(connection)

    def _run_upgrade(self, call: Upgrading, connection: Connection, head: RequestHead, counters: Counters) -> None:
        start = counters.begin()
        environ = of_request(connection.base, head, connection.origin)
        environ["wsgi.input"] = NO_INPUT
        try:
            owned = self._variables.copy().run(call.run, environ)
            if call.failed:
                counters.fail()
            counters.end(start, call.answered if call.failed else call.status, call.sent_bytes)
            if self._log is not None:
                self._log(call, connection, 0, time.monotonic() - start, 0.0)
                self.flush_log()
            if call.socket.is_taken:
                self._table.end(connection)
            elif owned:
                self.hand_on(connection)
        except Exception as exc:
            self._give_up(connection, exc)

    def hand_on(self, connection: Connection) -> None:
        """Settle a connection while the app that answered on it is still busy."""
        connection.free_at = time.monotonic()
        following = self._settle(connection)
        if following is _PROCEED:
            connection.state = READING
            connection.since = time.monotonic()
            self._table.kick(connection)
        elif following is _PARK:
            self._table.leave(connection)

    # After the response.

    def _settle(self, connection: Connection) -> _Next:
        """The response is complete as far as the app goes: what next?"""
        if connection.unsent or connection.file is not None:
            if connection.ending is BROKEN:
                return self._end(connection)
            connection.state = FLUSHING
            connection.since = time.monotonic()
            connection.hurried = False
            self._table.wait(connection, time.monotonic() + connection.write_timeout_s)
            self._table.arm(connection, WRITE)
            return _PARK
        return self._after_response(connection)

    def _flush(self, connection: Connection) -> _Next:
        before = len(connection.unsent), connection.unsent and len(connection.unsent[0])
        try:
            done = connection.flush()
            if not done and connection.hurried:
                self._drop_while_flushing(connection)
        except (ClientGone, ProtocolError):
            return self._end(connection)
        except FileCutShort as exc:
            say("error", str(exc), app=self._context.name, code=CODE)
            return self._end(connection)
        if not done:
            if connection.file is not None or before != (len(connection.unsent), len(connection.unsent[0])):
                connection.since = time.monotonic()
                connection.deadline = connection.since + connection.write_timeout_s
            return _PARK
        connection.deadline = 0.0
        self._table.arm(connection, READ)
        return self._after_response(connection)

    def _drop_while_flushing(self, connection: Connection) -> None:
        """The client takes nothing, perhaps because it sends its request first."""
        while not connection.parser.complete and connection.dropped <= DROPPED_MAX_BYTES:
            if not connection.drop(parse=True):
                return  # nothing now, or its end, of which the next write tells

    def _after_response(self, connection: Connection) -> _Next:
        if connection.ending is not KEPT:
            return self._close(connection)
        parser = connection.parser
        if not parser.complete:
            connection.state = DRAINING
            connection.dropped = 0
            connection.signalled = True  # perhaps it has come already
            self._table.wait(connection, time.monotonic() + self._context.body_timeout_s)
            return _PARK
        has_more = parser.pending
        connection.hurried = False
        try:
            parser.next_message()
        except ProtocolError as exc:
            return self._refuse(connection, exc)
        if has_more and not parser.at_boundary:
            self._slots[connection.slot] = SLOT_READING
            return _PROCEED
        if self._table.returning or (connection.turns and connection.is_over()):
            self._table.give_back(connection)
            return _GONE
        connection.state = IDLE
        self._slots[connection.slot] = SLOT_IDLE
        return _PARK

    def _close(self, connection: Connection) -> _Next:
        parser = connection.parser
        if connection.ending is BROKEN or (parser.complete and not parser.pending):
            return self._end(connection)
        return self._start_lingering(connection)

    def _end(self, connection: Connection) -> _Next:
        self._table.end(connection)
        return _GONE

    def _drain(self, connection: Connection) -> _Next:
        """Drop content that the app did not want, up to the next request."""
        try:
            count = connection.drop(parse=True)
        except ProtocolError:
            return self._start_lingering(connection)
        if count is None:
            return _PARK
        if not count:
            return self._end(connection)
        if connection.parser.complete:
            connection.deadline = 0.0
            return self._after_response(connection)
        if connection.dropped > DROPPED_MAX_BYTES:
            return self._start_lingering(connection)
        connection.signalled = True
        connection.deadline = time.monotonic() + self._context.body_timeout_s
        return _PARK

    # The end.

    def _refuse(self, connection: Connection, exc: ProtocolError) -> _Next:
        """Answer a request that breaks a rule, and end the connection."""
        parser = connection.parser
        asked = parser.head or parser.draft
        if asked is not None and not hasattr(asked, "method"):
            asked = None  # not even the request line could be read
        connection.slots[connection.slot] = SLOT_HEAD_SENT
        try:
            connection.offer(refusal(exc, asked))
        except ClientGone:
            return self._end(connection)
        connection.unsent.clear()  # a few hundred bytes that find no room are not waited for
        return self._start_lingering(connection)

    def _start_lingering(self, connection: Connection) -> _Next:
        """Our side ends now, the peer's when it has read our answer: an earlier end could destroy that on its way."""
        connection.state = LINGERING
        connection.dropped = 0
        connection.shut_writing()
        connection.signalled = True
        self._table.wait(connection, time.monotonic() + LINGER_S)
        return _PARK

    def _linger(self, connection: Connection) -> _Next:
        count = connection.drop(parse=False)
        if count is None:
            return _PARK
        if not count or connection.dropped > DROPPED_MAX_BYTES:
            return self._end(connection)
        connection.signalled = True
        return _PARK

    def expire(self, connection: Connection) -> None:
        """End an owned connection whose deadline has passed."""
        if connection.state is not READING:
            self._table.end(connection)
            return
        what = "head" if connection.parser.head is None else "content"
        refused = ProtocolError(408, "timeout", f"the request's {what} took too long")
        try:
            if self._refuse(connection, refused) is _PARK:
                self._table.leave(connection)
        except Exception as exc:
            self._give_up(connection, exc)
