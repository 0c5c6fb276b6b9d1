"""A call of the app for a WebSocket: a library of the app's speaks the protocol, on the socket itself.

It finds the socket under the key by which gunicorn's threads give it. As long as it does not touch it, the call is a
call as any other, and may be answered with plain HTTP.
"""

from __future__ import annotations

import re
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

from ....channel.vitals import SLOT_HEAD_SENT
from ...websocket.frames import GOING_AWAY, SERVICE_RESTART, close_frame
from ..connection import Connection
from .call import Call, ExcInfo, report
from .deadlines import TimedCall
from .file_wrapper import FileWrapper

KEY = "gunicorn.socket"
SWITCHED = 101
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")
_HEAD_END = b"\r\n\r\n"


class Taken:
    """The socket of one connection, taken from the server by the first use of it."""

    def __init__(self, call: Upgrading, connection: Connection) -> None:
        self._call = call
        self.connection = connection
        self._is_over = False
        self._pending = connection.parser.pending
        self._lock = threading.Lock()
        self._sock: socket.socket | None = None
        self.status = 0
        """What its handshake was answered with; 0: it has not been."""

    @property
    def is_taken(self) -> bool:
        """The app has the connection for itself."""
        return self._sock is not None

    def over(self) -> None:
        """The call has ended: what was not taken is not to be had any more."""
        with self._lock:
            self._is_over = True

    def _own(self) -> socket.socket:
        sock = self._sock
        if sock is not None:
            return sock
        with self._lock:
            if self._sock is None:
                connection = self.connection
                if self._is_over:
                    raise OSError("the request has been answered: its connection is the server's")
                self._call.taken(connection)
                sock = connection.sock.dup()
                sock.setblocking(True)
                # So a thread that writes to a client that does not read is not held for ever (socket(7)).
                limit = struct.pack("ll", int(connection.write_timeout_s), 0)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
                self._sock = sock
            return self._sock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own(), name)

    def fileno(self) -> int:
        """As of a socket."""
        return self._own().fileno()

    def recv(self, size: int, flags: int = 0) -> bytes:
        """As of a socket; what came right behind the request first."""
        if self._pending:
            data, self._pending = self._pending[:size], self._pending[size:]
            return data
        return self._own().recv(size, flags)

    def send(self, data: bytes, flags: int = 0) -> int:
        """As of a socket, but all of ``data`` leaves."""
        self.sendall(data, flags)
        return len(data)

    def sendall(self, data: bytes, flags: int = 0) -> None:
        """As of a socket."""
        sock = self._own()
        with self._lock:
            if not self.status:
                self._note_answer(bytes(data))
            sock.sendall(data, flags)
            self._call.sent_bytes += len(data)

    def _note_answer(self, data: bytes) -> None:
        match = _STATUS.match(data)
        self.status = int(match[1]) if match else SWITCHED
        self._call.answered_by_app(self.status, data.partition(_HEAD_END)[0] + _HEAD_END)

    def tell_end(self, is_orphaned: bool) -> bool:
        """Ask a WebSocket's client to connect anew, which its library hears; waits for nobody. False: not now."""
        sock = self._sock
        if sock is None or self.status != SWITCHED:
            return True
        if not self._lock.acquire(blocking=False):
            return False
        try:
            code = GOING_AWAY if is_orphaned else SERVICE_RESTART
            sock.send(close_frame(code), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False
        except OSError:
            pass  # it has ended
        finally:
            self._lock.release()
        return True


class Upgrading(Call):
    """What makes a call of any class one that may take its connection."""

    __slots__ = ()
    socket: Taken
    _connection: Connection | None

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        assert self._connection is not None
        self.socket = Taken(self, self._connection)  # type: ignore[misc]  # two bases may not both have slots

    def taken(self, connection: Connection) -> None:
        """The app has taken ``connection``: what else it says of an answer is for nobody."""
        if isinstance(self, TimedCall):
            self.untime(connection)
        self._connection = None
        connection.slots[connection.slot] = SLOT_HEAD_SENT
        connection.abort()

    def answered_by_app(self, status: int, head: bytes) -> None:
        """The app's library has answered the request itself."""
        self.status = status
        self.answers_with(head)

    def run(self, environ: dict[str, Any]) -> bool:
        """As ``Call.run``. True for a connection that was taken too: it is to be ended."""
        environ[KEY] = self.socket
        try:
            return super().run(environ) or self.socket.is_taken
        finally:
            self.socket.over()

    def _fail(self, exc: BaseException, environ: dict[str, Any]) -> None:
        if not self.socket.is_taken:
            super()._fail(exc, environ)
        elif not isinstance(exc, StopIteration):  # by which libraries end a call that has no answer
            self.failed = True
            self.answered = self.socket.status
            report("error", "the app raised an exception on a WebSocket", self._context.name, self.head, exc)

    # What it gives after it has taken its connection is no answer.

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        """As ``Call.start_response``."""
        if self.socket.is_taken:
            return lambda data: None
        return super().start_response(status, headers, exc_info)

    def _send(self, connection: Connection, data: bytes, more: bool) -> bytes | tuple[bytes, ...]:
        return b"" if self.socket.is_taken else super()._send(connection, data, more)

    def _send_file(self, wrapper: FileWrapper) -> None:
        if not self.socket.is_taken:
            super()._send_file(wrapper)

    def _stream(self, iterable: Any) -> None:
        if not self.socket.is_taken:
            super()._stream(iterable)


def upgrading(base: type[Call]) -> type[Upgrading]:
    """Return ``base`` with what a WebSocket needs."""
    return type("UpgradingCall", (Upgrading, base), {"__slots__": ("socket",)})
