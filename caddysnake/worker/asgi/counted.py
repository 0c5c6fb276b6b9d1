"""Connections that go back to the daemon after so many requests, while it compares two builds. Apart from the others,
so that these pay nothing for it.
"""

from __future__ import annotations

import socket

from ..access_log import AccessLog
from .connection import HttpConnection
from .context import AsgiContext
from .logged import LoggedConnection
from .scope import Peer


class CountedConnection(HttpConnection):
    """Is given back after ``turns`` requests."""

    __slots__ = ("_turns",)

    def __init__(
        self, context: AsgiContext, sock: socket.socket, slot: int, is_last: bool, peer: Peer, turns: int
    ) -> None:
        HttpConnection.__init__(self, context, sock, slot, is_last, peer)
        self._turns = turns

    def _boundary(self) -> None:
        self._turns -= 1
        HttpConnection._boundary(self)
        if self._turns <= 0:
            self.leave()  # if it is idle; else at its next boundary


class LoggedCountedConnection(LoggedConnection):
    """The same, with its requests logged."""

    __slots__ = ("_turns",)

    def __init__(
        self,
        context: AsgiContext,
        sock: socket.socket,
        slot: int,
        is_last: bool,
        peer: Peer,
        access: AccessLog,
        turns: int,
    ) -> None:
        LoggedConnection.__init__(self, context, sock, slot, is_last, peer, access)
        self._turns = turns

    def _boundary(self) -> None:
        self._turns -= 1
        LoggedConnection._boundary(self)
        if self._turns <= 0:
            self.leave()
