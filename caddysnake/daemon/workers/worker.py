"""One worker, seen from the daemon: carries out what ``lifecycle`` decides, and holds its channel and its slots.

The other end of the channel may run a tenant's code. Whatever arrives is checked against the state table, counted
against a rate, and believed in nothing: a slot must be one that this worker holds, a number from the page is clamped
and is never an index or a size.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from ...channel import vitals
from ...channel.codec import shorten
from ...channel.endpoint import ChannelClosed, ChannelError, Endpoint, pair
from ...channel.farewell import CANCEL_S, END_S
from ...channel.messages import (
    PROTOCOL_VERSION,
    TAKE_BORROWED,
    Drain,
    Drained,
    Dump,
    Failed,
    Link,
    Message,
    Need,
    Ready,
    Refused,
    Returned,
    Shed,
    Take,
    Unneed,
)
from ...channel.settings import RelaySettings, Settings
from ...channel.throttle import TokenBucket
from ..sockets.connections import answer
from ..sockets.refusals import DEADLINE
from ..system import cgroups, processes
from ..system.log.pipes import OutputPipes
from ..system.log.process import adopt_outlets
from ..system.state import CarriedWorker
from .balancer import STUCK_MS, Load
from .child.equipment import configure, new_page, outlets_for, socket_of, without_memory
from .child.launcher import Launcher, SpawnError
from .hanging import Finding, Frozen, Pulse, Watchdog
from .lifecycle import MAY_SAY, RELAY_MAY_SAY, Action, Event, Reason, State, next_state

if TYPE_CHECKING:
    from ..sockets.connections import Connection

log = logging.getLogger("caddysnake.worker")

MESSAGES_A_TURN = 16
MESSAGES_A_SECOND = 1000
MESSAGES_AT_ONCE = vitals.SLOTS
"""Beyond those of a second: every connection may come back at once, a drain of many is no flood."""
_RELAY_MESSAGES_A_SECOND = 100_000
"""A relay is ours, and asks once for each request to an app that is not there."""
UNTAKEN_LIMIT = 64
"""Hand-offs that a worker has not taken yet. More would pile up descriptors in flight, which are counted per user."""
_KILL_AFTER_TERM_S = 3.0
_TURNS_MS = 2000
"""Who has not turned for longer may not come to read a message."""
_LEAVE_AFTER_LAST_WORD_S = 10.0
_UNREAD = (vitals.SLOT_GIVEN, vitals.SLOT_IDLE, vitals.SLOT_READING)
_KEEPING_LATE_S = CANCEL_S + 2.0
"""After the grace, a worker that keeps WebSockets has ended its requests by itself."""
_KEEPING_STILL_MS = 10_000
_STACKS_S = 0.2
"""Within which a process that is asked for its stacks has written them, on a machine that is not too busy."""


class WorkerSink:
    """What a worker tells its pool. (A class, not a Protocol, so that each method can say what it is for.)"""

    def admitted(self, worker: Worker) -> None:
        """It is ready."""
        raise NotImplementedError

    def withdrawn(self, worker: Worker) -> None:
        """It leaves the rotation."""
        raise NotImplementedError

    def returned(self, worker: Worker, connection: Connection) -> None:
        """It gave an idle connection back."""
        raise NotImplementedError

    def asked(self, worker: Worker, message: Need | Unneed) -> None:
        """It, a relay, wants a link, or does not want it any more."""
        raise NotImplementedError

    def failed(self, worker: Worker, reason: Reason) -> None:
        """It will end against our will, for a reason that is known before it does. Once at most; ``reaped`` gives none
        then.
        """
        raise NotImplementedError

    def exited(self, worker: Worker, orphans: list[tuple[Connection, int]]) -> None:
        """It is gone: rescue ``orphans``, the connections it held, each with the last state of its slot."""
        raise NotImplementedError

    def reaped(self, worker: Worker, reason: Reason | None) -> None:
        """How it ended is known; always after ``exited``. ``reason``: why, if against our will and not told before."""
        raise NotImplementedError


class Worker:
    """A worker process. ``start`` brings it up; it then tells ``sink`` what becomes of it."""

    def __init__(
        self,
        number: int,
        settings: Settings | RelaySettings,
        start_timeout_s: float | None,
        grace_s: float,
        sink: WorkerSink,
        carried: CarriedWorker | None = None,
    ) -> None:
        """Raises ``OSError`` when there are no descriptors, or no memory, for another worker.

        ``carried``: it runs already, and is taken over; ``resume`` it.
        """
        self.number = number
        self.settings = settings
        self.state = State.STARTING
        self.pid = 0
        self.detail = ""
        self.started_at = time.monotonic()
        self.ready_at: float | None = None
        self.ended: asyncio.Event = asyncio.Event()
        self.reported = False
        self.is_hung = False
        self.has_served = False
        """It had completed requests when it was last looked at: at its end."""
        limit_s = settings.request_timeout_s if isinstance(settings, Settings) else None
        self.watch = Watchdog(limit_s)
        self._start_timeout_s = start_timeout_s
        self._grace_s = grace_s
        self._sink = sink
        self._loop = asyncio.get_running_loop()
        # What an event loop does is in one word; only threads tell one by one.
        is_relay = settings.interface == "relay"
        is_loop = is_relay or settings.interface == "asgi"
        self._threads = 0 if is_loop else max(1, min(vitals.THREADS, settings.threads))
        self._may_say = RELAY_MAY_SAY if is_relay else MAY_SAY
        ours, self._theirs = pair()
        if carried is not None:
            ours.close()
            self._theirs.close()
            ours = socket_of(carried.channel)
        self._endpoint = Endpoint(ours, takes_descriptors=False)
        self._outlets: OutputPipes | None = None
        self._group: cgroups.Group | None = None
        self._confining: asyncio.Task[None] | None = None
        self.shares_process = isinstance(settings, Settings) and settings.shares_process
        own_limits = settings.limits if isinstance(settings, Settings) and not self.shares_process else None
        self._group_bytes = cgroups.limit_of(own_limits)  # it hears nothing before it is where this holds
        try:
            if carried is None:
                name, told = "relay" if is_relay else "app", {"app": settings.app, "worker": settings.worker_index}
                access = settings.access_log if isinstance(settings, Settings) else None
                self._outlets = outlets_for(self._endpoint, name, told, access)
                self.page, self._page_fd = new_page()
                try:
                    if self._group_bytes is None:
                        configure(self._endpoint, settings, self._page_fd)
                except BaseException:
                    self._close_page()
                    raise
            else:
                self._outlets = adopt_outlets(carried.outlets)
                self.page, self._page_fd = vitals.Page(carried.page), carried.page
        except BaseException:
            if self._outlets is not None:
                self._outlets.end()
            self._endpoint.close()
            self._theirs.close()
            raise
        self.last_cells = [0] * vitals.CELLS
        self.last_cpu_s = 0.0
        """What its process had used in the end; 0 for a thread of a host, whose processor time nobody tells apart."""
        self._is_counted = False
        self._spawner: Launcher | None = None
        self._is_held = False
        self._pidfd = -1
        self._timer: asyncio.TimerHandle | None = None
        self._outliving: asyncio.TimerHandle | None = None  # its channel is closed, and it may not live on for long
        self._reaping: asyncio.Task[None] | None = None
        self._held: dict[int, Connection] = {}
        self._dropped: set[int] = set()  # their other side has left; the slot is the worker's until it says CLOSED
        self._drop_order: deque[int] = deque()
        self._fresh = 0  # the lowest slot never given
        self._slots = _slots_of(settings)
        self._free: deque[int] = deque()
        self._untaken: deque[int] = deque()
        self._allowance = TokenBucket(_RELAY_MESSAGES_A_SECOND if is_relay else MESSAGES_A_SECOND, MESSAGES_AT_ONCE)
        self._writing = False
        self._kept_until = 0.0

    # -- starting ---------------------------------------------------------------------------------------------

    async def start(self, spawner: Launcher) -> None:
        """Have it forked. Raises ``SpawnError``; ``discard`` it then, and whatever else is raised."""
        self._spawner = spawner
        try:
            async with asyncio.timeout(self._start_timeout_s):
                self.pid, self._pidfd = await spawner.fork(self.number, self._theirs.fileno(), self._grace_s)
        except TimeoutError:
            spawner.gave_up()
            why = f"not ready within {self._start_timeout_s:g}s: its interpreter, or a preload, is not either"
            raise SpawnError("start timeout", why) from None
        self._theirs.close()
        if self._outlets is not None:
            self._outlets.begin(self.pid)
        self._loop.add_reader(self._pidfd, self._on_exit)
        self._loop.add_reader(self._endpoint.fileno(), self._on_readable)
        if self.state is not State.STARTING:  # told to end while it was being forked
            self.kill()
        elif self._start_timeout_s is not None:
            left_s = self._start_timeout_s - (time.monotonic() - self.started_at)
            self._timer = self._loop.call_later(left_s, self._feed, Event.START_TIMEOUT)
        if self._group_bytes is not None:
            self._confining = self._loop.create_task(self._confine(self._group_bytes))

    async def _confine(self, memory_bytes: int) -> None:
        """Put it into a cgroup, and only then let it know what to run."""
        self._group = await cgroups.Group.of(self.settings.app, self.number, self.pid, memory_bytes)
        if self.state is not State.STARTING or self._endpoint.fileno() < 0:
            return
        assert isinstance(self.settings, Settings)
        settings = self.settings if self._group is None else without_memory(self.settings)
        try:
            configure(self._endpoint, settings, self._page_fd)
        except ChannelClosed:
            pass  # its pidfd will say the rest
        except OSError as exc:
            self._fail("resources", f"no room for another worker: {exc}")
            self.kill()

    def discard(self) -> None:
        """Give up a worker whose start was never done."""
        self.state = State.EXITED
        if self._pidfd >= 0 and self._spawner is not None:
            self._loop.remove_reader(self._pidfd)
            self._spawner.end(self.number, self.pid, self._pidfd)
            self._reaping = self._loop.create_task(self._reap_discarded(self._spawner))
        if self._endpoint.fileno() >= 0:
            self._loop.remove_reader(self._endpoint.fileno())
        if self._outlets is not None:
            self._outlets.end()
        self._theirs.close()
        self._endpoint.close()
        self._is_counted = True
        self._close_page()
        self.ended.set()

    async def _reap_discarded(self, spawner: Launcher) -> None:
        try:
            await spawner.reap(self.number, self._pidfd)
        finally:
            os.close(self._pidfd)

    # -- going on in another image of the daemon --------------------------------------------------------------

    @property
    def is_settled(self) -> bool:
        """It is there, and not being forked or reaped just now."""
        is_confined = self._confining is None or self._confining.done()
        return self.pid > 0 and is_confined and self.state is not State.EXITED

    @property
    def is_at_rest(self) -> bool:
        """Nobody is in the middle of doing something to it."""
        return self.ended.is_set() or (self.is_settled and not self._is_held)

    def carry(self) -> CarriedWorker:
        """All that whoever goes on with it must know, but for its connections, which know it. It must be settled."""
        return CarriedWorker(
            number=self.number,
            index=self.settings.worker_index,
            pid=self.pid,
            pidfd=self._pidfd,
            channel=self._endpoint.fileno(),
            page=self._page_fd,
            state=self.state.value,
            detail=self.detail,
            started_at=self.started_at,
            ready_at=self.ready_at,
            deadline_in_s=None if self._timer is None else max(0.0, self._timer.when() - self._loop.time()),
            reported=self.reported,
            has_served=self.has_served,
            is_hung=self.is_hung,
            kept_for_s=self._kept_until - self._loop.time() if self._kept_until else None,
            failure=self._failure,
            outlets=self._outlets.state() if self._outlets is not None else None,
            group=self._group.carry() if self._group is not None else None,
            outbox=list(self._endpoint.outbox),
            dropped=[slot for slot in self._drop_order if slot in self._dropped],
            fresh=self._fresh,
            free=list(self._free),
            untaken=list(self._untaken),
            spawner=self._spawner.pid if self._spawner is not None else 0,
        )

    def resume(self, carried: CarriedWorker, spawner: Launcher) -> None:
        """Go on where ``carried`` says. Its connections come by ``attach``, and then ``reconcile``."""
        self._spawner = spawner
        self.pid, self._pidfd = carried.pid, carried.pidfd
        self.state = State(carried.state)
        self.detail, self.is_hung = carried.detail, carried.is_hung
        self.started_at, self.ready_at = carried.started_at, carried.ready_at
        self.reported, self.has_served = carried.reported, carried.has_served
        self._failure = Reason(*carried.failure)
        self._dropped, self._drop_order = set(carried.dropped), deque(carried.dropped)
        self._fresh, self._free, self._untaken = carried.fresh, deque(carried.free), deque(carried.untaken)
        self._group = cgroups.Group(*carried.group) if carried.group is not None else None
        self._endpoint.outbox.extend(carried.outbox)
        if carried.channel < 0:
            self._endpoint.close()
        self._loop.add_reader(self._pidfd, self._on_exit)
        if self._endpoint.fileno() >= 0:
            self._loop.add_reader(self._endpoint.fileno(), self._on_readable)
            if self._endpoint.outbox:
                self._writing = True
                self._loop.add_writer(self._endpoint.fileno(), self._on_writable)
        else:
            self._outliving = self._loop.call_later(_LEAVE_AFTER_LAST_WORD_S, self._outlived_its_channel)
        if carried.kept_for_s is not None:
            self._kept_until = self._loop.time() + carried.kept_for_s
        if self._kept_until and self.state is State.DRAINING:
            self._timer = self._loop.call_later(carried.deadline_in_s or 0.0, self._look_at_kept)
        elif carried.deadline_in_s is not None:
            if self.state is State.DRAINING:
                self._timer = self._loop.call_later(carried.deadline_in_s, self._grace_is_over)
            else:
                event = Event.START_TIMEOUT if self.state is State.STARTING else Event.DEADLINE
                self._timer = self._loop.call_later(carried.deadline_in_s, self._feed, event)

    def attach(self, connection: Connection, slot: int) -> None:
        """It has ``connection``, in ``slot``."""
        connection.worker, connection.slot = self, slot
        self._held[slot] = connection

    def reconcile(self) -> None:
        """Slots that are in use, and of which nobody knows why, are its own until it frees them."""
        used = bytes(self.page.slots).rstrip(b"\0")
        known = {*self._held, *self._dropped, *self._free}
        unknown = [slot for slot in range(self._fresh, len(used)) if slot not in known]
        self._fresh = max(self._fresh, len(used))
        unknown += [slot for slot in self._free if slot < len(used) and used[slot]]
        self._free = deque(slot for slot in self._free if slot >= len(used) or not used[slot])
        self._dropped.update(unknown)
        self._drop_order.extend(unknown)

    def sources(self) -> list[tuple[int, Callable[[], None]]]:
        """Its channel, with what to call when there is something to read."""
        return [(self._endpoint.fileno(), self._on_readable)] if self._endpoint.fileno() >= 0 else []

    # -- what its pool asks -----------------------------------------------------------------------------------

    def load(self) -> Load:
        """How busy it is now, read off its page; what it took but has not looked at counts as busy."""
        slots = self.page.slots
        untaken = self._untaken
        while untaken and slots[untaken[0]] != vitals.SLOT_GIVEN:
            untaken.popleft()
        connections = len(self._held)
        now_ms = time.monotonic_ns() // 1_000_000
        busy = self.page.word(vitals.WORD_ACTIVE) + len(untaken)
        stuck = 0
        for index in range(self._threads):
            started = self.page.thread_word(index, vitals.CELL_STARTED)
            if started:
                busy += 1
                stuck += now_ms - started > STUCK_MS
        saturated = len(untaken) >= UNTAKEN_LIMIT or 0 < self._threads <= stuck
        return Load(vitals.plus(busy), connections, saturated)

    @property
    def is_behind(self) -> bool:
        """It has been given connections that it has not taken yet."""
        slots = self.page.slots
        return any(slots[slot] == vitals.SLOT_GIVEN for slot in self._untaken)

    @property
    def connections(self) -> int:
        """How many connections it holds, idle ones included."""
        return len(self._held)

    @property
    def idle(self) -> int:
        """How many of them, other than links, wait for a request."""
        slots = self.page.slots
        return sum(each.bound is not None and slots[slot] == vitals.SLOT_IDLE for slot, each in self._held.items())

    def requests(self) -> int:
        """Requests it has completed, and those it is at."""
        return vitals.plus(self.page.total(vitals.CELL_REQUESTS, max(1, self._threads)), self.load().busy)

    @property
    def is_over(self) -> bool:
        """Its page is closed, and ``last_cells`` is what it said."""
        return self._is_counted

    def cells(self) -> list[int]:
        """The sums over its threads of all cells of a thread block (``vitals.CELL_*``), while it is not over.

        None is ever less than it was, whatever the worker writes.
        """
        sums = self.page.cells(0)
        if self._threads > 1:
            sums = list(map(vitals.plus, *map(self.page.cells, range(self._threads))))
        self.last_cells = list(map(max, sums, self.last_cells))
        return self.last_cells

    def oldest_ms(self) -> int | None:
        """For how long the oldest request of its threads has run, in milliseconds; None: no thread runs one."""
        started = [self.page.thread_word(index, vitals.CELL_STARTED) for index in range(self._threads)]
        oldest = min(filter(None, started), default=None)
        return None if oldest is None else max(0, time.monotonic_ns() // 1_000_000 - oldest)

    @property
    def may_ask(self) -> bool:
        """Something that it holds may become, or is, a request that no app has read."""
        slots = self.page.slots
        return not self.is_over and any(slots[slot] in _UNREAD for slot in self._held)

    @property
    def has_open_ends(self) -> bool:
        """It is in the middle of an answer, or has a WebSocket open, which is no request any more, and no rest."""
        slots = self.page.slots
        return not self.is_over and any(slots[slot] == vitals.SLOT_HEAD_SENT for slot in self._held)

    def pulse(self) -> Pulse:
        """What its page says now of whether it moves, for ``hangs``. Times are monotonic milliseconds."""
        started = [self.page.thread_word(index, vitals.CELL_STARTED) for index in range(self._threads)]
        word = self.page.word
        active, overdue = word(vitals.WORD_ACTIVE), word(vitals.WORD_OVERDUE)
        return Pulse(word(vitals.WORD_TICK), not self._threads, active, started, overdue)

    def write_stacks(self) -> None:
        """Have it write the stacks of its threads to the log, whatever they are at; nothing if it is not an app's."""
        if self.state in (State.READY, State.DRAINING) and isinstance(self.settings, Settings):
            try:
                signal.pidfd_send_signal(self._process_fd(), vitals.STACKS_SIGNAL)
            except OSError:
                pass  # it is gone

    def _process_fd(self) -> int:
        return self._spawner.pidfd_of(self.number, self._pidfd) if self._spawner is not None else -1

    async def end_hung(self, limit_s: float) -> None:
        """Nothing in it runs: answer for what it has read, and let it go; at once, if it has nothing else to lose."""
        self.is_hung = True
        self.write_stacks()
        await asyncio.sleep(_STACKS_S)
        self._is_held = True
        async with Frozen(self.pid, self._process_fd()) as stopped:
            if self.is_over or self.watch.look(self.pulse(), time.monotonic_ns() // 1_000_000) is not Finding.HANGS:
                self.is_hung = self._is_held = False  # it has come to life
                return
            begun = self._answer_for_it() if stopped.is_sure else 0
        self._is_held = False
        self._fail("deadline", f"it stood still for longer than request_timeout ({limit_s:g} s)")
        self._feed(Event.HUNG)
        if not begun:
            self.kill()

    def _answer_for_it(self) -> int:
        """To what has been read without a head of a response sent: 504. How many responses are under way."""
        begun = 0
        for slot, connection in list(self._held.items()):
            state = self.page.slots[slot]
            if state == vitals.SLOT_READING:
                answer(connection.fd, DEADLINE)
            begun += state == vitals.SLOT_HEAD_SENT
        return begun

    def give(self, connection: Connection, borrowed: bool = False) -> bool:
        """Hand ``connection`` over; False when the worker, or the kernel, takes no more now.

        ``borrowed``: to a relay, which gives it back at the next request boundary.
        """
        slot = self._free_slot()
        if slot is None:
            return False
        self.page.slots[slot] = vitals.SLOT_GIVEN
        try:
            flags = connection.flags | TAKE_BORROWED if borrowed else connection.flags
            handed = self._endpoint.hand_over(Take(slot, flags), [connection.fd])
        except ChannelClosed:
            handed = False  # its pidfd will say the rest
        if not handed:
            self.page.slots[slot] = vitals.SLOT_CLOSED
            self._free.append(slot)
            return False
        connection.worker = self
        connection.slot = slot
        self._held[slot] = connection
        self._untaken.append(slot)
        return True

    def drop(self, connection: Connection) -> None:
        """The connection's other side has left, and the daemon forgets it; the worker may still be writing to it."""
        if self._held.pop(connection.slot, None) is not None:
            self._dropped.add(connection.slot)
            self._drop_order.append(connection.slot)
        connection.worker = None

    def link(self, need: int, fd: int) -> bool:
        """Hand a relay the link it asked for; False when the kernel takes no more now. ``fd`` stays the caller's."""
        try:
            return self._endpoint.hand_over(Link(need), [fd])
        except ChannelClosed:
            return True  # nobody wants it any more

    def refuse(self, refused: Refused) -> None:
        """Tell a relay that there will be no link."""
        self._send(refused)

    def drain(self, keeps: bool = False) -> None:
        """Let it go. ``keeps``: what its settings let stay for longer than the grace (WebSockets) may do so."""
        if self.state is State.DRAINING:
            if self._kept_until and not keeps:
                self._kept_until = 0.0
                self._send(Drain(self._grace_s))
                self._await_end()
            return
        self._kept_until = self._loop.time() + _keep_s(self.settings) if keeps and _keep_s(self.settings) else 0.0
        self._feed(Event.DRAIN)

    def shed(self, count: int) -> None:
        """Ask for ``count`` idle connections back; each comes by ``returned``."""
        self._send(Shed(count))

    def dump(self) -> None:
        """Have it write the stacks of its threads, and tasks, to the log; where it hangs, those of its threads."""
        self._send(Dump())
        if time.monotonic_ns() // 1_000_000 - self.page.word(vitals.WORD_TICK) > _TURNS_MS:
            self.write_stacks()

    def kill(self) -> None:
        """At once, whatever its state."""
        if self.pid and self._spawner is not None and not self.ended.is_set():
            self._spawner.end(self.number, self.pid, self._pidfd)

    # -- slots ------------------------------------------------------------------------------------------------

    def _free_slot(self) -> int | None:
        if self._free:
            return self._free.popleft()
        for _ in range(min(4, len(self._drop_order))):
            slot = self._drop_order.popleft()
            if slot not in self._dropped:
                continue
            if self.page.slots[slot] == vitals.SLOT_CLOSED:
                self._dropped.discard(slot)
                return slot
            self._drop_order.append(slot)
        if self._fresh < self._slots:
            self._fresh += 1
            return self._fresh - 1
        return None

    def _take_back(self, slot: int) -> Connection | None:
        """The connection in ``slot``, None when its other side has left. Raises ``ChannelError``."""
        connection = self._held.pop(slot, None)
        if connection is None:
            if slot not in self._dropped:
                raise ChannelError(f"it returned slot {slot}, which it does not hold")
            self._dropped.discard(slot)
        else:
            connection.worker = None
        self.page.slots[slot] = vitals.SLOT_CLOSED
        self._free.append(slot)
        return connection

    # -- the channel ------------------------------------------------------------------------------------------

    def _on_readable(self) -> None:
        try:
            for _ in range(MESSAGES_A_TURN):
                received = self._endpoint.receive()
                if received is None:
                    return
                if not self._allowance.spend(self._loop.time()):
                    raise ChannelError(f"more than {MESSAGES_A_SECOND} messages a second")
                message, _ = received
                if type(message) not in self._may_say[self.state]:
                    raise ChannelError(f"{type(message).__name__} while {self.state.value}")
                self._dispatch(message)
                if self._endpoint.fileno() < 0:
                    return
        except ChannelClosed:
            # A closed channel means nothing by itself: an app's forked child may keep one open, or the worker may be
            # ending. The pidfd says when it is over; a worker that lives on without a channel has broken the rules.
            self._close_channel()
            self._withdraw()
            self._outliving = self._loop.call_later(_LEAVE_AFTER_LAST_WORD_S, self._outlived_its_channel)
        except ChannelError as exc:
            self._breach(str(exc))

    def _dispatch(self, message: Message) -> None:
        if self.state is State.ENDING:
            return
        if isinstance(message, Returned):
            connection = self._take_back(message.slot)
            if connection is not None:
                self._sink.returned(self, connection)
        elif isinstance(message, Need | Unneed):
            self._sink.asked(self, message)
        elif isinstance(message, Ready):
            if message.version != PROTOCOL_VERSION:
                raise ChannelError(f"it speaks version {message.version} of the channel")
            self.detail = shorten(message.detail, 200)
            self._feed(Event.READY)
        elif isinstance(message, Failed):
            self._fail(shorten(message.code, 32), message.text)
            self._feed(Event.FAILED)
        elif isinstance(message, Drained):
            self._feed(Event.DRAINED)

    def _send(self, message: Message) -> None:
        try:
            if not self._endpoint.send(message) and not self._writing:
                self._writing = True
                self._loop.add_writer(self._endpoint.fileno(), self._on_writable)
        except ChannelClosed:
            pass

    def _on_writable(self) -> None:
        try:
            done = self._endpoint.flush()
        except ChannelClosed:
            done = True
        if done:
            self._writing = False
            self._loop.remove_writer(self._endpoint.fileno())

    def _close_channel(self) -> None:
        fd = self._endpoint.fileno()
        if fd >= 0:
            self._loop.remove_reader(fd)
            self._loop.remove_writer(fd)
            self._endpoint.close()

    def _close_page(self) -> None:
        self.page.close()
        os.close(self._page_fd)

    def _breach(self, what: str) -> None:
        if self.state is State.EXITED:
            return
        log.error("worker broke a rule of the channel and is ended", extra={"fields": self._fields(error=what)})
        self._close_channel()
        self._fail("breach", what)
        self._feed(Event.BREACH)

    def _outlived_its_channel(self) -> None:
        if self.state not in (State.EXITED, State.ENDING):
            self._breach("it closed its channel and lives on")
        elif self.state is State.ENDING:
            self.kill()

    # -- the life ---------------------------------------------------------------------------------------------

    def _feed(self, event: Event) -> None:
        if event is Event.START_TIMEOUT and self.state is State.STARTING:
            self._fail("start timeout", f"not ready within {self._start_timeout_s:g}s")
        self.state, actions = next_state(self.state, event)
        if self.state is State.ENDING and event in (Event.FAILED, Event.DRAINED):
            self._deadline_in(_LEAVE_AFTER_LAST_WORD_S)
        for action in actions:
            _CARRY_OUT[action](self)

    def _deadline_in(self, seconds: float) -> None:
        self._cancel_timer()
        self._timer = self._loop.call_later(seconds, self._feed, Event.DEADLINE)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _admit(self) -> None:
        self._cancel_timer()
        self.ready_at = time.monotonic()
        self._sink.admitted(self)

    def _withdraw(self) -> None:
        self._sink.withdrawn(self)

    def _ask_to_drain(self) -> None:
        self._send(Drain(self._grace_s))
        if self._kept_until:
            self._cancel_timer()
            self._timer = self._loop.call_later(self._grace_s + _KEEPING_LATE_S, self._look_at_kept)
            return
        if _keep_s(self.settings):
            self._send(Drain(self._grace_s))  # the second: nothing stays
        self._await_end()

    def _await_end(self) -> None:
        self._cancel_timer()
        self._timer = self._loop.call_later(self._grace_s, self._grace_is_over)

    def _grace_is_over(self) -> None:
        """It cancels its requests now, and ends in order, if it can."""
        still_ms = time.monotonic_ns() // 1_000_000 - self.page.word(vitals.WORD_TICK)
        if still_ms > _TURNS_MS:
            self._feed(Event.DEADLINE)
        else:
            self._deadline_in(END_S)

    def _look_at_kept(self) -> None:
        """The grace is over: only WebSockets may be left, for as long as they may stay, and then the grace again."""
        until = self._kept_until + self._grace_s + END_S
        still_ms = time.monotonic_ns() // 1_000_000 - self.page.word(vitals.WORD_TICK)
        if self.page.word(vitals.WORD_ACTIVE) or still_ms > _KEEPING_STILL_MS or self._loop.time() >= until:
            self._feed(Event.DEADLINE)
        else:
            wait_s = min(_KEEPING_STILL_MS / 1000, max(0.1, until - self._loop.time()))
            self._timer = self._loop.call_later(wait_s, self._look_at_kept)

    def _terminate(self) -> None:
        fields = self._fields(grace_s=self._grace_s)
        log.warning("worker not done within the grace period and is stopped", extra={"fields": fields})
        if self._spawner is not None:
            self._spawner.terminate(self.number, self._pidfd)
        self._deadline_in(_KILL_AFTER_TERM_S)

    def _fail(self, code: str, text: str) -> None:
        self._failure = Reason(code, text)

    _failure = Reason("", "")

    def _report(self) -> None:
        if not self.reported:
            self.reported = True
            self.has_served = self.page.total(vitals.CELL_REQUESTS, max(1, self._threads)) > 0
            if self._failure.code:
                self._sink.failed(self, self._failure)
            # else: how it ended is not known before it is reaped

    def _reap(self) -> None:
        self._cancel_timer()
        if self._outliving is not None:
            self._outliving.cancel()  # or it would keep all this in memory until then
            self._outliving = None
        self._reaping = self._loop.create_task(self._reap_in_order())

    async def _reap_in_order(self) -> None:
        try:
            await self._part()
        finally:
            os.close(self._pidfd)
            self.ended.set()  # whatever becomes of the rest: a stop waits for this

    async def _part(self) -> None:
        orphans = [(connection, self.page.slots[slot]) for slot, connection in self._held.items()]
        if self._spawner is not None and self._spawner.may_run_on(self.number):
            # It could still read from them: nobody else may be given one.
            orphans = [(connection, vitals.SLOT_HEAD_SENT) for connection, _ in orphans]
        self._held.clear()
        self._close_channel()
        self.cells()
        if not self.shares_process:
            self.last_cpu_s = processes.cpu_seconds(self.pid)  # nobody has reaped it
        self._is_counted = True
        self._close_page()
        if self._outlets is not None:
            self._outlets.end()
        self._sink.exited(self, orphans)
        for_memory = await self._why_killed()
        status = await self._spawner.reap(self.number, self._pidfd) if self._spawner is not None else None
        reason = None
        if self.reported and not self._failure.code:
            how = "an unknown status" if status is None else processes.describe_exit(status)
            when = "while it was starting" if self.ready_at is None else "unasked"
            if for_memory and status is not None and os.WIFSIGNALED(status):
                reason = self._failure = Reason("memory", for_memory)
            else:
                reason = self._failure = Reason("crashed", f"it ended {when} with {how}")
        self._sink.reaped(self, reason)
        if self._group is not None:
            await self._group.remove()

    async def _why_killed(self) -> str:
        if self._confining is not None:
            await self._confining
        if self._group is not None:
            return await self._group.why_killed()
        return self._spawner.why_killed(self.number) if self._spawner is not None else ""

    @property
    def memory_limit(self) -> Literal["cgroup", "rlimit"] | None:
        """What keeps its limit of memory; None: it has none."""
        if not isinstance(self.settings, Settings) or "memory" not in (self.settings.limits or {}):
            return None
        is_grouped = self._group is not None or (self._spawner is not None and self._spawner.is_grouped(self.number))
        return "cgroup" if is_grouped else "rlimit"

    def _on_exit(self) -> None:
        if self.state in (State.STARTING, State.DRAINING, State.READY) and self._endpoint.fileno() >= 0:
            self._on_readable()  # its last words
        self._loop.remove_reader(self._pidfd)
        self.kill()  # what it started
        self._feed(Event.EXIT)

    def _fields(self, **more: object) -> dict[str, object]:
        return {"app": self.settings.app, "worker": self.settings.worker_index, "pid": self.pid, **more}


def _keep_s(settings: Settings | RelaySettings) -> float:
    return settings.websocket_keep_s if isinstance(settings, Settings) else settings.tunnel_keep_s


def _slots_of(settings: Settings | RelaySettings) -> int:
    """How many connections it may hold: half of the files that it may have open, as a descriptor too many is lost."""
    limits = settings.limits if isinstance(settings, Settings) else None
    if not limits or "open_files" not in limits:
        return vitals.SLOTS
    return max(1, min(vitals.SLOTS, limits["open_files"] // 2))


_CARRY_OUT: dict[Action, Callable[[Worker], None]] = {
    Action.ADMIT: Worker._admit,
    Action.WITHDRAW: Worker._withdraw,
    Action.ASK_TO_DRAIN: Worker._ask_to_drain,
    Action.TERMINATE: Worker._terminate,
    Action.KILL: Worker.kill,
    Action.REPORT: Worker._report,
    Action.REAP: Worker._reap,
}

__all__ = ["SpawnError", "Worker", "WorkerSink"]
