"""Connections of one app that wait for a worker, first come first served."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Iterator

from ...config.language.models import MAX_QUEUE
from ..sockets.connections import Connection, Connections
from ..sockets.refusals import Refusal
from ..system import mishaps

Tell = Callable[[Refusal | None], None]


class Waiters:
    """By their token. Each is told once: None when there is a worker, or why there will be none."""

    def __init__(self) -> None:
        self._tells: dict[Hashable, Tell] = {}

    def __len__(self) -> int:
        return len(self._tells)

    def add(self, token: Hashable, tell: Tell) -> None:
        """``tell`` waits."""
        self._tells[token] = tell

    def never_mind(self, token: Hashable) -> None:
        """Whoever asked has left."""
        self._tells.pop(token, None)

    def tell(self, refusal: Refusal | None) -> None:
        """Tell all of them, who wait no more."""
        tells, self._tells = self._tells, {}
        for each in tells.values():
            mishaps.or_else(lambda _: None)(each)(refusal)


_RETRY_S = 0.01
"""How long a connection waits before saturated workers are looked at again: they say nothing on the hot path."""


class ConnectionQueue:
    """``give(connection)`` gives one to a worker, if it can; ``has_worker()`` says whether there is any."""

    def __init__(
        self, connections: Connections, give: Callable[[Connection], bool], has_worker: Callable[[], bool]
    ) -> None:
        self.most = MAX_QUEUE
        """How many may wait, apart from what workers have been given."""
        self._connections = connections
        self._give = give
        self._has_worker = has_worker
        self._waiting: deque[Connection] = deque()
        self._retry: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._waiting)

    @property
    def is_full(self) -> bool:
        """No more may wait."""
        return len(self._waiting) >= self.most

    def add(self, connection: Connection) -> None:
        """``connection`` waits, behind those that wait already."""
        self._connections.hold(connection)
        self._waiting.append(connection)

    def discard(self, connection: Connection) -> None:
        """``connection`` waits no more, if it did."""
        if connection in self._waiting:
            self._waiting.remove(connection)

    def take_all(self) -> deque[Connection]:
        """Those that waited: none does any more."""
        waiting, self._waiting = self._waiting, deque()
        return waiting

    def serve(self) -> None:
        """Give away what waits, as far as there are workers to take it."""
        while self._waiting:
            connection = self._waiting[0]
            try:
                if not self._give(connection):
                    self.retry_soon()
                    return
            except Exception as exc:  # the others wait behind it
                mishaps.tell(exc)
                self._connections.end(connection)
            self._waiting.popleft()

    def retry_soon(self) -> None:
        """Look again in a moment. Without a ready worker there is nothing to look at: the next one serves the queue."""
        if self._retry is None and self._has_worker():
            self._retry = asyncio.get_running_loop().call_later(_RETRY_S, self._retry_now)

    def _retry_now(self) -> None:
        self._retry = None
        self.serve()
