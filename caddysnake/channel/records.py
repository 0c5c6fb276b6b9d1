"""What a worker or relay says: records, and the requests it has answered, into the pipe that it got with ``Write``.

Not through ``logging``, which is the app's: it may disable every logger it does not know, or write ours into its own
files. Nothing here waits: what finds no room in the pipe is dropped, and counted. Without a pipe a record is a line of
text on standard error.

A process has one pipe; a thread of several workers in one process says ``speak_for_thread`` first.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from time import monotonic
from typing import Any

from .throttle import MISHAP, Throttle, raised_at


class Records:
    """One pipe. ``fd`` is not blocking, and stays the caller's; -1: standard error instead."""

    __slots__ = ("_dropped", "_lock", "_rest", "fd")

    def __init__(self, fd: int = -1) -> None:
        self.fd = fd
        self._lock = threading.Lock()
        self._rest = b""
        """The end of a line that the kernel took in part."""
        self._dropped = 0

    def say(self, level: str, msg: str, fields: dict[str, Any], error: str = "") -> None:
        """One record. ``level``: debug, info, warn, error; ``error``: a traceback, or what else has several lines."""
        if self.fd < 0:
            _print(level, msg, fields, error)
            return
        if error:
            fields = {**fields, "error": error}
        said = {"level": level, "msg": msg, "fields": fields}
        self.write(b"R" + json.dumps(said, default=str).encode() + b"\n")

    def write(self, lines: bytes) -> None:
        """Whole lines, each one a record; from any thread. Without room in the pipe they are dropped and counted."""
        with self._lock:
            if self._rest:
                self._rest = self._transmit(self._rest)
            if self._rest:
                self._dropped += lines.count(b"\n")
                return
            data = _loss(self._dropped) + lines if self._dropped else lines
            rest = self._transmit(data)
            if len(rest) == len(data):
                self._dropped += lines.count(b"\n")
                return
            self._dropped = 0
            if rest:
                # The line that was cut must be completed, before anything else; those behind it need not.
                end = rest.find(b"\n") + 1
                self._dropped = rest.count(b"\n", end)
                self._rest = rest[:end]

    def _transmit(self, data: bytes) -> bytes:
        """What the kernel does not take of ``data``."""
        while data:
            try:
                data = data[os.write(self.fd, data) :]
            except OSError:  # it is full, or nobody reads it any more
                return data
        return data

    def after_fork(self) -> None:
        """In a child: another thread may have held the lock."""
        self._lock = threading.Lock()
        self._rest = b""


def _loss(count: int) -> bytes:
    return b"D%d\n" % count


_of_process = Records()
_of_thread = threading.local()


def use(fd: int) -> None:
    """From now on the records of this process go to ``fd``."""
    _of_process.fd = fd


def speak_for_thread(records: Records) -> None:
    """From now on the records of this thread go to ``records``."""
    _of_thread.records = records


def current() -> Records:
    """Where records of this thread go."""
    found: Records = getattr(_of_thread, "records", _of_process)
    return found


def say(level: str, msg: str, error: str = "", **fields: Any) -> None:
    """One record of this thread's worker, or of this relay. ``level``: debug, info, warn, error."""
    current().say(level, msg, fields, error)


class Mishaps:
    """Errors of ours, for each of which a connection is ended. What one line raises is told once a minute."""

    def __init__(self) -> None:
        self._told = Throttle()
        self._lock = threading.Lock()

    def tell(self, exc: Exception) -> None:
        """Tell of ``exc``, with its traceback; from any thread."""
        with self._lock:
            is_due = self._told.is_due(raised_at(exc), monotonic())
        if is_due:
            say("error", MISHAP, "".join(traceback.format_exception(exc)), code="internal")


def _print(level: str, msg: str, fields: dict[str, Any], error: str) -> None:
    told = " ".join(f"{name}={value}" for name, value in fields.items())
    try:
        sys.stderr.write(f"{level.upper()} {msg}{': ' if told else ''}{told}\n{error}{chr(10) if error else ''}")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):  # the app may have put anything there, or closed it
        pass


os.register_at_fork(after_in_child=_of_process.after_fork)
