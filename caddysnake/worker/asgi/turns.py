"""Gives the others their turn: what could go on without end keeps the event loop for a few milliseconds at a time.

``send`` need not wait for a client that reads as fast as it is written to, nor ``receive`` for one that writes as fast:
an app that only sends, or only receives, would never let the loop turn. So each looks how old this turn of the loop is,
and gives way when it is too old. The time is the loop's and not the connection's: ten streams have no more of a turn
than one. Who has given way waits in a queue of which each turn of the loop lets one go on, or several where turns are
short: a turn becomes hardly longer than the work of one app between two sends, however many there are, and all are
served alike.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from time import monotonic

SLICE_S = 0.002
"""A turn that is older than this is too old."""

AT_ONCE_MAX = 64


class Turns:
    """The turns of ``loop``. One that nobody asks about is not measured."""

    __slots__ = ("_at_once", "_is_spent", "_loop", "_passed", "_waiting", "since")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.since = 0.0
        """Monotonic seconds at which this turn was first asked about; 0 when it was not."""
        self._at_once = 1
        self._is_spent = False  # somebody has given way in this turn, and has had most of it
        self._passed: list[Callable[[], object]] = []  # who gave way behind that one, and had nothing: the next
        self._waiting: deque[Callable[[], object]] = deque()

    def is_over(self, now: float) -> bool:
        """Whether the others are to have their turn. ``now``: monotonic seconds."""
        if self.since:
            return now - self.since > SLICE_S
        self.begin(now)
        return False

    def begin(self, now: float) -> None:
        """Measure this turn, which was not: from ``now`` on, in monotonic seconds."""
        self.since = now
        self._loop.call_soon(self._turned)

    async def give_way(self) -> None:
        """Let the loop turn, and those that gave way before go first."""
        future = self._loop.create_future()
        go_on = partial(_resolve, future)
        if self._is_spent:
            self._passed.append(go_on)
        else:
            self.call_later(go_on)
            self._is_spent = True
        await future

    def call_later(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` in a turn to come, behind those that gave way before."""
        self._waiting.append(callback)
        self.is_over(monotonic())

    def _turned(self) -> None:
        waiting = self._waiting
        waiting.extendleft(reversed(self._passed))
        self._passed.clear()
        self._is_spent = False
        if not waiting:
            self.since = 0.0
            return
        now = monotonic()
        took_s = now - self.since
        if took_s > SLICE_S:
            self._at_once = 1
        elif took_s < SLICE_S / 2 and self._at_once < AT_ONCE_MAX:
            self._at_once *= 2
        self.begin(now)
        for _ in range(min(self._at_once, len(waiting))):
            waiting.popleft()()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():  # else it was cancelled
        future.set_result(None)
