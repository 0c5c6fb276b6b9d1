"""The HTTP side of ``on_demand_ask``, with aiohttp: ``GET /…?domain=HOST``, whatever the path."""

from __future__ import annotations

import socket

from aiohttp import web

from ..daemon.tenants.known_hosts import HostAnswer, KnownHosts
from .hosting import Hosting

CONNECTIONS_MAX = 64
_STATUS = {HostAnswer.YES: 200, HostAnswer.NO: 404, HostAnswer.BUSY: 503}
_SHUTDOWN_S = 1.0


class AskServer:
    """Answers on connections that ``accept`` is given, as ``desk`` knows."""

    def __init__(self, desk: KnownHosts) -> None:
        self._desk = desk
        self._hosting = Hosting(CONNECTIONS_MAX, _SHUTDOWN_S)

    async def start(self) -> None:
        """Be ready for connections."""
        app = web.Application(client_max_size=1024)
        app.router.add_get("/{path:.*}", self._answer)
        await self._hosting.start(app)

    async def stop(self) -> None:
        """End every connection."""
        await self._hosting.stop()

    def accept(self, sock: socket.socket) -> None:
        """Serve a new connection."""
        self._hosting.accept(sock)

    async def _answer(self, request: web.Request) -> web.Response:
        hosts = request.query.getall("domain", [])
        if len(hosts) != 1:
            return web.Response(status=400, text="ask with ?domain=HOST\n")
        answer = await self._desk.answer(hosts[0])
        return web.Response(status=_STATUS[answer], text=f"{answer.value}\n")
