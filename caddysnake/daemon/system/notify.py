"""sd_notify(3): short messages to whoever supervises this process, over a datagram socket.

The socket's name is in ``NOTIFY_SOCKET``: a path, or behind ``@`` a name in the abstract namespace. Without it nothing
is said. Nothing here blocks: what cannot be sent at once waits for the other side to read.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import select
import socket
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

from .log.fields import FieldLog

log = FieldLog("caddysnake.daemon")

VARIABLE: Final = "NOTIFY_SOCKET"
_PENDING_MAX: Final = 4096
_LAST_WORDS_S: Final = 1.0


class Notifier:
    """Says ``NAME=value`` lines to a supervisor, with descriptors where they belong to them."""

    def __init__(self, address: str | None = None) -> None:
        self._address = _address(address)
        self._socket: socket.socket | None = None
        self._pending: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watched = -1

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Notifier:
        """One for the supervisor that ``environ`` names, if any."""
        return cls(environ.get(VARIABLE))

    def __bool__(self) -> bool:
        """Somebody is told."""
        return self._address is not None

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Send what has to wait from ``loop``, as soon as it can be."""
        self._loop = loop

    def send(self, *assignments: str, descriptors: Sequence[int] = ()) -> None:
        """Say ``assignments``, each a ``NAME=value``, in one message. The descriptors stay the caller's."""
        if self._address is None:
            return
        message = "\n".join(assignments).encode("utf-8", "replace")
        if not self._pending and self._sent(message, descriptors):
            return
        if len(self._pending) < _PENDING_MAX:
            # By then the caller may have closed its own.
            self._pending.append((message, tuple(os.dup(fd) for fd in descriptors)))
            self._watch()

    def close(self) -> None:
        """Say what is still waiting, if it is heard within a moment, and nothing more."""
        deadline = time.monotonic() + _LAST_WORDS_S
        while self._pending and self._socket is not None and (left := deadline - time.monotonic()) > 0:
            select.select([], [self._socket], [], left)
            self._flush()
        self._unwatch()
        while self._pending:
            _close_all(self._pending.popleft()[1])
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._address = None

    def _sent(self, message: bytes, descriptors: Sequence[int]) -> bool:
        """False when it has to wait. What nobody listens to is as good as sent."""
        assert self._address is not None
        ancillary = []
        if descriptors:
            ancillary.append((socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors).tobytes()))
        try:
            if self._socket is None:
                self._socket = _connected(self._address)
            self._socket.sendmsg([message], ancillary, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False
        except OSError as exc:
            log.debug("the supervisor does not listen", error=exc.strerror)
            self._unwatch()
            if self._socket is not None:
                self._socket.close()
                self._socket = None
        return True

    def _flush(self) -> None:
        while self._pending:
            message, descriptors = self._pending[0]
            if not self._sent(message, descriptors):
                return
            self._pending.popleft()
            _close_all(descriptors)
        self._unwatch()

    def _watch(self) -> None:
        if self._loop is not None and self._socket is not None and self._watched < 0:
            self._watched = self._socket.fileno()
            self._loop.add_writer(self._watched, self._flush)

    def _unwatch(self) -> None:
        if self._watched >= 0 and self._loop is not None:
            self._loop.remove_writer(self._watched)
        self._watched = -1


def _address(text: str | None) -> str | None:
    if not text:
        return None
    if text[0] == "/":
        return text
    if text[0] == "@" and len(text) > 1:
        return "\0" + text[1:]
    log.debug("no such supervisor can be told anything", NOTIFY_SOCKET=text)
    return None


def _connected(address: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _close_all(descriptors: Sequence[int]) -> None:
    for fd in descriptors:
        with contextlib.suppress(OSError):
            os.close(fd)
