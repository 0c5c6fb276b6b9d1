"""Which dynamic apps live, start, wait or are refused. Pure: keys and clock readings in, decisions out.

::

    (unknown) --need--> QUEUED --next_start--> STARTING --started--> LIVE --let_go--> (unknown)
                           |                       |
                     nobody waits any more      failed: refused for FAILURE_S without another start

First come first served; how many start at a time is for the caller to say. At most ``capacity`` keys are here at once;
room is made by the least recently used app that is idle. One that is let go is unknown from then on, so whoever asks
for it does not wait for what is leaving. What is remembered of failures, and of names that are nobody's, is bounded;
neither pushes out the other: asking for a million names leaves nothing behind, and forgives no failure.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from enum import Enum
from itertools import takewhile
from typing import Generic, TypeVar

from ..sockets.refusals import CAPACITY, QUEUE_FULL, Refusal

FAILURE_S = 5.0
"""How long a failed start is remembered. The Go plugin's figure."""

ABSENT_S = 1.0
"""How long it is remembered that there is no such app: looking is cheap, and it may be there in a moment."""

REMEMBERED_MAX = 4096

Key = TypeVar("Key", bound=Hashable)


class TenantStage(Enum):
    """How far an app is that is known; an unknown one is in none."""

    QUEUED = "queued"
    STARTING = "starting"
    LIVE = "live"


class Admission(Enum):
    """What becomes of a need."""

    USE = "use"  # the app is live
    WAIT = "wait"  # it will be


class _Memory(OrderedDict[Key, tuple[float, Refusal]]):
    """Refusals, each with until when it holds; the oldest make room for new ones."""

    def remember(self, key: Key, refusal: Refusal, until: float) -> None:
        self.pop(key, None)
        self[key] = (until, refusal)
        if len(self) > REMEMBERED_MAX:
            self.popitem(last=False)

    def recall(self, key: Key, now: float) -> Refusal | None:
        until, refusal = self.get(key, (now, None))
        if refusal is not None and now >= until:
            del self[key]
            return None
        return refusal


