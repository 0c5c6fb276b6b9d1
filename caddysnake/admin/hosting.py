"""Serves connections that the daemon's own listeners accept.

Over TCP anybody on the machine may connect. So there are only so many at a time: when there are too many, whoever has
kept us waiting for longest goes. Who has only just connected is about to ask, and who has asked waits for us: when all
are like that, the next one waits to be accepted.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from operator import itemgetter

from ..daemon.sockets.shares import reserve
from ..daemon.system.tasks import KeptTasks
from ..http1.errors import ProtocolError
from .connection import HttpConnection
from .request import Answer, Handler, Request

log = logging.getLogger("caddysnake.admin")

SILENT_S = 0.1
"""So long, whoever is to ask may say nothing."""

UNREAD_S = 1.0
"""So long, what was sent may wait for us; later it is one who sends more, and fetches no answer."""


class Hosting:
    """Has ``handle`` answer the requests of at most ``connections_max`` clients, or fewer where there are few
    descriptors, and ``refuse`` what is no request. Their connections end with ``stop``: requests that are being
    answered get ``shutdown_s`` seconds."""

    def __init__(
        self, handle: Handler, refuse: Callable[[ProtocolError], Answer], connections_max: int, shutdown_s: float
    ) -> None:
        self._handle = handle
        self._refuse = refuse
        self._connections_max = max(8, min(connections_max, reserve() // 4))
        self._shutdown_s = shutdown_s
        self._is_stopping = False
        self._tasks = KeptTasks()
        self._connections: dict[HttpConnection, asyncio.Task[None]] = {}

    async def stop(self) -> None:
        """End every connection."""
        self._is_stopping = True
        for connection, task in self._connections.items():
            if connection.is_idle:
                task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._shutdown_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def has_room(self) -> bool:
        """Whether one more may be accepted, if need be in the place of another."""
        return len(self._connections) < self._connections_max or self._idler() is not None

    def accept(self, sock: socket.socket) -> None:
        """Serve a new connection. When there are too many, the one that has kept us waiting for longest is ended; where
        all wait for us, the new one is."""
        if self._is_stopping:
            sock.close()
            return
        if len(self._connections) >= self._connections_max:
            idler = self._idler()
            if idler is None:
                sock.close()
                return
            task = self._connections.pop(idler)
            if idler.since is not None:  # those who left go by themselves, and are not counted any more
                task.cancel()
        sock.setblocking(False)
        connection = HttpConnection(sock)
        task = self._connections[connection] = self._tasks.begin(self._serve(connection))
        task.add_done_callback(lambda _: self._forget(connection))

    def _forget(self, connection: HttpConnection) -> None:
        self._connections.pop(connection, None)
        connection.sock.close()  # for one that ended before it was opened

    def _idler(self) -> HttpConnection | None:
        """Who may go: somebody who left, else whoever has kept us waiting for longest."""
        now = asyncio.get_running_loop().time()
        waiting = []
        for each in self._connections:
            if each.since is not None:
                waiting.append((each.since, each))
            elif not each.is_there:
                return each
        waiting.sort(key=itemgetter(0))
        for since, each in waiting:
            if now - since < SILENT_S:
                break
            if now - since >= UNREAD_S or not each.is_unread:
                return each
        return None

    async def _serve(self, connection: HttpConnection) -> None:
        try:
            await connection.open()
        except OSError:
            return
        answer = None
        try:
            while True:
                try:
                    head = await connection.turn(answer, self._is_stopping)
                    if head is None:
                        return
                    answer = await self._handle(Request(head, connection))
                except ProtocolError as exc:
                    answer = self._refuse(exc)
        except OSError:
            pass  # it has left, or kept us waiting for too long
        except Exception:
            log.exception("a request to the admin API failed")
        finally:
            connection.abort()
