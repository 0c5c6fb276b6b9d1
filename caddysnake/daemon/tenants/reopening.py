"""Connections of a dynamic app that was let go: a request on one is its successor's."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Protocol

from ..apps.app import App
from ..sockets.connections import Connection, Connections, answer, has_input
from ..sockets.refusals import Refusal


class Answering(Protocol):
    """Who is asked for apps by key."""

    def need(self, key: str, token: Hashable, tell: Callable[[App | Refusal], None]) -> None:
        """Call ``tell`` with the app of ``key`` once it is live, or with why it will not be."""

    def never_mind(self, key: str, token: Hashable) -> None:
        """Whoever asked has left."""


class Reopener:
    """Has the connections of the app of ``key`` once it was let go."""

    def __init__(self, tenants: Answering, key: str, connections: Connections) -> None:
        self.tenants = tenants
        self.key = key
        self._connections = connections

    def take(self, connection: Connection) -> None:
        """There is something to read, if only its end."""
        if not has_input(connection.fd):
            self._connections.end(connection)
            return
        self._connections.hold(connection)
        self.tenants.need(self.key, connection, lambda found: self._found(connection, found))

    def left(self, connection: Connection) -> None:
        """Its other side has left."""
        self.tenants.never_mind(self.key, connection)

    def _found(self, connection: Connection, found: App | Refusal) -> None:
        if isinstance(found, Refusal):
            # A relay waits for the response to what it sent over this link, of which nobody has read a byte.
            answer(connection.fd, found)
            self._connections.end(connection)
        else:
            connection.app = found
            found.place(connection)
