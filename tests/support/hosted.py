"""Apps as threads, in real thread hosts that are looked after as the daemon does."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from caddysnake.daemon.apps.app import App
from caddysnake.daemon.apps.spec import PoolSpec
from caddysnake.daemon.workers.threads.host import ThreadHost
from support.house import House, spec

WSGI = """
import os, threading
{more}
def app(environ, start_response):
    body = {body}
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""
ASGI = """
import os, threading
{more}
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({{"type": message["type"] + ".complete"}})
            if message["type"] == "lifespan.shutdown":
                return
    body = {body}
    await send({{"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]}})
    await send({{"type": "http.response.body", "body": body}})
"""
SOURCES = {"wsgi": WSGI, "asgi": ASGI}


def write(folder: Path, name: str, interface: str, body: str, more: str = "", **files: str) -> Path:
    """A folder ``name`` with the app ``name``.py whose every response is the expression ``body``."""
    home = folder / name
    home.mkdir(exist_ok=True)
    (home / f"{name}.py").write_text(SOURCES[interface].format(body=body, more=more))
    for module, source in files.items():
        (home / f"{module}.py").write_text(source)
    return home


def threads(folder: Path, interface: str, name: str | None = None, **more: Any) -> PoolSpec:
    """What runs the app of ``folder`` as threads."""
    name = name or folder.name
    return spec(f"{name}:app", interface, folder, shares_process=True, **more)


class Hosted(House):
    """A house whose hosts are looked after as the daemon does."""

    async def __aenter__(self) -> Hosted:
        self._sweeping = asyncio.create_task(self._sweep())
        return self

    async def __aexit__(self, *of: Any) -> None:
        self._sweeping.cancel()
        await super().__aexit__(*of)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(0.2)
            self.origins.sweep()
            for app in self.apps:
                app.pool.upkeep.recycle()

    @property
    def hosts(self) -> list[ThreadHost]:
        return [host for host in self.origins.hosts._hosts if not host.gone.is_set()]


def pids(*apps: App) -> list[int]:
    return [worker.pid for app in apps for worker in app.pool.ready]
