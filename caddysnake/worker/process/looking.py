"""A look at what runs, when the daemon's signal asks for one: in the main thread, between two instructions of whatever
it is at. Before the worker serves, it tells where it stands, or that it will never be ready; afterwards, it looks at
its channel.
"""

from __future__ import annotations

import importlib
import linecache
import os
import signal
import sys
import threading
from collections.abc import Callable
from time import monotonic
from types import FrameType

from ...channel.records import current, say, speak_for_thread
from ...channel.vitals import KNOWS_PROFILE, KNOWS_TAKES, LOOK_SIGNAL, WORD_GUEST, Page

_FRAMES_MAX = 20
_EARLY_S = 3.0
_BEGUN_S = 0.5  # a start that is late from its first moment has to be somewhere first
_PAGES = ("nicegui", "dash", "litestar")
_SERVERS = {
    "run": ("uvicorn", "hypercorn", "flask.app", "quart.app", "gunicorn.app", "bottle", "sanic", *_PAGES),
    "serve": ("uvicorn", "hypercorn", "waitress", "granian", "cheroot", "sanic"),
    "serve_forever": ("gevent.baseserver", "socketserver"),
    "start": ("cheroot", "tornado"),
    "run_simple": ("werkzeug.serving",),
    "run_app": ("aiohttp.web",),
    "run_server": ("dash",),
    "quickstart": ("cherrypy",),
    "block": ("cherrypy",),
    "server": ("eventlet.wsgi",),
}
"""Functions that return when a server ends, with the modules that have them."""
OURS = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))) + os.sep
"""The folder of our own code."""
_IMPORTING = os.path.dirname(importlib.__file__) + os.sep
_STANDARD = os.path.dirname(os.__file__) + os.sep


class _Look:
    """What the signal has done, by this process only: a child that the app forks has the handler too."""

    def __init__(self) -> None:
        self.pid = 0
        self.app = ""
        self.act: Callable[[], object] | None = None
        self.refuse: Callable[[str], object] = print
        self.told_from = 0.0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.pid:
            return
        if self.act is not None:
            self.act()
        elif _tell(frame, self.app, self.told_from, self.refuse):
            self.told_from = float("inf")


def _tell(frame: FrameType | None, app: str, told_from: float, refuse: Callable[[str], object]) -> bool:
    if (why := serves_itself(frame)) is not None:
        refuse("\n".join([why, *frames_of(frame)]))
    elif monotonic() >= told_from:
        where = place_of(frame) or f"{sys.implementation.name}, before any code of the app's"
        say("warn", f"still starting, at {where}", "\n".join(frames_of(frame)), app=app)
        return True
    return False


class Overseen:
    """A start in this thread, which no signal reaches: another thread looks at it, as the daemon would."""

    def __init__(self, app: str, slow_at: float, refuse: Callable[[str], object]) -> None:
        self._app, self._slow_at, self._refuse = app, max(slow_at, monotonic() + _BEGUN_S), refuse
        self._ident = threading.get_ident()
        self._records = current()
        self._is_over = threading.Event()

    def __enter__(self) -> None:
        threading.Thread(target=self._look, name="looking", daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._is_over.set()

    def _look(self) -> None:
        speak_for_thread(self._records)
        late_s = self._slow_at - monotonic()
        for wait_s in (min(_EARLY_S, late_s / 2), late_s):
            if self._is_over.wait(wait_s):
                return
            _tell(sys._current_frames().get(self._ident), self._app, self._slow_at, self._refuse)


_look = _Look()


def on_signal(app: str, page: Page, slow_at: float, refuse: Callable[[str], object]) -> None:
    """Have the daemon's signal tell where the start of ``app`` stands, from ``slow_at`` (``monotonic()``) on; or
    ``refuse``, with why, once it is plain that it will never be ready. In the main thread, before that is imported.
    """
    _look.pid, _look.app, _look.refuse = os.getpid(), app, refuse
    _look.told_from = max(slow_at, monotonic() + _BEGUN_S)
    signal.signal(LOOK_SIGNAL, _look)
    signal.siginterrupt(LOOK_SIGNAL, False)
    knows(page)


def on_signal_do(act: Callable[[], object]) -> None:
    """From now on have it call ``act``, which must be safe between any two instructions of the main thread."""
    _look.act = act


def knows(page: Page) -> None:
    """Say on its page what this worker understands."""
    page.header[WORD_GUEST] = KNOWS_PROFILE | KNOWS_TAKES


def frames_of(frame: FrameType | None) -> list[str]:
    """Where ``frame`` stands, as lines, the innermost first: without our own frames, and importlib's."""
    found: list[str] = []
    while frame is not None and len(found) < _FRAMES_MAX:
        code = frame.f_code
        if not code.co_filename.startswith((OURS, "<frozen importlib", _IMPORTING)):
            found.append(f"{code.co_filename}:{frame.f_lineno} in {code.co_name}")
        frame = frame.f_back
    return found


def place_of(frame: FrameType | None) -> str:
    """Where the app stands: its innermost frame that is no library's."""
    while frame is not None:
        if not _is_library(frame.f_code.co_filename):
            return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
        frame = frame.f_back
    return ""


def serves_itself(frame: FrameType | None) -> str | None:
    """Why it will never be ready, if what it is at is to run a server; else None."""
    found = ""
    while frame is not None:
        module, name = str(frame.f_globals.get("__name__", "")), frame.f_code.co_name
        for server in _SERVERS.get(name, ()):
            if module == server or module.startswith(f"{server}."):
                found = f"{server.partition('.')[0]}'s {name}()"
        if found and not _is_library(frame.f_code.co_filename):
            text = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
            return (
                f"{place_of(frame)}: {text}\nruns {found} while it is imported, which never returns. "
                'caddysnake is the server: put that under `if __name__ == "__main__":`'
            )
        frame = frame.f_back
    return None


def _is_library(file: str) -> bool:
    return file.startswith((OURS, _STANDARD, "<frozen")) or "/site-packages/" in file or "/dist-packages/" in file
