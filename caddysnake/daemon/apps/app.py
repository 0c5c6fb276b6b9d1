"""An app: its pools, the connections that wait for a worker, and who gets the next one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable
from typing import NamedTuple, Protocol

from ...channel import vitals
from ...channel.messages import Need, Unneed
from ...config.plan.accounts import Account
from ..sockets.connections import Connection, Connections
from ..sockets.refusals import QUEUE_FULL, STOPPING, Refusal, of_broken, of_failure, of_unstarted
from ..system.state import CarriedApp, CarriedPool, CarriedWorker
from ..workers.balancer import choose, excess
from ..workers.child.launcher import Launcher, Launchers
from ..workers.forking.start_limiter import StartLimiter
from ..workers.worker import Worker
from .builds import Builds
from .counters import Counters
from .pool import Pool
from .queue import ConnectionQueue
from .spec import PoolSpec, StartFailed
from .waiting import Waiters

log = logging.getLogger("caddysnake.app")


class Successor(Protocol):
    """Has the connections of an app that was told to go."""

    def take(self, connection: Connection) -> None:
        """Something has come on an idle one: a request for the successor, or its end."""

    def left(self, connection: Connection) -> None:
        """The other side of one that waits has left."""


class Recourse(NamedTuple):
    """Who else sees to an app's connections."""

    lend: Callable[[Connection], bool] | None = None
    """Gives one to a relay, which waits or answers in the place of an app that is not up."""
    pass_on: Callable[[Connection, App], None] | None = None
    """Has those that come back when the app was told to go, or when their listener is another's; None: they end."""
    turn_away: Callable[[Connection], None] | None = None
    """Has those that come when ``max_queue`` wait already."""
    successor: Successor | None = None
    """Has those of an app that was told to go because another follows it."""


ALONE = Recourse()
"""Nobody else."""


