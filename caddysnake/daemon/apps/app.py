"""An app: its generations, and how one takes over from another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial

from ...channel.messages import FromRelay
from ...channel.settings import Settings
from ...config.language.models import Canary
from ..commands import store
from ..commands.background import Background
from ..commands.release import Tell
from ..sockets.connections import Connection, Connections
from ..system.state import AppSnapshot, PoolSnapshot, WorkerSnapshot
from ..system.tasks import KeptTasks
from ..workers.child.child import Launcher
from ..workers.forking.start_limiter import StartLimiter
from ..workers.launchers import Launchers
from ..workers.worker import Worker
from .builds import Builds
from .counters import Counters
from .deploys import Deploys
from .dispatcher import ALONE, Dispatcher, Recourse
from .folder import PrivateFolder
from .judging import first_few
from .pool import Pool
from .scaled import Scaled
from .spec import PoolSpec, StartFailed
from .stop_first import Exchange
from .surroundings import AppSurroundings
from .takeover import Act, Do, Order, TellWaiters

_TO_POOL: dict[Do, Callable[[Pool], None]] = {
    Do.WIND_DOWN: Pool.wind_down,
    Do.DRAIN_ONE: Pool.drain_one,
    Do.DRAIN: partial(Pool.drain, keeps=True),
    Do.STOP: Pool.drain,
    Do.REVIVE: Pool.revive,
    Do.KILL: Pool.kill,
}
"""What is done to a generation alone."""


class App(Dispatcher):
    """Carries out what ``takeover`` decides."""

    def __init__(
        self,
        spec: PoolSpec,
        launchers: Launchers,
        connections: Connections,
        recourse: Recourse = ALONE,
        ledger: Counters | None = None,
        has_schedules: bool = True,
    ) -> None:
        """``has_schedules``: it sees to its schedules itself."""
        self.ledger = ledger or Counters()
        self.folder = PrivateFolder(spec.name)
        self.background = Background(spec.name, has_schedules)
        self.surroundings = AppSurroundings(self.folder, self.ledger)
        super().__init__(Pool(spec, 1, launchers, self), connections, recourse)
        self.goes_round = lambda: any(each.spec.name == store.NAME for each in self.background.processes)
        self._launchers = launchers
        self._loop = asyncio.get_running_loop()
        self._reaps = KeptTasks()
        self.hurry: Callable[[], None] | None = None
        """Has it tried again at once, while it has not been up yet."""
        self.fallen: Callable[[StartFailed], None] = self.fail
        """Sees to it when the build that was ended for another one does not come back."""
        self.builds = Builds()
        """Which code runs since when, and which was refused."""
        self.changing = asyncio.Lock()
        """Whoever has another build of it made at somebody's wish holds it."""
        self._renewing = asyncio.Lock()
        self._growing: asyncio.Task[None] | None = None
        self.comes_up = False
        """It was being started for the first time when the daemon was replaced by this image."""
        self.exchange = Exchange(self)
        self.deploys = Deploys(self)
        self.scaled = Scaled(self, lambda: not self.deploys.is_other_on_disk)

    @property
    def spec(self) -> PoolSpec:
        """What the generation that serves runs."""
        return self.pool.spec

    @property
    def name(self) -> str:
        """Its name in logs."""
        return self.pool.spec.name

    @property
    def attempts(self) -> int:
        """How often it has failed to start since the daemon has; 0 once it was up."""
        return self.takeover.attempts

    @property
    def is_stopping(self) -> bool:
        """It was told to go."""
        return self.takeover.is_stopping

    @property
    def failure(self) -> StartFailed | None:
        """Why it has no worker, if one has failed."""
        return None if self.pool.ready else self.takeover.broken or self.pool.core.last_failure

    @property
    def newest(self) -> Pool:
        """The generation that is prepared, or else the present one."""
        return self.takeover.coming or self.pool

    def pools(self) -> list[Pool]:
        """Every generation that has a process."""
        return self.takeover.all()

    # -- generations ---------------------------------------------------------------------------------------------

    async def start(self) -> float:
        """Bring the app up; the seconds it took. Raises ``StartFailed``."""
        self.surroundings.keep(self.background, self.spec)
        took = await self.pool.start()
        self.builds.accepted()
        self.surroundings.switch_over(self.background, self.spec)
        return took

    async def renew(
        self,
        spec: PoolSpec,
        starts: StartLimiter | None = None,
        tell: Tell | None = None,
        releases: bool = False,
        canary: Canary | None = None,
    ) -> float:
        """New workers that run ``spec`` take over from the old, or are tried first (``canary``); the seconds that took.
        One renewal at a time.

        ``releases``: after its release commands, of which ``tell`` hears. Raises ``StartFailed``; the old ones serve on
        then.
        """
        async with self._renewing:
            if releases:
                await self.surroundings.release(spec, tell, self.builds)
            if spec.strategy == "stop_first":
                return await self.exchange.renew(spec, starts)
            tried = canary if self.pool.ready else None
            took = await self.prepare(spec, starts, 0 if tried is None else first_few(tried, spec.workers))
            if tried is None:
                self.swap()
            else:
                self.deploys.try_out(tried, tell)
            return took

    async def prepare(self, spec: PoolSpec, starts: StartLimiter | None = None, first: int = 0) -> float:
        """Bring a new generation up beside the old, which serves on; the seconds it took. ``swap`` or ``discard`` next.

        Its workers start in turn with what else ``starts`` has to start. ``first``: so many for now, one where ``spec``
        says rolling; each of the others takes the place of an old one after the swap. Raises ``StartFailed``; nothing
        has changed then, and nothing is left of the new one.
        """
        await self.exchange.settled()
        self.deploys.end_trial("another build is to run")
        coming = self.begin_generation(spec)
        self.surroundings.keep(self.background, spec)
        try:
            return await coming.start(starts, 1 if spec.strategy == "rolling" else first)
        except BaseException as exc:
            if isinstance(exc, StartFailed) and not self.is_stopping:
                self.builds.was_refused(exc.code, str(exc))
            self.discard()
            raise

    def begin_generation(self, spec: PoolSpec) -> Pool:
        """Return the generation that comes, which has not been started."""
        size = self.scaled.size_for(spec.workers, spec.most)
        number = max(pool.generation for pool in self.pools()) + 1
        coming = self.takeover.coming = Pool(spec, number, self._launchers, self, size)
        coming.ledger.is_trial = bool(self.pool.ready)
        return coming

    def swap(self) -> None:
        """The generation that was prepared takes over: idle connections move to it, requests in flight finish."""
        orders = self.takeover.swap(self.newest.core.is_growing, self.deploys.keeps())
        self.deploys.trial_is_over("promoted")
        self.scaled.asked_for = None
        self.carry_out(orders)  # which keeps the build that was accepted before
        self.builds.accepted()
        self.pool.ledger.is_trial = False
        self.ledger.recovered(self.pool.core.is_whole)
        self.surroundings.switch_over(self.background, self.spec)

    def roll_back(self) -> int | None:
        """Let the build before serve again, with its processes; its number, or None when none is kept."""
        number = self.deploys.roll_back()
        if number is not None:
            self.surroundings.switch_over(self.background, self.spec)
        return number

    def discard(self) -> None:
        """Give up what was prepared."""
        self.carry_out(self.takeover.discard())

    def fail(self, failure: StartFailed) -> None:
        """Its new code does not start, and the old is not wanted: requests are told ``failure`` until the next swap."""
        self.builds.stopped()
        self.carry_out(self.takeover.fail(failure))

    def not_started(self, failure: StartFailed, retry_after_s: int) -> None:
        """It has not come up since the daemon started, and is tried again: requests get 503 until the next swap."""
        self.builds.stopped()
        self.carry_out(self.takeover.not_started(failure, retry_after_s))

    def worker_failed(self, failure: StartFailed, is_hopeless: bool) -> None:
        """A worker ended against our will and is started again."""
        self.carry_out(self.takeover.worker_failed(failure, is_hopeless, bool(self.pool.ready)))

    def asked(self, worker: Worker, message: FromRelay) -> None:
        """An app's worker never asks for links: its channel has no such message."""
        raise AssertionError(message)

    def make_way(self) -> None:
        """Drain: the successor has what is idle, and whatever comes on it; requests in flight finish."""
        self.background.end()
        self.deploys.end_trial("the app is told to go")
        self.carry_out(self.takeover.stop(is_succeeded=self._recourse.successor is not None))

    def stop(self) -> None:
        """Drain: idle connections end as they come back, requests in flight finish."""
        self.background.end()
        self.deploys.end_trial("the app is told to go")
        self.carry_out(self.takeover.stop())

    def kill(self) -> None:
        """End all workers of all generations by force, with what they started."""
        self.background.kill()
        for pool in self.pools():
            pool.kill()

    async def ended(self) -> None:
        """Wait until no worker of any generation is left; nothing of the app is then, if it was told to go."""
        await asyncio.gather(*(pool.ended() for pool in self.pools()))
        if self.is_stopping:
            await self.background.ended()
            self.folder.end()

    def place(self, connection: Connection) -> None:
        """See ``Dispatcher.place``."""
        super().place(connection)
        self.scaled.wake()

    # -- orders --------------------------------------------------------------------------------------------------

    def carry_out(self, orders: Iterable[Order[Pool]]) -> None:
        """Do what ``takeover`` has decided."""
        for order in orders:
            match order:
                case TellWaiters(refusal):
                    self.waiters.tell(refusal)
                case Act(Do.END_GROWTH):
                    if self._growing is not None:
                        self._growing.cancel()
                        self._growing = None
                case Act(Do.SERVE_WAITING):
                    self.serve_waiting()
                case Act(Do.PLACE_AGAIN):
                    self.place_waiting_again()
                case Act(Do.PART_WITH_QUEUE):
                    self._part_with_queue()
                case Act(Do.GROW, Pool() as pool):
                    self._growing = self._loop.create_task(self._grow(pool))
                case Act(Do.RETIRE, Pool() as pool):
                    self._retire(pool)
                case Act(Do.SHELVE, Pool() as pool):
                    self.deploys.shelve(pool)
                case Act(what, Pool() as pool):
                    _TO_POOL[what](pool)

    def _retire(self, pool: Pool) -> None:
        pool.drain(keeps=True)
        self._reaps.begin(pool.ended()).add_done_callback(lambda _: self.takeover.gone(pool))

    async def _grow(self, former: Pool) -> None:
        try:
            while await self.pool.grow():
                former.drain_one()
        finally:
            self.carry_out(self.takeover.retire(former))

    # -- going on in another image of the daemon --------------------------------------------------------------

    @property
    def is_settled(self) -> bool:
        """No worker of it is being forked, reaped or replaced just now."""
        is_growing = self._growing is not None and not self._growing.done()
        is_changing = is_growing or self.exchange.is_under_way or not self.background.is_settled
        return not is_changing and all(pool.is_settled for pool in self.pools())

    def snapshot(self, number: int) -> AppSnapshot:
        """All that whoever goes on with it must know, under the id ``number``. What is being prepared is left out."""
        broken = self.takeover.broken
        saved = AppSnapshot(
            id=number,
            pool=self.pool.snapshot(),
            former=[pool.snapshot() for pool in self.takeover.former],
            is_stopping=self.is_stopping,
            broken=broken.snapshot() if broken is not None else None,
            attempts=self.attempts,
            builds=self.builds.snapshot(),
            scale=self.scaled.snapshot(),
            ledger=self.ledger.snapshot(),
            folder=self.folder.snapshot(),
            background=self.background.snapshot(),
            waiting=[connection.fd for connection in self._queue],
        )
        self.deploys.snapshot(saved)
        return saved

    def restore(
        self,
        saved: AppSnapshot,
        spec_of: Callable[[PoolSnapshot], PoolSpec],
        launcher_of: Callable[[WorkerSnapshot], Launcher],
    ) -> dict[int, Worker]:
        """Go on where ``saved`` says; its workers by their numbers. Raises ``StateError`` as ``spec_of`` does."""
        takeover = self.takeover
        self.folder.restore(saved.folder)
        if isinstance(self.spec.settings, Settings):
            self.background.restore(saved.background, self.spec.commands, self.surroundings.take(self.spec))
        takeover.present = Pool(self.spec, saved.pool.generation, self._launchers, self)
        workers = self.pool.restore(saved.pool, launcher_of)

        def restored(each: PoolSnapshot) -> Pool:
            pool = Pool(spec_of(each), each.generation, self._launchers, self)
            workers.update(pool.restore(each, launcher_of))
            return pool

        for each in saved.former:
            self.carry_out(takeover.retire(restored(each)))
        takeover.is_stopping = saved.is_stopping
        takeover.is_succeeded = saved.is_stopping and self._recourse.successor is not None
        takeover.broken = StartFailed.restored(saved.broken)
        takeover.attempts = saved.attempts
        self.builds.restore(saved.builds)
        self.scaled.restore(saved.scale)
        self.deploys.restore(saved, restored)
        self.ledger.restore(saved.ledger)
        self.comes_up = self.builds.running is None and not self.attempts
        return workers
