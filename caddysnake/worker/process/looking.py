"""A look at what runs, when the daemon's signal asks for one: in the main thread, between two instructions of whatever
it is at. Before the worker serves, it tells where it stands; afterwards, it looks at its channel.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

from ...channel.records import say
from ...channel.vitals import GUEST, LOOK_SIGNAL, WORD_GUEST, Page

_FRAMES_MAX = 20
OURS = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))) + os.sep
"""The folder of our own code."""


class _Look:
    """What the signal has done, by this process only: a child that the app forks has the handler too."""

    def __init__(self) -> None:
        self.pid = 0
        self.app = ""
        self.act: Callable[[], object] | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.pid:
            return
        if self.act is not None:
            self.act()
        else:
            _tell(self.app, frame)


_look = _Look()


def on_signal(app: str, page: Page) -> None:
    """Have the daemon's signal tell where the start of ``app`` stands. In the main thread, before that is imported."""
    _look.pid, _look.app = os.getpid(), app
    signal.signal(LOOK_SIGNAL, _look)
    signal.siginterrupt(LOOK_SIGNAL, False)
    knows(page)


def on_signal_do(act: Callable[[], object]) -> None:
    """From now on have it call ``act``, which must be safe between any two instructions of the main thread."""
    _look.act = act


def knows(page: Page) -> None:
    """Say on its page what this worker understands."""
    page.header[WORD_GUEST] = GUEST


def frames_of(frame: FrameType | None) -> list[str]:
    """Where ``frame`` stands, as lines, the innermost first: without our own frames, and importlib's."""
    found: list[str] = []
    while frame is not None and len(found) < _FRAMES_MAX:
        code = frame.f_code
        if not code.co_filename.startswith((OURS, "<frozen importlib")):
            found.append(f"{code.co_filename}:{frame.f_lineno} in {code.co_name}")
        frame = frame.f_back
    return found


def _tell(app: str, frame: FrameType | None) -> None:
    found = frames_of(frame)
    top = found[0] if found else f"{sys.implementation.name}, before any code of the app's"
    say("warn", f"still starting, at {top}", "\n".join(found), app=app)
