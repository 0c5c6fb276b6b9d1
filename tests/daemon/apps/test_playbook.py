"""An app's decisions alone, without a process: whatever happens, in whatever order, every connection is somewhere,
every place is filled again while the app is wanted, and nothing is left once it is not.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable
from enum import Enum

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caddysnake.daemon.apps.generation import (
    TRANSITIONS,
    Drain,
    Generation,
    NotStarted,
    Order,
    PoolEvent,
    PoolOrder,
    PoolState,
    Spawn,
    TellFailed,
)
from caddysnake.daemon.apps.queue import Waiters
from caddysnake.daemon.apps.spec import StartFailed
from caddysnake.daemon.apps.takeover import Act, Do, Fate, Takeover, TellWaiters
from caddysnake.daemon.apps.takeover import Order as AppOrder
from caddysnake.daemon.sockets.refusals import Refusal
from caddysnake.daemon.system.backoff import Backoff

BROKEN = StartFailed("app", "import-failed", "no database")
SIZE = 3


class Stage(Enum):
    """What a worker of the playbook does."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    DYING = "dying"  # it has failed, or was killed
    EXITED = "exited"


class Worker:
    """A worker that does what the playbook says, and the connections it has."""

    def __init__(self, pool: Pool, place: int, number: int) -> None:
        self.number = number
        self.pool = pool
        self.place = place
        self.stage = Stage.STARTING
        self.is_wanted = True
        self.is_reported = False
        self.connections: list[int] = []

    def drain(self) -> None:
        self.is_wanted = False
        if self.stage is Stage.STARTING:
            self.stage = Stage.DYING
        elif self.stage is Stage.READY:
            self.stage = Stage.DRAINING
            self.pool.core.withdrawn(self)


class Pool:
    """A generation, and the starts that are under way in it."""

    def __init__(self, number: int, size: int = SIZE) -> None:
        self.number = number
        self.core = Generation[Worker](size, Backoff(random.Random(0)))
        self.starts: list[int] = []
        self.outcomes: list[bool] = []
        """Whether it is up: told to who waits for its start, once."""
        self.awaited: int | None = None
        """The place that its growth waits for."""


Happening = Callable[[], None]


