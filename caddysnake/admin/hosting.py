"""An aiohttp application on connections that the daemon's own listeners accept.

Over TCP anybody on the machine may connect. So a request has a time in which it must have come, an answer one in which
it must have been fetched, and when there are too many connections, whoever has kept us waiting for longest goes.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from ..daemon.sockets.shares import reserve
from ..daemon.system.tasks import KeptTasks

HEAD_S = 10.0
"""In this time the first request of a connection must have begun, its head being whole."""

BODY_S = 30.0
IDLE_S = 75.0
"""In this time an answer must have been fetched, and the next request begun."""

_LOOK_S = 1.0

_silent = logging.getLogger("caddysnake.admin.http")
_silent.disabled = True  # a client that speaks no HTTP is nobody's business; what a handler raises is logged there


class _Client:
    """One connection. ``since``: when we began to wait for it; None: it waits for us."""

    __slots__ = ("begun", "limit_s", "since")

    def __init__(self, begun: float) -> None:
        self.begun = begun
        self.since: float | None = begun
        self.limit_s = HEAD_S


class Hosting:
    """Serves ``app`` to at most ``connections_max`` clients, or fewer where there are few descriptors. Their
    connections end with ``stop``: requests that are being answered get ``shutdown_s`` seconds."""

    def __init__(self, connections_max: int, shutdown_s: float) -> None:
        self._connections_max = max(8, min(connections_max, reserve() // 4))
        self._shutdown_s = shutdown_s
        self._runner: web.AppRunner | None = None
        self._tasks = KeptTasks()
        self._clients: dict[Any, _Client] = {}
        """By their protocol."""
        self._coming = 0
        self._looking: asyncio.TimerHandle | None = None

    async def start(self, app: web.Application) -> None:
        """Be ready for connections."""
        app.middlewares.insert(0, self._attend)
        self._runner = web.AppRunner(app, access_log=None, logger=_silent, shutdown_timeout=self._shutdown_s)
        await self._runner.setup()
        self._look()

    async def stop(self) -> None:
        """End every connection."""
        if self._looking is not None:
            self._looking.cancel()
        for task in self._tasks:
            task.cancel()
        if self._runner is not None:
            await self._runner.cleanup()

    def accept(self, sock: socket.socket) -> None:
        """Serve a new connection. When there are too many, the one that has kept us waiting for longest is ended; where
        all wait for us, the new one is."""
        server = None if self._runner is None else self._runner.server
        if server is None or (self._is_full and not self._evict()):
            sock.close()
            return
        self._coming += 1
        self._tasks.begin(self._connect(sock, server))

    async def read(self, request: web.Request) -> bytes:
        """The body of ``request``. Raises ``HTTPRequestTimeout`` when it does not come."""
        client = self._clients.get(request.protocol)
        if client is None:
            raise web.HTTPRequestTimeout  # it has been given up
        client.since, client.limit_s = asyncio.get_running_loop().time(), math.inf  # it is answered then
        try:
            async with asyncio.timeout(BODY_S):
                return await request.read()
        except TimeoutError:
            raise web.HTTPRequestTimeout from None
        finally:
            client.since = None

    @property
    def _is_full(self) -> bool:
        return len(self._clients) + self._coming >= self._connections_max

    def _evict(self) -> bool:
        waited_for = {protocol: client.since for protocol, client in self._clients.items() if client.since is not None}
        if not waited_for:
            return False
        self._end(min(waited_for, key=lambda protocol: waited_for[protocol]))
        return True

    def _end(self, protocol: Any) -> None:
        del self._clients[protocol]
        if protocol.transport is not None:
            protocol.transport.abort()

    async def _connect(self, sock: socket.socket, server: web.Server) -> None:
        self._coming -= 1
        sock.setblocking(False)
        loop = asyncio.get_running_loop()

        def known() -> asyncio.Protocol:
            protocol = server()
            self._clients[protocol] = _Client(loop.time())
            return protocol

        try:
            await loop.connect_accepted_socket(known, sock)
        except OSError:
            sock.close()

    @web.middleware
    async def _attend(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        client = self._clients.get(request.protocol)
        if client is None:
            return await handler(request)
        client.since = None
        try:
            return await handler(request)
        finally:
            client.since, client.limit_s = asyncio.get_running_loop().time(), IDLE_S

    def _look(self) -> None:
        """Every second: forget who has left, and end who does not finish."""
        loop = asyncio.get_running_loop()
        self._looking = loop.call_later(_LOOK_S, self._look)
        now = loop.time()
        for protocol, client in list(self._clients.items()):
            if protocol.transport is None or protocol.transport.is_closing():
                if now - client.begun > _LOOK_S:
                    del self._clients[protocol]
            elif client.since is not None and now - client.since > client.limit_s:
                self._end(protocol)
