"""Who lives, starts, waits or is refused: decisions alone, with a clock of the test's own."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.house import run, until

from caddysnake.daemon.sockets.refusals import CAPACITY, NO_SUCH_APP, QUEUE_FULL, Refusal
from caddysnake.daemon.system.timings import Timings
from caddysnake.daemon.tenants import policy as tenants_module
from caddysnake.daemon.tenants.policy import ABSENT_S, FAILURE_S, Admission, TenantPolicy, TenantStage
from caddysnake.daemon.workers.forking.start_limiter import Starting, StartLimiter

USE, WAIT = Admission.USE, Admission.WAIT
BROKEN = Refusal(500, "import-failed", "no database", 5)


class Town:
    """Tenants, and which of them are busy."""

    def __init__(self, capacity: int = 8, max_queue: int = 8, idle_timeout_s: float | None = 60.0) -> None:
        self.busy: set[str] = set()
        self.tenants = TenantPolicy[str](capacity, max_queue, idle_timeout_s, lambda key: key not in self.busy)

    def live(self, *keys: str, now: float = 0.0) -> None:
        for key in keys:
            assert self.tenants.need(key, now) is WAIT
            assert self.tenants.next_start() == key
            self.tenants.started(key, now)


def test_an_app_is_started_once_however_many_ask() -> None:
    tenants = Town().tenants
    assert [tenants.need("a", 0.0) for _ in range(5)] == [WAIT] * 5
    assert tenants.next_start() == "a"
    assert tenants.next_start() is None
    assert tenants.need("a", 0.1) is WAIT
    tenants.started("a", 1.0)
    assert tenants.need("a", 1.0) is USE
    assert tenants.waiting("a") == 0


def test_who_comes_first_is_started_first() -> None:
    tenants = Town().tenants
    for key in "cabac":
        tenants.need(key, 0.0)
    assert [tenants.next_start() for _ in range(4)] == ["c", "a", "b", None]


def test_what_nobody_waits_for_any_more_is_not_started() -> None:
    tenants = Town().tenants
    for key in "aab":
        tenants.need(key, 0.0)
    tenants.unneed("a")
    tenants.unneed("a")
    assert tenants.next_start() == "b"
    assert tenants.stage("a") is None
    assert tenants.need("a", 0.0) is WAIT


def test_a_place_in_the_queue_is_kept_while_somebody_waits() -> None:
    tenants = Town().tenants
    for key in "aab":
        tenants.need(key, 0.0)
    tenants.unneed("a")
    assert tenants.next_start() == "a"


def test_as_many_wait_for_an_app_as_may() -> None:
    tenants = Town(max_queue=2).tenants
    assert [tenants.need("a", 0.0) for _ in range(3)] == [WAIT, WAIT, QUEUE_FULL]
    assert tenants.need("b", 0.0) is WAIT
    tenants.unneed("a")
    assert tenants.need("a", 0.0) is WAIT


def test_room_is_made_by_the_least_recently_used() -> None:
    town = Town(capacity=3)
    town.live("a", "b", "c")
    town.tenants.need("a", 1.0)
    town.tenants.touch("b", 2.0)
    assert town.tenants.need("d", 3.0) is WAIT
    assert town.tenants.take_evicted() == ["c"]
    assert town.tenants.take_evicted() == []
    assert town.tenants.stage("c") is None
    assert town.tenants.need("e", 3.0) is WAIT
    assert town.tenants.take_evicted() == ["a"]


def test_a_busy_app_is_not_let_go_for_another() -> None:
    town = Town(capacity=2)
    town.live("a", "b")
    town.busy = {"a"}
    assert town.tenants.need("c", 1.0) is WAIT
    assert town.tenants.take_evicted() == ["b"]
    assert town.tenants.need("d", 1.0) is CAPACITY
    town.busy = set()
    assert town.tenants.need("d", 1.0) is WAIT


def test_apps_that_start_are_not_let_go_for_another() -> None:
    tenants = Town(capacity=1).tenants
    tenants.need("a", 0.0)
    assert tenants.need("b", 0.0) is CAPACITY
    tenants.next_start()
    assert tenants.need("b", 0.0) is CAPACITY
    assert tenants.refusal("b", 0.0) is None, "for want of room nothing is remembered"


def test_a_failure_is_remembered_for_a_while() -> None:
    tenants = Town().tenants
    tenants.need("a", 0.0)
    tenants.next_start()
    tenants.failed("a", BROKEN, 1.0)
    assert tenants.stage("a") is None
    assert tenants.need("a", 1.0) is BROKEN
    assert tenants.need("a", 0.9 + FAILURE_S) is BROKEN
    assert tenants.next_start() is None
    assert tenants.need("a", 1.0 + FAILURE_S) is WAIT


def test_what_failed_may_be_tried_again_when_its_code_changes() -> None:
    tenants = Town().tenants
    for key in "ab":
        tenants.need(key, 0.0)
        tenants.next_start()
        tenants.failed(key, BROKEN, 0.0)
    tenants.forgive("a")
    assert tenants.need("a", 0.0) is WAIT
    assert tenants.need("b", 0.0) is BROKEN
    tenants.forgive_all()
    assert tenants.need("b", 0.0) is WAIT


def test_a_million_names_leave_nothing_behind_and_forgive_no_failure() -> None:
    tenants = Town().tenants
    tenants.need("broken", 0.0)
    tenants.next_start()
    tenants.failed("broken", BROKEN, 0.0)
    for number in range(tenants_module.REMEMBERED_MAX * 3):
        tenants.absent(f"x{number}", NO_SUCH_APP, 0.0)
    assert tenants.remembered <= tenants_module.REMEMBERED_MAX + 1
    assert len(tenants) == 0
    assert tenants.need("broken", 1.0) is BROKEN


def test_that_an_app_is_absent_is_remembered_for_a_moment_only() -> None:
    tenants = Town().tenants
    tenants.absent("a", NO_SUCH_APP, 0.0)
    assert tenants.need("a", ABSENT_S / 2) is NO_SUCH_APP
    assert tenants.need("a", ABSENT_S) is WAIT


def test_nobody_waits_for_what_is_leaving() -> None:
    town = Town()
    town.live("a")
    town.tenants.release("a")
    assert town.tenants.need("a", 0.0) is WAIT
    assert town.tenants.next_start() == "a"


def test_apps_that_nobody_asks_for_expire() -> None:
    town = Town(idle_timeout_s=10.0)
    town.live("a", "b", "c")
    town.tenants.need("b", 5.0)
    town.busy = {"c"}
    assert town.tenants.expired(9.9) == []
    assert town.tenants.expired(10.0) == ["a"]
    town.busy = set()
    assert town.tenants.expired(15.0) == ["a", "c", "b"]


def test_without_an_idle_timeout_nothing_expires() -> None:
    town = Town(idle_timeout_s=None)
    town.live("a")
    assert town.tenants.expired(1e9) == []


def test_use_is_of_no_meaning_for_what_is_not_live() -> None:
    town = Town()
    town.tenants.touch("a", 0.0)
    town.tenants.need("b", 0.0)
    town.tenants.touch("b", 0.0)
    assert town.tenants.expired(1e9) == []


def test_other_limits_may_hold_later() -> None:
    town = Town(capacity=1, max_queue=1)
    town.live("a")
    town.busy = {"a"}
    assert town.tenants.need("b", 0.0) is CAPACITY
    town.tenants.limit(2, 2, None)
    assert [town.tenants.need("b", 0.0) for _ in range(3)] == [WAIT, WAIT, QUEUE_FULL]


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["need", "unneed", "start", "started", "failed", "busy", "idle", "sweep", "time", "absent"]),
        st.sampled_from("abcdef"),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(EVENTS, st.integers(1, 4), st.integers(1, 3))
def test_whatever_happens_nobody_is_forgotten_and_no_limit_is_passed(
    events: list[tuple[str, str]], capacity: int, max_queue: int
) -> None:
    town = Town(capacity, max_queue, idle_timeout_s=10.0)
    tenants = town.tenants
    waiting: dict[str, int] = {}
    now = 0.0
    for event, key in events:
        stage = tenants.stage(key)
        if event == "need":
            answer = tenants.need(key, now)
            if answer is WAIT:
                waiting[key] = waiting.get(key, 0) + 1
            assert (answer is USE) == (stage is TenantStage.LIVE)
            for evicted in tenants.take_evicted():
                assert evicted not in town.busy
                assert not waiting.get(evicted)
        elif event == "unneed" and waiting.get(key):
            tenants.unneed(key)
            waiting[key] -= 1
        elif event == "start":
            first = tenants.next_start()
            assert first is None or waiting[first]
        elif event == "started" and stage is TenantStage.STARTING:
            tenants.started(key, now)
            waiting.pop(key, None)
        elif event == "failed" and stage is TenantStage.STARTING:
            tenants.failed(key, BROKEN, now)
            waiting.pop(key, None)
            assert tenants.need(key, now) is BROKEN
        elif event == "absent" and stage is None:
            tenants.absent(key, NO_SUCH_APP, now)
        elif event in ("busy", "idle"):
            (town.busy.add if event == "busy" else town.busy.discard)(key)
        elif event == "sweep":
            for expired in tenants.expired(now):
                assert tenants.stage(expired) is TenantStage.LIVE
                assert expired not in town.busy
                tenants.release(expired)
        elif event == "time":
            now += 4.0
        assert len(tenants) <= capacity
        assert all(tenants.waiting(each) == waiting.get(each, 0) <= max_queue for each in "abcdef")
        early = (TenantStage.QUEUED, TenantStage.STARTING)
        assert all(tenants.stage(each) in early for each, count in waiting.items() if count)
    begun = {key for key in tenants if tenants.stage(key) is TenantStage.STARTING}
    while (started := tenants.next_start()) is not None:
        begun.add(started)
    assert begun >= {key for key, count in waiting.items() if count}, "whoever waits is started sooner or later"


# How many start at a time


class Queue:
    """A starter whose apps start for as long as the test likes."""

    def __init__(self, pids: Callable[[str], list[int]] = lambda key: []) -> None:
        self.keys: list[str] = []
        self.begun: dict[str, asyncio.Event] = {}
        self._pids = pids
        self.ranks: dict[str, tuple[int, int]] = {}
        self.late: list[str] = []

    def start_next(self) -> Starting | None:
        key = self.keys.pop(0)
        if key == "nobody waits":
            return None
        over = self.begun[key] = asyncio.Event()

        async def start() -> None:
            await over.wait()

        task = asyncio.get_running_loop().create_task(start())
        return Starting(task, lambda: self._pids(key), used_up=lambda: self.late.append(key))

    def rank(self) -> tuple[int, int]:
        return self.ranks.get(self.keys[0], (0, 0)) if self.keys else (0, 0)

    def end(self) -> None:
        for over in self.begun.values():
            over.set()


def test_starts_are_few_at_a_time_and_first_come_first_served() -> None:
    async def work() -> None:
        starts, first, second = StartLimiter(2), Queue(), Queue()
        for queue, key in ((first, "a"), (second, "b"), (first, "nobody waits"), (second, "c"), (first, "d")):
            queue.keys.append(key)
            starts.want(queue)
        assert [*first.begun, *second.begun] == ["a", "b"]
        first.begun["a"].set()
        await until(lambda: "c" in second.begun)
        assert "d" not in first.begun
        second.end()
        await until(lambda: "d" in first.begun)
        first.end()

    run(work())


@pytest.fixture
def sleeper() -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process.pid
    process.kill()
    process.wait()


@pytest.fixture
def worker_at_work() -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-c", "import os; os.nice(19)\nwhile True: pass"])
    yield process.pid
    process.kill()
    process.wait()


def test_a_start_that_only_waits_does_not_keep_others_waiting(sleeper: int) -> None:
    async def work() -> None:
        starts, queue = StartLimiter(1), Queue(lambda key: [sleeper])
        for key in ("a", "b", "c"):
            queue.keys.append(key)
            starts.want(queue)
        assert list(queue.begun) == ["a"]
        await until(lambda: "c" in queue.begun)
        queue.end()

    run(work())


def test_a_start_that_works_keeps_its_core_until_it_takes_too_long(worker_at_work: int) -> None:
    async def work() -> None:
        starts, queue = StartLimiter(1, Timings(start_counts_s=1.5)), Queue(lambda key: [worker_at_work])
        begun_at = asyncio.get_running_loop().time()
        for key in ("a", "b"):
            queue.keys.append(key)
            starts.want(queue)
        await until(lambda: "b" in queue.begun)
        assert asyncio.get_running_loop().time() - begun_at > 0.7
        assert queue.late == ["a"]
        queue.end()

    run(work())


def test_who_lately_failed_goes_behind_and_waits_while_others_are_overdue(worker_at_work: int) -> None:
    async def work() -> None:
        starts, bad, good = StartLimiter(1), Queue(lambda key: [worker_at_work]), Queue()
        bad.ranks["again"] = (1, 0)
        for queue, key in ((bad, "spins"), (bad, "again"), (good, "good")):
            queue.keys.append(key)
            starts.want(queue)
        await until(lambda: "good" in good.begun, "the one that did nothing")
        assert "again" not in bad.begun
        good.end()
        await asyncio.sleep(0.3)
        assert "again" not in bad.begun, "one that is overdue is enough"
        bad.begun["spins"].set()
        await until(lambda: "again" in bad.begun, "the turn of who failed")
        bad.end()

    run(work())


def test_among_equals_those_go_first_whose_user_has_fewer_starts_under_way() -> None:
    tenants: TenantPolicy[str] = TenantPolicy(9, 9, None, lambda key: True)
    for key in ("a", "b", "c"):
        tenants.need(key, 0.0)
    ranks = {"a": (0, 2), "b": (0, 1), "c": (1, 0)}
    assert [tenants.next_start(ranks.__getitem__) for _ in "abcd"] == ["b", "a", "c", None]
