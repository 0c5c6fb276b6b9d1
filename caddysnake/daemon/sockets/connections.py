"""Connections the daemon holds a duplicate of: who has them, and when they are over.

An epoll of its own asks for EPOLLRDHUP only: with EPOLLIN it would wake for every request that a worker answers. A
connection that nobody serves (parked) asks for EPOLLIN too: its next request decides who gets it.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from ...channel.endpoint import close_at_once
from ...channel.messages import TAKE_BORROWED, TAKE_COUNTED, TAKE_SINCE_SHIFT
from ..system import mishaps
from .refusals import Refusal, response
from .shares import Shares

if TYPE_CHECKING:
    import asyncio

    from ...config.plan.accounts import Account
    from .listener import Listener

_EVENTS_A_TURN = 256
_OWN_FLAGS = (1 << TAKE_SINCE_SHIFT) - 1
_SINCE_MASK = (1 << 24) - 1
_OVER = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_HELD = 0
_WATCHED = select.EPOLLRDHUP
_PARKED = select.EPOLLRDHUP | select.EPOLLIN


class ConnectionOwner(Protocol):
    """Who answers for a connection: usually its app."""

    def place(self, connection: Connection) -> None:
        """See to it that it is served."""

    def over(self, connection: Connection) -> None:
        """Its other side has left."""


class ListenerOwner(ConnectionOwner, Protocol):
    """Who gets the connections of a listener."""

    @property
    def is_ours(self) -> bool:
        """Whether it runs no code of an app."""

    @property
    def account(self) -> Account | None:
        """The user that its workers run as; None: the daemon's."""


class ConnectionHolder(Protocol):
    """Who serves a connection: a worker."""

    number: int

    def drop(self, connection: Connection) -> None:
        """The connection's other side has left."""


class BoundListener:
    """An open listener and who gets its connections."""

    def __init__(self, listener: Listener, number: int) -> None:
        self.listener = listener
        self.number = number
        """By which relays know it. Never given to another."""
        self.app: ListenerOwner | None = None
        self.held = 0
        """Its connections. See ``shares``."""
        self.gathering: list[Callable[[], None]] | None = None
        """While a burst of connections is accepted: what is to be called at its end, by whoever keeps some together."""

    @property
    def weight(self) -> int:
        """How many descriptors each of its connections may need."""
        return 2 if self.app is not None and self.app.is_ours else 1


class Connection:
    """One connection from Caddy: with a worker (``worker``, ``slot``), in its app's queue, or parked."""

    __slots__ = ("app", "bound", "events", "fd", "flags", "parked", "since", "slot", "turns", "worker")

    def __init__(
        self, fd: int, flags: int, app: ConnectionOwner, bound: BoundListener | None = None, since: float | None = None
    ) -> None:
        self.fd = fd
        self.flags = flags
        self.app = app
        self.bound = bound
        """The listener it came from; None for a link."""
        self.worker: ConnectionHolder | None = None
        self.slot = -1
        self.parked = False
        self.events = _WATCHED
        """What the epoll is asked for."""
        self.turns = 0
        """After so many requests whoever has it gives it back; 0: it does not."""
        self.since = time.monotonic() if since is None else since
        """Since when it waits for a worker, if it does."""

    def flags_for(self, is_app: bool, is_borrowed: bool, turns: int = 0) -> int:
        """What ``Take`` says of it: to an app's worker since when it waits, in the place of the listener; or, while two
        builds are compared, after how many requests it is given back.
        """
        self.turns = turns
        if not is_app:
            return self.flags | TAKE_BORROWED if is_borrowed else self.flags
        if turns:
            return self.flags & _OWN_FLAGS | TAKE_COUNTED | turns << TAKE_SINCE_SHIFT
        since = int(self.since * 1000) & _SINCE_MASK
        return self.flags & _OWN_FLAGS | (since or 1) << TAKE_SINCE_SHIFT


