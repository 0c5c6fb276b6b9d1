"""How many apps start at a time: as many as there are cores, first come first served. With more, none would be ready
before all are; with fewer, cores would be idle.

A start that does nothing but wait (for a network, a lock, for ever) uses no core, so it stops counting; and so does one
that has used up its time, whatever it does: an app that hangs while it is imported must not keep others from starting.
Who lately did that, or failed, goes behind those who did not, and waits while as many as there are cores are overdue;
and among equals, those of a user who has fewer starts under way go first.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from ...system.kinship import stat_of
from ...system.timings import TIMINGS, Timings

LOOK_S = 0.1
WAITING_LOOKS = 5
"""A process that has slept, without a moment of work, at so many looks in a row is waiting for something."""

SLICE_S = 1.0
"""Processor time that a start has before it stops counting, where others like it have not taken longer."""

FRESH = (0, 0)
"""The rank of who has done nothing."""

_TICKS = os.sysconf("SC_CLK_TCK")


class Starting(NamedTuple):
    """An app that is being started: done with ``task``. ``pids()``: its processes, as far as there are any yet."""

    task: asyncio.Task[None]
    pids: Callable[[], Iterable[int]]
    slice_s: float = SLICE_S
    used_up: Callable[[], None] | None = None
    """Hears that it has used up its time."""


class Starter(Protocol):
    """Who has apps to start."""

    def start_next(self) -> Starting | None:
        """Start the app that is next in its queue; None when nobody waits for one any more."""

    def rank(self) -> tuple[int, int]:
        """Of that app, the lower the sooner: 1 if it lately failed or used up its time; its user's starts under way."""


@dataclass(slots=True)
class _Running:
    """One start that counts."""

    starting: Starting
    since: float
    activity: object = None
    before: dict[int, int] = field(default_factory=dict)
    quiet_looks: int = 0


class StartLimiter:
    """At most ``limit`` count at a time, over all starters."""

    def __init__(self, limit: int, timings: Timings = TIMINGS) -> None:
        self._limit = limit
        self._longest_s = timings.start_counts_s
        self._loop = asyncio.get_running_loop()
        self._running: dict[asyncio.Task[None], _Running] = {}
        self._overdue: set[asyncio.Task[None]] = set()
        self._queue: deque[Starter] = deque()
        self._looking: asyncio.TimerHandle | None = None
        self._held = False

    def hold(self) -> None:
        """Begin no start until ``release``."""
        self._held = True

    def release(self) -> None:
        """Undo ``hold``: what waits may start."""
        self._held = False
        self._go_on()

    def want(self, starter: Starter) -> None:
        """``starter`` has put one more app into its queue."""
        self._queue.append(starter)
        self._go_on()

    def _go_on(self) -> None:
        while self._queue and not self._held and len(self._running) < self._limit:
            starter = self._next()
            if starter is None:
                break
            starting = starter.start_next()
            if starting is not None:
                self._running[starting.task] = _Running(starting, self._loop.time())
                starting.task.add_done_callback(self._done)
        if self._queue and self._looking is None:
            self._looking = self._loop.call_later(LOOK_S, self._look)

    def _next(self) -> Starter | None:
        """Taken out of the queue; None while those that are left have to wait for what is overdue."""
        ranks = {id(starter): starter.rank() for starter in self._queue}
        index = min(range(len(self._queue)), key=lambda at: (ranks[id(self._queue[at])], at))
        starter = self._queue[index]
        if ranks[id(starter)] >= _BEHIND and len(self._overdue) >= self._limit:
            return None
        del self._queue[index]
        return starter

    def _done(self, task: asyncio.Task[None]) -> None:
        self._overdue.discard(task)
        self._running.pop(task, None)
        self._go_on()

    def _look(self) -> None:
        self._looking = None
        now = self._loop.time()
        for task, running in list(self._running.items()):
            seen = {pid: _activity(pid) for pid in running.starting.pids()}
            activity = list(seen.values())
            # A thread host has worked before.
            worked_s = sum(ticks - running.before.setdefault(pid, ticks) for pid, (_, ticks) in seen.items()) / _TICKS
            is_quiet = bool(activity) and activity == running.activity and all(state == "S" for state, _ in activity)
            running.activity = activity
            running.quiet_looks = running.quiet_looks + 1 if is_quiet else 0
            slice_s = running.starting.slice_s
            if running.quiet_looks >= WAITING_LOOKS:
                del self._running[task]
            elif worked_s >= slice_s or now - running.since >= min(1.5 * slice_s, self._longest_s):
                del self._running[task]
                self._overdue.add(task)
                if running.starting.used_up is not None:
                    running.starting.used_up()
        self._go_on()


_BEHIND = (1, 0)


def _activity(pid: int) -> tuple[str, int]:
    """The state of a process (``S``: it sleeps, and not for a disk), and how long it has run, in clock ticks."""
    try:
        fields = stat_of(pid)
        return fields[0].decode(), int(fields[11]) + int(fields[12])
    except (OSError, ValueError, IndexError):
        return "", 0
