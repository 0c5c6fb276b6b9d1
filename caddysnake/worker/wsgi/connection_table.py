"""Who owns which connection: the one place where threads and controller meet.

A connection that nobody works on is *parked*, and registered with epoll, edge-triggered: an arrival is told once, to
one thread. To work on it is to own it, and whoever wins ``parked.pop(fd)``, which is atomic, does. Three races, and
what settles them:

* Something arrives while the connection is owned: the thread that is told finds nothing parked, sets ``signalled`` and
  tries once more. The owner parks first and looks at ``signalled`` after, so one of the two sees the other.
* The controller takes an idle connection that a thread has just been told of: that finds nothing parked and moves on.
* A descriptor's number is used again while a thread still holds an event for the old one: it reads the new connection
  once in vain.

A read that returns less than it could is the last until the next arrival is told, except for the peer's end: that may
be told together with the data in front of it. Who is told of it notes so (``hung``), and reads on.

Every end is preceded by an explicit unregister: the daemon's duplicate keeps the file open, and with it the
registration, long after our descriptor is closed.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections import deque
from collections.abc import Callable

from ...channel.records import Mishaps
from ...channel.vitals import SLOT_IDLE, SLOT_RETURNED
from ..rounds import Rounds
from .connection import Connection, State

READ = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
WRITE = select.EPOLLOUT | select.EPOLLET
EITHER = READ | WRITE


class ConnectionTable:
    """All connections of one worker. Methods that take a connection need its ownership and, unless they say
    otherwise, end it. ``on_news`` is called, from any thread, when the controller should look: at what is in
    ``returned``, at a first deadline, at a table that has become empty."""

    def __init__(self, on_news: Callable[[], None]) -> None:
        self.epoll = select.epoll()
        self.parked: dict[int, Connection] = {}
        self.held: dict[int, Connection] = {}
        """Parked or not."""
        self.timed: dict[int, Connection] = {}
        """Those with a deadline, and some that had one."""
        self.ready: deque[int] = deque()
        """Descriptors of which a thread was told, for any thread to claim; inverted when it was told of more than
        input: with the peer's end among it, a short read does not mean that there is nothing left to read."""
        self.returned: deque[int] = deque()
        """Slots given back, for the controller to tell the daemon."""
        self.returning = False
        """Idle connections are to be given back rather than parked."""
        self.closing = False
        """Answers are to end their connections: there is nobody to give them back to."""
        self.floor = 0.0
        """Monotonic seconds before which nothing arrived that a thread has yet to be told of: epoll tells in turn."""
        self.is_stopping = False
        self.mishap = Mishaps().tell
        """For an error of ours, for which a connection is ended."""
        self.rounds = Rounds()
        self._stop_fd = -1
        self._on_news = on_news

    def open(self) -> None:
        """Make what ``stop`` wakes the threads with. Raises ``OSError``. Once, before any thread."""
        # Level-triggered and never read: once written, it wakes every thread that waits, and all that come after.
        self._stop_fd = os.eventfd(0, os.EFD_CLOEXEC)
        self.epoll.register(self._stop_fd, select.EPOLLIN)

    def stop(self) -> None:
        """Wake all threads for good."""
        self.is_stopping = True
        os.eventfd_write(self._stop_fd, 1)

    def close(self) -> None:
        """Let go of epoll. No thread may wait in it any more."""
        self.epoll.close()
        os.close(self._stop_fd)

    def admit(self, connection: Connection) -> None:
        """Take a new connection in. Raises ``OSError``, and knows nothing of it then."""
        fd = connection.fd
        connection.slots[connection.slot] = SLOT_IDLE
        self.held[fd] = connection
        self.parked[fd] = connection
        try:
            self.epoll.register(fd, READ)
        except OSError:
            del self.held[fd], self.parked[fd]
            raise

    def take_ready(self) -> list[int]:
        """What would be told to threads now, all of it; as in ``ready``."""
        for fd, events in self.epoll.poll(0, 256):
            self.ready.append(fd if events == select.EPOLLIN else ~fd)
        taken: list[int] = []
        while self.ready:
            try:
                taken.append(self.ready.popleft())
            except IndexError:
                break
        return taken

    def missed(self, fd: int) -> Connection | None:
        """For a thread that was told of ``fd`` and found nothing parked: the connection, if it may be had after all."""
        hung = fd < 0
        fd = ~fd if hung else fd
        connection = self.held.get(fd)
        if connection is None:
            return None
        if hung:
            connection.hung = True
        connection.signalled = True
        return self.parked.pop(fd, None)

    def park(self, connection: Connection) -> bool:
        """Leave it to whoever is told next. True when the caller owns it again at once: something has arrived."""
        self.parked[connection.fd] = connection
        return connection.signalled and self.parked.pop(connection.fd, None) is not None

    def leave(self, connection: Connection) -> None:
        """Park it, and see to it that another thread looks at what has arrived meanwhile."""
        if self.park(connection):
            self.kick(connection)

    def kick(self, connection: Connection) -> None:
        """Park it and have a thread told of it, whether anything arrives or not."""
        connection.kicked = True
        while True:
            connection.signalled = False
            self.arm(connection, EITHER)
            if not self.park(connection):
                return

    def arm(self, connection: Connection, events: int) -> None:
        """Wait for other ``events``; what is already there is told anew. Ends no ownership."""
        self.epoll.modify(connection.fd, events)

    def take_idle(self, limit: int | None = None) -> list[Connection]:
        """Own up to ``limit`` connections at a request boundary."""
        taken: list[Connection] = []
        for fd, connection in list(self.parked.items()):
            if limit is not None and len(taken) >= limit:
                break
            if connection.state is not State.IDLE:
                continue
            # By now it may have been read, or ended and its number used again.
            owned = self.parked.pop(fd, None)
            if owned is not None and owned.state is State.IDLE:
                taken.append(owned)
            elif owned is not None:
                self.leave(owned)
        return taken

    def own(self, connection: Connection) -> bool:
        """Own this connection, if it is parked. (Takes no ownership to begin with.)"""
        owned = self.parked.pop(connection.fd, None)
        if owned is not None and owned is not connection:
            self.leave(owned)
        return owned is connection

    def wait(self, connection: Connection, deadline: float) -> None:
        """Have the controller end it at ``deadline``, in monotonic seconds. Ends no ownership."""
        connection.deadline = deadline
        if connection.fd not in self.timed:
            self.timed[connection.fd] = connection
            if len(self.timed) == 1:
                self._on_news()

    def give_back(self, connection: Connection) -> None:
        """Return it to the daemon as it is: at a request boundary, nothing read."""
        self._forget(connection)
        connection.release(SLOT_RETURNED)
        self.returned.append(connection.slot)
        self._on_news()

    def end(self, connection: Connection) -> None:
        """Shut it for both sides and close it."""
        self._forget(connection)
        connection.shut()
        connection.release()
        if self.returning and not self.held:
            self._on_news()

    def _forget(self, connection: Connection) -> None:
        fd = connection.fd
        with contextlib.suppress(OSError):
            self.epoll.unregister(fd)
        self.timed.pop(fd, None)
        del self.held[fd]
