"""Tells of requests that take long, while they do and at their end: ``slow_request``.

A thread of its own looks now and then at the calls that run: also where the event loop stands still.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import islice
from threading import get_ident
from time import monotonic, sleep
from types import FrameType
from typing import Any, NamedTuple

from ...channel.records import Records, current
from ...channel.settings import Settings
from ...channel.throttle import TokenBucket
from ...channel.traces import trace_in, trace_of
from ..coroutines import awaited

_RECORDS_A_SECOND, _RECORDS_AT_ONCE = 1, 20
_LOOK_LEAST_S, _LOOK_MOST_S = 0.02, 1.0
_PATH_MAX = 200
_FRAMES_MAX = 20
_OURS = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))) + os.sep
_NOT_THE_APPS = (os.path.dirname(os.__file__) + os.sep, f"{os.sep}site-packages{os.sep}")


class Running(NamedTuple):
    """A call of the app with ``request``, a scope or an environ, since ``since``, in monotonic seconds."""

    request: dict[str, Any]
    since: float
    thread: int
    task: Any = None
    """Of an event loop; None: the thread runs nothing else."""


class SlowRequests:
    """``running`` has calls that have not ended; whoever makes them tells of an ``end`` after ``limit_s``, or later."""

    def __init__(self, settings: Settings, limit_s: float, running: Callable[[], Iterable[Running]]) -> None:
        self.limit_s = limit_s
        self._app = settings.app
        self._records: Records = current()
        self._running = running
        self._told: set[tuple[int, float]] = set()
        self._allowance = TokenBucket(_RECORDS_A_SECOND, burst=_RECORDS_AT_ONCE)
        self._untold = 0
        self._lock = threading.Lock()
        threading.Thread(target=_look, args=(weakref.ref(self),), name="caddysnake-slow", daemon=True).start()

    def end(self, request: dict[str, Any], took_s: float) -> None:
        """The call with ``request``, which took so long, is over."""
        if request.get("type") != "websocket":
            self._say(request, f"took {took_s:.2f} s", took_s)

    def look(self) -> float:
        """Tell of what has taken long by now, and has not been told of. In how many seconds to look again."""
        now, oldest_s = monotonic(), 0.0
        before, self._told = self._told, set()
        for call in self._running():
            age_s, key = now - call.since, (id(call.request), call.since)
            if age_s < self.limit_s:
                oldest_s = max(oldest_s, age_s)
                continue
            self._told.add(key)
            if key not in before:
                self._tell(call, age_s)
        return min(max(self.limit_s - oldest_s, _LOOK_LEAST_S), _LOOK_MOST_S)

    def _tell(self, call: Running, seconds: float) -> None:
        frames = list(_frames(call))
        own = [frame for frame in frames if not _is_foreign(frame)]
        shown = (own or frames)[:_FRAMES_MAX]
        at = f", at {_told(shown[0])}" if shown else ""
        self._say(call.request, f"has taken {seconds:.2f} s{at}", seconds, "\n".join(map(_told, shown)))

    def _say(self, request: dict[str, Any], what: str, seconds: float, error: str = "") -> None:
        with self._lock:
            if not self._allowance.spend(monotonic()):
                self._allowance.charge(-1)
                self._untold += 1
                return
            untold, self._untold = self._untold, 0
        try:
            method, path, trace = (_of_scope if "headers" in request else _of_environ)(request)
        except (KeyError, TypeError, ValueError, AttributeError):  # an app may write anything into it
            method, path, trace = "?", "?", ""
        fields: dict[str, Any] = {"app": self._app, "method": method, "path": path, "duration": round(seconds, 3)}
        if trace:
            fields["traceID"] = trace
        if untold:
            fields["not_told"] = untold
        self._records.say("warn", f"slow request: {method} {path} {what}", fields, error)


def _of_scope(scope: dict[str, Any]) -> tuple[str, str, str]:
    return scope["method"], scope["path"][:_PATH_MAX], trace_in(scope["headers"])


def _of_environ(environ: dict[str, Any]) -> tuple[str, str, str]:
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")  # which a dispatcher may have divided anew
    shown = path.encode("latin-1", "replace").decode("utf-8", "backslashreplace")[:_PATH_MAX]
    return environ.get("REQUEST_METHOD", ""), shown, trace_of(environ.get("HTTP_TRACEPARENT", ""))


def _look(ref: weakref.ref[SlowRequests]) -> None:
    """Until there is nothing to look at any more."""
    while (slow := ref()) is not None:
        pause = slow.look()
        del slow
        sleep(pause)


_Place = tuple[FrameType, int]
"""A frame and the line that it is at."""


def _frames(call: Running) -> Iterator[_Place]:
    """Where it stands, the innermost first, without our own frames."""
    coro = None if call.task is None else call.task.get_coro()
    if coro is None or getattr(coro, "cr_running", False):
        frame = sys._current_frames().get(call.thread)
        while frame is not None:
            if not frame.f_code.co_filename.startswith(_OURS):
                yield frame, frame.f_lineno
            frame = frame.f_back
        return
    found = [(frame, frame.f_lineno) for frame in islice(awaited(coro), 10 * _FRAMES_MAX)]
    yield from (place for place in reversed(found) if not place[0].f_code.co_filename.startswith(_OURS))


def _told(place: _Place) -> str:
    frame, line = place
    return f"{frame.f_code.co_filename}:{line} in {frame.f_code.co_name}"


def _is_foreign(place: _Place) -> bool:
    name = place[0].f_code.co_filename
    return name.startswith((_NOT_THE_APPS[0], "<frozen")) or _NOT_THE_APPS[1] in name


def of_loop(settings: Settings, limit_s: float, calls: Collection[Any]) -> SlowRequests:
    """Of the ``calls`` (``asgi.context.Call``) of the event loop that this thread runs."""
    thread = get_ident()

    def running() -> Iterator[Running]:
        for call in list(calls):
            if call.scope.get("type") == "http":
                yield Running(call.scope, call.begun, thread, call.task)

    return SlowRequests(settings, limit_s, running)


def of_threads(settings: Settings, limit_s: float, calls: dict[int, tuple[dict[str, Any], float]]) -> SlowRequests:
    """Of ``calls`` by the thread that runs each: its environ, and since when."""

    def running() -> list[Running]:
        return [Running(environ, since, thread) for thread, (environ, since) in list(calls.items())]

    return SlowRequests(settings, limit_s, running)
