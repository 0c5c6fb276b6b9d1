"""Threads of an app that outlive it: Python waits for each that is no daemon, and so does everybody who stops it."""

from __future__ import annotations

import sys
import threading
import time

from ...channel.records import say
from .looking import frames_of, place_of

_PATIENCE_S = 1.0


def watch(app: str) -> None:
    """The worker has served: if its process is still there in a moment, say which threads hold it up."""
    if any(_holds(each) for each in threading.enumerate()):
        threading.Thread(target=_tell, args=(app,), name="lingering", daemon=True).start()


def _holds(thread: threading.Thread) -> bool:
    return not thread.daemon and thread is not threading.main_thread()


def _tell(app: str) -> None:
    time.sleep(_PATIENCE_S)
    frames = sys._current_frames()
    for thread in threading.enumerate():
        if _holds(thread) and thread.ident is not None:
            frame = frames.get(thread.ident)
            where = place_of(frame)
            what = f"the app's thread {thread.name} holds up the end" + (f", at {where}" if where else "")
            hint = ": end it when the app is stopped, or make it a daemon thread"
            say("warn", what + hint, "\n".join(frames_of(frame)), app=app)
