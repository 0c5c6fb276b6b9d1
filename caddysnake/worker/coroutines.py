"""Where a task stands: the frames of coroutines that await each other."""

from __future__ import annotations

from collections.abc import Iterator
from types import FrameType
from typing import Any

# What holds the frame, and what it waits for: of a coroutine, a generator-based one, an asynchronous generator.
_KINDS = (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await"))


def awaited(coro: Any) -> Iterator[FrameType]:
    """The frames of a coroutine, of what it awaits, and so on, as far as they can be seen."""
    while kind := next((kind for kind in _KINDS if hasattr(coro, kind[0])), None):
        if (frame := getattr(coro, kind[0])) is not None:
            yield frame
        coro = getattr(coro, kind[1])
