"""Which threads look for work: the pool's decisions, with the test in the place of threads and clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from support.daemon import eventually
from support.worker import PATIENCE_S

from caddysnake.worker.wsgi.thread_pool import TICK_S, ThreadPool, Watch


class Threads:
    """Real threads that do nothing but rest when asked; turns are the test's to move."""

    def __init__(self, size: int) -> None:
        self.woken = threading.Event()
        self.computing = False
        self.pool = ThreadPool(size, self.woken.set, lambda _: self.computing, has_gil=True)
        self.now = 100.0
        self._ends = False
        self._threads = [threading.Thread(target=self._run, args=(each,), daemon=True) for each in self.pool.threads]
        for thread in self._threads:
            thread.start()
        self.wait_for_resting(size - 1)

    def _run(self, thread: object) -> None:
        while not self._ends:
            if self.pool.surplus:
                self.pool.rest(thread)  # type: ignore[arg-type]
            time.sleep(0.001)

    def wait_for_resting(self, count: int) -> None:
        eventually(lambda: self.pool.resting == count, f"{count} threads that rest")

    def active(self) -> list[int]:
        return [thread.index for thread in self.pool.threads if thread not in self.pool._resting]

    def tick(self, seconds: float = TICK_S) -> Watch:
        self.now += seconds
        return self.pool.tick(self.now)

    def move(self, *indexes: int, turns: int = 1) -> None:
        for index in indexes:
            self.pool.threads[index].turn += turns

    def end(self) -> None:
        self._ends = True
        self.pool.dismiss()
        for thread in self._threads:
            thread.join(PATIENCE_S)


@pytest.fixture
def threads() -> Iterator[Threads]:
    threads = Threads(8)
    yield threads
    threads.end()


def stick(threads: Threads) -> None:
    """Every thread that looks for work begins a call and stays in it for two ticks."""
    for index in threads.active():
        if not threads.pool.threads[index].turn & 1:
            threads.move(index)
    threads.tick()


def test_at_first_one_thread_looks_for_work(threads: Threads) -> None:
    assert len(threads.active()) == 1


def test_short_calls_leave_the_others_at_rest(threads: Threads) -> None:
    (leader,) = threads.active()
    for _ in range(100):
        threads.move(leader, turns=2)
        assert threads.tick() is Watch.TICK
    assert len(threads.active()) == 1


def test_a_call_that_lasts_calls_up_another_and_then_more(threads: Threads) -> None:
    for expected in (2, 4, 8):
        stick(threads)
        threads.tick()
        assert len(threads.active()) == expected


def test_a_call_that_computes_is_not_helped_by_another_at_once(threads: Threads) -> None:
    threads.computing = True
    stick(threads)
    threads.tick()
    assert len(threads.active()) == 1
    threads.tick(0.1)  # but it does not keep the others waiting for good
    assert len(threads.active()) == 2


def test_nobody_is_called_up_while_one_still_waits_for_work(threads: Threads) -> None:
    stick(threads)
    threads.tick()
    first, second = threads.active()
    waiting = second if threads.pool.threads[first].turn & 1 else first
    assert not threads.pool.threads[waiting].turn & 1
    assert threads.tick() is Watch.SLEEP
    assert len(threads.active()) == 2


def test_the_watch_sleeps_when_nothing_moves_and_wakes_with_the_next_turn(threads: Threads) -> None:
    threads.pool.asleep = False
    assert threads.tick() is Watch.SLEEP
    assert threads.pool.asleep
    threads.pool.wake()
    assert not threads.pool.asleep
    assert threads.woken.is_set()


def test_when_all_are_stuck_it_is_said_once(threads: Threads) -> None:
    for _ in range(3):
        stick(threads)
        threads.tick()
    threads.move(*[index for index in threads.active() if not threads.pool.threads[index].turn & 1])
    threads.pool.asleep = False
    verdicts = []
    while not threads.pool.asleep:
        verdicts.append(threads.tick())
    assert verdicts[:-1] == [Watch.TICK] * (len(verdicts) - 1)
    assert verdicts[-1] is Watch.EXHAUSTED


def test_after_a_while_all_but_one_rest_again(threads: Threads) -> None:
    for _ in range(3):
        stick(threads)
        threads.tick()
    assert len(threads.active()) == 8
    threads.move(*[index for index in range(8) if threads.pool.threads[index].turn & 1])
    threads.move(0, turns=2)
    threads.tick(2.0)
    threads.wait_for_resting(7)


def test_the_while_grows_when_it_proves_too_short(threads: Threads) -> None:
    def call_up() -> None:
        stick(threads)
        threads.tick()
        while any(thread.turn & 1 for thread in threads.pool.threads):
            threads.move(*[thread.index for thread in threads.pool.threads if thread.turn & 1])

    call_up()
    threads.tick(1.1)
    threads.wait_for_resting(7)
    call_up()  # at once: that rest was premature
    threads.move(0, turns=2)
    threads.tick(1.1)
    assert not threads.pool.surplus
    threads.move(0, turns=2)
    threads.tick(1.1)
    threads.wait_for_resting(7)


def test_calls_that_wait_for_something_else_call_up_everyone(threads: Threads) -> None:
    for _ in range(10):
        threads.pool.sample(lambda: time.sleep(0.002))
    threads.wait_for_resting(0)


def test_calls_that_only_compute_do_not(threads: Threads) -> None:
    for _ in range(50):
        threads.pool.sample(lambda: sum(range(2000)))
    assert threads.pool.resting == 7


def test_a_few_calls_that_wait_among_many_do_not(threads: Threads) -> None:
    for index in range(64):
        threads.pool.sample(lambda: time.sleep(0.01) if index % 16 == 5 else None)  # noqa: B023 - called at once
    assert threads.pool.resting == 7


def test_a_call_that_raises_is_sampled_all_the_same(threads: Threads) -> None:
    def call() -> None:
        raise ValueError("the call's")

    with pytest.raises(ValueError, match="the call's"):
        threads.pool.sample(call)


def test_without_a_gil_nobody_rests() -> None:
    pool = ThreadPool(4, lambda: None, has_gil=False)
    assert pool.surplus == 0
    pool.threads[0].turn += 1
    for now in range(5):
        pool.tick(100.0 + now)
        pool.threads[0].turn += 2
    assert pool.surplus == 0
