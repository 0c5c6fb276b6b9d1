"""The HTTP side of ``on_demand_ask``, with aiohttp: ``GET /…?domain=HOST``, whatever the path."""

from __future__ import annotations

import asyncio
import logging
import socket

from aiohttp import web

from ..daemon.on_demand import Answer, HostDesk

CONNECTIONS_MAX = 64
_silent = logging.getLogger("caddysnake.admin.http")
_silent.disabled = True  # whoever speaks no HTTP here is nobody's business
_STATUS = {Answer.YES: 200, Answer.NO: 404, Answer.BUSY: 503}
_SHUTDOWN_S = 1.0


class AskServer:
    """Answers on connections that ``accept`` is given, as ``desk`` knows."""

    def __init__(self, desk: HostDesk) -> None:
        self._desk = desk
        self._tasks: set[asyncio.Task[None]] = set()
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Be ready for connections."""
        app = web.Application(client_max_size=1024)
        app.router.add_get("/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, logger=_silent, shutdown_timeout=_SHUTDOWN_S)
        await self._runner.setup()

    async def stop(self) -> None:
        """End every connection."""
        for task in self._tasks:
            task.cancel()
        if self._runner is not None:
            await self._runner.cleanup()

    def accept(self, sock: socket.socket) -> None:
        """Serve a new connection."""
        runner = self._runner
        if runner is None or runner.server is None or len(runner.server.connections) >= CONNECTIONS_MAX:
            sock.close()
            return
        task = asyncio.get_running_loop().create_task(self._connect(sock, runner.server))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, sock: socket.socket, server: web.Server) -> None:
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(server, sock)
        except OSError:
            sock.close()

    async def _answer(self, request: web.Request) -> web.Response:
        hosts = request.query.getall("domain", [])
        if len(hosts) != 1:
            return web.Response(status=400, text="ask with ?domain=HOST\n")
        answer = await self._desk.answer(hosts[0])
        return web.Response(status=_STATUS[answer], text=f"{answer.value}\n")
