"""The HTTP side of ``on_demand_ask``, with aiohttp: ``GET /…?domain=HOST``, whatever the path."""

from __future__ import annotations

from aiohttp import web

from ..daemon.tenants.known_hosts import HostAnswer, KnownHosts
from .hosting import Hosting

CONNECTIONS_MAX = 64
_STATUS = {HostAnswer.YES: 200, HostAnswer.NO: 404, HostAnswer.BUSY: 503}
_SHUTDOWN_S = 1.0


async def serve(known: KnownHosts) -> Hosting:
    """Answers on connections that it is given, as ``known`` knows."""

    async def answer(request: web.Request) -> web.Response:
        hosts = request.query.getall("domain", [])
        if len(hosts) != 1:
            return web.Response(status=400, text="ask with ?domain=HOST\n")
        found = await known.answer(hosts[0])
        return web.Response(status=_STATUS[found], text=f"{found.value}\n")

    app = web.Application(client_max_size=1024)
    app.router.add_get("/{path:.*}", answer)
    hosting = Hosting(CONNECTIONS_MAX, _SHUTDOWN_S)
    await hosting.start(app)
    return hosting
