"""A server's end of the channel on an event loop, and the life that the daemon's messages give it.

::

    STARTING -> SERVING -> DRAINING -> left          Drain: idle connections go back, the rest at their boundary
                        -> ORPHANED -> left          the daemon is dead: answers end their connections
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import platform
import socket
from enum import Enum
from time import monotonic
from typing import Generic, TypeVar

from ..channel.endpoint import ChannelClosed, ChannelError, DescriptorsLost, Endpoint
from ..channel.messages import PROTOCOL_VERSION, TAKE_TIED, Drain, Dump, Message, Ready, Returned, Shed, Take, Takes
from ..channel.records import say
from ..channel.vitals import SLOT_IDLE, SLOT_RETURNED, WORD_CONNECTIONS
from .context import Context
from .transport import ConnectionPhase, Transport, adopt

MESSAGES_A_TURN = 64
TICK_S = 1.0
ORPHAN_GRACE_S = 10.0
FAREWELL_S = 5.0
AWAITED_S = 1.0
"""How long a request is awaited on a connection that was taken while the server leaves."""

STDERR = 2
"""The descriptor: the app may have put anything into ``sys.stderr``."""

C = TypeVar("C", bound=Transport)


class ServerStage(Enum):
    """How far the server is; it only goes forward."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    ORPHANED = "orphaned"


