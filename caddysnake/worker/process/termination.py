"""SIGTERM for a worker that is a process of its own: it ends now, but in order."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable


def on_terminate(end: Callable[[], object]) -> None:
    """Have SIGTERM call ``end``, in the main thread, which must call this. An app's own handler stays.

    Only in this process: a child that the app forks (``multiprocessing``) has our handler too, and ends as if it had
    none.
    """
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return
    pid = os.getpid()

    def terminate(number: int, _: object) -> None:
        if os.getpid() == pid:
            end()
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, terminate)
