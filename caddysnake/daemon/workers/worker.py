"""One worker, seen from the daemon: carries out what ``lifecycle`` decides, and gives it connections.

The other end of the channel may run a tenant's code. Whatever arrives is checked against the state table, counted
against a rate, and believed in nothing: a slot must be one that this worker holds, a number from the page is clamped
and is never an index or a size.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from ...channel import messages, vitals
from ...channel.codec import shorten
from ...channel.codes import failure, today
from ...channel.endpoint import ChannelClosed, ChannelError
from ...channel.settings import RelaySettings, Settings
from ..sockets.connections import Connection
from ..system.log.fields import FieldLog
from ..system.state import WorkerSnapshot
from ..system.timings import TIMINGS, Timings
from .balancer import Load
from .child.child import Launcher
from .child.launcher import SpawnError
from .deadline import TURNS_MS, Deadline
from .giving import Giving
from .hanging import Watchdog
from .lifecycle import LEAVES_FOR, MAY_SAY, RELAY_MAY_SAY, Action, Event, Reason, WorkerState, next_state, reason_of_end
from .process import WorkerProcess
from .sink import WorkerSink
from .slots import SlotsState

log = FieldLog("caddysnake.worker")

_STACKS_S = 0.2
"""Within which a process that is asked for its stacks has written them, on a machine that is not too busy."""


class Worker:
    """A worker process. ``start`` brings it up; it then tells ``sink`` what becomes of it."""

    def __init__(
        self,
        number: int,
        settings: Settings | RelaySettings,
        start_timeout_s: float | None,
        grace_s: float,
        sink: WorkerSink[Worker],
        saved: WorkerSnapshot | None = None,
        timings: Timings = TIMINGS,
    ) -> None:
        """``saved``: it is taken over; ``restore`` it. Raises ``OSError``: no descriptors, or memory, for it."""
        self.number = number
        self.settings = settings
        self.state = WorkerState.STARTING
        self.detail = ""
        self.started_at = time.monotonic()
        self.ready_at: float | None = None
        self.ended: asyncio.Event = asyncio.Event()
        self.reported = False
        self.is_hung = False
        self.has_served = False
        """It had completed requests when it was last looked at: at its end."""
        self.last_cpu_s = 0.0
        """What its process had used in the end."""
        self.watch = Watchdog(settings.request_timeout_s if isinstance(settings, Settings) else None, timings)
        self._start_timeout_s = start_timeout_s
        self._grace_s = grace_s
        self._sink = sink
        self._timings = timings
        self._failure = Reason("", "")
        self._is_held = False
        self._reaping: asyncio.Task[None] | None = None
        has = (saved.channel, saved.page) if saved is not None else None
        self.process = WorkerProcess(number, settings, self._hear, self._on_closed, self._on_breach, has)
        self.peer, self.gauges, self.slots = self.process.peer, self.process.gauges, self.process.gauges.slots
        self._giving = Giving(self.process, lambda connection: sink.returned(self, connection))
        self._deadline = Deadline(grace_s, self.gauges, self._on_deadline)

    async def start(self, launcher: Launcher) -> None:
        """Have it forked. Raises ``SpawnError``; ``discard`` it then, and whatever else is raised."""
        try:
            async with asyncio.timeout(self._start_timeout_s):
                await self.process.fork(launcher, self._grace_s, self._on_exit)
        except TimeoutError:
            launcher.gave_up()
            why = f"not ready within {self._start_timeout_s:g}s: its interpreter, or a preload, is not either"
            raise SpawnError("start-timeout", why) from None
        if self.state is not WorkerState.STARTING:  # told to end while it was being forked
            self.kill()
        elif self._start_timeout_s is not None:
            self._deadline.set(self._start_timeout_s - (time.monotonic() - self.started_at))
        self.process.confinement.begin(self.pid, self._configure)

    def _configure(self, held: frozenset[str]) -> None:
        """Let it know what to run, now that it is where its limits hold."""
        if self.state is not WorkerState.STARTING or not self.peer.is_open:
            return
        try:
            self.process.configure(held)
        except ChannelClosed:
            pass  # its pidfd will say the rest
        except OSError as exc:
            self._failure = Reason("resources", f"no room for another worker: {exc}")
            self.kill()

    def discard(self) -> None:
        """Give up a worker whose start was never done."""
        self.state = WorkerState.EXITED
        self.process.discard()
        self.ended.set()

    @property
    def is_settled(self) -> bool:
        """It is there, and not being forked or reaped just now."""
        return self.process.is_settled and self.state is not WorkerState.EXITED

    @property
    def is_at_rest(self) -> bool:
        """Nobody is in the middle of doing something to it."""
        return self.ended.is_set() or (self.is_settled and not self._is_held)

    def snapshot(self) -> WorkerSnapshot:
        """All that whoever goes on with it must know, but for its connections, which know it. It must be settled."""
        return WorkerSnapshot(
            number=self.number,
            index=self.settings.worker_index,
            page=self.gauges.fd,
            state=self.state.told,
            detail=self.detail,
            started_at=self.started_at,
            ready_at=self.ready_at,
            deadline_in_s=self._deadline.left_s,
            reported=self.reported,
            has_served=self.has_served,
            is_hung=self.is_hung,
            answered_for=self.gauges.answered_for,
            kept_for_s=self._deadline.kept_for_s,
            failure=self._failure,
            **self.slots.state()._asdict(),
            **self.process.snapshot(),
        )

    def restore(self, saved: WorkerSnapshot, launcher: Launcher) -> None:
        """Go on where ``saved`` says. Its connections come by ``attach``, and then ``slots.reconcile``."""
        self.state = WorkerState(saved.state)
        if self.state is WorkerState.DRAINING and saved.kept_for_s is not None:
            self.state = WorkerState.KEEPING
        self.detail, self.is_hung = saved.detail, saved.is_hung
        self.gauges.answered_for = saved.answered_for
        self.started_at, self.ready_at = saved.started_at, saved.ready_at
        self.reported, self.has_served = saved.reported, saved.has_served
        self._failure = Reason(today(saved.failure[0]), saved.failure[1])
        self.slots.restore(SlotsState(saved.dropped, saved.fresh, saved.free, saved.untaken))
        self.process.restore(launcher, saved, self._on_exit)
        if not self.peer.is_open:
            self._deadline.of_silence(self._timings.last_word_s, self._outlived_its_channel)
        if self.state is WorkerState.KEEPING:
            self._deadline.of_keeping(saved.kept_for_s or 0.0, saved.deadline_in_s or 0.0)
        elif saved.deadline_in_s is not None:
            if self.state is WorkerState.DRAINING:
                self._deadline.of_drain(saved.deadline_in_s)
            else:
                self._deadline.set(saved.deadline_in_s)

    def attach(self, connection: Connection, slot: int) -> None:
        """It has ``connection``, in ``slot``."""
        connection.worker, connection.slot = self, slot
        self.slots.attach(slot, connection)

    @property
    def pid(self) -> int:
        """Its process, 0 before it is forked."""
        return self.process.pid

    def load(self) -> Load:
        """How busy it is now."""
        return self.gauges.load()

    def write_stacks(self) -> None:
        """Have it write the stacks of its threads to the log, if it is serving an app."""
        if self.state.is_serving:
            self.process.write_stacks()

    async def end_hung(self, limit_s: float) -> None:
        """Nothing in it runs: answer for what it has read, and let it go; at once, if it has nothing else to lose."""
        self.is_hung = True
        self.write_stacks()
        await asyncio.sleep(_STACKS_S)
        self._is_held = True
        is_answering = await self.process.answer_if_hung(self.watch)
        self._is_held = False
        if is_answering is None:
            self.is_hung = False
            return
        self._failure = Reason("deadline", f"it hung for longer than request_timeout ({limit_s:g} s)")
        self._feed(Event.HUNG)
        if not is_answering:
            self.kill()

    def give(self, connection: Connection, borrowed: bool = False, turns: int = 0) -> bool:
        """Hand ``connection`` over, or keep it for what is handed over together when a burst has come; False when the
        worker, or the kernel, takes no more now. ``borrowed``: to a relay, which gives it back at the next request
        boundary; ``turns``: it is given back after so many requests.
        """
        slot = self._giving.give(connection, connection.flags_for(isinstance(self.settings, Settings), borrowed, turns))
        if slot is None:
            return False
        connection.worker, connection.slot = self, slot
        return True

    def drop(self, connection: Connection) -> None:
        """The connection's other side has left, and the daemon forgets it; the worker may still be writing to it."""
        self.slots.drop(connection.slot)
        connection.worker = None

    def link(self, message: messages.Link | messages.Tied, fd: int) -> bool:
        """Hand a relay the link it asked for; False when the kernel takes no more now. ``fd`` stays the caller's."""
        try:
            return self.peer.hand_over(message, [fd])
        except ChannelClosed:
            return True  # nobody wants it any more

    def tell(self, message: messages.Refused | messages.Left) -> None:
        """Tell a relay that there will be no link, or that a worker gives up what is tied to it."""
        self.peer.send(message)

    def drain(self, keeps: bool = False) -> None:
        """Let it go. ``keeps``: what its settings let stay for longer than the grace (WebSockets) may do so."""
        self._feed(Event.KEEP if keeps and _keep_s(self.settings) else Event.DRAIN)

    def shed(self, count: int) -> None:
        """Ask for ``count`` idle connections back; each comes by ``returned``."""
        self.peer.send(messages.Shed(count))

    def dump(self) -> None:
        """Have it write the stacks of its threads, and tasks, to the log; where it hangs, those of its threads."""
        self.peer.send(messages.Dump())
        if self.gauges.still_ms() > TURNS_MS:
            self.write_stacks()

    def kill(self) -> None:
        """At once, whatever its state."""
        if not self.ended.is_set():
            self.process.end()

    def _hear(self, message: messages.Message) -> None:
        self.peer.count()
        may_say = RELAY_MAY_SAY if isinstance(self.settings, RelaySettings) else MAY_SAY
        if type(message) not in may_say[self.state]:
            raise ChannelError(f"{type(message).__name__} while {self.state.told}")
        if self.state is WorkerState.ENDING:
            return
        if isinstance(message, messages.Returned):
            connection = self.slots.take_back(message.slot)
            if connection is not None:
                connection.worker = None
                self._sink.returned(self, connection)
        elif isinstance(message, messages.FromRelay):
            self._sink.asked(self, message)
        elif isinstance(message, messages.Ready):
            if message.version != messages.PROTOCOL_VERSION:
                raise ChannelError(f"it speaks version {message.version} of the channel")
            self.detail = shorten(message.detail, 200)
            self._feed(Event.READY)
        elif isinstance(message, messages.Failed):
            if self.state is not WorkerState.STARTING and message.code not in LEAVES_FOR:
                raise ChannelError(f"Failed while {self.state.told}, for {shorten(message.code, 40)}")
            self._failure = Reason(
                message.code if message.code == messages.MOVES else failure(message.code), message.text
            )
            self._feed(Event.FAILED)
        elif isinstance(message, messages.Drained):
            self._feed(Event.DRAINED)

    def _on_closed(self) -> None:
        # A closed channel means nothing by itself: an app's forked child may keep one open, or the worker may be
        # ending. The pidfd says when it is over; a worker that lives on without a channel has broken the rules.
        self._sink.withdrawn(self)
        self._deadline.of_silence(self._timings.last_word_s, self._outlived_its_channel)

    def _outlived_its_channel(self) -> None:
        if self.state is WorkerState.ENDING:
            self.kill()
        else:
            self._on_breach("it closed its channel and lives on")

    def _on_breach(self, what: str) -> None:
        if self.state is WorkerState.EXITED:
            return
        log.error("worker broke a rule of the channel, and is killed", **_fields(self), error=what)
        self._failure = Reason("breach", what)
        self._feed(Event.BREACH)

    def _on_exit(self) -> None:
        if self.state is WorkerState.STARTING or self.state.is_serving:
            self.peer.hear_last_words()
        self.process.unwatch()
        self.kill()  # what it started
        self._feed(Event.EXIT)

    def _on_deadline(self) -> None:
        self._feed(Event.START_TIMEOUT if self.state in (WorkerState.STARTING, WorkerState.READY) else Event.DEADLINE)

    def _feed(self, event: Event) -> None:
        if event is Event.START_TIMEOUT and self.state is WorkerState.STARTING:
            self._failure = Reason("start-timeout", f"not ready within {self._start_timeout_s:g}s")
        self.state, actions = next_state(self.state, event)
        if self.state is WorkerState.ENDING and event in (Event.FAILED, Event.DRAINED):
            self._deadline.set(self._timings.last_word_s)
        for action in actions:
            self._carry_out(action)

    def _carry_out(self, action: Action) -> None:
        match action:
            case Action.ADMIT:
                self._deadline.cancel()
                self.ready_at = time.monotonic()
                self._sink.admitted(self)
            case Action.WITHDRAW:
                self._sink.withdrawn(self)
            case Action.ASK_TO_DRAIN:
                self.peer.send(messages.Drain(self._grace_s))
            case Action.LET_STAY:
                self._deadline.of_keeping(_keep_s(self.settings))
            case Action.LET_NOTHING_STAY:
                if _keep_s(self.settings):
                    self.peer.send(messages.Drain(self._grace_s))  # the second: nothing stays
                self._deadline.of_drain()
            case Action.TERMINATE:
                what = "worker not done within the grace period and is stopped"
                log.warning(what, **_fields(self), grace_s=self._grace_s)
                self.process.terminate()
                self._deadline.set(self._timings.term_s)
            case Action.KILL:
                self.kill()
            case Action.REPORT:
                self.reported = True
                self.has_served = self.gauges.completed() > 0
                if self._failure.code:
                    self._sink.failed(self, self._failure)
                # else: how it ended is not known before it is reaped
            case Action.REAP:
                self._deadline.close()
                self._reaping = asyncio.get_running_loop().create_task(self._reap())

    async def _reap(self) -> None:
        try:
            orphans = self.slots.take_all()
            if self.process.may_run_on:
                # It could still read from them: nobody else may be given one.
                orphans = [(connection, vitals.SLOT_HEAD_SENT) for connection, _ in orphans]
            self.process.shut()
            self.last_cpu_s = self.process.cpu_s()
            self.gauges.close()
            self._sink.exited(self, orphans)
            for_memory = await self.process.why_killed()
            status = await self.process.reap()
            reason = None
            if self.reported and not self._failure.code:
                reason = self._failure = reason_of_end(status, for_memory, self.ready_at is not None)
            self._sink.reaped(self, reason)
            await self.process.confinement.remove()
        finally:
            self.process.close_pidfd()
            self.ended.set()  # whatever becomes of the rest: a stop waits for this


def _fields(worker: Worker) -> dict[str, Any]:
    return {"app": worker.settings.app, "worker": worker.settings.worker_index, "pid": worker.pid}


def _keep_s(settings: Settings | RelaySettings) -> float:
    return settings.websocket_keep_s if isinstance(settings, Settings) else settings.tunnel_keep_s
