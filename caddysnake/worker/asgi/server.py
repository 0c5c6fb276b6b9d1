"""The event-loop server of one worker: connections come over the channel, and idle ones go back.

The server knows nothing of HTTP (``asgi_connection``, ``asgi_http``); it owns the loop, the channel, the app's lifespan
and the vital signs. Its life::

    STARTING -> SERVING -> DRAINING -> left          Drain: idle connections go back, the rest at their boundary
                        -> ORPHANED -> left          the daemon is dead: answers end their connections
"""

from __future__ import annotations

import asyncio
import contextvars
import faulthandler
import os
import platform
import socket
from collections.abc import Coroutine
from enum import Enum
from time import monotonic
from typing import Any

from ...aio.counters import PUBLISH_S, Counters
from ...channel.endpoint import ChannelClosed, ChannelError, Endpoint
from ...channel.farewell import CANCEL_S, END_S, SHUTDOWN_S
from ...channel.messages import (
    PROTOCOL_VERSION,
    TAKE_LAST,
    TAKE_LINK,
    TAKE_TRUSTED,
    Drain,
    Drained,
    Dump,
    Failed,
    Message,
    Ready,
    Returned,
    Shed,
    Take,
)
from ...channel.records import say
from ...channel.settings import Settings
from ...channel.vitals import SLOT_CLOSED, SLOT_IDLE, SLOT_RETURNED, WORD_ACTIVE, WORD_CONNECTIONS, WORD_TICK, Page
from ...http1.errors import ProtocolError
from ...http1.limits import Limits
from ...http1.request import HEADS_MAX, Heads
from ...http1.response import ResponsePhase
from ..access_log import access_log
from ..process.termination import on_terminate
from .asgi_stacks import describe
from .connection import ConnectionPhase, HttpConnection
from .cycles.cycle import Cycle
from .deadlines import Deadlines
from .lifespan import Lifespan, LifespanError
from .loop import new_loop
from .scope import Peer, Scopes
from .turns import Turns

READ_BUFFER_BYTES = 256 * 1024
"""One for all connections: a loop reads one at a time, and what is read is parsed at once."""

FIRST_READ_BYTES = 64 * 1024
"""So much is read at once while it is not known what comes."""

SMALL_READ_BYTES = 4 * 1024
"""So much is read at once of a request that comes in tiny chunks: taking those apart costs a hundred times more."""

MESSAGES_A_TURN = 64
TICK_S = 1.0
ORPHAN_GRACE_S = 10.0
FAREWELL_S = 5.0


_STDERR = 2  # the descriptor: the app may have put anything into sys.stderr
_STARTED = ResponsePhase.STARTED


