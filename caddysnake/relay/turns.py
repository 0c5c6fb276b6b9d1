"""Whose work is done now, and whose later: fair among apps, so that no app's worker or client holds the loop.

Reading a response takes work that the worker chooses: it may come in chunks of one byte, over a thousand links at once.
So work is counted, in units of about a microsecond. A link or client that has done little goes on at once; one that has
done more is charged to its app, and when the app has had its share of this turn of the loop, what is left waits in the
app's queue, unread behind a paused transport. Each turn does some of what waits, an app at a time in rotation.

Pure bookkeeping but for ``call_soon``: a step is a callable that does a bounded amount of work, charges it, and may put
off what is left of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

EVENT_UNITS = 16
"""What it costs to be told of some bytes, and to write them elsewhere."""

COPY_SHIFT = 11
"""Bytes, shifted so, are units: what it costs to copy them twice, and to have the kernel do it."""

CREDIT_UNITS = 64
"""What a link or client may do before its app is charged: small work is not worth the bookkeeping."""

APP_UNITS = 1000
TURN_UNITS = 4000
"""What one app, and all together, may do of such work in one turn as it comes."""

QUEUE_UNITS = 2000
"""What is done in one turn of what was put off."""

A = TypeVar("A", bound=Hashable)


class Turns(Generic[A]):
    """The accounts of one loop. ``call_soon`` has a function called in its next turn."""

    def __init__(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._call_soon = call_soon
        self._spent: dict[A, int] = {}
        self._total = 0
        self._waiting: dict[A, deque[Callable[[], None]]] = {}
        """What was put off; the app that is first comes first."""
        self._is_scheduled = False

    def may(self, app: A) -> bool:
        """Whether ``app`` may go on now; if not, ``later``."""
        return self._total < TURN_UNITS and self._spent.get(app, 0) < APP_UNITS and app not in self._waiting

    def spend(self, app: A, units: int) -> None:
        """``app`` has had so much done."""
        self._spent[app] = self._spent.get(app, 0) + units
        self._total += units
        self._schedule()

    def later(self, app: A, step: Callable[[], None]) -> None:
        """Call ``step`` when it is ``app``'s turn."""
        queue = self._waiting.get(app)
        if queue is None:
            queue = self._waiting[app] = deque()
        queue.append(step)
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._call_soon(self._turn)

    def _turn(self) -> None:
        """Begin a turn: all have their shares again, and some of what waits is done."""
        self._is_scheduled = False
        self._spent.clear()
        self._total = 0
        waiting = self._waiting
        try:
            while waiting and self._total < QUEUE_UNITS:
                app = next(iter(waiting))
                queue = waiting.pop(app)
                step = queue.popleft()
                if queue:
                    waiting[app] = queue  # behind all others
                step()
        finally:
            if waiting:
                self._schedule()
