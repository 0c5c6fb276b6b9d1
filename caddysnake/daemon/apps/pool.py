"""One generation of an app's workers: carries out what ``generation`` decides."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ...channel.messages import FromRelay
from ..sockets.connections import Connection
from ..system.as_json import plain
from ..system.log.fields import FieldLog
from ..system.state import PoolSnapshot, WorkerSnapshot
from ..system.tasks import KeptTasks
from ..workers.child.child import Launcher
from ..workers.forking.start_limiter import FRESH, Starting, StartLimiter
from ..workers.launchers import Launchers
from ..workers.lifecycle import Reason, WorkerState
from ..workers.sink import WorkerSink
from ..workers.worker import Worker
from .audit import Audit
from .counters import Counters
from .generation import Drain, Generation, NotStarted, Order, PoolOrder, PoolState, Spawn, TellFailed
from .home import Home
from .source import WorkerSource
from .spec import PoolSpec, StartFailed
from .telling import tell_failed, tell_ready, watch_start
from .upkeep import Upkeep, forget_ended
from .warming import Warming

log = FieldLog("caddysnake.app")


class Pool(WorkerSink[Worker]):
    """Tells ``home`` when a worker has become ready, and which connections need another."""

    def __init__(self, spec: PoolSpec, generation: int, launchers: Launchers, home: Home, size: int = 0) -> None:
        """``size``: how many workers it begins with, if not as many as ``spec`` says."""
        self.spec = spec
        self.generation = generation
        self.core = Generation[Worker](size or spec.workers)
        """Which worker is at which place; its decisions."""
        self.ready = self.core.ready
        self.workers = self.core.workers
        self.leaving = self.core.leaving
        self._home = home
        self.ledger = Counters(home.ledger)
        """What is counted, of it alone; the app counts it too."""
        self._source = WorkerSource(spec, launchers, home.folder)
        self._audit = Audit(spec, self._source)
        self._tasks = KeptTasks()
        self.upkeep = Upkeep(spec, self.core, self._source, self.ledger, self._carry_out, self._tasks.begin)
        self._starts: StartLimiter | None = None
        self._news = asyncio.Event()
        """A worker was admitted, or has failed."""
        self._started: asyncio.Future[None] | None = None
        self._warming = Warming(spec.name, self._admit, self.failed)
        self._pauses: dict[int, float] = {}
        """Places without a worker, and when the next is started there."""

    @property
    def is_hopeless(self) -> bool:
        """Its workers have failed many times in a row."""
        return self.core.backoff.exhausted

    @property
    def is_begun(self) -> bool:
        """It was told to start, or to go."""
        return self.core.state is not PoolState.NEW

    @property
    def is_started(self) -> bool:
        """Return whether all its workers have been up once, or nobody waits for that."""
        return self.core.state not in (PoolState.NEW, PoolState.STARTING)

    # -- starting, growing, leaving ------------------------------------------------------------------------------

    async def start(self, starts: StartLimiter | None = None, first: int = 0) -> float:
        """Bring all workers up; the seconds it took. Raises ``StartFailed`` at the first that fails.

        Side by side, or in turn with others of ``starts``. ``first``: so many for now; ``grow`` next.
        """
        loop = asyncio.get_running_loop()
        begun_at = time.monotonic()
        if self.spec.cannot:
            self.ledger.failed("setup-failed", self.spec.cannot)
            self.core.refuse()
            raise StartFailed(self.spec.name, "setup-failed", self.spec.cannot)
        self._started = loop.create_future()
        watch = loop.create_task(watch_start(self.spec, self.workers))
        self._starts = starts
        self._carry_out(self.core.start(first))
        try:
            await self._started
        finally:
            watch.cancel()
            if self._started.done() and not self._started.cancelled():
                self._started.exception()  # whoever waited may have been cancelled by another app's failure
            self._started = None
            self.core.abandon_start()
        return time.monotonic() - begun_at

    async def grow(self) -> bool:
        """Bring one more of its workers up, however long it takes; False when there are as many as there are to be."""
        orders = self.core.grow()
        if not orders:
            return False
        place = self.core.goal - 1
        self._carry_out(orders)
        while not any(worker.settings.worker_index == place for worker in self.ready):
            self._news.clear()
            await self._news.wait()
        return True

    def resize(self, size: int) -> None:
        """Have ``size`` workers; of those that are too many the one goes that has the least to finish."""

        def first(ready: list[Worker]) -> list[Worker]:
            return sorted(ready, key=lambda each: (each.slots.has_open_ends, -each.settings.worker_index))

        self._carry_out(self.core.resize(size, first))

    def revive(self) -> None:
        """Let its workers serve again, which were wound down."""
        self._carry_out(self.core.revive())

    def wind_down(self) -> None:
        """Its workers serve on for now, but none is started again."""
        self._carry_out(self.core.wind_down())

    def drain_one(self) -> None:
        """Let one of its workers go."""
        self._carry_out(self.core.drain_one())

    def drain(self, keeps: bool = False) -> None:
        """Take nothing new, give back what is idle, leave. ``keeps``: WebSockets may stay, until called without."""
        self._carry_out(self.core.drain(keeps))

    def kill(self) -> None:
        """End all workers, those that are leaving too, by force."""
        for worker in (*self.workers.values(), *self.leaving):
            worker.kill()

    async def ended(self) -> None:
        """Wait until no worker is left."""
        while self._tasks or self.workers or self.leaving:
            waits = [worker.ended.wait() for worker in (*self.workers.values(), *self.leaving)]
            await asyncio.gather(*waits, *self._tasks, return_exceptions=True)
            forget_ended(self.core)
            # Since Python 3.12 a gather of what is done does not give way, and the callbacks of done tasks never run.
            await asyncio.sleep(0)

    # -- orders --------------------------------------------------------------------------------------------------

    def _carry_out(self, orders: Iterable[Order[Worker]]) -> None:
        for order in orders:
            match order:
                case Spawn(place, pause_s, in_turn):
                    if in_turn and self._starts is not None:
                        self._starts.want(_Turn(self, place))
                    else:
                        self._tasks.begin(self._spawn(place, pause_s))
                case TellFailed(failure, is_hopeless):
                    self._home.worker_failed(failure, is_hopeless)
                case Drain(worker, keeps):
                    worker.drain(keeps)
                case PoolOrder.TELL_STARTED:
                    if self._started is not None and not self._started.done():
                        self._started.set_result(None)
                case NotStarted(failure):
                    if self._started is not None and not self._started.done():
                        going = StartFailed(self.spec.name, "stopping", "it was told to go while it started")
                        self._started.set_exception(failure or going)
                case PoolOrder.CANCEL_STARTS:
                    for task in list(self._tasks):
                        task.cancel()
                case PoolOrder.SERVE_WAITING:
                    self._home.serve_waiting()

    # -- going on in another image of the daemon --------------------------------------------------------------

    @property
    def is_settled(self) -> bool:
        """None of its workers is being forked or reaped just now."""
        is_busy = bool(self._warming.workers) or self._audit.is_under_way
        return not is_busy and all(worker.is_at_rest for worker in self.everyone())

    def everyone(self) -> set[Worker]:
        """Every worker that has, or may have, a process."""
        return self.core.everyone()

    def snapshot(self) -> PoolSnapshot:
        """All that whoever goes on with it must know. Workers that are being forked or reaped are left out."""
        core = self.core
        workers = [worker for worker in self.everyone() if worker.is_settled]
        now = time.monotonic()
        return PoolSnapshot(
            spec=plain(self.spec),
            generation=self.generation,
            size=core.size,
            state=core.state.value,
            is_draining=not core.is_kept and core.state is not PoolState.NEW,
            is_started=self.is_started,
            workers=[worker.snapshot() for worker in workers],
            places={index: worker.number for index, worker in self.workers.items() if worker in workers},
            leaving=[worker.number for worker in self.leaving if worker in workers],
            ready=[worker.number for worker in self.ready if worker in workers],
            replacing={index: worker.number for index, worker in core.replacing.items() if worker in workers},
            pauses={index: max(0.0, due - now) for index, due in self._pauses.items()},
            last_failure=self.core.last_failure.snapshot() if self.core.last_failure is not None else None,
            restarts=self.core.restarts,
            failures=core.backoff.failures,
            seat=self._source.snapshot(),
            ledger=self.ledger.snapshot(),
        )

    def restore(self, saved: PoolSnapshot, launcher_of: Callable[[WorkerSnapshot], Launcher]) -> dict[int, Worker]:
        """Go on where ``saved`` says; its workers by their numbers."""
        core, workers = self.core, dict[int, Worker]()
        threads = self._source.restore(saved)
        for each in saved.workers:
            settings = self.spec.settings._replace(worker_index=each.index, workers=self.spec.workers)
            worker = Worker(each.number, settings, self.spec.start_timeout_s, self.spec.grace_s, self, each)
            worker.restore(each, threads or launcher_of(each))
            workers[each.number] = worker
        core.workers.update((index, workers[number]) for index, number in saved.places.items())
        core.leaving.update(workers[number] for number in saved.leaving)
        core.ready.extend(workers[number] for number in saved.ready)
        core.replacing.update((index, workers[number]) for index, number in saved.replacing.items())
        for worker in core.ready:
            self.upkeep.begin(worker)
        self.ledger.restore(saved.ledger)
        core.last_failure = StartFailed.restored(saved.last_failure)
        core.restarts = saved.restarts
        core.backoff.failures = saved.failures
        core.state = PoolState.DRAINING if saved.is_draining else PoolState.SERVING  # nobody waits for a start
        if saved.state in (PoolState.WINDING_DOWN.value, PoolState.REVIVED.value):
            core.state = PoolState(saved.state)
        core.size = core.goal = saved.size or self.spec.workers
        if core.is_kept:
            free = (index for index in range(2 * core.size) if index not in self.workers)
            missing = [next(free) for _ in range(core.size - len(self.workers))]
            core.awaited.update(missing)
            self._carry_out(Spawn(index, saved.pauses.get(index, 0.0)) for index in missing)
        return workers

    # -- what workers say (WorkerSink) -------------------------------------------------------------------------

    def admitted(self, worker: Worker) -> None:
        """``worker`` is ready: it takes connections from now on, or when it has answered its warm-up."""
        if self.spec.warmup is None:
            self._admit(worker)
        else:
            self._tasks.begin(self._warming.warm(worker, self.spec.warmup))

    def _admit(self, worker: Worker) -> None:
        """It takes connections from now on; one that it replaces is drained."""
        self.upkeep.begin(worker)
        self._news.set()
        self.ledger.started(tell_ready(self.spec.name, worker))
        self._carry_out(self.core.admitted(worker.settings.worker_index, worker))
        self._home.ledger.recovered(self.core.is_whole and not self.ledger.is_trial)
        if self.spec.rehearsal is not None and self._audit.begins():
            self._tasks.begin(self._audit.run(self.spec.rehearsal))

    def withdrawn(self, worker: Worker) -> None:
        """``worker`` gets no more connections."""
        self.upkeep.end(worker)
        self.core.withdrawn(worker)

    def returned(self, worker: Worker, connection: Connection) -> None:
        """``worker`` has given ``connection`` back."""
        self._home.returned(connection, worker)

    def exited(self, worker: Worker, orphans: list[tuple[Connection, int]]) -> None:
        """``worker`` is gone. ``orphans``: what it held, each with the state of its slot (``SLOT_*``)."""
        self.upkeep.end(worker)
        self.ledger.counted(worker.gauges.last_cells, worker.last_cpu_s)
        cut, relayed = worker.gauges.cut(orphans)
        self.ledger.refused("worker-gone", cut)
        self.ledger.refused("deadline", worker.gauges.answered_for)
        self.ledger.relayed += relayed
        forget_ended(self.core)
        self.core.exited(worker.settings.worker_index, worker)
        for connection, state in orphans:
            self._home.orphaned(connection, state)

    def reaped(self, worker: Worker, reason: Reason | None) -> None:
        """Start ``worker`` again if it ended against our will, for ``reason``."""
        if reason is not None:
            self.failed(worker, reason)

    def asked(self, worker: Worker, message: FromRelay) -> None:
        """A relay needs a link, or no longer."""
        self._home.asked(worker, message)

    def failed(self, worker: Worker, reason: Reason) -> None:
        """Start ``worker``, which ended, or will, against our will, again after a pause."""
        code, text = reason = Reason(self.spec.named(reason.code), reason.text)
        index = worker.settings.worker_index
        if self._source.is_better_alone(worker, code):
            log.info("app gets a thread host of its own", app=self.spec.name, worker=index, why=text)
            self._carry_out([Spawn(index)])
            return
        self.ledger.failed(code, text)
        if self.core.was_superseded(index, worker):
            what = "worker failed; its successor is on the way"
            log.error(what, app=self.spec.name, worker=index, pid=worker.pid, code=code, error=text)
        else:
            self._failed(index, reason, worker)

    # -- starting and starting again ---------------------------------------------------------------------------

    def _failed(self, index: int, reason: Reason, worker: Worker | None) -> None:
        self._news.set()
        failure = StartFailed(self.spec.name, reason.code, reason.text + self._source.hint(reason.text))
        ready_for_s = time.monotonic() - worker.ready_at if worker is not None and worker.ready_at is not None else 0.0
        orders = self.core.failed(index, failure, ready_for_s, worker is not None and worker.has_served)
        again = next((order for order in orders if isinstance(order, Spawn)), None)
        if again is not None:
            self.ledger.restarted(reason.code)
            tell_failed(failure, again, worker.pid if worker is not None else 0, self.core.backoff.failures)
        elif worker is not None and self.core.state in (PoolState.WINDING_DOWN, PoolState.REVIVED):
            what = "worker failed; none takes its place, since that could get the code that is on disk by now"
            app, code, error = self.spec.name, failure.code, str(failure)
            log.error(what, app=app, worker=index, pid=worker.pid, code=code, error=error)
        self._carry_out(orders)

    def start_in_turn(self, place: int) -> Starting | None:
        """Start the worker at ``place``; None when none is started any more."""
        if not self.core.is_kept:
            return None
        task = self._tasks.begin(self._spawn(place, waits=True))
        return Starting(task, lambda: [self.workers[place].pid] if place in self.workers else [])

    async def _spawn(self, place: int, pause_s: float = 0.0, waits: bool = False) -> None:
        """Start a worker at ``place``. ``waits``: done when it is ready, or has failed."""
        if pause_s:
            self._pauses[place] = time.monotonic() + pause_s
            try:
                await asyncio.sleep(pause_s)
            finally:
                del self._pauses[place]
        reason = await self._source.spawn(place, self.core, self)
        if reason is not None:
            self._failed(place, Reason(self.spec.named(reason.code), reason.text), None)
        while waits and place in self.workers and self.workers[place].state is WorkerState.STARTING:
            self._news.clear()
            await self._news.wait()


class _Turn(NamedTuple):
    """A worker's place among those that are to be started (a ``Starter``)."""

    pool: Pool
    place: int

    def start_next(self) -> Starting | None:
        return self.pool.start_in_turn(self.place)

    def rank(self) -> tuple[int, int]:
        return FRESH
