"""Whether a worker stands still, by what its page says, and how it is stopped to answer in its place.

A worker that is busy for a minute may be healthy, so standing still is only told, once, with the stacks. Requests end
by ``request_timeout`` alone: the worker sees to that itself (``asgi.deadlines``, ``wsgi.call.deadlines``), and
two things remain for the daemon. Requests that go on all the same: the worker is replaced. And a worker that does not
see to anything, as its event loop, or a thread that keeps the GIL, lets nothing else run: it hangs, and is ended.

Whether the head of a response has begun to leave is in the connection's state byte, but between looking at it and
writing, the process could come to life and write too. So it is stopped first (SIGSTOP), which makes both one step, and
let go on afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Sequence
from enum import Enum
from typing import NamedTuple

from ..system.kinship import stat_of
from ..system.timings import Timings

TELL_AGAIN_S = 60.0
"""For so long nothing further is told of a worker's threads."""

_SLACK_S = 2.0
"""By this much a worker may be late to see that a time is over: it looks every second or so."""

_STOP_PATIENCE_S = 0.5
_LOOK_S = 0.002


class Pulse(NamedTuple):
    """What the page says. Times are monotonic milliseconds; 0 in ``started``: that thread is at no request."""

    tick: int
    """Last turn of the loop, or of a threaded worker's keeper, which turns at least every second if there is a
    ``request_timeout``, and else may sleep."""
    is_loop: bool
    active: int
    """Requests that an event loop is at."""
    started: Sequence[int]
    """When each thread's request began."""
    overdue: int
    """Requests that go on although their time was over some seconds ago."""


class HangFinding(Enum):
    """What is wrong with a worker; only the last two are for the daemon to act on, the others to be told."""

    LOOP_STILL = "loop still"
    THREAD_STILL = "thread still"
    OVERDUE = "overdue"  # replace it
    HANGS = "hangs"  # nothing in it runs, and the time of what it is at is over


class Watchdog:
    """Over one worker. ``limit_s`` is its ``request_timeout``."""

    def __init__(self, limit_s: float | None, timings: Timings) -> None:
        self.loop_still_s, self.thread_still_s = timings.loop_still_s, timings.thread_still_s
        self._limit_s = limit_s
        self._told_tick = 0
        self._told_started = 0
        self._told_at_ms = -1_000_000_000

    def look(self, pulse: Pulse, now_ms: int) -> HangFinding | None:
        """What is to be done about it now; to be called every second or so."""
        still_s = (now_ms - pulse.tick) / 1000 if pulse.tick else 0.0
        limit_s = self._limit_s
        if limit_s is not None:
            if still_s > limit_s + _SLACK_S and (pulse.active or any(pulse.started)):
                return HangFinding.HANGS
            if pulse.overdue:
                return HangFinding.OVERDUE
        if pulse.is_loop:
            if still_s > self.loop_still_s and pulse.tick != self._told_tick:
                self._told_tick = pulse.tick
                return HangFinding.LOOP_STILL
            return None
        oldest = min((begun for begun in pulse.started if begun > self._told_started), default=None)
        still_ms = self.thread_still_s * 1000
        if oldest is None or now_ms - oldest < still_ms or now_ms < self._told_at_ms + TELL_AGAIN_S * 1000:
            return None
        self._told_started = max(begun for begun in pulse.started if now_ms - begun >= still_ms)
        self._told_at_ms = now_ms
        return HangFinding.THREAD_STILL


@contextlib.asynccontextmanager
async def frozen(pid: int, pidfd: int) -> AsyncIterator[bool]:
    """Have a process stand still meanwhile: whether it does so indeed."""
    try:
        is_sure = False
        if _signal(pidfd, signal.SIGSTOP):
            for _ in range(round(_STOP_PATIENCE_S / _LOOK_S)):
                if is_sure := _is_stopped(pid):
                    break
                await asyncio.sleep(_LOOK_S)
        yield is_sure
    finally:
        _signal(pidfd, signal.SIGCONT)


def _signal(pidfd: int, number: signal.Signals) -> bool:
    try:
        signal.pidfd_send_signal(pidfd, number)
    except OSError:  # it is gone
        return False
    return True


def _is_stopped(pid: int) -> bool:
    """Every thread of it: those that wait in the kernel are stopped when they come back from there."""
    try:
        return all(stat_of(pid, thread)[0] in (b"T", b"t", b"Z") for thread in os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return False
