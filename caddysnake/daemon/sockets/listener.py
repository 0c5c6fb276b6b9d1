"""Listening sockets, and the accept loop. What is done to their files is in ``socket_file``."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable

from ..system import mishaps
from ..system.kinship import OUT_OF
from ..system.state import ListenerSnapshot
from .socket_file import identity, is_locked_by, listen_at, lock_path, remove, unlock_path

log = logging.getLogger("caddysnake.listener")

ACCEPTS_A_TURN = 64
_PAUSE_S = 0.1
_TELL_AGAIN_S = 60.0
_REST = 4096
"""Over TCP others may go on connecting while the last ones are accepted."""
_UNIX = int(socket.AF_UNIX)


def set_tcp_options(sock: socket.socket) -> None:
    """Set what TCP connections of a listener inherit: small bodies must not wait for an acknowledgement."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Listener:
    """An open listener. ``close`` unlinks what it bound."""

    def __init__(self, sock: socket.socket, name: str, path: str | None, lock: int | None) -> None:
        self.sock = sock
        self._kind = int(sock.family), int(sock.type), sock.proto
        self.name = name
        self.path = path
        self._identity = None if path is None else identity(path)
        self._lock = lock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._paused: asyncio.TimerHandle | None = None
        self._complained = False
        self.has_room: Callable[[], bool] | None = None
        """Whether one more may be accepted; None: always."""
        self._told_at = -_TELL_AGAIN_S
        self.trouble = ""
        """Why nobody can connect, when its file is gone and cannot be made anew."""

    def accept_into(
        self,
        loop: asyncio.AbstractEventLoop,
        on_connection: Callable[[socket.socket], None],
        has_room: Callable[[], bool] | None = None,
    ) -> None:
        """Call ``on_connection`` with each accepted socket, which is the callee's then. ``has_room``: see there."""
        self.has_room = has_room
        see_to = mishaps.or_else(socket.socket.close)(on_connection)
        self.accept_descriptors(loop, lambda fd: see_to(self.socket_of(fd)))

    def accept_descriptors(
        self,
        loop: asyncio.AbstractEventLoop,
        on_connection: Callable[[int], None],
        on_burst: Callable[[], object] = lambda: None,
    ) -> None:
        """Call ``on_connection`` with the descriptor of each, which is the callee's then, unless it raises: an object
        would cost more.
        ``on_burst``: called when no more of them are to be had at once.
        """
        self._loop = loop
        self._on_connection = mishaps.or_else(os.close)(on_connection)
        self._on_burst = on_burst
        loop.add_reader(self.sock.fileno(), self._accept)

    def socket_of(self, fd: int) -> socket.socket:
        """The accepted connection ``fd`` as a socket: it is of our own kind, for which the kernel need not be asked."""
        return socket.socket(*self._kind, fd)

    @property
    def is_local(self) -> bool:
        """It listens on a unix socket."""
        return self._kind[0] == _UNIX

    def snapshot(self, number: int, key: list[str | int], app: int) -> ListenerSnapshot:
        """All that whoever goes on with it must know: also that it is ``number``, and whose its connections are."""
        return ListenerSnapshot(
            number=number,
            key=key,
            fd=self.sock.fileno(),
            name=self.name,
            path=self.path,
            identity=self._identity,
            lock=self._lock,
            app=app,
        )

    def sources(self) -> list[tuple[int, Callable[[], None]]]:
        """A descriptor, with what to call when there is something to accept."""
        return [(self.sock.fileno(), self._accept)] if self._loop is not None else []

    def _accept(self) -> None:
        try:
            self._accept_burst()
        finally:
            self._on_burst()

    def _accept_burst(self) -> None:
        has_room = self.has_room
        for _ in range(ACCEPTS_A_TURN):
            if has_room is not None and not has_room():
                self._wait_for_room()
                return
            try:
                fd, _ = self.sock._accept()  # type: ignore[attr-defined]
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as exc:
                if exc.errno not in OUT_OF:
                    raise
                self._pause(exc)
                return
            self._on_connection(fd)

    def _pause(self, exc: OSError) -> None:
        # Accepting again at once would spin: the connection stays in the backlog and the socket stays readable.
        if not self._complained:
            self._complained = True
            log.error(
                "cannot accept connections for now: raise the limit of open files",
                extra={"fields": {"listener": self.name, "error": exc.strerror}},
            )
        self._rest()

    def _wait_for_room(self) -> None:
        assert self._loop is not None
        now = self._loop.time()
        if now - self._told_at >= _TELL_AGAIN_S:
            self._told_at = now
            hint = "see who opens so many connections there; where open files are the limit, raise it"
            log.warning("a listener has all the connections it may have: who connects there waits",
                        extra={"fields": {"listener": self.name, "hint": hint}})  # fmt: skip
        self._rest()

    def _rest(self) -> None:
        assert self._loop is not None
        self._loop.remove_reader(self.sock.fileno())
        self._paused = self._loop.call_later(_PAUSE_S, self._resume)

    def _resume(self) -> None:
        self._paused = None
        if self._loop is not None:
            self._loop.add_reader(self.sock.fileno(), self._accept)
            self._accept()

    def stop_accepting(self) -> None:
        """Accept no more; what comes waits in the backlog. The socket stays open."""
        if self._paused is not None:
            self._paused.cancel()
            self._paused = None
        if self._loop is not None:
            self._loop.remove_reader(self.sock.fileno())
            self._loop = None

    def accept_rest(self) -> None:
        """Take the socket file away, and accept those who have connected: with the socket they would be reset."""
        if self._loop is None:
            return
        self._unlink()
        self._drain(self.sock)

    def _drain(self, sock: socket.socket) -> None:
        try:
            self._drain_burst(sock)
        finally:
            self._on_burst()

    def _drain_burst(self, sock: socket.socket) -> None:
        for _ in range(_REST):
            try:
                fd, _ = sock._accept()  # type: ignore[attr-defined]
            except ConnectionAbortedError:
                continue
            except OSError:  # nobody is left, or nobody more can be accepted
                return
            self._on_connection(fd)

    @property
    def is_lost(self) -> bool:
        """It accepts, and its file is gone, or another's is there: nobody can connect any more."""
        return self._loop is not None and self.path is not None and identity(self.path) != self._identity

    def renew(self, mode: int | None, owner: str | None, group: str | None) -> None:
        """Listen at its path again; who has connected is accepted. Raises ``ListenError``: it is as before then."""
        loop, path = self._loop, self.path
        assert loop is not None
        assert path is not None
        lock = self._lock
        if lock is None or not is_locked_by(path, lock):
            lock = lock_path(path)
        try:
            sock = listen_at(path, mode, owner, group)
        except BaseException:
            if lock != self._lock:
                unlock_path(path, lock)
            raise
        if self._lock is not None and self._lock != lock:
            os.close(self._lock)
        self.stop_accepting()
        former, self.sock, self._lock, self._identity = self.sock, sock, lock, identity(path)
        self._drain(former)
        former.close()
        self.trouble = ""
        self.accept_descriptors(loop, self._on_connection, self._on_burst)

    def close(self, leave_path: bool = False) -> None:
        """Close it, its file first; ``leave_path``: somebody else has it, and whoever connects waits."""
        self.stop_accepting()
        if not leave_path:
            self._unlink()
        self.sock.close()
        if self._lock is not None and self.path is not None:
            unlock_path(self.path, self._lock, leave_file=leave_path)
            self._lock = None

    def _unlink(self) -> None:
        # What lies there now is somebody else's when the folder was emptied, and the lock file with it, meanwhile.
        if self.path is not None and self._identity is not None:
            remove(self.path, self._identity)


def restore(saved: ListenerSnapshot) -> Listener:
    """The listener of another image of the daemon. Raises ``OSError``."""
    listener = Listener(socket.socket(fileno=saved.fd), saved.name, saved.path, saved.lock)
    listener._identity = saved.identity
    return listener
