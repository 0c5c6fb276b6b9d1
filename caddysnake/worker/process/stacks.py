"""The stacks of every thread, written when the daemon signals, also while a thread holds the GIL and never gives it up,
and when the process crashes.

``faulthandler`` walks the stacks within the signal handler, in C. They go to standard error, which is the log.
"""

from __future__ import annotations

import faulthandler
import sys
from time import monotonic

from ...channel.vitals import STACKS_SIGNAL

_STDERR = 2  # the descriptor: the app may have put anything into sys.stderr
_PAUSE_S = 10.0


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
