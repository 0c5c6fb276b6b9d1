"""Connections of one app that wait for a worker, first come first served."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable

from ..sockets.connections import Connection, Connections
from ..sockets.refusals import Refusal
from ..system import mishaps

Tell = Callable[[Refusal | None], None]


class Waiters(dict[Hashable, Tell]):
    """By their token. Each is told once: None when there is a worker, or why there will be none."""

    def tell(self, refusal: Refusal | None) -> None:
        """Tell all of them, who wait no more."""
        tells = list(self.values())
        self.clear()
        for each in tells:
            mishaps.or_else(lambda _: None)(each)(refusal)


_RETRY_S = 0.01
"""How long a connection waits before saturated workers are looked at again: they say nothing on the hot path."""


class ConnectionQueue(deque[Connection]):
    """``give(connection)`` gives one to a worker, if it can; ``has_worker()`` says whether there is any."""

    def __init__(
        self, connections: Connections, give: Callable[[Connection], bool], has_worker: Callable[[], bool]
    ) -> None:
        super().__init__()
        self._connections = connections
        self._give = give
        self._has_worker = has_worker
        self._retry: asyncio.TimerHandle | None = None

    def add(self, connection: Connection) -> None:
        """``connection`` waits, behind those that wait already."""
        self._connections.hold(connection)
        self.append(connection)

    def discard(self, connection: Connection) -> None:
        """``connection`` waits no more, if it did."""
        if connection in self:
            self.remove(connection)

    def take_all(self) -> list[Connection]:
        """Those that waited: none does any more."""
        waiting = list(self)
        self.clear()
        return waiting

    def serve(self) -> None:
        """Give away what waits, as far as there are workers to take it."""
        while self:
            connection = self[0]
            try:
                if not self._give(connection):
                    self.retry_soon()
                    return
            except Exception as exc:  # the others wait behind it
                mishaps.tell(exc)
                self._connections.end(connection)
            self.popleft()

    def retry_soon(self) -> None:
        """Look again in a moment. Without a ready worker there is nothing to look at: the next one serves the queue."""
        if self._retry is None and self._has_worker():
            self._retry = asyncio.get_running_loop().call_later(_RETRY_S, self._retry_now)

    def _retry_now(self) -> None:
        self._retry = None
        self.serve()
