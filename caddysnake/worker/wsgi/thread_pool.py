"""Which of the threads look for work, and which sleep.

Every thread can wait for connections, so the obvious thing is to let them all. Under the GIL that is also slow: each
arrival wakes a thread that then queues for the GIL, holding a connection that the running thread would have reached
sooner. With eight threads and an app that answers in microseconds it costs a third of the throughput and ten times the
99th percentile. So as long as the app's calls are short, one thread does everything, and the others rest.

Two observations call the others up. A *watch* (the controller's tick) sees that every thread looking for work has been
in the same call since the last tick, and none of them is computing: one more is summoned, then two, then four. And
samples of calls (the kernel's account of one thread, getrusage(2)) show that the app waits for something other than the
processor: then all are. After a while, longer each time it proves premature, all but one are asked to rest again.

A thread that wants the processor and does not get it, on a crowded machine, is not helped by another that wants it too;
hence the looks at whether a thread waits or works.

Without a GIL nobody rests. No I/O here but the resting itself; the clock is the caller's.
"""

from __future__ import annotations

import resource
import sys
import threading
import time
from collections.abc import Callable
from enum import Enum

TICK_S = 0.0025
"""How often the controller calls ``tick`` while anything moves: what a call may hold up before another thread helps."""

EXHAUSTED_S = 0.06
"""After this long without a move of any thread the pool is exhausted: a little longer than the daemon takes to hold the
same opinion, so that what is given back does not come back."""
_SAMPLES = 8  # that a verdict needs
_SAMPLE_ALL = 0x1
_SAMPLE_SOME = 0x3F  # turns count by two, so one call in 32
_BLOCKED_SHARE = 0.25  # of the time
_BLOCKED_CALLS = 0.2  # of the calls; fewer may only have waited a moment for the GIL
_COMPUTING_S = 0.05  # after which a call that computes must share the processor all the same
_RELAX_MIN_S = 1.0
_RELAX_MAX_S = 16.0


class Watch(Enum):
    """What a tick found."""

    TICK = "tick"
    """Things move: call again in ``TICK_S``."""
    SLEEP = "sleep"
    """Nothing to watch until a thread calls ``on_wake``."""
    EXHAUSTED = "exhausted"
    """Every thread is busy and stays so: nobody will look at a connection soon. Then as ``SLEEP``."""


class PoolThread:
    """One thread of the pool.

    ``turn`` is written by that thread only: it grows by one when a call begins and by one when it ends, so it is odd
    during a call, and the same odd number twice means the same call.
    """

    __slots__ = ("_summons", "index", "native_id", "turn")

    def __init__(self, index: int) -> None:
        self.index = index
        self.native_id = 0
        """The kernel's number of the thread, once it runs."""
        self.turn = 0
        self._summons = threading.Lock()
        self._summons.acquire()

    def wait(self) -> None:
        """Sleep until ``summon``. Called by the thread itself only."""
        self._summons.acquire()

    def summon(self) -> None:
        """Wake the thread, or let its next ``wait`` pass. Once for each wait: a free lock cannot be freed."""
        self._summons.release()

    def __repr__(self) -> str:
        return f"<PoolThread {self.index} {'busy' if self.turn & 1 else 'waiting'}>"


