"""Where an event loop's tasks stand, for the log of a worker that seems stuck."""

from __future__ import annotations

import asyncio
import linecache
from types import FrameType
from typing import Any


def describe(loop: asyncio.AbstractEventLoop) -> str:
    """Every task with the chain of coroutines it waits in, outermost first.

    ``Task.print_stack`` stops at the outermost one, which is always the server's.
    """
    return "".join(map(describe_task, sorted(asyncio.all_tasks(loop), key=asyncio.Task.get_name)))


def describe_task(task: asyncio.Task[Any]) -> str:
    """One task, as ``describe`` has them."""
    frames = "".join(map(_frame, _frames(task.get_coro())))
    return f"Task {task.get_name()} (outermost call first):\n{frames}"


# What holds the frame, and what it waits for: of a coroutine, a generator-based one, an asynchronous generator.
_KINDS = (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await"))


def _frames(awaited: Any) -> list[FrameType]:
    """The frames of a coroutine, of what it awaits, and so on, as far as they can be seen."""
    frames: list[FrameType] = []
    while awaited is not None:
        kind = next((kind for kind in _KINDS if hasattr(awaited, kind[0])), None)
        if kind is None:
            break
        frame = getattr(awaited, kind[0])
        if frame is not None:
            frames.append(frame)
        awaited = getattr(awaited, kind[1])
    return frames


def _frame(frame: FrameType) -> str:
    code = frame.f_code
    source = linecache.getline(code.co_filename, frame.f_lineno).strip()
    return f'  File "{code.co_filename}", line {frame.f_lineno}, in {code.co_name}\n' + (
        f"    {source}\n" if source else ""
    )
