"""Which dynamic apps live, start, wait or are refused. Pure: keys and clock readings in, decisions out.

::

    (unknown) --need--> QUEUED --next_start--> STARTING --started--> LIVE --leave--> LEAVING --gone--> (unknown)
                           |                       |
                           +---- failed -----------+--> (remembered for FAILURE_S: refused without another start)

At most ``starts`` start at a time, first come first served: with more, none would be ready before all are. At most
``capacity`` keys are here at once; room is made by the least recently used app that is idle. What is remembered of
failures is bounded too, so that asking for a million names leaves nothing behind.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from enum import Enum
from typing import Generic, TypeVar

from .refusals import CAPACITY, QUEUE_FULL, Refusal

FAILURE_S = 5.0
"""How long a failed start is remembered. The Go plugin's figure."""

REMEMBERED_MAX = 4096

Key = TypeVar("Key", bound=Hashable)


class Stage(Enum):
    QUEUED = "queued"
    STARTING = "starting"
    LIVE = "live"
    LEAVING = "leaving"


class Answer(Enum):
    """What becomes of a need."""

    USE = "use"  # the app is live
    WAIT = "wait"  # it will be


class Tenants(Generic[Key]):
    """The dynamic apps of one template. ``is_idle(key)`` says whether a live one has nothing to do."""

    def __init__(self, capacity: int, max_queue: int, idle_timeout_s: float | None, is_idle: Callable[[Key], bool]):
        self._capacity = capacity
        self._max_queue = max_queue
        self._idle_timeout_s = idle_timeout_s
        self._is_idle = is_idle
        self._stages: dict[Key, Stage] = {}
        self._used: OrderedDict[Key, float] = OrderedDict()  # live ones, least recently used first
        self._queue: OrderedDict[Key, None] = OrderedDict()
        self._waiting: dict[Key, int] = {}
        self._failures: OrderedDict[Key, tuple[float, Refusal]] = OrderedDict()
        self._evicted: list[Key] = []

    def __len__(self) -> int:
        return len(self._stages)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._stages)

    def stage(self, key: Key) -> Stage | None:
        return self._stages.get(key)

    def need(self, key: Key, now: float) -> Answer | Refusal:
        """Somebody asks for ``key``; the same answer for all who ask while it starts (single flight)."""
        stage = self._stages.get(key)
        if stage is Stage.LIVE:
            self._touch(key, now)
            return Answer.USE
        if stage is None:
            refusal = self._remembered(key, now) or self._make_room()
            if refusal is not None:
                return refusal
            self._stages[key] = Stage.QUEUED
            self._queue[key] = None
        # An app that is leaving is waited for: the next one takes its place, and the queue knows it already.
        if self._waiting.get(key, 0) >= self._max_queue:
            return QUEUE_FULL
        self._waiting[key] = self._waiting.get(key, 0) + 1
        return Answer.WAIT

    def take_evicted(self) -> list[Key]:
        """Apps that leave to make room since this was last asked; the caller drains them."""
        evicted, self._evicted = self._evicted, []
        return evicted

    def is_remembered(self, key: Key, now: float) -> bool:
        """It failed a moment ago."""
        return self._remembered(key, now) is not None

    def unneed(self, key: Key) -> None:
        """One of those who wait has left."""
        left = self._waiting.get(key, 0) - 1
        if left > 0:
            self._waiting[key] = left
        else:
            self._waiting.pop(key, None)

    def next_start(self) -> Key | None:
        """The next app to start, first come first served; one that nobody waits for any more is forgotten instead."""
        while self._queue:
            key, _ = self._queue.popitem(last=False)
            if self._waiting.get(key):
                self._stages[key] = Stage.STARTING
                return key
            del self._stages[key]
        return None

    def started(self, key: Key, now: float) -> None:
        """It is ready: whoever waits may use it."""
        self._stages[key] = Stage.LIVE
        self._waiting.pop(key, None)
        self._touch(key, now)

    def failed(self, key: Key, refusal: Refusal, now: float) -> None:
        """It could not be started. Whoever waits is refused, and so is whoever asks soon."""
        self._stages.pop(key, None)
        self._waiting.pop(key, None)
        self._used.pop(key, None)
        self._failures.pop(key, None)
        self._failures[key] = (now + FAILURE_S, refusal)
        if len(self._failures) > REMEMBERED_MAX:
            self._failures.popitem(last=False)

    def forgive(self, key: Key) -> None:
        """What failed may be tried again at once: its code has changed."""
        self._failures.pop(key, None)

    def leave(self, key: Key) -> None:
        """It is told to go; nobody new may use it."""
        self._stages[key] = Stage.LEAVING
        self._used.pop(key, None)

    def gone(self, key: Key) -> None:
        """Its last worker has left. If somebody asked meanwhile, it is started afresh."""
        if self._waiting.get(key):
            self._stages[key] = Stage.QUEUED
            self._queue[key] = None
        else:
            self._stages.pop(key, None)

    def expired(self, now: float) -> list[Key]:
        """Live apps that nobody has asked for during the idle time-out and that have nothing to do."""
        if self._idle_timeout_s is None:
            return []
        found = []
        for key, used in self._used.items():
            if now - used < self._idle_timeout_s:
                break  # the rest was used later
            if self._is_idle(key):
                found.append(key)
        return found

    def touch(self, key: Key, now: float) -> None:
        """It has been used without anybody asking here: over a connection that it had."""
        if key in self._used:
            self._touch(key, now)

    def _touch(self, key: Key, now: float) -> None:
        self._used[key] = now
        self._used.move_to_end(key)

    def _remembered(self, key: Key, now: float) -> Refusal | None:
        remembered = self._failures.get(key)
        if remembered is None:
            return None
        until, refusal = remembered
        if now < until:
            return refusal
        del self._failures[key]
        return None

    def _make_room(self) -> Refusal | None:
        leaving = sum(stage is Stage.LEAVING for stage in self._stages.values())
        if len(self._stages) - leaving < self._capacity:
            return None
        for key in self._used:
            if self._is_idle(key):
                self.leave(key)
                self._evicted.append(key)
                return None
        return CAPACITY
