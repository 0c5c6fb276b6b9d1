"""An app: its pools, the connections that wait for a worker, and who gets the next one."""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from ..channel import vitals
from .balancer import choose
from .connections import Connection, Connections
from .pools import Pool, PoolSpec
from .spawners import Spawners
from .workers import Worker

log = logging.getLogger("caddysnake.app")

_RETRY_S = 0.01
"""How long a connection waits before saturated workers are looked at again: they say nothing on the hot path."""


class App:
    """Connections come in by ``place``; each is with one worker, in the queue, or parked."""

    def __init__(self, spec: PoolSpec, spawners: Spawners, connections: Connections) -> None:
        self.spec = spec
        self.name = spec.name
        self._spawners = spawners
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Connection] = deque()
        self._turn = 0
        self._retry: asyncio.TimerHandle | None = None
        self._stopping = False
        self.pool = self._new_pool(1)

    def _new_pool(self, generation: int) -> Pool:
        return Pool(self.spec, generation, self._spawners, self)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def start(self) -> float:
        """Bring the app up; the seconds it took. Raises ``StartFailed``."""
        return await self.pool.start()

    def stop(self) -> None:
        """Drain: idle connections end as they come back, requests in flight finish."""
        self._stopping = True
        while self._waiting:
            self._connections.end(self._waiting.popleft())
        self.pool.drain()

    def kill(self) -> None:
        self.pool.kill()

    async def ended(self) -> None:
        await self.pool.ended()

    # -- connections -------------------------------------------------------------------------------------------

    def place(self, connection: Connection) -> None:
        """Give ``connection`` to the least busy worker, or let it wait."""
        if self._stopping:
            self._connections.end(connection)
        elif self._waiting or not self._give(connection):
            self._connections.hold(connection)
            self._waiting.append(connection)
            self._retry_soon()

    def over(self, connection: Connection) -> None:
        """Its other side has left."""
        if connection.worker is not None:
            # The worker may still be answering a half-closed client, so only our duplicate goes.
            connection.worker.drop(connection)
            self._connections.forget(connection)
        else:
            if connection in self._waiting:
                self._waiting.remove(connection)
            self._connections.end(connection)

    def _give(self, connection: Connection) -> bool:
        ready = self.pool.ready
        self._turn += 1
        index = choose([worker.load() for worker in ready], self._turn)
        if index is None or not ready[index].give(connection):
            return False
        self._connections.watch(connection)
        return True

    def serve_waiting(self) -> None:
        """Give away what waits, as far as there are workers to take it."""
        while self._waiting:
            if not self._give(self._waiting[0]):
                self._retry_soon()
                return
            self._waiting.popleft()

    def _retry_soon(self) -> None:
        # Without a ready worker there is nothing to look at: the next one that becomes ready serves the queue.
        if self._retry is None and self.pool.ready:
            self._retry = self._loop.call_later(_RETRY_S, self._retry_now)

    def _retry_now(self) -> None:
        self._retry = None
        self.serve_waiting()

    def returned(self, connection: Connection, worker: Worker) -> None:
        """``worker`` gave it back at a request boundary."""
        if self._stopping:
            self._connections.end(connection)
        elif worker in self.pool.ready:
            # Given back because the worker is busy. Its next request, not an idle connection, decides who gets it.
            self._connections.park(connection)
        else:
            self.place(connection)

    def orphaned(self, connection: Connection, state: int) -> None:
        """Its worker is dead: what that worker had not begun to read is as good as new."""
        connection.worker = None
        if state in (vitals.SLOT_GIVEN, vitals.SLOT_IDLE, vitals.SLOT_RETURNED) and not self._stopping:
            self.place(connection)
        else:
            self._connections.end(connection)
