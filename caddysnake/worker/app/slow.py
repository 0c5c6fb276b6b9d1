"""Tells of requests that take long, while they do and at their end: ``slow_request``.

A wrapper around the app notes which calls run, and a thread of its own looks at them now and then: also where the event
loop stands still. What runs longest is looked at first, and no further than to the first that is not slow.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Awaitable, Iterator
from itertools import islice
from time import monotonic, sleep
from types import FrameType
from typing import Any

from ...channel.records import Records, current
from ...channel.settings import Settings
from ...channel.throttle import TokenBucket
from ...channel.traces import trace_in, trace_of
from ..coroutines import awaited

_RECORDS_A_SECOND, _RECORDS_AT_ONCE = 1, 20
_LOOK_LEAST_S, _LOOK_MOST_S = 0.05, 1.0
_PATH_MAX = 200
_FRAMES_MAX = 20
_OURS = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))) + os.sep
_NOT_THE_APPS = (os.path.dirname(os.__file__) + os.sep, f"{os.sep}site-packages{os.sep}")


class _Running:
    """A call of the app with ``request``, a scope or an environ: what that is called is looked up when it is told."""

    __slots__ = ("is_told", "request", "since", "task", "thread")

    def __init__(self, request: dict[str, Any], task: Any) -> None:
        self.request = request
        self.task = task
        """Of an event loop; None: the thread runs nothing else."""
        self.thread = threading.get_ident()
        self.since = monotonic()
        self.is_told = False


class SlowRequests:
    """Of one import of an app. ``limit_s``: what takes longer is told of."""

    def __init__(self, settings: Settings, limit_s: float) -> None:
        self._app = settings.app
        self._limit_s = limit_s
        self._records: Records = current()
        self._running: dict[_Running, None] = {}  # oldest first
        self._allowance = TokenBucket(_RECORDS_A_SECOND, burst=_RECORDS_AT_ONCE)
        self._untold = 0
        self._lock = threading.Lock()
        self._pid = 0

    def begin(self, request: dict[str, Any], task: Any = None) -> _Running:
        """The app is called."""
        if self._pid != os.getpid():
            self._watch()
        call = _Running(request, task)
        self._running[call] = None
        return call

    def end(self, call: _Running) -> None:
        """Its call is over."""
        self._running.pop(call, None)
        took_s = monotonic() - call.since
        if call.is_told or took_s >= self._limit_s:
            self._say(call, f"took {took_s:.2f} s", took_s)

    def _watch(self) -> None:
        with self._lock:
            if self._pid != os.getpid():
                self._pid = os.getpid()
                threading.Thread(target=self._look, name="caddysnake-slow", daemon=True).start()

    def _look(self) -> None:
        pause = min(max(self._limit_s / 4, _LOOK_LEAST_S), _LOOK_MOST_S)
        while True:
            sleep(pause)
            now = monotonic()
            for call in list(self._running):
                if now - call.since < self._limit_s:
                    break
                if not call.is_told:
                    call.is_told = True
                    self._tell(call, now - call.since)

    def _tell(self, call: _Running, seconds: float) -> None:
        frames = list(_frames(call))
        own = [frame for frame in frames if not _is_foreign(frame)]
        shown = (own or frames)[:_FRAMES_MAX]
        at = f", at {_told(shown[0])}" if shown else ""
        self._say(call, f"has taken {seconds:.2f} s{at}", seconds, "\n".join(map(_told, shown)))

    def _say(self, call: _Running, what: str, seconds: float, error: str = "") -> None:
        with self._lock:
            if not self._allowance.spend(monotonic()):
                self._allowance.charge(-1)
                self._untold += 1
                return
            untold, self._untold = self._untold, 0
        method, path, trace = (_of_scope if "headers" in call.request else _of_environ)(call.request)
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


_Place = tuple[FrameType, int]
"""A frame and the line that it is at."""


def _frames(call: _Running) -> Iterator[_Place]:
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


def before_asgi(app: Any, slow: SlowRequests) -> Any:
    """``app``, an ASGI 3 app, whose HTTP requests ``slow`` tells of."""

    def noting(scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        returned: Awaitable[None] = app(scope, receive, send)
        return noted(scope, returned) if scope["type"] == "http" else returned

    async def noted(scope: Any, returned: Awaitable[None]) -> None:
        call = slow.begin(scope, asyncio.current_task())
        try:
            await returned
        finally:
            slow.end(call)

    return noting


def before_wsgi(app: Any, slow: SlowRequests) -> Any:
    """``app``, a WSGI app, whose requests ``slow`` tells of, until an iterator that it gives is at its end."""

    def noting(environ: dict[str, Any], start_response: Any) -> Any:
        call = slow.begin(environ)
        try:
            returned = app(environ, start_response)
        except BaseException:
            slow.end(call)
            raise
        if type(returned) in (list, tuple) or type(returned) is environ.get("wsgi.file_wrapper"):
            slow.end(call)
            return returned
        return _Noted(returned, slow, call)

    return noting


class _Noted:
    """An iterable of an app's; ``close`` is called by the server at the end."""

    def __init__(self, iterable: Any, slow: SlowRequests, call: _Running) -> None:
        self._iterable = iterable
        self._slow = slow
        self._call = call

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._iterable)

    def close(self) -> None:
        self._slow.end(self._call)
        close = getattr(self._iterable, "close", None)
        if close is not None:
            close()