class Connections:
    """All of them, by descriptor.

    ``on_over(connection)`` is called when the other side, or the worker, has ended one; ``on_request(connection)``
    when a parked one has something to read.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_over: Callable[[Connection], None],
        on_request: Callable[[Connection], None],
    ) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._by_fd: dict[int, Connection] = {}
        self._on_over = on_over
        self._on_request = on_request
        self.on_untied: Callable[[int], None] = lambda worker: None
        """Called with a worker's number when a connection that was to stay with it does so no more."""
        self.shares = Shares(self.__len__)
        loop.add_reader(self._epoll.fileno(), self._drain_events)

    def __len__(self) -> int:
        return len(self._by_fd)

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._by_fd.values())

    def __contains__(self, connection: Connection) -> bool:
        return self._by_fd.get(connection.fd) is connection

    def all(self) -> list[Connection]:
        """A copy of what is held, for who ends some of them meanwhile."""
        return list(self._by_fd.values())

    def sources(self) -> list[tuple[int, Callable[[], None]]]:
        """A descriptor, with what to call when there is something to read."""
        return [(self._epoll.fileno(), self._drain_events)]

    def adopt(self, connection: Connection) -> None:
        """Know a new connection; ``watch``, ``hold`` or ``park`` it next. Raises ``OSError``."""
        # As `watch` has it, since most are given to a worker at once.
        self._epoll.register(connection.fd, _WATCHED)
        self._by_fd[connection.fd] = connection
        if connection.bound is not None:
            self.shares.change(connection.bound, 1)

    def park(self, connection: Connection) -> None:
        """Watch for its next request as well: nobody serves it."""
        connection.parked = True
        self._ask(connection, _PARKED)

    def hold(self, connection: Connection) -> None:
        """It waits for a worker: only a full hang-up counts now, since a client may have half-closed after asking."""
        connection.parked = False
        self._ask(connection, _HELD)

    def watch(self, connection: Connection) -> None:
        """A worker has it: its end is all that matters here."""
        connection.parked = False
        self._ask(connection, _WATCHED)

    def _ask(self, connection: Connection, events: int) -> None:
        if connection.events != events:
            connection.events = events
            self._epoll.modify(connection.fd, events)

    def end(self, connection: Connection) -> None:
        """End it for both sides: a mere close would leave the worker's copy open."""
        if not self._remove(connection):
            return
        # EPOLL_CTL_DEL must come first: the registration belongs to the open file, which a worker's copy keeps alive.
        self._epoll.unregister(connection.fd)
        sock = socket.socket(fileno=connection.fd)
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        close_at_once((sock.detach(),))

    def forget(self, connection: Connection) -> None:
        """Close our duplicate only."""
        if self._remove(connection):
            self._epoll.unregister(connection.fd)
            if connection.bound is None or connection.bound.listener.is_local:
                os.close(connection.fd)  # a unix socket never lingers, whatever the worker has set
            else:
                close_at_once((connection.fd,))

    def _remove(self, connection: Connection) -> bool:
        if self._by_fd.pop(connection.fd, None) is None:
            return False
        if connection.bound is not None:
            self.shares.change(connection.bound, -1)
        return True

    def close(self) -> None:
        """End every connection, for workers too, and stop watching. Last call."""
        for connection in list(self._by_fd.values()):
            self.end(connection)
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _drain_events(self) -> None:
        for fd, events in self._epoll.poll(0, _EVENTS_A_TURN):
            connection = self._by_fd.get(fd)
            if connection is None:
                continue
            # What came before a hang-up is a request still: a client may have said all.
            try:
                if events & _OVER and not (connection.parked and has_input(fd)):
                    self._on_over(connection)
                else:
                    self._on_request(connection)
            except Exception as exc:  # it would be raised again in each turn
                mishaps.tell(exc)
                self.end(connection)


def has_input(fd: int) -> bool:
    """There is something to read, other than the end."""
    return bool(look(fd, 1))


def look(fd: int, size: int, flags: int = socket.MSG_PEEK) -> bytes:
    """What has come on ``fd``, up to ``size`` bytes, and stays there unless ``flags`` are 0; empty when nothing has."""
    sock = socket.socket(fileno=fd)
    try:
        # O_NONBLOCK is the worker's to set: it is shared.
        return sock.recv(size, flags | socket.MSG_DONTWAIT)
    except OSError:
        return b""
    finally:
        sock.detach()


def answer(fd: int, refusal: Refusal) -> None:
    """Write ``refusal`` on a connection in the place of whoever was to answer, and let nobody write behind it."""
    sock = socket.socket(fileno=fd)
    try:
        # O_NONBLOCK is the worker's to set: it is shared.
        sock.send(response(refusal), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the other side was first
    finally:
        sock.detach()
