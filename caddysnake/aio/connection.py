"""The requests of one connection, as far as a worker's and a relay's have them in common."""

from __future__ import annotations

import socket
from time import monotonic

from ..channel.vitals import SLOT_IDLE
from ..http1.answers import refusal
from ..http1.errors import ProtocolError
from . import early_answers
from .context import Context
from .transport import UNWANTED, ConnectionPhase, Transport

# CPython 3.11 reaches a member through its class by a descriptor written in Python: too slow for each request.
_IDLE, _HEAD = ConnectionPhase.IDLE, ConnectionPhase.HEAD
_DRAIN, _LINGER = ConnectionPhase.DRAIN, ConnectionPhase.LINGER


class Connection(Transport):
    """Parses the requests of one connection. ``is_last``: the next answer ends it."""

    __slots__ = ("is_last", "is_reading_paused", "parser")

    def __init__(self, context: Context, sock: socket.socket, slot: int, is_last: bool) -> None:
        super().__init__(context, sock, slot)
        self.is_last = is_last
        self.is_reading_paused = False
        """``pause_reading`` was called, and nobody has resumed since."""
        self.parser = context.new_parser()

    def write(self, output: bytes, content_bytes: int) -> None:
        """Write a piece of a response, ``content_bytes`` of which are content."""
        raise NotImplementedError

    def pause_reading(self) -> None:
        """Take no more from the client, whose kernel then slows it down. No harm twice."""
        raise NotImplementedError

    def _content_came(self, size: int) -> None:
        """Read the next bytes as fast as ``size`` bytes of content that were parsed allow."""
        raise NotImplementedError

    def _boundary(self) -> None:
        """Both sides of a request are complete, and the connection stays."""
        raise NotImplementedError

    def _head_incomplete(self) -> None:
        if self.parser.at_boundary:
            self.phase = _IDLE
            self.context.slots[self.slot] = SLOT_IDLE
        elif self.phase is _IDLE:
            self.phase = _HEAD
            self.watch_reading()

    def _more_unwanted(self, data: bytes) -> None:
        self._watched_since = monotonic()
        self.parser.feed(data)
        self._content_came(len(data))
        self.parser.take_body()
        if self.parser.complete:
            self._boundary()

    def _finish(self) -> None:
        """The last response is out."""
        if self.parser.complete and not self.parser.pending:
            self._close()
        else:
            self._linger()
            if self.phase is _LINGER and not self.parser.complete:
                self._read_on_later()

    def _drain(self) -> None:
        """The response is out, its request is not in, and the connection stays."""
        self._linger_from_now(_DRAIN)
        self.parser.take_body()
        self._read_on_later()

    def _read_on_later(self) -> None:
        """An answer is complete, its request is not: read on once the client has it, or takes nothing of it."""
        self.pause_reading()
        self._look_whether_read(-1, self._watched_since)

    def _look_whether_read(self, unread: int, since: float) -> None:
        if self.phase not in UNWANTED or not self.is_reading_paused:
            return
        now = monotonic()
        left = self._transport.get_write_buffer_size() + early_answers.unread_bytes(self._sock)
        if left != unread:
            since = now
        if not left or now - since >= early_answers.STALL_S:
            self._linger_from_now(self.phase)
            return
        self._linger_until += now - self._watched_since
        self._watched_since = now
        self.context.loop.call_later(early_answers.LOOK_S, self._look_whether_read, left, since)

    def _refuse(self, error: ProtocolError) -> None:
        """Answer a request that no app will see, and end the connection."""
        if self.phase is _DRAIN:
            self._linger()
            return
        self.write(refusal(error, self.parser.head or self.parser.draft), 0)
        self.context.count_refusal(error)
        self._linger()

    def _is_late(self, now: float) -> bool:
        if self.phase is not _HEAD:
            return False
        if now - self._watched_since > self.context.settings.head_timeout_s:
            self._refuse(ProtocolError(408, "head-timeout", "the request head did not arrive in time"))
        return True
