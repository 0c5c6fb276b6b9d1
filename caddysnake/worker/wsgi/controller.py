"""The thread that never runs the app: channel, timers, and the watch over the others.

It blocks in poll on the channel, on an eventfd by which the threads call it, and for as long as the next thing to look
at allows; with nothing to look at, for ever.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import select
import socket
import time
from collections.abc import Callable
from enum import Enum

from ...aio.early_answers import STALL_S
from ...channel.endpoint import ChannelClosed, ChannelError, DescriptorsLost, Endpoint
from ...channel.farewell import CANCEL_S, END_S
from ...channel.messages import (
    TAKE_LAST,
    TAKE_LINK,
    TAKE_TIED,
    TAKE_TRUSTED,
    Drain,
    Drained,
    Dump,
    Failed,
    Profile,
    Ready,
    Returned,
    Shed,
    Take,
    Takes,
)
from ...channel.records import say
from ...channel.vitals import SLOT_CLOSED, SLOT_READING, SLOT_RETURNED, WORD_CONNECTIONS, WORD_TICK, Page
from ..arrival import arrival, has_input
from ..in_flight import named
from ..process import looking, profiling
from ..process.termination import TOLD, hear_terminate, on_terminate
from .call.deadlines import Deadlines
from .connection import Connection, State
from .connection_table import ConnectionTable
from .thread_pool import TICK_S, ThreadPool, Watch
from .websockets import WebSockets

ORPHAN_GRACE_S = 10.0
"""What requests in flight may take once the daemon is gone and no ``Drain`` said otherwise."""

_SETTLED_S = 1.0  # by when connections that were cut have gone, if no thread is at one
_SCAN_S = 0.25  # how late a deadline may be noticed
_AWAITED_S = 1.0
_SWEEP_S = 0.02  # how late an idle connection may be noticed while draining
_MESSAGES_A_TURN = 16
_RETURNS_A_SECOND = 500.0  # by which connections are turned away; half of what the daemon allows us to say
_STDERR = 2  # the descriptor: the app may have put anything into sys.stderr
_PATIENCE_S = 0.25  # for content that would let the app be called without waiting for it


class ControllerPhase(Enum):
    """Whether the worker takes connections, or why it no longer does."""

    SERVING = "serving"
    DRAINING = "draining"  # idle connections go back to the daemon, the others when they become so
    ORPHANED = "orphaned"  # the daemon is gone: idle connections end, the others after their answer


class Controller:
    """``admit`` makes a connection of a descriptor that was taken; ``expire`` ends one whose deadline has passed.

    ``keep_s``: so long WebSockets stay when it drains. ``may_exit``: the process is this worker's alone, to be ended by
    force if need be.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        page: Page,
        table: ConnectionTable,
        pool: ThreadPool,
        shares_load: bool,
        admit: Callable[[socket.socket, int, bool, bool], Connection],
        expire: Callable[[Connection], None],
        websockets: WebSockets,
        keep_s: float,
        flush_log: Callable[[], None],
        deadlines: Deadlines | None = None,
        may_exit: bool = True,
    ) -> None:
        self._endpoint = endpoint
        self._page = page
        self._table = table
        self._pool = pool
        self._shares_load = shares_load
        self._admit = admit
        self._expire = expire
        self._websockets = websockets
        self._keep_s = keep_s
        self._flush_log = flush_log
        self._kept_until = 0.0
        self._awaited: dict[Connection, float] = {}
        """Taken while it drains: until when the request is awaited for which it was given."""
        self._deadlines = deadlines
        self._may_exit = may_exit
        self._phase = ControllerPhase.SERVING
        self._wake_fd = -1
        self._poll = select.poll()
        self._next_scan = 0.0
        self._grace_s = ORPHAN_GRACE_S
        self._over_at = float("inf")
        self._cut_at: float | None = None
        self._is_told_to_end = False
        self._stands_in: list[int] | None = None  # the threads' turns when they were found stuck
        self._may_return = 0.0
        self._counted_at = 0.0

    def open(self) -> None:
        """Begin to listen to the channel and to ``wake``. Raises ``OSError``. Once, before ``run``."""
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll.register(self._wake_fd, select.POLLIN)
        self._poll.register(self._endpoint.fileno(), select.POLLIN)

    def close(self) -> None:
        """Let go of what ``open`` made. The channel is its owner's."""
        os.close(self._wake_fd)

    def wake(self) -> None:
        """Have the controller look around. For any thread."""
        os.eventfd_write(self._wake_fd, 1)

    def run(self, ready: Ready) -> None:
        """Serve the channel until this worker is to leave and holds nothing any more, or has used up its time."""
        on_terminate(self._terminate)
        if self._may_exit:
            hear_terminate()
            looking.on_signal_do(self.wake)
        self._guarded(lambda: self._endpoint.send(ready))
        while not self._is_finished():
            self._turn()
        if self._phase is ControllerPhase.DRAINING:
            self._guarded(lambda: self._endpoint.send(Drained()))
            self._say_farewell()
        if self._may_exit:
            faulthandler.cancel_dump_traceback_later()  # nothing was stuck

    def _turn(self) -> None:
        for fd, _ in self._poll.poll(self._timeout_ms()):
            if fd == self._wake_fd:
                self._quiet()
            elif fd == self._endpoint.fileno():
                self._guarded(self._channel)
        if self._is_told_to_end and self._phase is ControllerPhase.SERVING:
            self._guarded(lambda: self._endpoint.send(Failed("stopping", TOLD)))
            self._drain(0.0)
        now = time.monotonic()
        if self._kept_until and now >= self._kept_until:
            self._end_keeping()
        if now >= self._over_at:
            self._cut(now)
        self._page.header[WORD_TICK] = int(now * 1000)
        self._page.header[WORD_CONNECTIONS] = len(self._table.held)
        if not self._pool.asleep and self._pool.tick(now) is Watch.EXHAUSTED and self._shares_load:
            self._stand_in()
        self._flush_log()  # of a thread that is in its next call by now
        if self._stands_in is not None:
            self._turn_away(now)
        if self._deadlines is not None:
            self._deadlines.look(now)
        if self._table.timed and now >= self._next_scan:
            self._next_scan = now + _SCAN_S
            self._scan(now)
        if self._phase is not ControllerPhase.SERVING:
            self._sweep()
            self._websockets.look(now)
        self._guarded(self._tell)

    def _timeout_ms(self) -> float | None:
        """How long nothing needs a look; None for ever."""
        wait_s = -1.0
        if self._table.timed:
            wait_s = max(0.0, self._next_scan - time.monotonic())
        if self._phase is not ControllerPhase.SERVING:
            sweep_s = _SCAN_S if self._cut_at is not None and self._kept_until else _SWEEP_S
            wait_s = sweep_s if wait_s < 0 else min(wait_s, sweep_s)
        if self._stands_in is not None and self._table.ready:
            wait_s = _SWEEP_S if wait_s < 0 else min(wait_s, _SWEEP_S)
        if not self._pool.asleep:
            wait_s = TICK_S if wait_s < 0 else min(wait_s, TICK_S)
        if self._deadlines is not None:
            wait_s = self._deadlines.look_s if wait_s < 0 else min(wait_s, self._deadlines.look_s)
        return None if wait_s < 0 else wait_s * 1000

    def _quiet(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake_fd)

    # The channel.

    def _guarded(self, act: Callable[[], object]) -> None:
        if self._phase is ControllerPhase.ORPHANED:
            return
        try:
            act()
        except DescriptorsLost as exc:
            self._starve(exc)
        except (ChannelClosed, ChannelError) as exc:
            if not isinstance(exc, ChannelClosed):
                say("error", "the daemon broke a rule of the channel", reason=str(exc))
            self._orphan()

    def _channel(self) -> None:
        self._endpoint.flush()
        for _ in range(_MESSAGES_A_TURN):
            received = self._endpoint.receive()
            if received is None:
                break
            message, descriptors = received
            if isinstance(message, Take):
                self._take(message, descriptors[0])
            elif isinstance(message, Takes):
                for take, fd in zip(message.each(), descriptors, strict=True):
                    self._take(take, fd)
            elif isinstance(message, Drain):
                self._drain(message.grace_s)
            elif isinstance(message, Shed):
                self._shed(message.connections)
            elif isinstance(message, Profile):
                profiling.begin(message.worker, message.seconds, descriptors[0])
            elif isinstance(message, Dump):
                faulthandler.dump_traceback(_STDERR, all_threads=True)

    def _starve(self, exc: DescriptorsLost) -> None:
        """Nothing more can be taken: give back what was lost, which the daemon has as well, and leave."""
        for slot in exc.slots:
            self._page.slots[slot] = SLOT_RETURNED
        self._table.returned.extend(exc.slots)
        if self._phase is ControllerPhase.SERVING:
            self._guarded(lambda: self._endpoint.send(exc.failure()))
            self._drain(self._grace_s)

    def _tell(self) -> None:
        """Send what is to be told, and have poll watch for room if not all of it found any."""
        returned = self._table.returned
        while returned:
            self._endpoint.send(Returned(returned.popleft()))
        if self._endpoint.outbox:
            self._endpoint.flush()
        room = select.POLLOUT if self._endpoint.outbox else 0
        self._poll.modify(self._endpoint.fileno(), select.POLLIN | room)

    def _take(self, message: Take, fd: int) -> None:
        try:
            sock = socket.socket(type=socket.SOCK_STREAM, proto=0, fileno=fd)
        except OSError as exc:
            os.close(fd)
            say("error", "a descriptor that is no socket was handed over", reason=str(exc))
            return
        try:
            self._serve(message, sock)
        except Exception as exc:  # others came with it
            self._table.mishap(exc)
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # the daemon has a duplicate
            sock.close()
            self._page.slots[message.slot] = SLOT_CLOSED

    def _serve(self, message: Take, sock: socket.socket) -> None:
        flags = message.flags
        is_welcome = self._phase is ControllerPhase.DRAINING and flags & TAKE_TIED and self._cut_at is None
        if self._phase is not ControllerPhase.SERVING and not is_welcome:
            # Handed over before the daemon's own Drain; untouched, so it may go back as it is.
            sock.close()
            self._page.slots[message.slot] = SLOT_RETURNED
            self._table.returned.append(message.slot)
            return
        connection = self._admit(sock, message.slot, bool(flags & TAKE_TRUSTED), bool(flags & TAKE_LINK))
        connection.free_at = now = time.monotonic()
        connection.arrival = arrival(flags, sock, now)
        if flags & TAKE_LAST:
            connection.close()
        if is_welcome:
            self._awaited[connection] = time.monotonic() + _AWAITED_S
        connection.turns = self._table.rounds.turns(flags, now)
        self._table.admit(connection)
        if self._pool.busy == len(self._pool.threads):
            self._pool.asleep = False  # nobody may ever look at it: watch, and give it back if that is so

    def _shed(self, count: int) -> None:
        """Give back so many: those that are idle, and others after the request that they are at."""
        idle = self._table.take_idle(count)
        for connection in idle:
            self._table.give_back(connection)
        asked = [each for each in self._table.held.values() if self._page.slots[each.slot] == SLOT_READING]
        for connection in [each for each in asked if not each.turns][: max(0, count - len(idle))]:
            connection.turns = 1

    # Leaving.

    def _drain(self, grace_s: float) -> None:
        if self._phase is ControllerPhase.SERVING:
            self._phase = ControllerPhase.DRAINING
            self._grace_s = grace_s
            self._over_at = time.monotonic() + grace_s
            self._table.returning = True
            if self._keep_s > 0 and not self._is_told_to_end:
                self._kept_until = time.monotonic() + self._keep_s
            else:
                self._websockets.leave(is_orphaned=False)
        else:
            self._end_keeping()

    def _end_keeping(self) -> None:
        """WebSockets leave too now, and have the grace once more."""
        if self._kept_until:
            self._kept_until = 0.0
            self._over_at = time.monotonic() + self._grace_s
            self._cut_at = None
            self._websockets.leave(is_orphaned=self._phase is ControllerPhase.ORPHANED)

    def _orphan(self) -> None:
        self._phase = ControllerPhase.ORPHANED
        self._over_at = min(self._over_at, time.monotonic() + self._grace_s)
        self._table.returning = False
        self._table.closing = True
        self._kept_until = 0.0
        self._websockets.leave(is_orphaned=True)
        self._poll.unregister(self._endpoint.fileno())
        if self._may_exit:
            # Ends the process even if a thread never gives up the GIL again.
            faulthandler.dump_traceback_later(self._grace_s + END_S, exit=True, file=_STDERR)

    def _terminate(self) -> None:
        """SIGTERM, between two instructions of this thread's own: what the end of the grace begins, at once."""
        self._is_told_to_end = True
        self._kept_until = 0.0
        self._over_at = 0.0
        self.wake()

    def _cut(self, now: float) -> None:
        """The grace is over: who writes or reads finds the connection ended, so that streams are closed."""
        if self._cut_at is not None:
            return
        self._cut_at = now
        self._sweep()  # a grace of nothing has left no time for it
        kept = self._websockets.taken() if self._kept_until else []
        held = [each for each in self._table.held.values() if each not in kept]
        if held or self._pool.busy:
            heads = [each.parser.head for each in held if each.state is State.ANSWERING]
            say(
                "warn",
                "the grace period is over: connections cut",
                connections=len(held),
                requests=self._pool.busy,
                cut=named((head, None) for head in heads if head is not None),
            )
        for connection in held:
            connection.shut()

    def _sweep(self) -> None:
        """Idle connections go back, or end; a thread may have parked one after it last looked whether it should."""
        now = time.monotonic()
        self._awaited = {each: until for each, until in self._awaited.items() if now < until}
        for connection in self._table.take_idle():
            if self._phase is ControllerPhase.DRAINING and now < self._awaited.get(connection, 0.0):
                self._table.leave(connection)
            elif self._phase is ControllerPhase.DRAINING:
                self._table.give_back(connection)
            elif has_input(connection.sock):
                self._table.leave(connection)  # a request is there already: it gets its answer, and the end with it
            else:
                self._table.end(connection)
        for connection in list(self._table.held.values()):
            if connection.state is State.LINGERING and self._table.own(connection):
                self._table.end(connection)

    def _is_finished(self) -> bool:
        if self._phase is ControllerPhase.SERVING:
            return False
        if self._kept_until and self._websockets.count:
            return False
        if self._cut_at is not None and time.monotonic() >= self._cut_at + (CANCEL_S if self._busy else _SETTLED_S):
            return True
        return not self._table.held and not self._table.returned and not self._busy

    @property
    def _busy(self) -> int:
        """How many threads are in the app."""
        return self._pool.busy + self._websockets.count

    def _say_farewell(self) -> None:
        deadline = time.monotonic() + self._grace_s
        while self._phase is ControllerPhase.DRAINING and self._endpoint.outbox and time.monotonic() < deadline:
            self._poll.poll(_SWEEP_S * 1000)
            self._guarded(self._endpoint.flush)

    # Watching.

    def _stand_in(self) -> None:
        """No thread will look at a connection soon: look in their place, until one moves."""
        if self._stands_in is None:
            self._poll.register(self._table.epoll.fileno(), select.POLLIN)
        self._stands_in = self._pool.turns()

    def _turn_away(self, now: float) -> None:
        """Give back connections with a request on them that nobody has read: another worker may be free."""
        table = self._table
        if self._stands_in != self._pool.turns() or self._phase is not ControllerPhase.SERVING:
            self._stands_in = None
            self._poll.unregister(table.epoll.fileno())
            return
        self._may_return = min(_RETURNS_A_SECOND, self._may_return + (now - self._counted_at) * _RETURNS_A_SECOND)
        self._counted_at = now
        for fd in table.take_ready():
            connection = table.parked.get(fd)
            if connection is None or connection.state is not State.IDLE or self._may_return < 1.0:
                table.ready.append(fd)
            elif table.own(connection):
                self._may_return -= 1.0
                table.give_back(connection)

    def _scan(self, now: float) -> None:
        timed = self._table.timed
        # Those that are hurried now are busy only in a moment; a thread must be left for requests that are whole.
        room = len(self._pool.threads) // 2 - self._pool.busy
        for fd, connection in list(timed.items()):
            if not connection.deadline:
                timed.pop(fd, None)
                if connection.deadline:  # set meanwhile, by a thread that saw its entry still there
                    timed[fd] = connection
            elif now >= connection.deadline and self._table.own(connection):
                self._expire(connection)
            elif self._is_deadlocked(connection, now) and self._table.own(connection):
                connection.hurried = True
                self._table.kick(connection)
            elif room > 0 and self._is_overdue(connection, now) and self._table.own(connection):
                room -= 1
                connection.hurried = True
                self._table.kick(connection)

    def _is_deadlocked(self, connection: Connection, now: float) -> bool:
        """The client does not read its answer, perhaps because it is still sending its request."""
        return (
            connection.state is State.FLUSHING
            and not connection.hurried
            and not connection.parser.complete
            and now - connection.since >= STALL_S
        )

    def _is_overdue(self, connection: Connection, now: float) -> bool:
        """Content keeps the app waiting; where there is a thread to spare, it can wait for it as well there."""
        return (
            connection.state is State.READING
            and not connection.hurried
            and connection.parser.head is not None
            and now - connection.since >= _PATIENCE_S
        )
