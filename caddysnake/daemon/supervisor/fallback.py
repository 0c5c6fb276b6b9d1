"""Idle connections of a listener that has changed its owner, or is there no more. None of them is closed by us: Caddy
may be sending a request just then, and cannot send a POST again.

A connection goes to the listener's new owner, who answers one more request on it, with ``Connection: close``: a worker
of the former owner may have kept a copy of the descriptor, so it is not to be used for longer. One that was a relay's
goes over whole, as a relay runs no app's code. Where the former owner has a user of its own, and another follows, even
one request is too many to let it read: those connections are ended. Where nobody follows, the daemon answers, with 503,
and so it does when it stops, and for a new connection that finds too many waiting before it.
"""

from __future__ import annotations

import asyncio

from ...channel.messages import TAKE_LAST
from ..sockets.connections import Connection, Connections, ListenerOwner, answer, has_input, look
from ..sockets.refusals import QUEUE_FULL, STOPPING

_LAST_S = 0.5
"""How long a connection that is to end may bring one more request."""
_UNREAD_BYTES = 1 << 16
_REPEATABLE = (b"GET ", b"HEAD ", b"OPTIONS ", b"TRACE ")


class Fallback:
    """Has what nobody follows for, and passes on the rest. Stands in the place of a connection's app."""

    name = "none"

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._too_many: set[Connection] = set()
        self._idle: set[Connection] = set()

    def pass_on(self, connection: Connection, former: ListenerOwner) -> None:
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

    def turn_away(self, connection: Connection) -> None:
        """``connection`` is new, and as many as may wait for its app do."""
        self._too_many.add(connection)
        self.drain_out(connection)

    def drain_out(self, connection: Connection) -> None:
        """The daemon stops, and nobody has ``connection``. What has come on it is answered, or comes within moments;
        after that it ends, so that Caddy sends nothing more on it.
        """
        if connection.bound is None:  # a link: its relay is gone, or goes
            self._connections.end(connection)
            return
        connection.app = self
        if has_input(connection.fd):
            self.place(connection)
        else:
            self._idle.add(connection)
            self._connections.park(connection)
            asyncio.get_running_loop().call_later(_LAST_S, self._last_look, connection)

    def drain_out_rest(self) -> None:
        """Nobody serves any more: answer what has come on connections that nobody has."""
        for connection in self._connections.all():
            if connection.worker is None and connection.parked:
                self._last_look(connection)

    def _last_look(self, connection: Connection) -> None:
        if connection.parked and connection in self._connections:
            self.place(connection)

    # As an app

    def place(self, connection: Connection) -> None:
        """Something has come on it: a request, or its end."""
        refusal = QUEUE_FULL if connection in self._too_many else STOPPING
        was_idle = connection in self._idle
        self._too_many.discard(connection)
        self._idle.discard(connection)
        if not has_input(connection.fd) or (refusal is STOPPING and was_idle and _is_repeatable(connection.fd)):
            # Caddy sends such a request again when a connection that it has used before ends: perhaps elsewhere.
            self._connections.end(connection)
            return
        answer(connection.fd, refusal)
        # To end a TCP connection with something unread resets it, and the other side loses what it has not read either.
        look(connection.fd, _UNREAD_BYTES, flags=0)
        self._connections.watch(connection)  # until the other side has read that, and ends it

    def over(self, connection: Connection) -> None:
        """Its other side has left."""
        self._too_many.discard(connection)
        self._idle.discard(connection)
        self._connections.end(connection)


def _is_repeatable(fd: int) -> bool:
    """What has come is a request that may be sent twice, by its method (RFC 9110 section 9.2.2)."""
    return look(fd, 8).startswith(_REPEATABLE)


def _may_follow(former: ListenerOwner, owner: ListenerOwner) -> bool:
    return former.is_ours or former.account == owner.account