class App:
    """Connections come in by ``place``; each is with one worker, in the queue, or parked."""

    def __init__(
        self,
        spec: PoolSpec,
        launchers: Launchers,
        connections: Connections,
        recourse: Recourse = ALONE,
        ledger: Counters | None = None,
    ) -> None:
        self.spec = spec
        self.ledger = ledger or Counters()
        self.name = spec.name
        self._launchers = launchers
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._recourse = recourse
        self._queue = ConnectionQueue(connections, self._give, lambda: bool(self.pool.ready))
        self.waiters = Waiters()
        """Those who wait to be told by ``when_ready``."""
        self._turn = 0
        self._stopping = False
        self._is_succeeded = False
        self.pool = Pool(spec, 1, launchers, self)
        self._former: set[Pool] = set()  # drained, and not gone yet
        self._coming: Pool | None = None
        self._burials: set[asyncio.Task[None]] = set()
        self._broken: StartFailed | None = None
        self._retry_after_s = 1
        self.attempts = 0
        """How often it has failed to start since the daemon has; 0 once it was up."""
        self.hurry: Callable[[], None] | None = None
        """Has it tried again at once, while it has not been up yet."""
        self.builds = Builds()
        """Which code runs since when, and which was refused."""
        self._renewing = asyncio.Lock()
        self._rolling: asyncio.Task[None] | None = None

    @property
    def account(self) -> Account | None:
        """The user that its workers run as; None: the daemon's."""
        return self.spec.key.account

    @property
    def is_ours(self) -> bool:
        """It runs no code of anybody's but ours."""
        return False

    @property
    def waiting(self) -> int:
        """How many connections wait in the queue for a worker."""
        return len(self._queue)

    @property
    def max_queue(self) -> int:
        """How many connections may wait here, apart from what its workers have been given."""
        return self._queue.most

    @max_queue.setter
    def max_queue(self, most: int) -> None:
        self._queue.most = most

    async def start(self) -> float:
        """Bring the app up; the seconds it took. Raises ``StartFailed``."""
        took = await self.pool.start()
        self.builds.accepted()
        return took

    async def renew(self, spec: PoolSpec, starts: StartLimiter | None = None, is_rolling: bool = False) -> float:
        """New workers that run ``spec`` take over from the old; the seconds that took. One renewal at a time.

        Raises ``StartFailed``; the old ones serve on then.
        """
        async with self._renewing:
            took = await self.prepare(spec, starts, is_rolling)
            self.swap()
            return took

    async def prepare(self, spec: PoolSpec, starts: StartLimiter | None = None, is_rolling: bool = False) -> float:
        """Bring a new generation up beside the old, which serves on; the seconds it took. ``swap`` or ``discard`` next.

        Its workers start in turn with what else ``starts`` has to start. ``is_rolling``: one of them for now; each of
        the others takes the place of an old one after the swap. Raises ``StartFailed``; nothing has changed then, and
        nothing is left of the new one.
        """
        coming = Pool(spec, self.pool.generation + 1, self._launchers, self)
        self._coming = coming
        try:
            return await coming.start(starts, is_rolling)
        except BaseException as exc:
            if isinstance(exc, StartFailed) and not self._stopping:
                self.builds.was_refused(exc.code, str(exc))
            self.discard()
            raise

    def swap(self) -> None:
        """The generation that was prepared takes over: idle connections move to it, requests in flight finish."""
        assert self._coming is not None
        former, self.pool, self._coming = self.pool, self._coming, None
        self.spec = self.pool.spec
        self.name = self.spec.name
        self._broken = None
        self.attempts = 0
        self.builds.accepted()
        self._end_rolling()
        if self.pool.is_growing:
            self._former.add(former)
            former.wind_down()
            former.drain_one()
            self._rolling = self._loop.create_task(self._roll(former))
        else:
            self._retire(former)
        self.serve_waiting()

    async def _roll(self, former: Pool) -> None:
        try:
            while await self.pool.grow():
                former.drain_one()
        finally:
            self._retire(former)

    def _end_rolling(self) -> None:
        """What is left of the generation before is let go at once."""
        if self._rolling is not None:
            self._rolling.cancel()
            self._rolling = None

    def discard(self) -> None:
        """Give up what was prepared."""
        coming, self._coming = self._coming, None
        if coming is not None:
            self._retire(coming)
            coming.kill()

    def fail(self, failure: StartFailed) -> None:
        """Its new code does not start, and the old is not wanted: requests are told ``failure`` until the next swap."""
        self._broken = failure
        self.builds.stopped()
        self._end_rolling()
        self.pool.drain(keeps=True)
        self.waiters.tell(self._refusal_of(failure))
        self.place_waiting_again()

    def not_started(self, failure: StartFailed, retry_after_s: int) -> None:
        """It has not come up since the daemon started, and is tried again: requests get 503 until the next swap."""
        self.attempts += 1
        self._retry_after_s = retry_after_s
        self.fail(failure)

    def _retire(self, pool: Pool) -> None:
        self._former.add(pool)
        pool.drain(keeps=True)
        burial = self._loop.create_task(pool.ended())
        self._burials.add(burial)
        burial.add_done_callback(self._burials.discard)
        burial.add_done_callback(lambda _: self._former.discard(pool))

    def pools(self) -> list[Pool]:
        """Every generation that has a process."""
        return [self.pool, *self._former, *([self._coming] if self._coming is not None else [])]

    # -- going on in another image of the daemon --------------------------------------------------------------

    @property
    def is_settled(self) -> bool:
        """No worker of it is being forked, buried or replaced just now."""
        is_rolling = self._rolling is not None and not self._rolling.done()
        return not is_rolling and all(pool.is_settled for pool in self.pools())

    def carry(self, number: int) -> CarriedApp:
        """All that whoever goes on with it must know, under the id ``number``. What is being prepared is left out."""
        return CarriedApp(
            id=number,
            pool=self.pool.carry(),
            former=[pool.carry() for pool in self._former],
            is_stopping=self._stopping,
            broken=self._broken.carry() if self._broken is not None else None,
            attempts=self.attempts,
            builds=self.builds.carry(),
            ledger=self.ledger.carry(),
            waiting=[connection.fd for connection in self._queue],
        )

    def resume(
        self,
        carried: CarriedApp,
        spec_of: Callable[[CarriedPool], PoolSpec],
        spawner_of: Callable[[CarriedWorker], Launcher],
    ) -> dict[int, Worker]:
        """Go on where ``carried`` says; its workers by their numbers. Its connections come by ``await_worker``.

        Raises ``StateError`` as ``spec_of`` does.
        """
        self.pool = Pool(self.spec, carried.pool.generation, self._launchers, self)
        workers = self.pool.resume(carried.pool, spawner_of)
        for each in carried.former:
            former = Pool(spec_of(each), each.generation, self._launchers, self)
            workers |= former.resume(each, spawner_of)
            self._retire(former)
        self._stopping = carried.is_stopping
        self._is_succeeded = carried.is_stopping and self._recourse.successor is not None
        self._broken = StartFailed.resumed(carried.broken)
        self.attempts = carried.attempts
        self.builds.resume(carried.builds)
        self.ledger.resume(carried.ledger)
        return workers

    def await_worker(self, connection: Connection) -> None:
        """It waits, behind those that wait already."""
        self._queue.add(connection)

    def make_way(self) -> None:
        """Drain: the successor has what is idle, and whatever comes on it; requests in flight finish."""
        self._is_succeeded = self._recourse.successor is not None
        self.stop()

    def stop(self) -> None:
        """Drain: idle connections end as they come back, requests in flight finish."""
        self._stopping = True
        for connection in self._queue.take_all():
            self._part_with(connection)
        self.waiters.tell(STOPPING)
        self.discard()
        self._end_rolling()
        for pool in self.pools():
            pool.drain()

    def kill(self) -> None:
        """End all workers of all generations by force, with what they started."""
        for pool in self.pools():
            pool.kill()

    async def ended(self) -> None:
        """Wait until no worker of any generation is left."""
        await asyncio.gather(*(pool.ended() for pool in self.pools()))

    # -- connections -------------------------------------------------------------------------------------------

    def place(self, connection: Connection) -> None:
        """Give ``connection`` to the least busy worker, or let it wait."""
        if self._stopping and self.successor is not None:
            self.successor.take(connection)
        elif self._stopping or (connection.bound is not None and connection.bound.app is not connection.app):
            # Its listener is another app's by now, or nobody's.
            self._pass_on(connection)
        elif self._queue or not self._give(connection):
            self._keep_waiting(connection)

    def _keep_waiting(self, connection: Connection) -> None:
        lend, turn_away = self._recourse.lend, self._recourse.turn_away
        if self.is_hopeless and lend is not None and lend(connection):
            return
        if self._queue.is_full and turn_away is not None and connection.bound is not None:
            self.ledger.refused(QUEUE_FULL.code)
            turn_away(connection)
            return
        self._queue.add(connection)
        self._queue.retry_soon()

    def over(self, connection: Connection) -> None:
        """Its other side has left."""
        if connection.worker is not None:
            # The worker may still be answering a half-closed client, so only our duplicate goes.
            connection.worker.drop(connection)
            self._connections.forget(connection)
        else:
            self._queue.discard(connection)
            if self.successor is not None:
                self.successor.left(connection)
            self._connections.end(connection)

    def _part_with(self, connection: Connection) -> None:
        """This app is told to go, and ``connection`` is idle, as far as anybody knows."""
        if self.successor is None:
            self._pass_on(connection)
        else:
            self._connections.park(connection)

    def _pass_on(self, connection: Connection) -> None:
        if self._recourse.pass_on is None:
            self._connections.end(connection)
        else:
            self._recourse.pass_on(connection, self)

    def _give(self, connection: Connection) -> bool:
        ready = self.pool.ready
        self._turn += 1
        loads = [worker.load() for worker in ready]
        index = choose(loads, self._turn) if len(loads) != 1 else None if loads[0].saturated else 0
        if index is None or not ready[index].give(connection):
            return False
        self._connections.watch(connection)
        return True

    def serve_waiting(self) -> None:
        """Give away what waits, as far as there are workers to take it."""
        if self.pool.ready:
            self.waiters.tell(None)
        self._queue.serve()

    def even_out(self) -> None:
        """To be called every second or so: after a death or a slow spell some workers hold more than their share."""
        ready = self.pool.ready
        for worker, surplus in zip(ready, excess([worker.connections for worker in ready]), strict=True):
            if surplus:
                worker.shed(surplus)

    # -- those who ask whether there is a worker --------------------------------------------------------------

    @property
    def is_hopeless(self) -> bool:
        """There is no worker, and there have been many failures in a row, or its code is broken."""
        return not self.pool.ready and (self._broken is not None or self.pool.is_hopeless)

    @property
    def is_broken(self) -> bool:
        """Its code has changed, does not start, and the old is not wanted."""
        return self._broken is not None and not self.attempts

    @property
    def failure(self) -> StartFailed | None:
        """Why it has no worker, if one has failed."""
        return None if self.pool.ready else self._broken or self.pool.last_failure

    @property
    def is_stopping(self) -> bool:
        """It was told to go."""
        return self._stopping

    @property
    def successor(self) -> Successor | None:
        """Whose its connections are that come back, since it was told to go."""
        return self._recourse.successor if self._is_succeeded else None

    @property
    def is_idle(self) -> bool:
        """Nothing is being answered, and nobody waits."""
        return not self._queue and not any(worker.load().busy for worker in self.pool.ready)

    @property
    def has_open_ends(self) -> bool:
        """See ``Worker.has_open_ends``."""
        return any(worker.has_open_ends for worker in self.pool.ready)

    def requests_begun(self) -> int:
        """A number that grows with each request, for as long as no worker is replaced."""
        return sum(worker.requests() for worker in self.pool.ready)

    def when_ready(self, token: Hashable, tell: Callable[[Refusal | None], None]) -> None:
        """Call ``tell(None)`` once there is a worker, at once if there is; with a refusal when there will be none."""
        if self.pool.ready:
            tell(None)
        elif self._stopping:
            tell(STOPPING)
        elif self._broken is not None:
            tell(self._refusal_of(self._broken))
        elif self.is_hopeless and self.pool.last_failure is not None:
            tell(of_failure(self.pool.last_failure))
        else:
            self.waiters.add(token, tell)

    def _refusal_of(self, failure: StartFailed) -> Refusal:
        return of_unstarted(failure, self._retry_after_s) if self.attempts else of_broken(failure)

    def worker_failed(self, failure: StartFailed, is_hopeless: bool) -> None:
        """A worker ended against our will and is started again."""
        if not is_hopeless or self.pool.ready:
            return
        self.waiters.tell(of_failure(failure))
        self.place_waiting_again()

    def place_waiting_again(self) -> None:
        """Perhaps there is somebody now who takes what waits."""
        for connection in self._queue.take_all():
            self.place(connection)

    def asked(self, worker: Worker, message: Need | Unneed) -> None:
        """An app's worker never asks for links: its channel has no such message."""
        raise AssertionError(message)

    # -- what workers give back --------------------------------------------------------------------------------

    def returned(self, connection: Connection, worker: Worker) -> None:
        """``worker`` gave it back at a request boundary."""
        if self._stopping:
            self._part_with(connection)
        elif worker in self.pool.ready:
            # Given back because the worker is busy. Its next request, not an idle connection, decides who gets it.
            self._connections.park(connection)
        else:
            self.place(connection)

    def orphaned(self, connection: Connection, state: int) -> None:
        """Its worker is dead: what that worker had not begun to read is as good as new."""
        connection.worker = None
        if state not in (vitals.SLOT_GIVEN, vitals.SLOT_IDLE, vitals.SLOT_RETURNED):
            self._connections.end(connection)
        elif self._stopping:
            self._part_with(connection)
        else:
            self.place(connection)
