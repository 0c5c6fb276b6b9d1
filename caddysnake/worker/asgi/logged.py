"""A connection whose requests are logged. Apart from the others, so that these pay nothing for it."""

from __future__ import annotations

import socket
from time import monotonic
from typing import TYPE_CHECKING

from ...http1.request import RequestHead
from ...http1.response import Output
from ..access_log import CLIENT_GONE, LINK, TRUSTED, AccessLog, head_of, line, queue_bits
from .connection import HttpConnection
from .context import AsgiContext
from .cycles.cycle import Cycle
from .scope import Peer

if TYPE_CHECKING:
    from .cycles.websocket_cycle import WebSocketCycle


class LoggedConnection(HttpConnection):
    """Logs each request once: when its response is complete, or when its connection ends."""

    __slots__ = ("_access", "_answer", "_flags", "_sent", "_upgraded")

    def __init__(
        self, context: AsgiContext, sock: socket.socket, slot: int, is_last: bool, peer: Peer, access: AccessLog
    ) -> None:
        HttpConnection.__init__(self, context, sock, slot, is_last, peer)
        self._access = access
        self._flags = (TRUSTED if peer.is_trusted else 0) | (LINK if peer.is_link else 0)
        self._sent = 0
        self._answer = b""
        self._upgraded: Cycle | None = None

    def _begin(self, head: RequestHead) -> None:
        self._sent = 0
        self._answer = b""
        HttpConnection._begin(self, head)

    def write(self, output: Output, content_bytes: int) -> None:
        """As ``HttpConnection.write``; what is sent is measured, and the head of the answer kept."""
        cycle = self.cycle
        if not self._answer and cycle is not None and (cycle.response.head_sent or _switches(output)):
            self._answer = head_of(output)
        self._sent += content_bytes
        HttpConnection.write(self, output, content_bytes)

    def count_sent(self, size: int) -> None:
        """As ``HttpConnection.count_sent``, and measured here too."""
        self._sent += size
        HttpConnection.count_sent(self, size)

    def response_done(self, cycle: Cycle) -> None:
        """As ``HttpConnection.response_done``, and logged."""
        self._log(cycle, cycle.response.status)
        HttpConnection.response_done(self, cycle)

    def upgraded(self, websocket: WebSocketCycle) -> None:
        """As ``HttpConnection.upgraded``; it is a request until it ends."""
        self._upgraded = websocket
        HttpConnection.upgraded(self, websocket)

    def connection_lost(self, exc: BaseException | None) -> None:
        """As ``HttpConnection.connection_lost``; an open request is logged, status 499 without an answer."""
        cycle = self.cycle
        if self._upgraded is not None:
            self._log(self._upgraded, 101)
        elif cycle is not None:
            self._log(cycle, cycle.response.status if cycle.response.head_sent else CLIENT_GONE)
        HttpConnection.connection_lost(self, exc)

    def _log(self, cycle: Cycle, status: int) -> None:
        took_s = monotonic() - cycle.begun
        received = self.parser.received
        address = self.peer.address or ("", 0)
        flags = self._flags | queue_bits(cycle.begun - cycle.arrived)
        made = line(cycle.head, flags, address, received, self._sent, status, took_s, self._answer)
        if self._access.collect(made):
            self.context.loop.call_soon(self._access.flush)


def _switches(output: Output) -> bool:
    return isinstance(output, bytes) and output.startswith(b"HTTP/1.1 101")
