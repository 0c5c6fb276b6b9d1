"""The requests of one connection, as far as a worker's and a relay's have them in common."""

from __future__ import annotations

import socket
from time import monotonic

from ..channel.vitals import SLOT_IDLE
from ..http1.answers import refusal
from ..http1.errors import ProtocolError
from .context import Context
from .transport import ConnectionPhase, Transport

# CPython 3.11 reaches a member through its class by a descriptor written in Python: too slow for each request.
_IDLE, _HEAD, _DRAIN = ConnectionPhase.IDLE, ConnectionPhase.HEAD, ConnectionPhase.DRAIN


class Connection(Transport):
    """Parses the requests of one connection. ``is_last``: the next answer ends it."""

    __slots__ = ("is_last", "parser")

    def __init__(self, context: Context, sock: socket.socket, slot: int, is_last: bool) -> None:
        super().__init__(context, sock, slot)
        self.is_last = is_last
        self.parser = context.new_parser()

    def write(self, output: bytes, content_bytes: int) -> None:
        """Write a piece of a response, ``content_bytes`` of which are content."""
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

    def _refuse(self, error: ProtocolError) -> None:
        """Answer a request that no app will see, and end the connection."""
        if self.phase is _DRAIN:
            self._linger()
            return
        self.write(refusal(error, self.parser.head or self.parser.draft, self.context.server_header), 0)
        self.context.count_refusal(error)
        self._linger()

    def _is_late(self, now: float) -> bool:
        if self.phase is not _HEAD:
            return False
        if now - self._watched_since > self.context.settings.head_timeout_s:
            self._refuse(ProtocolError(408, "head-timeout", "the request head did not arrive in time"))
        return True
