"""How many apps start at a time: as many as there are cores, first come first served. With more, none would be ready
before all are; with fewer, cores would be idle.

A start that does nothing but wait (for a network, a lock, for ever) uses no core, so it stops counting; and so does one
that takes too long, whatever it does: an app that hangs while it is imported must not keep others from starting.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

LOOK_S = 0.1
WAITING_LOOKS = 5
"""A process that has slept, without a moment of work, at so many looks in a row is waiting for something."""

LONGEST_S = 5.0


class Starting(NamedTuple):
    """An app that is being started: done with ``task``. ``pids()``: its processes, as far as there are any yet."""

    task: asyncio.Task[None]
    pids: Callable[[], Iterable[int]]


class Starter(Protocol):
    """Who has apps to start."""

    def start_next(self) -> Starting | None:
        """Start the app that is next in its queue; None when nobody waits for one any more."""


class _Running:
    """One start that counts."""

    __slots__ = ("activity", "quiet_looks", "since", "starting")

    def __init__(self, starting: Starting, since: float) -> None:
        self.starting = starting
        self.since = since
        self.activity: object = None
        self.quiet_looks = 0


class Starts:
    """At most ``limit`` count at a time, over all starters."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._running: dict[asyncio.Task[None], _Running] = {}
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
            starting = self._queue.popleft().start_next()
            if starting is not None:
                self._running[starting.task] = _Running(starting, self._loop.time())
                starting.task.add_done_callback(self._done)
        if self._queue and self._looking is None:
            self._looking = self._loop.call_later(LOOK_S, self._look)

    def _done(self, task: asyncio.Task[None]) -> None:
        if self._running.pop(task, None) is not None:
            self._go_on()

    def _look(self) -> None:
        self._looking = None
        now = self._loop.time()
        for task, running in list(self._running.items()):
            activity = [_activity(pid) for pid in running.starting.pids()]
            is_quiet = bool(activity) and activity == running.activity and all(state == "S" for state, _ in activity)
            running.activity = activity
            running.quiet_looks = running.quiet_looks + 1 if is_quiet else 0
            if running.quiet_looks >= WAITING_LOOKS or now - running.since > LONGEST_S:
                del self._running[task]
        self._go_on()


def _activity(pid: int) -> tuple[str, int]:
    """The state of a process (``S``: it sleeps, and not for a disk), and how long it has run, in clock ticks."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return fields[0].decode(), int(fields[11]) + int(fields[12])
    except (OSError, ValueError, IndexError):
        return "", 0
