"""Whose line it is: in a thread host ``print`` goes to the pipes of the worker whose thread prints.

A thread belongs to whom ``ownership`` says. What C code, child processes and threads that Python does not know write
goes to the host's own descriptors, and is told as the host's.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from typing import Any

from ...channel.configuring import OutputPipes
from ...channel.records import Records, speak_for_thread
from ..process.tracing import with_mark
from .ownership import lodger_of

_PENDING_MAX = 8192


class _Pipe:
    """One descriptor. It is not closed while somebody writes to it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()

    def write(self, data: bytes) -> bool:
        """False when it is closed."""
        with self._lock:
            while data and self._fd >= 0:
                data = data[os.write(self._fd, data) :]
        return not data

    def close(self) -> None:
        with self._lock:
            fd, self._fd = self._fd, -1
            if fd >= 0:
                os.close(fd)


_pipes: dict[tuple[int, int], _Pipe] = {}
"""By worker and by standard descriptor."""


class _Shared(io.BufferedIOBase):
    """What ``sys.stdout`` and ``sys.stderr`` write to: whole lines, each thread's to its worker's pipe."""

    def __init__(self, standard: int) -> None:
        self._standard = standard
        self._begun = threading.local()

    def fileno(self) -> int:
        return self._standard

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        piece = bytes(data)
        line = getattr(self._begun, "line", b"") + piece
        if not piece.endswith(b"\n") and len(line) < _PENDING_MAX:
            self._begun.line = line
        else:
            self._begun.line = b""
            self._emit(line)
        return len(piece)

    def flush(self) -> None:
        line = getattr(self._begun, "line", b"")
        if line:
            self._begun.line = b""
            self._emit(line)

    def _emit(self, line: bytes) -> None:
        line = with_mark(line)
        lodger = lodger_of(threading.current_thread())
        pipe = _pipes.get((lodger.worker, self._standard)) if lodger is not None else None
        if pipe is None or not pipe.write(line):
            while line:
                line = line[os.write(self._standard, line) :]


def share() -> None:
    """Make ``sys.stdout`` and ``sys.stderr`` of this process tell threads apart."""
    for name, standard in (("stdout", 1), ("stderr", 2)):
        former = getattr(sys, name)
        former.flush()
        # A line's pieces are put together below, for each thread by itself.
        lines: Any = _Shared(standard)
        made = io.TextIOWrapper(lines, former.encoding, "backslashreplace", newline="\n", write_through=True)
        setattr(sys, name, made)


def speak_as(worker: int, outlets: OutputPipes) -> None:
    """This thread, and those that it starts, are those of ``worker``, whose pipes are ``outlets``."""
    _pipes[worker, 1] = _Pipe(outlets.stdout)
    _pipes[worker, 2] = _Pipe(outlets.stderr)
    _pipes[worker, 3] = _Pipe(outlets.records)
    speak_for_thread(Records(outlets.records))


def fall_silent(worker: int) -> None:
    """``worker`` has ended: what a thread of it may still print is told as the host's."""
    for standard in (1, 2, 3):
        pipe = _pipes.pop((worker, standard), None)
        if pipe is not None:
            pipe.close()
