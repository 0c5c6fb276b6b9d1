"""One connection of the threaded server: its socket, its parser, and how far it is.

Nothing here is locked, because a connection has one owner at a time: the thread that took it out of the server's table
of parked connections. Non-blocking throughout; where the app itself must wait (``push``, ``pull``) the owner polls.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Callable
from enum import Enum
from typing import Any

from ...aio import early_answers
from ...channel.vitals import SLOT_CLOSED
from ...http1.chunked import Piece
from ...http1.errors import ProtocolError
from ...http1.request import RequestParser
from ..file_parts import send_part
from .environ import Origin

RECEIVE_BYTES = 120 * 1024


class ClientGone(ConnectionError):
    """The client ended the connection, or took nothing for too long: no bug of the app's."""


class ContentRefused(OSError):
    """The rest of the request's content cannot be had: it is malformed, too large or too slow."""


class FileCutShort(RuntimeError):
    """What was promised of a file's content is not there any more."""


class State(Enum):
    """The life of a connection between a request's first byte and the next one's."""

    IDLE = "idle"  # at a request boundary, nothing read: may be given back
    READING = "reading"  # some of a request has come, not enough to call the app
    ANSWERING = "answering"  # a thread runs the app
    FLUSHING = "flushing"  # the app is done, the reader has not taken everything
    DRAINING = "draining"  # answered, but content of the request is still to come: read and dropped
    LINGERING = "lingering"  # our side is shut; what still comes is dropped until the peer ends too
    ENDED = "ended"


class Ending(Enum):
    """Whether the connection ends after the response being made. It only gets worse."""

    KEPT = "kept"
    LAST = "last"  # it ends in order
    GONE = "gone"  # nothing more will come, or nothing more can be sent
    BROKEN = "broken"  # the response cannot be completed: it ends at once, so that nobody takes that for whole


# CPython 3.11 looks a member up by a descriptor written in Python: too slow where each request passes.
IDLE, READING, ANSWERING, FLUSHING, DRAINING, LINGERING, ENDED = State
KEPT, LAST, GONE, BROKEN = Ending


class Expectant:
    """When the next request of a connection may have come."""

    __slots__ = ("arrival", "free_at")

    def __init__(self) -> None:
        self.arrival: tuple[float, float] | None = (0.0, 0.0)
        """See ``worker.arrival``. None: nothing is to be asked."""
        self.free_at = 0.0
        """Monotonic seconds before which it cannot have come."""


