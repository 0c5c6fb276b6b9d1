"""Where the program begins: what must be done before anything is imported that takes time.

A deploy script knows a daemon's pid as soon as it has started it, and may tell it to reload. Until there is a handler,
such a signal would end it; held back, it comes when the daemon can carry it out.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from itertools import pairwise

DAEMONS = ("run", "serve")
HELD_BACK = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""As in ``daemon.upgrade.handover``, which lets them in, without those that ask for the end: it may come any time."""
_GOES_ON = ("CADDYSNAKE_STATE", "CADDYSNAKE_REHEARSAL")  # as in ``main``
_FOR_ANOTHER = frozenset({"--venv", "--python-path", "--working-dir", "--app-dir"})
_LOOKS_AT_BYTES = 64 * 1024


def main() -> int:
    """Carry out the command line of this process; the exit status."""
    if sys.argv[1:2] and sys.argv[1] in DAEMONS:
        signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
        gc.disable()  # what is imported stays; `run` goes on with it
        if (interface := _likely(sys.argv[1:])) is not None:
            from ..daemon.workers.forking import ahead

            ahead.start(interface)
            try:
                return _carry_out()
            finally:
                ahead.discard()
    return _carry_out()


def _carry_out() -> int:
    # pydantic loads whatever else in our environment calls itself a plugin of it. Apps get this variable by name only.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    from .main import main

    return main()


def _likely(words: list[str]) -> str | None:
    """What the first app is, if it seems to be one of this Python's; None: what an app needs is not started ahead."""
    if {"-h", "--help", "--print"} & {*words} or any(name in os.environ for name in _GOES_ON):
        return None
    if words[0] == "serve":
        has_venv = "VIRTUAL_ENV" in os.environ or os.path.exists(".venv")
        return None if has_venv or _FOR_ANOTHER & {*words} else "auto"
    file = next((after for word, after in pairwise(words) if word in ("-c", "--config")), "Caddyfile")
    if not os.path.isfile(file):  # a pipe can be read once
        return None
    try:
        with open(file, "rb") as opened:
            text = opened.read(_LOOKS_AT_BYTES)
    except OSError:
        return None
    is_elsewhere = b"venv" in text or b"python_path" in text or b"python" not in text
    return None if is_elsewhere else "asgi" if b"module_asgi" in text else "wsgi"
