"""The stacks of every thread, written when the daemon signals, also while a thread holds the GIL and never gives it up,
and when the process crashes.

``faulthandler`` walks the stacks within the signal handler, in C. They go to standard error, which is the log.
"""

from __future__ import annotations

import faulthandler
import sys
from collections.abc import Iterator
from time import monotonic
from types import FrameType
from typing import Any

from ...channel.vitals import STACKS_SIGNAL

_STDERR = 2  # the descriptor: the app may have put anything into sys.stderr
_PAUSE_S = 10.0
# What holds the frame, and what it waits for: of a coroutine, a generator-based one, an asynchronous generator.
_KINDS = (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await"))


def awaited_frames(awaited: Any) -> Iterator[FrameType]:
    """The frames of a coroutine, of what it awaits, and so on, as far as they can be seen."""
    while awaited is not None:
        kind = next((kind for kind in _KINDS if hasattr(awaited, kind[0])), None)
        if kind is None:
            return
        frame = getattr(awaited, kind[0])
        if frame is not None:
            yield frame
        awaited = getattr(awaited, kind[1])


def on_signal() -> None:
    """Have the daemon's signal write the stacks, and a crash. Once for a process, before the app is imported."""
    faulthandler.enable(file=_STDERR, all_threads=True)
    faulthandler.register(STACKS_SIGNAL, file=_STDERR, all_threads=True, chain=False)


class Stacks:
    """Writes stacks on request, but not again and again for many requests that stand at the same place."""

    def __init__(self) -> None:
        self._written_at = -_PAUSE_S

    def write(self) -> None:
        """All threads' stacks, unless they were written a moment ago."""
        now = monotonic()
        if now - self._written_at >= _PAUSE_S:
            self._written_at = now
            stream = sys.__stderr__
            if stream is not None:
                stream.flush()
            faulthandler.dump_traceback(_STDERR, all_threads=True)