class Agent(Generic[C]):
    """Takes connections, gives them back, and leaves; what they carry is the subclass's.

    ``keep_s``: so long WebSockets stay when it drains. ``cut_s``: so long it takes to end what was cut. ``end_s``: so
    long behind the grace an orphan's process may last, None where the process is not its own. ``app``: for the log.
    """

    def __init__(
        self,
        context: Context,
        endpoint: Endpoint,
        keep_s: float,
        cut_s: float,
        end_s: float | None,
        tick_s: float = TICK_S,
        app: str | None = None,
    ) -> None:
        self.context = context
        self._endpoint = endpoint
        self._loop = context.loop
        self._keep_s = keep_s
        self._cut_s = cut_s
        self._end_s = end_s
        self._tick_s = tick_s
        self._named = {} if app is None else {"app": app}
        self._stage = ServerStage.STARTING
        self._connections: dict[int, C] = {}
        self._left: asyncio.Future[None] = self._loop.create_future()
        self._is_writer_added = False

    # The subclass's

    def _connection_for(self, take: Take, sock: socket.socket) -> C:
        """Make the connection for a socket that was taken."""
        raise NotImplementedError

    def _orphaned(self) -> None:
        """The daemon is gone: what is being answered now is the last answer."""
        raise NotImplementedError

    def _is_done(self) -> bool:
        """Whether nothing is under way but what the connections carry."""
        return True

    def _cut(self, connections: list[C], kept: list[C]) -> None:
        """End ``connections`` and what else is under way, as the grace is over, but nothing of those that are kept."""
        raise NotImplementedError

    def _dump(self) -> None:
        """Write where everything stands to the log."""
        raise NotImplementedError

    # Life

    def _listen(self) -> None:
        """Begin to obey the channel and to show that the loop turns; on the loop."""
        self._told = asyncio.Event()
        self._loop.add_reader(self._endpoint.fileno(), self._on_channel)
        self._tick()

    def _ready(self, loop_name: str) -> None:
        """Tell the daemon that connections may come."""
        if self._stage is ServerStage.STARTING:
            self._stage = ServerStage.SERVING
            implementation = f"{platform.python_implementation()} {platform.python_version()}"
            self._tell(Ready(PROTOCOL_VERSION, f"{implementation}, {loop_name}"))

    def _leave(self, stage: ServerStage, grace_s: float) -> None:
        """Take nothing new, give back what is idle, and be gone when the rest is done or ``grace_s`` is over."""
        if self._stage is ServerStage.ORPHANED:
            return
        if self._stage is stage:
            self._end_keeping(grace_s)
            return
        context = self.context
        context.keeps_upgraded = stage is ServerStage.DRAINING and self._keep_s > 0
        if context.keeps_upgraded:
            self._loop.call_later(self._keep_s, self._end_keeping, grace_s)
        self._stage = stage
        context.grace_s = grace_s
        context.is_leaving = True
        context.owed = 1 << 62  # all
        context.is_orphaned = stage is ServerStage.ORPHANED
        if context.is_orphaned:
            if self._end_s is not None:
                # Nobody is left to use force on an app that holds the GIL.
                faulthandler.dump_traceback_later(grace_s + self._end_s, exit=True, file=STDERR)
            self._orphaned()
        self._connections_leave()
        self._loop.call_later(grace_s, self._force)
        self._check_left()

    def _connections_leave(self) -> None:
        for connection in list(self._connections.values()):
            connection.leave()

    def _end_keeping(self, grace_s: float) -> None:
        """WebSockets leave too now."""
        if self.context.keeps_upgraded:
            self.context.keeps_upgraded = False
            self._connections_leave()
            self._loop.call_later(grace_s, self._force)

    def _check_left(self) -> None:
        if self.context.is_leaving and not self._connections and self._is_done():
            self._give_up()

    def _force(self) -> None:
        if self._left.done():
            return
        context = self.context
        context.is_forced = not context.keeps_upgraded
        phase = ConnectionPhase.UPGRADED if context.keeps_upgraded else None
        kept = [each for each in self._connections.values() if each.phase is phase]
        self._cut([each for each in self._connections.values() if each.phase is not phase], kept)
        if context.is_forced:
            self._loop.call_later(self._cut_s, self._give_up)

    def _give_up(self) -> None:
        if not self._left.done():
            self._left.set_result(None)

    def _tick(self) -> None:
        self._loop.call_later(self._tick_s, self._tick)  # first: whatever goes wrong below, time-outs go on
        self._look(monotonic())

    def _look(self, now: float) -> None:
        """Look at what may take too long. ``now``: monotonic seconds."""
        self.context.tick(now)

    # Channel

    def _on_channel(self) -> None:
        try:
            for _ in range(MESSAGES_A_TURN):
                received = self._endpoint.receive()
                if received is None:
                    return
                self._obey(*received)
        except DescriptorsLost as exc:
            self._starve(exc)
        except (ChannelClosed, ChannelError) as exc:
            self._channel_ended(exc)

    def _starve(self, exc: DescriptorsLost) -> None:
        """Nothing more can be taken: give back what was lost, which the daemon has as well, and leave."""
        if not exc.slots:
            self._channel_ended(exc)
        for slot in exc.slots:
            self.context.slots[slot] = SLOT_RETURNED
            self._tell(Returned(slot))
        if self._stage is ServerStage.SERVING:
            self._tell(exc.failure())
            self._leave(ServerStage.DRAINING, ORPHAN_GRACE_S)

    def _channel_ended(self, exc: Exception) -> None:
        self._loop.remove_reader(self._endpoint.fileno())
        self._told.set()
        if self._stage is ServerStage.STARTING:
            self._give_up()
            return
        if not self.context.is_leaving:
            say("warn", "the daemon is gone: leaving", **self._named, reason=str(exc))
        self._leave(ServerStage.ORPHANED, ORPHAN_GRACE_S)

    def _obey(self, message: Message, descriptors: list[int]) -> None:
        if isinstance(message, Take):
            self._take(message, descriptors[0])
            return
        if isinstance(message, Takes):
            for take, fd in zip(message.each(), descriptors, strict=True):
                self._take(take, fd)
            return
        for fd in descriptors:
            os.close(fd)
        if isinstance(message, Drain):
            self._leave(ServerStage.DRAINING, message.grace_s)
        elif isinstance(message, Shed):
            self._shed(message.connections)
        elif isinstance(message, Dump):
            self._dump()

    def _tell(self, message: Message) -> None:
        if self.context.is_orphaned:
            return
        try:
            if not self._endpoint.send(message) and not self._is_writer_added:
                self._is_writer_added = True
                self._loop.add_writer(self._endpoint.fileno(), self._flush_channel)
        except ChannelClosed as exc:
            # Not now: whoever has something to say is in the middle of something.
            self._loop.call_soon(self._channel_ended, exc)

    def _flush_channel(self) -> None:
        try:
            if self._endpoint.flush():
                self._is_writer_added = False
                self._loop.remove_writer(self._endpoint.fileno())
                self._told.set()
        except ChannelClosed as exc:
            self._loop.remove_writer(self._endpoint.fileno())
            self._channel_ended(exc)

    async def _farewell(self, message: Message) -> None:
        """Say the last word and wait until the kernel has it."""
        self._told.clear()
        self._tell(message)
        if self._endpoint.outbox and not self.context.is_orphaned:
            try:
                await asyncio.wait_for(self._told.wait(), FAREWELL_S)
            except asyncio.TimeoutError:
                say("warn", "the daemon does not read its channel", **self._named)

    # Connections

    def _take(self, message: Take, fd: int) -> None:
        slot = message.slot
        is_welcome = not self.context.is_leaving or (
            message.flags & TAKE_TIED and self._stage is ServerStage.DRAINING and not self._left.done()
        )
        if not is_welcome:
            os.close(fd)
            self.context.slots[slot] = SLOT_RETURNED
            self._tell(Returned(slot))
            return
        # Only its family is asked for: each question is a system call. The transport sees to it that it does not block.
        sock = socket.socket(type=socket.SOCK_STREAM, proto=0, fileno=fd)
        try:
            self._serve(message, sock)
        except Exception as exc:  # others came with it
            self.context.mishap(exc)
            self._refuse(slot, sock)

    def _serve(self, message: Take, sock: socket.socket) -> None:
        slot = message.slot
        connection = self._connections[slot] = self._connection_for(message, sock)
        if self.context.is_leaving:
            connection.is_awaited = True
            self._loop.call_later(AWAITED_S, connection.leave)
        self.context.header[WORD_CONNECTIONS] = len(self._connections)
        self.context.slots[slot] = SLOT_IDLE

        def failed(exc: OSError) -> None:
            say("warn", "a connection could not be taken", **self._named, reason=str(exc))
            self._refuse(slot, sock)

        adopt(self._loop, connection, sock, failed)

    def _refuse(self, slot: int, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)  # the daemon has a duplicate
        sock.close()
        self.context.release(slot, returned=False)

    def _ended(self, slot: int, returned: bool) -> None:
        """A connection is ours no more: tell the daemon if it goes on with it."""
        self._connections.pop(slot, None)
        self.context.header[WORD_CONNECTIONS] = len(self._connections)
        if returned:
            self._tell(Returned(slot))
        self._check_left()

    def _shed(self, count: int) -> None:
        idle = [each for each in self._connections.values() if each.phase is ConnectionPhase.IDLE]
        for connection in idle[: max(count, 0)]:
            connection.leave()
        if count and not self.context.is_leaving:
            self.context.owed = max(count - len(idle), 0)
