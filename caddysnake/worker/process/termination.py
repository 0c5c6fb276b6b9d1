"""SIGTERM for a worker, or for a process with many: each ends now, but in order."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable

TOLD = "it was told to end by SIGTERM"

_ends: dict[int, Callable[[], object]] = {}


def on_terminate(end: Callable[[], object]) -> None:
    """Have SIGTERM call ``end``, in the main thread, for this thread, until ``forget_terminate``."""
    _ends[threading.get_ident()] = end


def forget_terminate() -> None:
    """This thread ends, and nothing of its app is to be kept."""
    _ends.pop(threading.get_ident(), None)


def hear_terminate() -> None:
    """Hear SIGTERM. For the main thread. An app's own handler stays.

    Only in this process: a child that the app forks (``multiprocessing``) has our handler too, and ends as if it had
    none.
    """
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return
    pid = os.getpid()

    def terminate(number: int, _: object) -> None:
        if os.getpid() == pid:
            for end in list(_ends.values()):
                with contextlib.suppress(RuntimeError):  # the loop of a thread that ends just now
                    end()
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, terminate)
