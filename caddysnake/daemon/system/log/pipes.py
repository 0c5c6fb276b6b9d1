"""The pipes that a process writes to in the place of its standard output and standard error, and those of its records.

The daemon keeps a copy of the end that is read: while the log process is started again, what is written waits in the
pipe, and nobody gets EPIPE. When a process has ended, both let go of its pipes, whoever else may have them.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import struct
import termios
from typing import Any, Protocol

from ....logs import orders

_libc = ctypes.CDLL(None, use_errno=True)

STREAMS = ("stdout", "stderr", "records")
_F_SETPIPE_SZ = 1031  # linux/fcntl.h
_WIDE_PIPE_BYTES = 1024 * 1024
_PIPE_BYTES = 64 * 1024  # pipe(7)
_SPLICE_F_NONBLOCK = 2


class OutputReader(Protocol):
    """Has pipes read: the log process."""

    def add(self, outlets: OutputPipes) -> None:
        """Have ``outlets`` read from now on."""

    def remove(self, outlets: OutputPipes) -> None:
        """Nothing more is to be read of ``outlets``; its descriptors may be closed then."""


class OutputPipes:
    """The pipes of one process. ``writers`` are what it gets; ours to close once handed over (``handed``)."""

    def __init__(
        self,
        logger: OutputReader,
        name: str,
        fields: dict[str, Any],
        streams: tuple[str, ...],
        access: dict[str, Any] | None,
    ) -> None:
        """Raises ``OSError`` when there are no descriptors."""
        self.writers: list[int] = []
        self._readers: list[int] = []
        self._logger = logger
        self._content: dict[str, Any] = {"logger": name, "fields": fields, "streams": list(streams), "access": access}
        try:
            for stream in streams:
                reader, writer = os.pipe2(os.O_CLOEXEC)
                self._readers.append(reader)
                self.writers.append(writer)
                os.set_blocking(reader, False)
                if stream == "records":
                    os.set_blocking(writer, False)  # our own code writes there, and drops what finds no room
                    if access is not None:
                        _widen(writer)
        except OSError:
            self.end()
            raise

    @classmethod
    def restored(cls, logger: OutputReader, state: dict[str, Any]) -> OutputPipes:
        """Return the pipes of which ``state()`` told in another image of the daemon."""
        pipes = cls(logger, state["content"]["logger"], {}, (), None)
        pipes._content, pipes._readers = state["content"], list(state["readers"])
        return pipes

    def handed(self) -> None:
        """The process has its ends."""
        for fd in self.writers:
            os.close(fd)
        self.writers.clear()

    def begin(self, pid: int) -> None:
        """The process is there, as ``pid``: read what it writes."""
        self._content["fields"] = {**self._content["fields"], "pid": pid}
        self._logger.add(self)

    def held(self, stream: str) -> bytes:
        """What ``stream`` has said, as far as it is still in the pipe: it is, until ``begin``."""
        return peek(self._readers[self._content["streams"].index(stream)])

    @property
    def is_filling(self) -> bool:
        """Who writes there may soon have to wait for a reader."""
        return any(unread(reader) > _PIPE_BYTES // 2 for reader in self._readers)

    def end(self) -> None:
        """The process is gone: what it has written is read to its end, and forgotten here."""
        self.handed()
        self._logger.remove(self)
        for fd in self._readers:
            os.close(fd)
        self._readers.clear()

    def state(self) -> dict[str, Any]:
        """For an exec: JSON. ``readers`` are the descriptors that must survive it."""
        return {"content": self._content, "readers": list(self._readers)}

    @property
    def pipes(self) -> list[int]:
        """By which the log process knows them."""
        return [os.fstat(reader).st_ino for reader in self._readers]

    def order(self) -> tuple[bytes, tuple[int, ...]]:
        """The frame that tells the log process of it, and the descriptors that go along; these stay ours."""
        return orders.frame(orders.SOURCE, self._content), tuple(self._readers)


def unread(pipe: int) -> int:
    """How many bytes are in it (FIONREAD)."""
    return struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4))[0]  # type: ignore[no-any-return]


def peek(pipe: int) -> bytes:
    """What is in it, which stays there for who reads it (tee(2)); empty when that cannot be."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        count = _libc.tee(pipe, writer, _PIPE_BYTES, _SPLICE_F_NONBLOCK)
        return os.read(reader, count) if count > 0 else b""
    finally:
        os.close(reader)
        os.close(writer)


def _widen(pipe: int) -> None:
    """Room for a few thousand requests, where the user's share of memory for pipes allows it (pipe(7))."""
    for size in (_WIDE_PIPE_BYTES, _WIDE_PIPE_BYTES // 4):
        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe, _F_SETPIPE_SZ, size)
            return
