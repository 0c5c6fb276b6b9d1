"""What makes a process a worker's: environment, streams, title, directories, and death with the daemon."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import signal
import socket
import sys
import time
from typing import Any

from ...channel.settings import Settings
from ..app.loader import AppError
from . import limits, stacks, tracing

_PR_SET_NAME = 15
_F_SETSIG = 10  # fcntl.F_SETSIG is not in every build of the module


def enter_process(settings: Settings) -> None:
    """Make this process the app's: environment, streams, title, limits. Raises ``AppError``."""
    os.environ.clear()
    os.environ.update(settings.environ)
    _count_in(settings.metrics_dir)
    if "TZ" in settings.environ:
        time.tzset()
    stacks.on_signal()
    by_line()
    tracing.turn(settings.marks_traces)
    set_title(_title(settings))
    tempfile: Any = sys.modules.get("tempfile")
    if tempfile is not None:  # a preload may have asked, when there was no TMPDIR of this app's
        tempfile.tempdir = None
    if settings.limits:
        try:
            limits.apply(settings.limits)
        except OSError as exc:
            raise AppError("setup-failed", f"limits {settings.limits}: {exc.strerror}") from None
    if settings.sandbox is not None and not settings.rehearses:
        from ...sandbox.walls import Walls, put_on  # its fork server has it already

        try:
            put_on(Walls.of(settings.sandbox), with_calls=False)  # it was forked from where they are refused
        except OSError as exc:
            raise AppError("setup-failed", f"the sandbox cannot be put up: {exc}") from None


def _count_in(folder: str) -> None:
    """Have prometheus-client, if the app has it, count there."""
    if folder:
        try:
            for each in (os.path.dirname(folder), folder):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(each, 0o700)  # and none above: who is late must not bring an app's folder back
        except OSError:
            return  # it counts for itself alone then
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder


def enter_directory(settings: Settings) -> None:
    """Make the working directory the app's. Raises ``AppError``."""
    try:
        os.chdir(settings.working_dir)
    except OSError as exc:
        raise AppError("no-such-app", f"working_dir {settings.working_dir}: {exc.strerror}") from None


def path_entries(settings: Settings) -> list[str]:
    """What ``PYTHONPATH`` adds to the module search path."""
    return [entry for entry in settings.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]


def keep_path() -> None:
    """Follow the links in ``sys.path`` once: what is imported late is of the release of the start."""
    own = tuple(os.path.join(prefix, "") for prefix in (sys.prefix, sys.base_prefix, sys.exec_prefix))
    sys.path[:] = [
        entry if entry.startswith(own) or not os.path.isabs(entry) else os.path.realpath(entry) for entry in sys.path
    ]


def _title(settings: Settings) -> str:
    if settings.interface == "host":
        return "caddysnake: thread host"
    place = f" [{settings.worker_index + 1}/{settings.workers}]" if settings.workers > 1 else ""
    return f"caddysnake: worker {settings.app}{place}"


def by_line() -> None:
    """A line printed is a line in the log now, not when a buffer is full."""
    tracing.mark_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(line_buffering=True, errors="backslashreplace")


def set_title(title: str) -> None:
    """Show ``title`` in ps and top: overwrites the argument area in place, which needs no library (proc(5), stat).

    /proc/self/mem and /proc/self/comm would do as well, but an undumpable process may not open its own.
    """
    try:
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        start, end = int(fields[45]), int(fields[46])
        raw = title.encode()[: end - start - 1]
        if start:
            ctypes.memset(start, 0, end - start)
            ctypes.memmove(start, raw, len(raw))
        ctypes.CDLL(None).prctl(_PR_SET_NAME, b"caddysnake", 0, 0, 0)
    except (OSError, ValueError, IndexError):
        pass  # a title is a comfort


class DieWithDaemon:
    """While foreign code is being imported nobody reads the channel; its end then kills this process, GIL or no GIL.

    Anything that arrives on the channel does, in fact, so the daemon sends nothing between ``Configure`` and ``Ready``.
    """

    def __init__(self, channel: socket.socket) -> None:
        self._fd = channel.fileno()

    def __enter__(self) -> None:
        fcntl.fcntl(self._fd, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(self._fd, _F_SETSIG, int(signal.SIGKILL))
        self._set(True)
        # What ended before the signal was armed sends none.
        poller = select.poll()
        poller.register(self._fd, select.POLLHUP)
        if poller.poll(0):
            os._exit(1)

    def __exit__(self, *_: object) -> None:
        self._set(False)

    def _set(self, on: bool) -> None:
        flags = fcntl.fcntl(self._fd, fcntl.F_GETFL)
        fcntl.fcntl(self._fd, fcntl.F_SETFL, flags | os.O_ASYNC if on else flags & ~os.O_ASYNC)