class ServerStage(Enum):
    """How far the server is; it only goes forward."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    ORPHANED = "orphaned"


class AsgiServer:
    """Serves ``app`` until told to drain. ``endpoint`` is the worker's end of its channel, ``page`` its vital signs."""

    def __init__(self, app: Any, settings: Settings, endpoint: Endpoint, page: Page) -> None:
        self.app = app
        self.settings = settings
        self.heads = Heads(HEADS_MAX, rests=True)
        self.limits = Limits(
            settings.max_head_bytes, settings.max_target_bytes, settings.max_header_count, settings.max_body_bytes
        )
        self.server_header = settings.server_header.encode("latin-1", "replace")
        self.scopes = Scopes(settings.root_path, settings.sendfile)
        self.reader = self.scopes.reader(self.limits)
        self.view = memoryview(bytearray(READ_BUFFER_BYTES))
        self.first_view = self.view[:FIRST_READ_BYTES]
        self.small_view = self.view[:SMALL_READ_BYTES]
        self.slots = page.slots
        self.tally = Counters()
        shortest_s = min(
            settings.head_timeout_s,
            settings.body_timeout_s,
            settings.write_timeout_s,
            settings.websocket_ping_interval_s or TICK_S * 4,
            settings.websocket_ping_timeout_s,
            settings.request_timeout_s or TICK_S * 4,
        )
        self._tick_s = max(0.05, min(TICK_S, shortest_s / 4))
        self.is_leaving = False
        """Idle connections are not kept."""
        self.is_orphaned = False
        self.is_forced = False
        """The grace is over: what runs is cancelled."""
        self.context = contextvars.copy_context()
        """What importing the app has left; every request begins in a copy of its own. Whoever begins one may be in
        another's: what asyncio calls back runs in the context of who asked for it, and an app asks (it resumes reading,
        or ends its answer before a pipelined request). ``create_task``'s own ``context`` is unknown to Python 3.10 and
        to some task factories.
        """
        self._endpoint = endpoint
        self.header = page.header
        limit_s = settings.request_timeout_s
        self._deadlines = None if limit_s is None else Deadlines(limit_s, page.header)
        self._access = access_log(settings)
        self._cells = page.thread(0)
        self._stage = ServerStage.STARTING
        self._connections: dict[int, HttpConnection] = {}
        self.grace_s = ORPHAN_GRACE_S
        """What is under way may take so long once this worker is leaving."""
        self.keeps_websockets = False
        """Open WebSockets stay although this worker is leaving."""
        self.cycles: set[Cycle] = set()
        """Apps that run, be their response complete or not."""
        self._cancelled: set[Cycle] = set()
        self._heads: list[Cycle] = []
        self._watched: set[HttpConnection] = set()
        self.active = 0
        self.is_publishing = False
        self._is_writer_added = False
        self._told = asyncio.Event()

    # Life

    def run(self) -> int:
        """Start the app, serve, drain; the worker's exit status."""
        loop, loop_name = new_loop(self.settings.loop)
        self.loop = loop
        self.turns = Turns(loop)
        self.create_task = loop.create_task
        asyncio.set_event_loop(loop)
        try:
            return loop.run_until_complete(self._main(loop_name))
        finally:
            try:
                _cancel_all(loop)
                loop.run_until_complete(_end_generators(loop))
                loop.run_until_complete(_end_threads(loop))
            finally:
                asyncio.set_event_loop(None)
                loop.close()

    async def _main(self, loop_name: str) -> int:
        loop = self.loop
        if not self.settings.shares_process:
            on_terminate(lambda: loop.call_soon_threadsafe(self._end_now))
        self._left = loop.create_future()
        lifespan = Lifespan(self.app, self.settings.lifespan)
        loop.add_reader(self._endpoint.fileno(), self._on_channel)
        self._tick()
        starting = loop.create_task(lifespan.startup())
        try:
            await asyncio.wait([starting, self._left], return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()  # told to leave before it was ready
                if self._stage is not ServerStage.DRAINING:
                    return 1
                await self._farewell(Drained())
                return 0
            starting.result()
        except LifespanError as error:
            await self._farewell(Failed("lifespan", str(error)))
            return 1
        if lifespan.is_supported:
            self.scopes.state = lifespan.state
        if self._stage is ServerStage.STARTING:
            self._stage = ServerStage.SERVING
            self._tell(Ready(PROTOCOL_VERSION, f"{platform.python_implementation()} {_version()}, {loop_name}"))
        await self._left
        try:
            await lifespan.shutdown(SHUTDOWN_S)
        except LifespanError as error:
            say("error", "the app failed in its lifespan shutdown", str(error), app=self.settings.app)
        await self._farewell(Drained())
        return 0

    def _leave(self, stage: ServerStage, grace_s: float) -> None:
        """Take nothing new, give back what is idle, and be gone when the rest is done or ``grace_s`` is over."""
        if self._stage is ServerStage.ORPHANED:
            return
        if self._stage is stage:
            self._end_keeping(grace_s)
            return
        self.keeps_websockets = stage is ServerStage.DRAINING and self.settings.websocket_keep_s > 0
        if self.keeps_websockets:
            self.loop.call_later(self.settings.websocket_keep_s, self._end_keeping, grace_s)
        self._stage = stage
        self.grace_s = grace_s
        self.is_leaving = True
        self.is_orphaned = stage is ServerStage.ORPHANED
        if self.is_orphaned:
            if not self.settings.shares_process:
                # Nobody is left to use force on an app that holds the GIL.
                faulthandler.dump_traceback_later(grace_s + END_S, exit=True, file=_STDERR)
            for cycle in self.cycles:
                if not cycle.response.head_sent:
                    cycle.response.close = True
        for connection in list(self._connections.values()):
            connection.leave()
        self.loop.call_later(grace_s, self._force)
        self._check_left()

    def _end_now(self) -> None:
        """SIGTERM: what the end of the grace begins, at once."""
        if self._stage is ServerStage.STARTING:
            if not self._left.done():
                self._left.set_result(None)
            return
        self.keeps_websockets = False
        self._leave(ServerStage.DRAINING, 0.0)
        self.keeps_websockets = False
        self._force()

    def _end_keeping(self, grace_s: float) -> None:
        """WebSockets leave too now."""
        if self.keeps_websockets and not self.is_orphaned:
            self.keeps_websockets = False
            for connection in list(self._connections.values()):
                connection.leave()
            self.loop.call_later(grace_s, self._force)

    def _check_left(self) -> None:
        if self.is_leaving and not self._connections and not self.cycles and not self._left.done():
            self._left.set_result(None)

    def _force(self) -> None:
        if self._left.done():
            return
        kept = self._kept()
        connections = [each for each in self._connections.values() if each not in kept]
        cycles = self.cycles - self._cancelled - {each.cycle for each in kept if each.cycle is not None}
        self._cancelled |= cycles  # once: a second time would end their clean-up
        self.is_forced = not self.keeps_websockets
        if connections or cycles:
            say(
                "warn",
                "the grace period is over: connections cut, requests cancelled",
                app=self.settings.app,
                connections=len(connections),
                requests=len(cycles),
            )
        for connection in connections:
            connection.abort()
        for cycle in cycles:
            if cycle.task is not None:
                cycle.task.cancel()
        if not self.keeps_websockets:
            self.loop.call_later(CANCEL_S, self._give_up)

    def _kept(self) -> set[HttpConnection]:
        kept = ConnectionPhase.UPGRADED if self.keeps_websockets else None
        return {each for each in self._connections.values() if each.phase is kept}

    def _give_up(self) -> None:
        if not self._left.done():
            self._left.set_result(None)

    # Channel

    def _on_channel(self) -> None:
        try:
            for _ in range(MESSAGES_A_TURN):
                received = self._endpoint.receive()
                if received is None:
                    return
                self._obey(*received)
        except (ChannelClosed, ChannelError) as exc:
            self._channel_ended(exc)

    def _channel_ended(self, exc: Exception) -> None:
        self.loop.remove_reader(self._endpoint.fileno())
        if self._stage is ServerStage.STARTING:
            self._left.set_result(None)
            return
        if not self.is_leaving:
            say("warn", "the daemon is gone: leaving", app=self.settings.app, reason=str(exc))
        self._leave(ServerStage.ORPHANED, ORPHAN_GRACE_S)

    def _obey(self, message: Message, descriptors: list[int]) -> None:
        if isinstance(message, Take):
            self._take(message, descriptors[0])
            return
        for fd in descriptors:
            os.close(fd)
        if isinstance(message, Drain):
            self._leave(ServerStage.DRAINING, message.grace_s)
        elif isinstance(message, Shed):
            self._shed(message.connections)
        elif isinstance(message, Dump):
            self._dump()

    def _take(self, message: Take, fd: int) -> None:
        if self.is_leaving:
            os.close(fd)
            self.slots[message.slot] = SLOT_RETURNED
            self._tell(Returned(message.slot))
            return
        # Only its family is asked for: each question is a system call. The transport sees to it that it does not block.
        sock = socket.socket(type=socket.SOCK_STREAM, proto=0, fileno=fd)
        peer = Peer(sock, bool(message.flags & TAKE_TRUSTED), bool(message.flags & TAKE_LINK))
        connection = self._new_connection(sock, message.slot, peer)
        connection.is_last = bool(message.flags & TAKE_LAST)
        self._connections[message.slot] = connection
        self.header[WORD_CONNECTIONS] = len(self._connections)
        self.slots[message.slot] = SLOT_IDLE
        self._open(connection, sock, self.loop.connect_accepted_socket(lambda: connection, sock))

    def _new_connection(self, sock: socket.socket, slot: int, peer: Peer) -> HttpConnection:
        if self._access is None:
            return HttpConnection(self, sock, slot, peer)
        from .logged import LoggedConnection  # most apps have no access log

        return LoggedConnection(self, sock, slot, peer, self._access)

    def _open(self, connection: HttpConnection, sock: socket.socket, opening: Coroutine[Any, Any, Any]) -> None:
        """Go on with ``opening``, which waits for nothing but one future: a task would cost more than all of it."""
        try:
            waits_for = opening.send(None)
        except StopIteration:
            return
        except OSError as exc:
            say("warn", "a connection could not be taken", app=self.settings.app, reason=str(exc))
            sock.close()
            self._released(connection.slot, returned=False)
            return
        waits_for.add_done_callback(lambda _: self._open(connection, sock, opening))

    def _shed(self, count: int) -> None:
        for connection in list(self._connections.values()):
            if count <= 0:
                return
            if connection.phase is ConnectionPhase.IDLE:
                connection.leave()
                count -= 1

    def _dump(self) -> None:
        faulthandler.dump_traceback(_STDERR, all_threads=True)
        say("info", "stacks dumped to standard error", describe(self.loop), app=self.settings.app)

    def _tell(self, message: Message) -> None:
        try:
            if not self._endpoint.send(message) and not self._is_writer_added:
                self._is_writer_added = True
                self.loop.add_writer(self._endpoint.fileno(), self._flush_channel)
        except ChannelClosed as exc:
            self._channel_ended(exc)

    def _flush_channel(self) -> None:
        try:
            if self._endpoint.flush():
                self._is_writer_added = False
                self.loop.remove_writer(self._endpoint.fileno())
                self._told.set()
        except ChannelClosed as exc:
            self.loop.remove_writer(self._endpoint.fileno())
            self._channel_ended(exc)

    async def _farewell(self, message: Message) -> None:
        """Say the last word and wait until the kernel has it."""
        self._told.clear()
        self._tell(message)
        if self._endpoint.outbox and not self.is_orphaned:
            try:
                await asyncio.wait_for(self._told.wait(), FAREWELL_S)
            except asyncio.TimeoutError:
                say("warn", "the daemon does not read its channel", app=self.settings.app)

    # For connections

    def connection_lost(self, connection: HttpConnection, returned: bool) -> None:
        """A connection has ended, or been ``returned``: its slot is settled, and the daemon told, once our copy
        is closed.
        """
        self._watched.discard(connection)
        # Our copy is closed when this callback of the transport has returned.
        self.loop.call_soon(self._released, connection.slot, returned)

    def _released(self, slot: int, returned: bool) -> None:
        self._connections.pop(slot, None)
        self.header[WORD_CONNECTIONS] = len(self._connections)
        self.slots[slot] = SLOT_RETURNED if returned else SLOT_CLOSED
        if returned:
            self._tell(Returned(slot))
        self._check_left()

    def begin(self, cycle: Cycle) -> None:
        """Call the app for ``cycle`` in a task of its own; it counts as active until ``cycle_ended``."""
        self.cycles.add(cycle)
        self.active += 1
        self.header[WORD_ACTIVE] = self.active
        cycle.task = self.context.copy().run(self.create_task, cycle.run(self.app), name="request")

    def cycle_ended(self, cycle: Cycle) -> None:
        """The app has returned, or raised. A worker that is leaving may be done by this."""
        self.cycles.discard(cycle)
        if not cycle.is_counted:
            self.active -= 1
            self.header[WORD_ACTIVE] = self.active
        if self.is_leaving:
            self._check_left()

    def head_waits(self, cycle: Cycle) -> None:
        """A head waits for its content, or a piece for others, until the end of this turn of the loop."""
        if not self._heads:
            self.loop.call_soon(self._flush_heads)
        self._heads.append(cycle)

    def _flush_heads(self) -> None:
        heads, self._heads = self._heads, []
        for cycle in heads:
            if cycle.response.phase is _STARTED:
                if not cycle.connection.is_reading_ahead:
                    cycle.flush_head()
            elif cycle.pieces:
                cycle.flush_pieces()

    # Vital signs

    def publish_soon(self) -> None:
        """Write the counters to the page ``PUBLISH_S`` seconds from now. The caller has looked at ``is_publishing``."""
        self.is_publishing = True
        self.loop.call_later(PUBLISH_S, self._publish)

    def count_refusal(self, error: ProtocolError) -> None:
        """A request that no app saw was answered with the status of ``error``, in no time."""
        self.tally.finished(error.status, 0.0)
        self._publish()

    def _publish(self) -> None:
        self.is_publishing = False
        self.tally.publish(self._cells)

    # Time

    def watch(self, connection: HttpConnection) -> None:
        """``connection`` has a deadline now: it is looked at on each turn of the watch, while it needs that."""
        self._watched.add(connection)

    def _tick(self) -> None:
        self.loop.call_later(self._tick_s, self._tick)  # first: whatever goes wrong below, time-outs go on
        now = monotonic()
        self.header[WORD_TICK] = int(now * 1000)
        self._publish()
        if self._deadlines is not None:
            self._deadlines.look(self.cycles, now)
        for connection in list(self._watched):
            if not connection.overdue(now):
                self._watched.discard(connection)


def _version() -> str:
    return platform.python_version()


async def _end_generators(loop: asyncio.AbstractEventLoop) -> None:
    """Close what asynchronous generators are left; one that does not end must not hold us up."""
    await asyncio.wait([loop.create_task(loop.shutdown_asyncgens())], timeout=1.0)


async def _end_threads(loop: asyncio.AbstractEventLoop) -> None:
    """Give the threads of the loop's executor a moment to finish; who is stuck there must not hold us up."""
    try:
        await asyncio.wait_for(loop.shutdown_default_executor(), 1.0)
    except asyncio.TimeoutError:
        pass


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=1.0))