class Connection(Expectant):
    """``signalled``: something arrived while the connection was owned, so whoever parks it must look once more."""

    __slots__ = (
        "base",
        "deadline",
        "dropped",
        "ending",
        "fd",
        "file",
        "hung",
        "hurried",
        "kicked",
        "origin",
        "parser",
        "poller",
        "recv",
        "refusal",
        "send",
        "signalled",
        "since",
        "slot",
        "slots",
        "sock",
        "state",
        "trusted",
        "turns",
        "unsent",
        "write_timeout_s",
    )

    def __init__(
        self,
        sock: socket.socket,
        slots: memoryview,
        slot: int,
        trusted: bool,
        environ: tuple[dict[str, Any], Origin],
        parser: RequestParser,
        write_timeout_s: float,
    ) -> None:
        Expectant.__init__(self)
        sock.setblocking(False)
        self.sock = sock
        self.fd = sock.fileno()
        self.recv = sock.recv
        self.send = sock.send
        self.slots = slots
        """The page's: ``slots[slot]`` is HEAD_SENT before the first byte of a response head leaves."""
        self.slot = slot
        self.trusted = trusted
        self.turns = 0
        """After so many requests it is given back; 0: as many as come."""
        self.base, self.origin = environ
        """The part of environ that all its requests share, and whom to believe about the rest."""
        self.parser = parser
        self.state = IDLE
        self.signalled = False
        self.hung = False
        """The peer has ended its side, or all of it: read on until that end shows."""
        self.kicked = False
        """Armed for writing only to wake a thread."""
        self.hurried = False
        """The app is to be called with what has come of the content; the rest it reads as it arrives."""
        self.ending = KEPT
        self.refusal: ProtocolError | None = None
        """What was wrong with the request, found while the app was reading it."""
        self.poller: select.poll | None = None
        """What a thread waits with, once one has."""
        self.unsent: list[memoryview] = []
        """The rest of a finished response."""
        self.file: FileRange | None = None
        """A file behind ``unsent``."""
        self.deadline = 0.0
        """Monotonic seconds at which the controller ends it; 0 when nothing is awaited."""
        self.since = 0.0
        """Monotonic seconds at which the wait for a head, or for content, began."""
        self.dropped = 0
        """Bytes read only to be dropped, of this request."""
        self.write_timeout_s = write_timeout_s

    def __repr__(self) -> str:
        return f"<Connection {self.fd} slot {self.slot} {self.state.value}>"

    def close(self) -> None:
        """Have the connection end after the response being sent."""
        if self.ending is KEPT:
            self.ending = LAST

    def is_over(self) -> bool:
        """Whether one more request was the last before it is to be given back."""
        self.turns = max(1, self.turns) - 1
        if self.turns:
            return False
        self.turns = 1
        return True

    def lose(self) -> None:
        """Note that nothing more will come, or that nothing more can be sent."""
        if self.ending is not BROKEN:
            self.ending = GONE

    def abort(self) -> None:
        """Have the connection end at once: its response cannot be completed."""
        self.ending = BROKEN

    # Writing.

    def offer(self, output: bytes | tuple[bytes, ...]) -> None:
        """Send what the kernel takes now; the rest is left in ``unsent``. Raises ``ClientGone``."""
        if self.unsent or self.file is not None:
            self.unsent += map(memoryview, (output,) if isinstance(output, bytes) else output)
            self.flush()
            return
        try:
            if isinstance(output, bytes):
                sent = self.send(output)
                if sent != len(output):
                    self.unsent.append(memoryview(output)[sent:])
            else:
                self._keep(output, self.sock.sendmsg(output))
        except BlockingIOError:
            self._keep((output,) if isinstance(output, bytes) else output, 0)
        except OSError as exc:
            raise self._lost(str(exc)) from exc

    def _keep(self, pieces: tuple[bytes, ...], sent: int) -> None:
        for piece in pieces:
            if sent < len(piece):
                self.unsent.append(memoryview(piece)[sent:])
            sent = max(0, sent - len(piece))

    def flush(self) -> bool:
        """Send more of ``unsent`` and ``file``; True when nothing is left. Raises ``ClientGone``."""
        try:
            while self.unsent:
                pieces = self.unsent[:64]
                sent = self.sock.sendmsg(pieces)
                done = 0
                while done < len(pieces) and sent >= len(pieces[done]):
                    sent -= len(pieces[done])
                    done += 1
                del self.unsent[:done]
                if done < len(pieces):
                    self.unsent[0] = self.unsent[0][sent:]
            while self.file is not None:
                self.file.send_to(self.fd)
                if not self.file.remaining:
                    self.file.close()
                    self.file = None
        except BlockingIOError:
            return False
        except OSError as exc:
            raise self._lost(str(exc)) from exc
        return True

    def push(self, output: bytes | tuple[bytes, ...], may_drop: Callable[[], bool] | None = None) -> None:
        """Send all of ``output``. ``may_drop``: asked where the reader takes nothing. Raises ``ClientGone``."""
        if type(output) is bytes and not self.unsent and self.file is None:
            try:
                sent = self.send(output)
            except BlockingIOError:
                sent = 0
            except OSError as exc:
                raise self._lost(str(exc)) from exc
            if sent == len(output):
                return
            # Not tried again before it is waited for, and not copied: the kernel has just said that it is full.
            self.unsent.append(memoryview(output)[sent:])
        else:
            self.offer(output)
        while self.unsent:
            wait_s = min(early_answers.STALL_S, self.write_timeout_s)
            if not (self._wait(select.POLLOUT, wait_s) or self._wait_longer(may_drop)):
                raise self._lost(f"the client took nothing for {self.write_timeout_s:g} s")
            self.flush()

    def _wait_longer(self, may_drop: Callable[[], bool] | None) -> bool:
        """Wait until there is room, dropping what arrives if that may be."""
        until = time.monotonic() + self.write_timeout_s - early_answers.STALL_S
        head = self.parser.head
        assert head is not None
        is_last = False
        while may_drop is not None and not self.parser.complete and may_drop() and time.monotonic() < until:
            if not is_last and early_answers.is_near_end(head, self.parser.received):
                is_last = True
                if self._wait(select.POLLOUT, early_answers.STALL_S):
                    return True
            if self._wait(select.POLLOUT, 0):
                return True
            if not self._wait(select.POLLIN | select.POLLOUT, max(0.0, until - time.monotonic())):
                return False
            try:
                count = self.drop(parse=True)
            except ProtocolError as exc:
                raise self._lost(str(exc)) from exc
            if count == 0:
                raise self._lost("the client left in the middle of the request")
        return self._wait(select.POLLOUT, max(0.0, until - time.monotonic()))

    def check_reader(self) -> None:
        """Raise ``ClientGone`` if the client has ended both sides. Of TCP Caddy is known never to end only its own."""
        poller = self.poller
        if poller is None:
            poller = self.poller = select.poll()
        is_caddys = self.trusted and self.sock.family != socket.AF_UNIX
        poller.register(self.fd, select.POLLRDHUP if is_caddys else 0)
        if poller.poll(0):
            raise self._lost("the client is gone")

    def read_on(self, keeps_bytes: int, most_s: float, is_end: bool = False) -> bool:
        """Read more of the request before an answer leaves that does not wait for it, or before its end does: as long
        as it comes, and for a bounded time (``early_answers``). Up to ``keeps_bytes`` are kept for the app; 0: all is
        dropped. False when no more of it comes. Raises ``ClientGone``, ``ProtocolError``.
        """
        parser = self.parser
        head = parser.head
        assert head is not None
        if parser.complete or early_answers.may_converse(head):
            return False
        begun = time.monotonic()
        while not parser.complete:
            is_enough = is_end or (keeps_bytes and parser.body_bytes >= keeps_bytes)
            if is_enough and early_answers.is_near_end(head, parser.received) is is_end:
                return True
            if self.unsent:
                self.flush()
            waited_s = time.monotonic() - begun
            left_s = most_s - waited_s
            if not is_end:
                left_s = early_answers.wait_s(head, parser.received, waited_s, keeps_bytes > 0, most_s)
            if left_s <= 0:
                return True
            try:
                data = self.recv(RECEIVE_BYTES)
            except BlockingIOError:
                if not self._wait(select.POLLIN, min(early_answers.IDLE_S, left_s)):
                    return left_s < early_answers.IDLE_S
                continue
            except OSError:
                return False  # who writes next will be told
            if not data:
                return False
            parser.feed(data)
            if not keeps_bytes:
                self.dropped += len(data)
                parser.take_body()
        time.sleep(early_answers.SETTLE_S)
        return False

    def await_reader(self) -> None:
        """Wait until the client has read what was sent (``early_answers`` says why), or reads nothing for a while."""
        left, since = -1, 0.0
        while True:
            unread, now = early_answers.unread_bytes(self.sock), time.monotonic()
            if unread != left:
                left, since = unread, now
            if not left or now - since >= early_answers.STALL_S:
                return
            if self._wait(select.POLLRDHUP, early_answers.LOOK_S):
                return

    # Reading.

    def pull(self, timeout_s: float) -> Piece:
        """More of the request's content, or b"" at its end; waits. Raises ``ClientGone``, ``ProtocolError``."""
        parser = self.parser
        while True:
            data = parser.take_piece()
            if data or parser.complete:
                return data
            try:
                received = self.recv(RECEIVE_BYTES)
            except BlockingIOError:
                if not self._wait(select.POLLIN, timeout_s):
                    raise ProtocolError(
                        408, "body-timeout", f"the client sent none of its content for {timeout_s:g} s"
                    ) from None
                continue
            except OSError as exc:
                raise self._lost(str(exc)) from exc
            if not received:
                raise self._lost("the client left in the middle of the request")
            parser.feed(received)

    def _wait(self, event: int, timeout_s: float) -> bool:
        poller = self.poller
        if poller is None:
            poller = self.poller = select.poll()
        poller.register(self.fd, event)
        return bool(poller.poll(timeout_s * 1000))

    def _lost(self, reason: str) -> ClientGone:
        self.lose()
        return ClientGone(reason)

    def drop(self, parse: bool) -> int | None:
        """Read once and drop it; how many bytes, 0 at the end of the stream, None when there is nothing now.

        With ``parse``, look for the request's end in it. Raises ``ProtocolError``.
        """
        try:
            data = self.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            return 0
        self.dropped += len(data)
        if parse:
            self.parser.feed(data)
            self.parser.take_body()
        return len(data)

    # The end.

    def shut(self) -> None:
        """End it for both sides, whoever else holds a duplicate; the descriptor is still to be closed."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def shut_writing(self) -> None:
        """End our side only: the client reads the end of the answer, and may still be sending."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def release(self, left: int = SLOT_CLOSED) -> None:
        """Close our copy and what hangs on it; what is ``left`` of the slot. It must be out of the epoll by then."""
        self.state = ENDED
        self.sock.close()
        self.slots[self.slot] = left
        self.unsent.clear()
        if self.file is not None:
            self.file.close()
            self.file = None


class FileRange:
    """Part of an open file on its way out. Owns its descriptor, a duplicate."""

    __slots__ = ("fd", "is_tcp", "offset", "remaining")

    def __init__(self, fd: int, offset: int, size: int, is_tcp: bool) -> None:
        self.fd = os.dup(fd)
        self.offset = offset
        self.remaining = size
        self.is_tcp = is_tcp

    def send_to(self, out: int) -> None:
        """Send until done, or ``BlockingIOError``. Raises ``OSError`` for the reader, ``FileCutShort``."""
        while self.remaining:
            sent = send_part(out, self.fd, self.offset, self.remaining, self.is_tcp)
            if sent == 0:
                raise FileCutShort(f"a file became shorter while it was sent: {self.remaining} bytes are missing")
            self.offset += sent
            self.remaining -= sent

    def close(self) -> None:
        """Close our duplicate; the app's own descriptor stays open."""
        os.close(self.fd)
