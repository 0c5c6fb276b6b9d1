"""``request_timeout`` where the event loop turns: a request whose time is over is answered with 504, and its task
cancelled. All others go on.

A task that does not end when it is cancelled (it waits for a thread that hangs, or swallows the cancellation) is
counted on the page, and the daemon replaces the worker. Where the loop itself stands still, nothing here runs, and the
daemon acts (``daemon.hangs``).
"""

from __future__ import annotations

from collections.abc import Iterable

from ...channel.vitals import WORD_OVERDUE
from ...http1.errors import ProtocolError
from ..process.stacks import Stacks
from .asgi_stacks import describe_task
from .cycles.cycle import Cycle

PATIENCE_S = 5.0
"""How long a task may take to end once it was cancelled, before the worker is to be replaced."""


class Deadlines:
    """``limit_s`` for every request of one worker. ``header``: the header words of its page."""

    def __init__(self, limit_s: float, header: memoryview) -> None:
        self._limit_s = limit_s
        self._header = header
        self._stacks = Stacks()

    def look(self, cycles: Iterable[Cycle], now: float) -> None:
        """End those whose time is over. To be called again and again; ``now`` is ``time.monotonic()``."""
        stuck = 0
        for cycle in list(cycles):
            late_s = now - cycle.started - self._limit_s
            if cycle.is_overdue:
                stuck += late_s >= PATIENCE_S
            elif late_s >= 0 and not cycle.is_counted:
                self._end(cycle)
        self._header[WORD_OVERDUE] = stuck

    def _end(self, cycle: Cycle) -> None:
        cycle.is_overdue = True
        stands = "" if cycle.task is None else describe_task(cycle.task)
        cycle.log(f"the request took longer than request_timeout ({self._limit_s:g} s)", stands)
        self._stacks.write()  # it may wait for a thread
        cycle.fail(ProtocolError(504, "deadline", "the app took too long"))
        if cycle.task is not None:
            cycle.task.cancel()
