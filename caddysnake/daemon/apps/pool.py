"""One generation of an app's workers: started side by side, kept at their number, drained together."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ...channel.messages import MOVES, Need, Unneed
from ...channel.settings import Settings
from ..system import tempdirs as scratch
from ..system.processes import resident_bytes
from ..system.state import CarriedPool, CarriedWorker, plain
from ..workers.child.launcher import Launcher, Launchers, SpawnError, ThreadLauncher
from ..workers.forking.interpreter import not_passed
from ..workers.forking.start_limiter import FRESH, Starting, StartLimiter
from ..workers.hanging import LOOP_STILL_S, THREAD_STILL_S, Finding
from ..workers.lifecycle import Reason, State
from ..workers.worker import Worker, WorkerSink
from .counters import Counters
from .restarting import Backoff, Reading, RecycleLimit
from .spec import PoolSpec, StartFailed

if TYPE_CHECKING:
    from ..sockets.connections import Connection

log = logging.getLogger("caddysnake.app")


class Home(Protocol):
    """Who answers for the connections of a pool's workers: their app."""

    ledger: Counters

    def serve_waiting(self) -> None:
        """A worker has become ready."""

    def returned(self, connection: Connection, worker: Worker) -> None:
        """``worker`` gave ``connection`` back at a request boundary."""

    def orphaned(self, connection: Connection, state: int) -> None:
        """The worker of ``connection`` is dead; ``state`` is what its slot said last."""

    def asked(self, worker: Worker, message: Need | Unneed) -> None:
        """``worker``, a relay, wants a link, or does not want it any more."""

    def worker_failed(self, failure: StartFailed, is_hopeless: bool) -> None:
        """A worker ended against our will and is started again; ``is_hopeless`` after many times in a row."""