class ThreadPool:
    """The threads of a worker. ``on_wake`` is called, from any thread, when ``tick`` is wanted after ``SLEEP``."""

    def __init__(
        self,
        size: int,
        on_wake: Callable[[], None],
        computes: Callable[[PoolThread], bool] | None = None,
        has_gil: bool | None = None,
    ) -> None:
        """``computes``: whether a thread runs or would run, rather than waits for something."""
        self.threads = [PoolThread(index) for index in range(size)]
        self._on_wake = on_wake
        self._computes = computes or _is_runnable
        self._has_gil = _runs_with_gil() if has_gil is None else has_gil
        self._lock = threading.Lock()
        self._resting: list[PoolThread] = []
        self.surplus = size - 1 if self._has_gil else 0
        """How many threads ought to call ``rest``; each asks at the end of a turn."""
        self.alone = size == 1
        """Exactly one thread looks for work: it may take several connections at once, since nobody else wants them."""
        self.asleep = True
        """The watch sleeps; a thread that begins a turn must call ``wake``."""
        self.sample_mask = _SAMPLE_ALL if self._has_gil and size > 1 else -1
        """A turn whose number, masked with this, is 1 is to be run by ``sample``."""
        self._seen = [0] * size
        self._still_since = float("inf")  # when every thread was busy and none moved any more
        self._samples = 0
        self._sampled_s = 0.0
        self._blocked_s = 0.0
        self._blocked = 0.0
        self._relax_s = _RELAX_MIN_S
        self._relax_at = float("inf")
        self._relaxed_at = float("-inf")

    # For the threads.

    def rest(self, thread: PoolThread) -> None:
        """Give up looking for work if there are too many who do, until summoned."""
        with self._lock:
            if self.surplus <= 0:
                return
            self.surplus -= 1
            self._resting.append(thread)
            self.alone = len(self._resting) == len(self.threads) - 1
        thread.wait()

    def wake(self) -> None:
        """End the watch's sleep, because a turn begins. From any thread."""
        self.asleep = False
        self._on_wake()

    def sample(self, call: Callable[[], None]) -> None:
        """Run ``call`` and note how much of its time the thread waited rather than worked."""
        before = resource.getrusage(resource.RUSAGE_THREAD)
        start = time.perf_counter()
        try:
            call()
        finally:
            elapsed = time.perf_counter() - start
            after = resource.getrusage(resource.RUSAGE_THREAD)
            blocked = 0.0
            if after.ru_nvcsw > before.ru_nvcsw:  # else it was merely not scheduled, which more threads do not cure
                worked = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                blocked = max(0.0, elapsed - worked)
            self._note(elapsed, blocked)

    def _note(self, elapsed_s: float, blocked_s: float) -> None:
        with self._lock:
            self._samples += 1
            self._sampled_s += elapsed_s
            self._blocked_s += blocked_s
            self._blocked += blocked_s > 0.0
            if self._samples < _SAMPLES:
                return
            self.sample_mask = _SAMPLE_SOME
            blocks = self._blocked_s > self._sampled_s * _BLOCKED_SHARE and self._blocked > (
                self._samples * _BLOCKED_CALLS
            )
            self._blocked /= 2  # older samples fade
            self._samples >>= 1
            self._sampled_s /= 2
            self._blocked_s /= 2
            if not blocks or not self._resting:
                return
            self._call_up(len(self._resting), time.monotonic())

    # For the controller.

    def tick(self, now: float) -> Watch:
        """Look at everyone; ``now`` is monotonic seconds."""
        with self._lock:
            return self._look(now)

    def _look(self, now: float) -> Watch:
        turns = [thread.turn for thread in self.threads]
        moved = [new != old for new, old in zip(turns, self._seen, strict=True)]
        self._seen = turns
        resting = {thread.index for thread in self._resting}
        active = [index for index in range(len(turns)) if index not in resting]
        waiting = any(not turns[index] & 1 for index in active)
        if any(moved):
            self._still_since = float("inf")
            if now >= self._relax_at:
                self._relax(now, len(active), sum(moved[index] or not turns[index] & 1 for index in active))
            return Watch.TICK
        if waiting:
            return self._fall_asleep(Watch.SLEEP)
        self._still_since = min(self._still_since, now)
        if self._resting:
            if now - self._still_since >= _COMPUTING_S or not any(self._computes(self.threads[i]) for i in active):
                self._call_up(len(active), now)
            return Watch.TICK
        if now - self._still_since < EXHAUSTED_S:
            return Watch.TICK
        return self._fall_asleep(Watch.EXHAUSTED)

    def _fall_asleep(self, verdict: Watch) -> Watch:
        self.asleep = True
        # A thread that began a turn before it could see that does not call us.
        if any(thread.turn != old for thread, old in zip(self.threads, self._seen, strict=True)):
            self.asleep = False
            return Watch.TICK
        self._still_since = float("inf")
        return verdict

    def _call_up(self, count: int, now: float) -> None:
        self.surplus = 0
        self.alone = False
        for _ in range(min(count, len(self._resting))):
            self._resting.pop().summon()
        premature = now - self._relaxed_at < _RELAX_MIN_S / 4
        if premature:
            self._relaxed_at = float("-inf")
            self._relax_s = min(self._relax_s * 2, _RELAX_MAX_S)
        elif self._relax_at == float("inf"):
            self._relax_s = _RELAX_MIN_S
        self._relax_at = now + self._relax_s

    def _relax(self, now: float, active: int, movable: int) -> None:
        if not self._has_gil:
            return
        self.surplus = max(0, movable - 1)
        # Those who are stuck cannot be asked now; ask again when they may have come loose.
        self._relax_at = float("inf") if movable == active else now + self._relax_s
        self._relaxed_at = now
        self._samples = 0
        self._sampled_s = self._blocked_s = self._blocked = 0.0
        self.sample_mask = _SAMPLE_ALL

    def dismiss(self) -> None:
        """Summon everyone, for good: the threads are about to end."""
        with self._lock:
            self.surplus = 0
            self.alone = False
            self.sample_mask = -1
            while self._resting:
                self._resting.pop().summon()

    @property
    def busy(self) -> int:
        """How many are in a call."""
        return sum(thread.turn & 1 for thread in self.threads)

    def turns(self) -> list[int]:
        """Every thread's turn: two equal lists mean that nobody has moved between."""
        return [thread.turn for thread in self.threads]

    @property
    def resting(self) -> int:
        """How many sleep until they are summoned."""
        return len(self._resting)


def _is_runnable(thread: PoolThread) -> bool:
    try:
        with open(f"/proc/self/task/{thread.native_id}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2][:1] == b"R"
    except OSError:
        return False


def _runs_with_gil() -> bool:
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())
