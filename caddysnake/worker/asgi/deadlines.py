"""``request_timeout`` where the event loop turns: a request whose time is over is answered with 504, and its task
cancelled. All others go on.

A task that does not end when it is cancelled (it waits for a thread that hangs, or swallows the cancellation) is
counted on the page, and the daemon replaces the worker. Where the loop itself stands still, nothing here runs, and the
daemon acts (``daemon.workers.hanging``).
"""

from __future__ import annotations

import asyncio
import linecache
from collections.abc import Iterable
from types import FrameType
from typing import Any

from ...aio.context import Context
from ...channel.vitals import WORD_LATE, WORD_OVERDUE
from ...http1.errors import ProtocolError
from ..coroutines import awaited
from ..process.stacks import Stacks
from .context import Call
from .cycles.cycle import Cycle

PATIENCE_S = 5.0
"""How long a task may take to end once it was cancelled, before the worker is to be replaced."""


class Deadlines:
    """``limit_s`` for every request of one worker."""

    def __init__(self, limit_s: float, context: Context) -> None:
        self._limit_s = limit_s
        self._header = context.header
        self._counters = context.counters
        self._stacks = Stacks()

    def look(self, cycles: Iterable[Call], now: float) -> None:
        """End those whose time is over. To be called again and again; ``now`` is ``time.monotonic()``."""
        stuck = 0
        for cycle in list(cycles):
            late_s = now - cycle.started - self._limit_s
            if cycle.is_overdue:
                stuck += late_s >= PATIENCE_S
            elif late_s >= 0 and not cycle.is_counted:
                self._end(cycle)
        self._header[WORD_OVERDUE] = stuck

    def _end(self, cycle: Call) -> None:
        cycle.is_overdue = True
        stands = "" if cycle.task is None else describe_task(cycle.task)
        cycle.log("deadline", f"the request took longer than request_timeout ({self._limit_s:g} s)", stands)
        self._stacks.write()  # it may wait for a thread
        self._header[WORD_LATE] += 1
        if cycle.response.head_sent:
            self._counters.cut()
        cycle.fail(ProtocolError(504, "deadline", "the app took too long"))
        if cycle.task is not None:
            cycle.task.cancel()


def describe(loop: asyncio.AbstractEventLoop) -> str:
    """Every task with its chain of coroutines, outermost first: ``Task.print_stack`` stops at the server's."""
    return "".join(map(describe_task, sorted(asyncio.all_tasks(loop), key=asyncio.Task.get_name)))


def describe_task(task: asyncio.Task[Any]) -> str:
    """One task, as ``describe`` has them."""
    frames = "".join(map(_frame, awaited(task.get_coro())))
    return f"Task {task.get_name()} (outermost call first):\n{frames}"


def heard_elsewhere(loop: asyncio.AbstractEventLoop) -> set[Call]:
    """Calls whose ``receive`` another task than their own waits in: frameworks that run a request in tasks of their own
    (Quart, Django) end these when they hear that the client has left, and leave them behind when they are cancelled.
    """
    waits = ((task, frame) for task in asyncio.all_tasks(loop) for frame in awaited(task.get_coro()))
    cycles = ((task, frame.f_locals.get("self")) for task, frame in waits if frame.f_code.co_name == "receive")
    return {cycle for task, cycle in cycles if isinstance(cycle, Cycle) and cycle.task is not task}


def _frame(frame: FrameType) -> str:
    code = frame.f_code
    source = linecache.getline(code.co_filename, frame.f_lineno).strip()
    return f'  File "{code.co_filename}", line {frame.f_lineno}, in {code.co_name}\n' + (
        f"    {source}\n" if source else ""
    )