class TenantPolicy(Generic[Key]):
    """The dynamic apps of one template. ``is_idle(key)`` says whether a live one has nothing to do."""

    def __init__(self, capacity: int, max_queue: int, idle_timeout_s: float | None, is_idle: Callable[[Key], bool]):
        self.limit(capacity, max_queue, idle_timeout_s)
        self._is_idle = is_idle
        self._stages: dict[Key, TenantStage] = {}
        self._used: OrderedDict[Key, float] = OrderedDict()  # live ones, least recently used first
        self._queue: OrderedDict[Key, None] = OrderedDict()
        self._waiting: dict[Key, int] = {}
        self._failures = _Memory[Key]()
        self._absent = _Memory[Key]()
        self._evicted: list[Key] = []

    def __len__(self) -> int:
        return len(self._stages)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._stages)

    def limit(self, capacity: int, max_queue: int, idle_timeout_s: float | None) -> None:
        """Other limits hold from now on. Nobody is let go at once because of them."""
        self._capacity = capacity
        self._max_queue = max_queue
        self._idle_timeout_s = idle_timeout_s

    def stage(self, key: Key) -> TenantStage | None:
        """How far the app of ``key`` is; None when it is not known."""
        return self._stages.get(key)

    def waiting(self, key: Key) -> int:
        """How many needs wait for the app of ``key``; 0 when it is not known."""
        return self._waiting.get(key, 0)

    @property
    def remembered(self) -> int:
        """How many refusals are remembered."""
        return len(self._failures) + len(self._absent)

    @property
    def is_full(self) -> bool:
        """For another app, one of these has to go."""
        return len(self._stages) >= self._capacity

    # -- whoever asks ------------------------------------------------------------------------------------------

    def need(self, key: Key, now: float) -> Admission | Refusal:
        """Somebody asks for ``key``; the same answer for all who ask while it starts (single flight)."""
        stage = self._stages.get(key)
        if stage is TenantStage.LIVE:
            self._touch(key, now)
            return Admission.USE
        if stage is None:
            refusal = self.refusal(key, now) or (QUEUE_FULL if self._max_queue < 1 else self._make_room())
            if refusal is not None:
                return refusal
            self._stages[key] = TenantStage.QUEUED
            self._queue[key] = None
        if self.waiting(key) >= self._max_queue:
            return QUEUE_FULL
        self._waiting[key] = self.waiting(key) + 1
        return Admission.WAIT

    def unneed(self, key: Key) -> None:
        """One of those who wait has left."""
        left = self.waiting(key) - 1
        if left > 0:
            self._waiting[key] = left
        else:
            self._waiting.pop(key, None)

    def refusal(self, key: Key, now: float) -> Refusal | None:
        """What is remembered of it: it failed, or was looked for, a moment ago."""
        return self._failures.recall(key, now) or self._absent.recall(key, now)

    def take_evicted(self) -> list[Key]:
        """Apps that were let go to make room since this was last asked; the caller drains them."""
        evicted, self._evicted = self._evicted, []
        return evicted

    def _make_room(self) -> Refusal | None:
        if not self.is_full:
            return None
        key = self.idlest()
        if key is None:
            return CAPACITY
        self.release(key)
        self._evicted.append(key)
        return None

    def idlest(self) -> Key | None:
        """The live app that was used longest ago, of those that have nothing to do."""
        return next((key for key in self._used if self._is_idle(key)), None)

    # -- what becomes of an app --------------------------------------------------------------------------------

    def queued(self) -> list[Key]:
        """Those that somebody waits for, first come first; those that nobody waits for any more are forgotten."""
        for key in [key for key in self._queue if not self.waiting(key)]:
            del self._queue[key]
            del self._stages[key]
        return list(self._queue)

    def next_start(self, rank: Callable[[Key], tuple[int, int]] = lambda key: (0, 0)) -> Key | None:
        """The next app to start: of the lowest rank, and among equals first come first served."""
        queued = self.queued()
        if not queued:
            return None
        key = min(queued, key=rank)  # the first of the least
        del self._queue[key]
        self._stages[key] = TenantStage.STARTING
        return key

    def started(self, key: Key, now: float) -> None:
        """It is ready: whoever waits may use it."""
        self._stages[key] = TenantStage.LIVE
        self._waiting.pop(key, None)
        self._touch(key, now)

    def failed(self, key: Key, refusal: Refusal, now: float) -> None:
        """It could not be started, or kept up. Whoever waits is refused, and so is whoever asks soon."""
        self.release(key)
        self._waiting.pop(key, None)
        self._failures.remember(key, refusal, now + FAILURE_S)

    def absent(self, key: Key, refusal: Refusal, now: float) -> None:
        """There is no such app; it never got as far as the queue."""
        self._absent.remember(key, refusal, now + ABSENT_S)

    def forgive(self, key: Key) -> None:
        """What failed may be tried again at once: its code has changed."""
        self._failures.pop(key, None)
        self._absent.pop(key, None)

    def forgive_all(self) -> None:
        """What failed, of all apps, may be tried again at once."""
        self._failures.clear()
        self._absent.clear()

    def release(self, key: Key) -> None:
        """It is told to go: unknown from now on."""
        self._stages.pop(key, None)
        self._queue.pop(key, None)
        self._used.pop(key, None)

    # -- going on elsewhere ------------------------------------------------------------------------------------

    def ages(self, now: float) -> list[tuple[Key, float]]:
        """Live ones, the least recently used first, each with the seconds since it was last asked for."""
        return [(key, now - used) for key, used in self._used.items()]

    def revive(self, key: Key, now: float, idle_s: float) -> None:
        """It is live. To be called in the order of ``ages``, before anybody asks."""
        self._stages[key] = TenantStage.LIVE
        self._used[key] = now - idle_s

    # -- time --------------------------------------------------------------------------------------------------

    def expired(self, now: float) -> list[Key]:
        """Live apps that nobody has asked for during the idle time-out and that have nothing to do."""
        limit_s = math.inf if self._idle_timeout_s is None else self._idle_timeout_s
        unused = takewhile(lambda used: now - used[1] >= limit_s, self._used.items())  # the rest was used later
        return [key for key, _ in unused if self._is_idle(key)]

    def touch(self, key: Key, now: float) -> None:
        """It has been used without anybody asking here: over a connection that it had."""
        if key in self._used:
            self._touch(key, now)

    def _touch(self, key: Key, now: float) -> None:
        self._used[key] = now
        self._used.move_to_end(key)
