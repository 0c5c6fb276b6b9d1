"""Where the program begins: what must be done before anything is imported that takes time.

A deploy script knows a daemon's pid as soon as it has started it, and may tell it to reload. Until there is a handler,
such a signal would end it; held back, it comes when the daemon can carry it out.
"""

from __future__ import annotations

import signal
import sys

DAEMONS = ("run", "serve")
HELD_BACK = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""As in ``daemon.upgrade.handover``, which lets them in, without those that ask for the end: it may come any time."""


def main() -> int:
    """Carry out the command line of this process; the exit status."""
    if sys.argv[1:2] and sys.argv[1] in DAEMONS:
        signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    from .main import main as carry_out

    return carry_out()
