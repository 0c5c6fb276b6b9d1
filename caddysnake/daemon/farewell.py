"""Idle connections of a listener that has changed its owner, or is there no more. None of them is closed by us: Caddy
may be sending a request just then, and cannot send a POST again.

A connection goes to the listener's new owner, who answers one more request on it, with ``Connection: close``: a worker
of the former owner may have kept a copy of the descriptor, so it is not to be used for longer. One that was a relay's
goes over whole, as a relay runs no app's code. Where the former owner has a user of its own, and another follows, even
one request is too many to let it read: those connections are ended. Where nobody follows, the daemon answers, with 503.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..channel.messages import TAKE_LAST
from . import standstill
from .connections import Connection, Connections, has_input
from .refusals import STOPPING

if TYPE_CHECKING:
    from .apps import App


class Farewell:
    """Has what nobody follows for, and passes on the rest. Stands in the place of a connection's app."""

    name = "none"

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def pass_on(self, connection: Connection, former: App) -> None:
        """``former`` had ``connection``, idle or with a request that nobody has read."""
        bound = connection.bound
        owner = bound.app if bound is not None else None
        if bound is None or (owner is not None and not _may_follow(former, owner)):
            self._connections.end(connection)
        elif owner is None:
            connection.app = self
            self._connections.park(connection)
        else:
            if not former.is_ours:
                connection.flags |= TAKE_LAST
            connection.app = owner
            owner.place(connection)

    # As an app

    def place(self, connection: Connection) -> None:
        """Something has come on it: a request, or its end."""
        if not has_input(connection.fd):
            self._connections.end(connection)
            return
        standstill.answer(connection.fd, STOPPING)
        self._connections.watch(connection)  # until the other side has read that, and ends it

    def over(self, connection: Connection) -> None:
        """Its other side has left."""
        self._connections.end(connection)


def _may_follow(former: App, owner: App) -> bool:
    return former.is_ours or former.spec.key.account == owner.spec.key.account