class Pool(WorkerSink):
    """Tells ``home`` when a worker has become ready, and which connections need another."""

    _numbers = iter(range(1, 1 << 31))

    def __init__(
        self,
        spec: PoolSpec,
        generation: int,
        spawners: Launchers,
        home: Home,
    ) -> None:
        self.spec = spec
        self.generation = generation
        self.ready: list[Worker] = []
        self.workers: dict[int, Worker] = {}
        """All that live, by their place in the pool, which a replacement takes over."""
        self.leaving: set[Worker] = set()
        self._leases: dict[Worker, RecycleLimit] = {}
        self._replacing: dict[int, Worker] = {}
        """Workers that serve until the one that takes their place is ready."""
        self.last_failure: StartFailed | None = None
        self.restarts = 0
        self._spawners = spawners
        self._home = home
        self._backoff = Backoff()
        self._draining = False
        self._goal = spec.workers
        """How many there should be by now."""
        self._starts: StartLimiter | None = None
        self._news = asyncio.Event()
        """A worker was admitted, or has failed."""
        self._started: asyncio.Future[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_started = False
        self._begun_at = 0.0
        self._pauses: dict[int, float] = {}
        """Places without a worker, and when the next is started there."""
        self._scratch: str | None = None
        self._seat: ThreadLauncher | None = None

    @property
    def is_growing(self) -> bool:
        """Fewer of its workers have been started than there should be."""
        return self._goal < self.spec.workers

    @property
    def is_begun(self) -> bool:
        """It was told to start, or to go."""
        return self._begun_at > 0 or self.is_started

    @property
    def is_started(self) -> bool:
        """All its workers have been up once, or it has been told to go."""
        return self._is_started or self._draining

    async def start(self, starts: StartLimiter | None = None, one_first: bool = False) -> float:
        """Bring all workers up; the seconds it took. Raises ``StartFailed`` at the first that fails.

        Side by side, or in turn with others that ``starts`` has to start. ``one_first``: one only, and ``grow`` next.
        """
        loop = asyncio.get_running_loop()
        self._begun_at = time.monotonic()
        if self.spec.cannot:
            self._draining = True
            self._home.ledger.failed("setup", self.spec.cannot)
            raise StartFailed(self.spec.name, "setup", self.spec.cannot)
        self._started = loop.create_future()
        slow = loop.call_later(self.spec.slow_start_s, self._warn_slow)
        self._starts = starts
        self._goal = 1 if one_first else self.spec.workers
        for index in range(self._goal):
            self._spawn_in_turn(index)
        try:
            await self._started
        finally:
            slow.cancel()
            if self._started.done() and not self._started.cancelled():
                self._started.exception()  # whoever waited may have been cancelled by another app's failure
            self._started = None
        self._is_started = True
        return time.monotonic() - self._begun_at

    async def grow(self) -> bool:
        """Bring one more of its workers up, however long it takes; False when there are as many as there are to be."""
        if self._goal >= self.spec.workers or self._draining:
            return False
        index = self._goal
        self._goal += 1
        self._spawn_in_turn(index)
        while not any(worker.settings.worker_index == index for worker in self.ready):
            self._news.clear()
            await self._news.wait()
        return True

    def wind_down(self) -> None:
        """Its workers serve on for now, but none is started again."""
        self._draining = True
        for task in list(self._tasks):
            task.cancel()

    def drain_one(self) -> None:
        """Let one of its workers go."""
        if self.ready:
            self.ready[0].drain(keeps=True)

    def drain(self, keeps: bool = False) -> None:
        """Take nothing new; the workers give back what is idle, finish the rest, and leave.

        ``keeps``: others take over, so WebSockets may stay as long as the settings say. May be called again without.
        """
        self._draining = True
        if self._started is not None and not self._started.done():
            self._started.set_exception(StartFailed(self.spec.name, "stopping", "it was told to go while it started"))
        for task in list(self._tasks):
            task.cancel()
        for worker in {*self.workers.values(), *self._replacing.values(), *self.leaving}:
            worker.drain(keeps)
        self._replacing.clear()

    def watch(self) -> None:
        """To be called every second or so: tell of workers that stand still, and end those that hang."""
        now_ms = time.monotonic_ns() // 1_000_000
        for worker in list(self.ready):
            finding = worker.watch.look(worker.pulse(), now_ms)
            if finding is not None:
                self._found(worker, finding)

    def _found(self, worker: Worker, finding: Finding) -> None:
        index = worker.settings.worker_index
        fields = {"app": self.spec.name, "worker": index, "pid": worker.pid}
        settings = self.spec.settings
        limit_s = settings.request_timeout_s if isinstance(settings, Settings) else None
        if finding is Finding.HANGS and limit_s is not None and not worker.is_hung:
            log.error("worker hangs and is ended; its stacks are in its output", extra={"fields": fields})
            task = asyncio.get_running_loop().create_task(worker.end_hung(limit_s))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif finding is Finding.OVERDUE:
            if not self._draining and not self._replacing:
                reason = "requests that do not end at request_timeout"
                log.error("worker is replaced", extra={"fields": {**fields, "reason": reason}})
                self._home.ledger.restarted("request_timeout")
                self._replace(worker)
        elif finding is Finding.LOOP_STILL:
            what = f"event loop has not turned for {LOOP_STILL_S:g} s; its stacks are in its output"
            log.warning(what, extra={"fields": fields})
            worker.write_stacks()
        elif finding is Finding.THREAD_STILL:
            what = f"a thread is at one request for {THREAD_STILL_S:g} s; its stack is in the worker's output"
            log.warning(what, extra={"fields": fields})
            worker.write_stacks()

    def recycle(self) -> None:
        """To be called every second or so: replace a worker that has reached a limit, one at a time."""
        if self._draining or self._replacing or len(self.ready) < self.spec.workers:
            return
        for worker in self.ready:
            reason = self._leases[worker].over(_reading(worker)) if worker in self._leases else None
            if self._seat is not None and self._seat.is_doomed(worker.number):
                reason = "its thread host is replaced"
            if reason is not None:
                if self._seat is not None:
                    self._seat.move_out(worker.number)  # it is the process that has grown old, not the thread
                index = worker.settings.worker_index
                fields = {"app": self.spec.name, "worker": index, "pid": worker.pid, "reason": reason}
                log.info("worker is replaced", extra={"fields": fields})
                self._home.ledger.restarted(reason)
                self._replace(worker)
                return

    def _replace(self, worker: Worker) -> None:
        index = worker.settings.worker_index
        self._replacing[index] = worker
        self._spawn_soon(index, 0.0)

    def kill(self) -> None:
        """End all workers, those that are leaving too, by force."""
        for worker in (*self.workers.values(), *self.leaving):
            worker.kill()

    async def ended(self) -> None:
        """Wait until no worker is left."""
        while self._tasks or self.workers or self.leaving:
            waits = [worker.ended.wait() for worker in (*self.workers.values(), *self.leaving)]
            await asyncio.gather(*waits, *self._tasks, return_exceptions=True)
            for index, worker in list(self.workers.items()):
                if worker.ended.is_set():
                    del self.workers[index]
            self.leaving = {worker for worker in self.leaving if not worker.ended.is_set()}
            # Since Python 3.12 a gather of what is done does not give way, and the callbacks of done tasks never run.
            await asyncio.sleep(0)
        if self._draining and self._scratch is not None:
            folder, self._scratch = self._scratch, None
            scratch.discard(folder)

    # -- going on in another image of the daemon --------------------------------------------------------------

    @property
    def is_settled(self) -> bool:
        """None of its workers is being forked or reaped just now."""
        return all(worker.is_at_rest for worker in self.everyone())

    def everyone(self) -> set[Worker]:
        """Every worker that has, or may have, a process."""
        return {*self.workers.values(), *self.leaving, *self.ready, *self._replacing.values()}

    def carry(self) -> CarriedPool:
        """All that whoever goes on with it must know. Workers that are being forked or reaped are left out."""
        workers = [worker for worker in self.everyone() if worker.is_settled]
        now = time.monotonic()
        return CarriedPool(
            spec=plain(self.spec),
            generation=self.generation,
            is_draining=self._draining,
            is_started=self.is_started,
            workers=[worker.carry() for worker in workers],
            places={index: worker.number for index, worker in self.workers.items() if worker in workers},
            leaving=[worker.number for worker in self.leaving if worker in workers],
            ready=[worker.number for worker in self.ready if worker in workers],
            replacing={index: worker.number for index, worker in self._replacing.items() if worker in workers},
            pauses={index: max(0.0, due - now) for index, due in self._pauses.items()},
            last_failure=self.last_failure.carry() if self.last_failure is not None else None,
            restarts=self.restarts,
            failures=self._backoff.failures,
            scratch=self._scratch,
            seat=self._seat.carry() if self._seat is not None else None,
        )

    def resume(self, carried: CarriedPool, spawner_of: Callable[[CarriedWorker], Launcher]) -> dict[int, Worker]:
        """Go on where ``carried`` says; its workers by their numbers."""
        workers: dict[int, Worker] = {}
        seat = self._origin() if carried.seat is not None else None
        if isinstance(seat, ThreadLauncher) and carried.seat is not None:
            seat.resume(carried.seat)
        for each in carried.workers:
            settings = self.spec.settings._replace(worker_index=each.index, workers=self.spec.workers)
            worker = Worker(each.number, settings, self.spec.start_timeout_s, self.spec.grace_s, self, each)
            worker.resume(each, seat or spawner_of(each))
            workers[each.number] = worker
        self.workers = {index: workers[number] for index, number in carried.places.items()}
        self.leaving = {workers[number] for number in carried.leaving}
        self.ready = [workers[number] for number in carried.ready]
        self._replacing = {index: workers[number] for index, number in carried.replacing.items()}
        if self.spec.limits.is_any:
            self._leases = {worker: RecycleLimit(self.spec.limits) for worker in self.ready}
        self.last_failure = StartFailed.resumed(carried.last_failure)
        self.restarts = carried.restarts
        self._backoff.failures = carried.failures
        self._scratch = carried.scratch
        self._draining, self._is_started = carried.is_draining, True  # nobody waits for the first start any more
        if not self._draining:
            for index in set(range(self.spec.workers)) - self.workers.keys():
                self._spawn_soon(index, carried.pauses.get(index, 0.0))
        return workers

    @classmethod
    def numbered(cls) -> int:
        """The number that the next worker gets."""
        number = next(cls._numbers)
        cls.number_from(number)
        return number

    @classmethod
    def number_from(cls, number: int) -> None:
        """Workers get numbers from ``number`` on."""
        cls._numbers = iter(range(number, 1 << 31))

    # -- what workers say (WorkerSink) -------------------------------------------------------------------------

    def admitted(self, worker: Worker) -> None:
        """``worker`` takes connections from now on; one that it replaces is drained."""
        self.ready.append(worker)
        if self.spec.limits.is_any:
            self._leases[worker] = RecycleLimit(self.spec.limits)
        self._news.set()
        if self._started is not None and not self._started.done() and len(self.ready) >= self._goal:
            self._started.set_result(None)
        fields = {"app": self.spec.name, "worker": worker.settings.worker_index, "pid": worker.pid}
        took = round(time.monotonic() - worker.started_at, 3)
        self._home.ledger.started(took)
        log.debug("worker ready", extra={"fields": {**fields, "runs": worker.detail, "duration": took}})
        former = self._replacing.pop(worker.settings.worker_index, None)
        if former is not None:
            former.drain(keeps=True)
        self._home.serve_waiting()

    def withdrawn(self, worker: Worker) -> None:
        """``worker`` gets no more connections."""
        self._leases.pop(worker, None)
        if worker in self.ready:
            self.ready.remove(worker)

    def returned(self, worker: Worker, connection: Connection) -> None:
        """``worker`` has given ``connection`` back."""
        self._home.returned(connection, worker)

    def exited(self, worker: Worker, orphans: list[tuple[Connection, int]]) -> None:
        """``worker`` is gone. ``orphans``: what it held, each with the state of its slot (``SLOT_*``)."""
        self.withdrawn(worker)
        self._home.ledger.counted(worker.last_cells, worker.last_cpu_s)
        self.leaving = {each for each in self.leaving if not each.ended.is_set()} | {worker}
        if self.workers.get(worker.settings.worker_index) is worker:
            del self.workers[worker.settings.worker_index]
        for connection, state in orphans:
            self._home.orphaned(connection, state)

    def reaped(self, worker: Worker, reason: Reason | None) -> None:
        """Start ``worker`` again if it ended against our will, for ``reason``."""
        if reason is not None:
            self.failed(worker, reason)

    def asked(self, worker: Worker, message: Need | Unneed) -> None:
        """A relay needs a link, or no longer."""
        self._home.asked(worker, message)

    @property
    def is_hopeless(self) -> bool:
        """Its workers have failed many times in a row."""
        return self._backoff.exhausted

    def failed(self, worker: Worker, reason: Reason) -> None:
        """Start ``worker``, which ended, or will, against our will, again after a pause."""
        code, text = reason
        index = worker.settings.worker_index
        if self._seat is not None and self._is_better_alone(worker, code, self._seat):
            fields = {"app": self.spec.name, "worker": index, "why": text}
            log.info("app gets a thread host of its own", extra={"fields": fields})
            self._spawn_soon(index, 0.0)
            return
        self._home.ledger.failed(code, text)
        if self._replacing.get(index) is worker:
            del self._replacing[index]
            fields = {"app": self.spec.name, "worker": index, "pid": worker.pid, "code": code, "error": text}
            log.error("worker failed; its successor is on the way", extra={"fields": fields})
        else:
            self._failed(index, code, text, worker)

    # -- starting and starting again ---------------------------------------------------------------------------

    def _is_better_alone(self, worker: Worker, code: str, seat: ThreadLauncher) -> bool:
        """It cannot share a host; or its host crashed before it was ready, which another app may have caused."""
        if code == "crashed" and worker.ready_at is None:
            return seat.needs_own_host(for_good=False)
        return code == MOVES and seat.needs_own_host(for_good=True)

    def _failed(self, index: int, code: str, text: str, worker: Worker | None) -> None:
        self._news.set()
        text += self._hint(text)
        self.last_failure = StartFailed(self.spec.name, code, text)
        if self._started is not None and not self._started.done():
            self._draining = True  # nothing more is started: the whole pool has failed
            self._started.set_exception(self.last_failure)
        if self._draining:
            return
        ready_for = time.monotonic() - worker.ready_at if worker is not None and worker.ready_at is not None else 0.0
        pause = self._backoff.pause_after(ready_for, worker is not None and worker.has_served)
        self.restarts += 1
        self._home.ledger.restarted(code)
        log.error(
            "worker failed; it is started again" if pause < 1 else f"worker failed; next start in {pause:.1f}s",
            extra={
                "fields": {
                    "app": self.spec.name,
                    "worker": index,
                    "pid": worker.pid if worker is not None else 0,
                    "code": code,
                    "error": text,
                    "failures_in_a_row": self._backoff.failures,
                }
            },
        )
        self._spawn_soon(index, pause)
        self._home.worker_failed(self.last_failure, self._backoff.exhausted)

    def _hint(self, text: str) -> str:
        settings = self.spec.settings
        missed = not_passed(os.environ, settings.environ, text) if isinstance(settings, Settings) else []
        if not missed:
            return ""
        names = " ".join(missed)
        return f"\n({names}: set for caddysnake, not passed to the app. Add `pass_env {names}` to its python block.)"

    def _spawn_in_turn(self, index: int) -> None:
        if self._starts is None:
            self._spawn_soon(index, 0.0)
        else:
            self._starts.want(_Turn(self, index))

    def _start_in_turn(self, index: int) -> Starting | None:
        if self._draining:
            return None
        task = asyncio.get_running_loop().create_task(self._spawn_and_wait(index))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return Starting(task, lambda: [self.workers[index].pid] if index in self.workers else [])

    async def _spawn_and_wait(self, index: int) -> None:
        """Until it is ready, or has failed."""
        await self._spawn(index, 0.0)
        while index in self.workers and self.workers[index].state is State.STARTING:
            self._news.clear()
            await self._news.wait()

    def _spawn_soon(self, index: int, pause: float) -> None:
        task = asyncio.get_running_loop().create_task(self._spawn(index, pause))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _spawn(self, index: int, pause: float) -> None:
        if pause:
            self._pauses[index] = time.monotonic() + pause
            try:
                await asyncio.sleep(pause)
            finally:
                del self._pauses[index]
        settings = self.spec.settings._replace(worker_index=index, workers=self.spec.workers)
        try:
            if isinstance(settings, Settings):
                settings = self._with_scratch(await self._located(settings))
            worker = Worker(next(self._numbers), settings, self.spec.start_timeout_s, self.spec.grace_s, self)
        except OSError as exc:
            self._failed(index, "resources", f"no room for another worker: {exc}", None)
            return
        except Exception as exc:
            self._failed_of_us(index, exc)
            return
        try:
            spawner = self._origin()
            if index in self.workers:  # it has said that it failed, and is not gone yet
                self.leaving.add(self.workers[index])
            self.workers[index] = worker
            await worker.start(spawner)
        except BaseException as exc:
            if self.workers.get(index) is worker:
                del self.workers[index]
            worker.discard()
            if not isinstance(exc, Exception):
                raise
            if not isinstance(exc, SpawnError):
                self._failed_of_us(index, exc)
                return
            if exc.fatal:
                self._spawners.discard(self.spec.key)
            self._failed(index, exc.code, str(exc), None)

    def _failed_of_us(self, index: int, exc: Exception) -> None:
        """For a reason that nobody has thought of: it has failed all the same, and whoever waits must hear of it."""
        log.error("worker cannot be started", exc_info=exc, extra={"fields": {"app": self.spec.name, "worker": index}})
        self._failed(index, "internal", f"{type(exc).__name__}: {exc}", None)

    async def _located(self, settings: Settings) -> Settings:
        """Follow the links on the way to the code, and to its Python, now and once: what the worker imports later is
        of the same release, wherever ``current`` leads by then.
        """
        await self._spawners.look(self.spec.key)
        found = await asyncio.to_thread(os.path.realpath, settings.working_dir)
        seat = self._origin() if settings.shares_process else None
        return settings._replace(working_dir=seat.folder(found) if isinstance(seat, ThreadLauncher) else found)

    def _origin(self) -> Launcher:
        settings = self.spec.settings
        if not isinstance(settings, Settings) or not settings.shares_process:
            return self._spawners.get(self.spec.key)
        if self._seat is None:
            # What limits one app's use of memory can be kept for a whole process only.
            is_private = bool(settings.limits) or self.spec.limits.memory_bytes is not None
            self._seat = self._spawners.seat(self.spec.key, settings, is_private)
        return self._seat

    def _with_scratch(self, settings: Settings) -> Settings:
        """``settings`` with a private ``TMPDIR``, when the app has a user of its own and names none. ``OSError``."""
        account = self.spec.key.account
        if account is None or "TMPDIR" in settings.environ or settings.shares_process:
            return settings
        if self._scratch is None:
            self._scratch = scratch.make(self.spec.name, account.uid, account.gid)
        return settings._replace(environ={**settings.environ, "TMPDIR": self._scratch})

    def _warn_slow(self) -> None:
        spec = self.spec
        fields = {"app": spec.name, "waited_s": spec.slow_start_s, "start_timeout_s": spec.start_timeout_s}
        log.warning("app is taking a long time to load", extra={"fields": fields})

    def describe(self) -> str:
        """For logs and tests: ``gen 1: 2 ready, 0 starting, 1 leaving``."""
        starting = sum(worker.state is State.STARTING for worker in self.workers.values())
        return f"gen {self.generation}: {len(self.ready)} ready, {starting} starting, {len(self.leaving)} leaving"


class _Turn(NamedTuple):
    """A worker's place among those that are to be started (a ``Starter``)."""

    pool: Pool
    place: int

    def start_next(self) -> Starting | None:
        return self.pool._start_in_turn(self.place)

    def rank(self) -> tuple[int, int]:
        return FRESH


def _reading(worker: Worker) -> Reading:
    age_s = time.monotonic() - worker.ready_at if worker.ready_at is not None else 0.0
    return Reading(worker.requests(), age_s, resident_bytes(worker.pid))