class World:
    """One app: all that may happen to it next, and what must hold after each of these."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.is_calm = False
        """Nothing fails any more, and nobody asks for anything new."""
        self.numbers = itertools.count()
        self.takeover = Takeover(Pool(next(self.numbers)))
        self.growing: Pool | None = None
        self.ended_growth: list[Pool] = []
        self.retired: list[Pool] = []
        self.queue: list[int] = []
        self.parked: list[int] = []
        self.away: list[int] = []
        self.served: list[int] = []
        self.waiters = Waiters()
        self.told: list[int] = []
        self.asked = 0
        self.pool_orders(self.takeover.present, self.takeover.present.core.start())

    # -- orders

    def pool_orders(self, pool: Pool, orders: Iterable[Order[Worker]]) -> None:
        for order in orders:
            match order:
                case Spawn(place):
                    assert pool.core.is_kept, "nothing is started where nothing is to run"
                    pool.starts.append(place)
                case Drain(worker):
                    worker.drain()
                case PoolOrder.TELL_STARTED:
                    pool.outcomes.append(True)
                case NotStarted():
                    pool.outcomes.append(False)
                case PoolOrder.CANCEL_STARTS:
                    pool.starts.clear()
                case PoolOrder.SERVE_WAITING:
                    self.serve()
                case TellFailed(failure, is_hopeless):
                    has_ready = bool(self.takeover.present.core.ready)
                    self.app_orders(self.takeover.worker_failed(failure, is_hopeless, has_ready))

    def app_orders(self, orders: Iterable[AppOrder[Pool]]) -> None:
        for order in orders:
            if isinstance(order, TellWaiters):
                self.waiters.tell(order.refusal)
                continue
            match order:
                case Act(Do.END_GROWTH):
                    if self.growing is not None:
                        self.ended_growth.append(self.growing)
                        self.growing = None
                case Act(Do.SERVE_WAITING):
                    self.serve()
                case Act(Do.PLACE_AGAIN):
                    queue, self.queue = self.queue, []
                    for connection in queue:
                        self.place(connection)
                case Act(Do.PART_WITH_QUEUE):
                    queue, self.queue = self.queue, []
                    for connection in queue:
                        self.see_to(connection, self.takeover.idle())
                case Act(what, Pool() as pool):
                    self.do(what, pool)

    def do(self, what: Do, pool: Pool) -> None:
        if what is Do.WIND_DOWN:
            self.pool_orders(pool, pool.core.wind_down())
        elif what is Do.DRAIN_ONE:
            self.pool_orders(pool, pool.core.drain_one())
        elif what is Do.GROW:
            self.growing = pool
        elif what is Do.KILL:
            self.kill(pool)
        else:
            self.pool_orders(pool, pool.core.drain(keeps=what is not Do.STOP))
            if what is Do.RETIRE:
                self.retired.append(pool)

    def kill(self, pool: Pool) -> None:
        for worker in [*pool.core.workers.values(), *pool.core.leaving]:
            if worker.stage is not Stage.EXITED:
                worker.stage = Stage.DYING

    def kill_all(self) -> None:
        for pool in self.pools():
            self.kill(pool)

    # -- connections

    def place(self, connection: int) -> None:
        fate = self.takeover.placed(is_foreign=False)
        if fate is not Fate.PLACE:
            self.see_to(connection, fate)
        elif self.takeover.present.core.ready and not self.queue:
            self.give(connection)
        else:
            self.queue.append(connection)

    def give(self, connection: int) -> None:
        worker = self.dice.choice(self.takeover.present.core.ready)
        assert worker.stage in (Stage.READY, Stage.DYING)
        worker.connections.append(connection)

    def serve(self) -> None:
        if self.takeover.present.core.ready:
            self.waiters.tell(None)
            while self.queue:
                self.give(self.queue.pop(0))

    def see_to(self, connection: int, fate: Fate) -> None:
        if fate is Fate.PLACE:
            self.place(connection)
        else:
            (self.parked if fate is Fate.PARK else self.away).append(connection)

    # -- what may happen

    def pools(self) -> list[Pool]:
        return sorted({*self.takeover.all(), *self.retired}, key=lambda pool: pool.number)

    def happenings(self) -> list[Happening]:
        found: list[Happening] = []
        for pool in self.pools():
            found += [lambda pool=pool, place=place: self.fork(pool, place) for place in pool.starts]  # type: ignore[misc]
            for worker in sorted(pool.core.everyone(), key=lambda worker: worker.number):
                found += self.happenings_of(worker)
        if not self.is_calm:
            found += [self.arrive, self.ask, *([self.come_back] if self.parked else [])]
        found += [lambda pool=pool: self.gone(pool) for pool in self.retired if self.is_empty(pool)]  # type: ignore[misc]
        found += [lambda former=former: self.growth_over(former) for former in self.ended_growth]  # type: ignore[misc]
        if self.growing is not None:
            found.append(self.grow)
        coming = self.takeover.coming
        if self.takeover.present.core.state is PoolState.FAILED and not self.takeover.is_stopping:
            found.append(lambda: self.app_orders(self.takeover.not_started(BROKEN, retry_after_s=1)))
        if coming is not None and coming.outcomes:
            found.append(self.swap if coming.outcomes[0] else lambda: self.app_orders(self.takeover.discard()))
        return found

    def happenings_of(self, worker: Worker) -> list[Happening]:
        found: list[Happening] = []
        core = worker.pool.core
        if worker.stage is Stage.STARTING:
            found = [lambda: self.ready(worker)]
            if not self.is_calm:
                found += [lambda: self.fails(worker), lambda: self.dies(worker)]
        elif worker.stage is Stage.READY and not self.is_calm:
            found = [lambda: self.dies(worker)]
            if core.may_replace:
                found.append(lambda: self.pool_orders(worker.pool, core.replace(worker.place, worker)))
        elif worker.stage is Stage.DRAINING:
            found = [lambda: self.exits(worker)]
            if worker.connections:
                found.append(lambda: self.see_to(worker.connections.pop(), self.takeover.returned(is_ready=False)))
            if not self.is_calm:
                found.append(lambda: self.kill(worker.pool))
        elif worker.stage is Stage.DYING:
            found = [lambda: self.exits(worker)]
        elif worker.stage is Stage.EXITED:
            found = [lambda: self.reaped(worker)]
        return found

    def fork(self, pool: Pool, place: int) -> None:
        pool.starts.remove(place)
        if self.dice.random() < 0.2 and not self.is_calm:
            self.pool_orders(pool, pool.core.failed(place, BROKEN))
            return
        pool.core.begun(place, Worker(pool, place, next(self.numbers)))

    def ready(self, worker: Worker) -> None:
        worker.stage = Stage.READY
        self.pool_orders(worker.pool, worker.pool.core.admitted(worker.place, worker))

    def fails(self, worker: Worker) -> None:
        """It says why, and is not gone yet."""
        worker.stage = Stage.DYING
        self.report(worker)

    def dies(self, worker: Worker) -> None:
        """It tells nothing."""
        worker.stage = Stage.DYING

    def report(self, worker: Worker) -> None:
        worker.is_reported = True
        core = worker.pool.core
        if not core.was_superseded(worker.place, worker):
            self.pool_orders(worker.pool, core.failed(worker.place, BROKEN, has_served=self.dice.random() < 0.5))

    def exits(self, worker: Worker) -> None:
        worker.stage = Stage.EXITED
        worker.pool.core.exited(worker.place, worker)
        connections, worker.connections = worker.connections, []
        for connection in connections:
            self.see_to(connection, self.takeover.orphaned(is_untouched=self.dice.random() < 0.7))

    def reaped(self, worker: Worker) -> None:
        worker.pool.core.ended(worker)
        if worker.is_wanted and not worker.is_reported:
            self.report(worker)

    def arrive(self) -> None:
        self.served.append(next(self.numbers))
        self.place(self.served[-1])

    def come_back(self) -> None:
        self.place(self.parked.pop())

    def ask(self) -> None:
        number, self.asked = self.asked, self.asked + 1

        def tell(refusal: Refusal | None) -> None:
            self.told.append(number)

        core = self.takeover.present.core
        refusal = self.takeover.refusal(core.last_failure if core.backoff.exhausted else None)
        if core.ready or refusal is not None:
            tell(refusal)
        else:
            self.waiters[number] = tell

    def is_empty(self, pool: Pool) -> bool:
        return not pool.core.everyone() and not pool.starts

    def gone(self, pool: Pool) -> None:
        self.retired.remove(pool)
        self.takeover.gone(pool)

    def swap(self) -> None:
        coming = self.takeover.coming
        assert coming is not None
        self.app_orders(self.takeover.swap(coming.core.is_growing))

    def grow(self) -> None:
        present, former = self.takeover.present, self.growing
        assert former is not None
        if present.awaited is None:
            orders = present.core.grow()
            if not orders:
                self.growing = None
                self.growth_over(former)
                return
            present.awaited = present.core.goal - 1
            self.pool_orders(present, orders)
        elif any(worker.place == present.awaited for worker in present.core.ready):
            present.awaited = None
            self.pool_orders(former, former.core.drain_one())

    def growth_over(self, former: Pool) -> None:
        if former in self.ended_growth:
            self.ended_growth.remove(former)
        self.app_orders(self.takeover.retire(former))

    # -- what somebody asks for

    def reload(self, is_rolling: bool) -> None:
        if self.takeover.coming is None and not self.takeover.is_stopping:
            coming = self.takeover.coming = Pool(next(self.numbers))
            self.pool_orders(coming, coming.core.start(first=int(is_rolling)))

    def stop(self, is_succeeded: bool) -> None:
        self.app_orders(self.takeover.stop(is_succeeded))

    def fail(self) -> None:
        if not self.takeover.is_stopping:
            self.app_orders(self.takeover.fail(BROKEN))

    def step(self) -> None:
        happenings = self.happenings()
        if happenings:
            self.dice.choice(happenings)()
        self.check()

    def settle(self) -> None:
        """Let all that is under way happen, and nothing new."""
        self.is_calm = True
        for _ in range(2000):
            found = self.happenings()
            waits_only = self.growing is not None and len(found) == 1 and self.takeover.present.awaited is not None
            if not found or (waits_only and not self.can_grow()):
                return
            self.dice.choice(found)()
            self.check()
        raise AssertionError("it never comes to rest")

    def can_grow(self) -> bool:
        present = self.takeover.present
        return any(worker.place == present.awaited for worker in present.core.ready)

    # -- what must hold

    def check(self) -> None:
        for pool in self.pools():
            core = pool.core
            assert len(pool.outcomes) <= 1, "who waits for a start is told once"
            assert all(worker.place == place for place, worker in core.workers.items())
            assert len(set(core.workers.values())) == len(core.workers)
            still_ready = {worker for worker in core.leaving & set(core.ready) if worker.stage is Stage.READY}
            assert still_ready <= set(core.replacing.values()), "who serves has a place, or is being replaced"
            assert all(worker.stage in (Stage.READY, Stage.DYING) for worker in core.ready)
            assert core.goal <= core.size
        held = [each for pool in self.pools() for worker in pool.core.everyone() for each in worker.connections]
        somewhere = [*held, *self.queue, *self.parked, *self.away]
        assert sorted(somewhere) == sorted(self.served), "no connection is lost, or in two places"
        if self.takeover.present.core.ready:
            assert not self.queue, "nothing waits while somebody could serve it"
            assert not len(self.waiters)
        if self.takeover.is_stopping:
            assert not self.queue
            assert not len(self.waiters)
            assert self.takeover.coming is None

    def check_rest(self) -> None:
        """After ``settle``."""
        assert not len(self.waiters) or not self.takeover.present.core.is_kept
        assert not self.takeover.former, "what was let go is gone"
        present = self.takeover.present.core
        if self.takeover.is_stopping:
            assert not present.everyone()
        elif present.is_kept:
            assert len(present.ready) == present.size, "every place is filled again"
            assert present.everyone() == set(present.ready)
            assert not self.queue
        else:
            assert not present.ready


WISHES: dict[str, Callable[[World], None]] = {
    "reload": lambda world: world.reload(is_rolling=False),
    "rolling reload": lambda world: world.reload(is_rolling=True),
    "kill": World.kill_all,
    "fail": World.fail,
    "stop": lambda world: world.stop(is_succeeded=False),
    "make way": lambda world: world.stop(is_succeeded=True),
    "give up": lambda world: world.app_orders(world.takeover.discard()),
}


@settings(max_examples=200, deadline=None)
@given(
    dice=st.randoms(use_true_random=False),
    wishes=st.lists(st.tuples(st.sampled_from(sorted(WISHES)), st.integers(0, 12)), max_size=8),
)
def test_whatever_happens_in_whatever_order_nothing_is_lost_and_every_place_is_filled(
    dice: random.Random, wishes: list[tuple[str, int]]
) -> None:
    world = World(dice)
    for wish, steps in wishes:
        for _ in range(steps):
            world.step()
        WISHES[wish](world)
        world.check()
    world.settle()
    world.check_rest()


@pytest.mark.parametrize("seed", range(40))
def test_an_app_that_is_reloaded_again_and_again_ends_with_the_last_generation(seed: int) -> None:
    world = World(random.Random(seed))
    for turn in range(6):
        for _ in range(world.dice.randrange(15)):
            world.step()
        world.reload(is_rolling=bool(turn & 1))
    world.settle()
    world.check_rest()
    world.stop(is_succeeded=False)
    world.settle()
    world.check_rest()


# -- single races, in every order -------------------------------------------------------------------------------------


def serving(size: int = 2) -> tuple[Generation[str], list[str]]:
    core = Generation[str](size, Backoff(random.Random(0)))
    core.start()
    workers = [f"worker {place}" for place in range(size)]
    for place, worker in enumerate(workers):
        core.begun(place, worker)
        core.admitted(place, worker)
    assert core.state is PoolState.SERVING
    return core, workers


def in_order(events: list[str], *pairs: tuple[str, str]) -> bool:
    """The first of each pair comes before the second."""
    return all(events.index(first) < events.index(second) for first, second in pairs)


ENDS = [
    list(events)
    for events in itertools.permutations(["fails", "exits", "is gone", "successor begins", "successor is ready"])
    if in_order(
        list(events),
        ("exits", "is gone"),
        ("fails", "successor begins"),
        ("successor begins", "successor is ready"),
    )
]


@pytest.mark.parametrize("events", ENDS, ids=", ".join)
def test_whoever_failed_leaves_its_place_to_its_successor_be_it_gone_or_not(events: list[str]) -> None:
    core, (first, second) = serving()
    happen: dict[str, Callable[[], object]] = {
        "fails": lambda: core.failed(0, BROKEN),
        "exits": lambda: core.exited(0, first),
        "is gone": lambda: core.ended(first),
        "successor begins": lambda: core.begun(0, "successor"),
        "successor is ready": lambda: core.admitted(0, "successor"),
    }
    core.withdrawn(first)
    for event in events:
        happen[event]()
    assert core.workers == {0: "successor", 1: second}
    assert sorted(core.ready) == ["successor", second]
    assert not core.leaving
    assert core.restarts == 1


@pytest.mark.parametrize("order", list(itertools.permutations(["worker 0 is ready", "it is let go", "worker 1 fails"])))
def test_who_waits_for_a_start_is_told_once_whatever_comes_first(order: tuple[str, ...]) -> None:
    core = Generation[str](2, Backoff(random.Random(0)))
    told: list[Order[str]] = []
    assert [each.place for each in core.start() if isinstance(each, Spawn)] == [0, 1]
    for place in range(2):
        core.begun(place, f"worker {place}")
    happen: dict[str, Callable[[], list[Order[str]]]] = {
        "worker 0 is ready": lambda: core.admitted(0, "worker 0"),
        "it is let go": lambda: core.drain(keeps=True),
        "worker 1 fails": lambda: core.failed(1, BROKEN),
    }
    for event in order:
        orders = happen[event]()
        told += [each for each in orders if isinstance(each, NotStarted | Spawn) or each is PoolOrder.TELL_STARTED]
    why = BROKEN if order.index("worker 1 fails") < order.index("it is let go") else None
    assert told == [NotStarted(why)]


def test_a_generation_that_is_replaced_while_it_starts_is_told_so_at_once() -> None:
    core = Generation[str](2)
    core.start(first=1)
    assert core.wind_down() == [NotStarted(None), PoolOrder.CANCEL_STARTS]
    assert core.admitted(0, "late") == [PoolOrder.SERVE_WAITING]
    assert [core.failed(0, BROKEN), core.failed(0, BROKEN), core.grow()] == [[], [], []]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_whoever_is_killed_while_it_drains_is_not_started_again(order: tuple[int, ...]) -> None:
    core, workers = serving(3)
    assert {each.worker for each in core.drain(keeps=True) if isinstance(each, Drain)} == set(workers)
    for place in order:
        core.exited(place, workers[place])
        assert core.failed(place, BROKEN) == []
        core.ended(workers[place])
    assert not core.everyone()


def test_a_worker_that_dies_while_it_is_replaced_is_replaced_once() -> None:
    core, (first, _) = serving()
    assert core.replace(0, first) == [Spawn(0)]
    assert not core.may_replace
    core.begun(0, "successor")
    core.exited(0, first)
    assert core.was_superseded(0, first)
    assert core.admitted(0, "successor") == [PoolOrder.SERVE_WAITING]
    assert core.restarts == 0
    assert core.is_whole


def test_what_can_happen_to_a_generation_is_in_its_table_for_every_state() -> None:
    for state in PoolState:
        assert TRANSITIONS[state, PoolEvent.DRAIN] is PoolState.DRAINING
        assert (state, PoolEvent.WIND_DOWN) in TRANSITIONS
        assert (state, PoolEvent.FAILED) in TRANSITIONS
