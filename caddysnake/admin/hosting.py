"""An aiohttp application on connections that the daemon's own listeners accept."""

from __future__ import annotations

import asyncio
import logging
import socket

from aiohttp import web

_silent = logging.getLogger("caddysnake.admin.http")
_silent.disabled = True  # a client that speaks no HTTP is nobody's business; what a handler raises is logged there


class Hosting:
    """Serves ``app`` to at most ``connections_max`` clients. Their connections end with ``stop``: requests that are
    being answered get ``shutdown_s`` seconds."""

    def __init__(self, connections_max: int, shutdown_s: float) -> None:
        self._connections_max = connections_max
        self._shutdown_s = shutdown_s
        self._runner: web.AppRunner | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, app: web.Application) -> None:
        """Be ready for connections."""
        self._runner = web.AppRunner(app, access_log=None, logger=_silent, shutdown_timeout=self._shutdown_s)
        await self._runner.setup()

    async def stop(self) -> None:
        """End every connection."""
        for task in self._tasks:
            task.cancel()
        if self._runner is not None:
            await self._runner.cleanup()

    def accept(self, sock: socket.socket) -> None:
        """Serve a new connection; one too many is closed."""
        server = None if self._runner is None else self._runner.server
        if server is None or len(server.connections) >= self._connections_max:
            sock.close()
            return
        task = asyncio.get_running_loop().create_task(_connect(sock, server))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _connect(sock: socket.socket, server: web.Server) -> None:
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().connect_accepted_socket(server, sock)
    except OSError:
        sock.close()
