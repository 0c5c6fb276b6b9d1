"""The daemon's parts without its listeners, in the test's own loop: apps with real workers, connections by hand."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any

import uvloop

from caddysnake.channel import vitals
from caddysnake.channel.messages import TAKE_TRUSTED
from caddysnake.channel.settings import Settings
from caddysnake.daemon.apps.app import App
from caddysnake.daemon.apps.spec import PoolSpec
from caddysnake.daemon.sockets.connections import Connection, Connections
from caddysnake.daemon.system.timings import TIMINGS, Timings
from caddysnake.daemon.workers.child.launcher import ForkServerKey
from caddysnake.daemon.workers.launchers import WorkerOrigins
from support.probe import exchange
from support.worker import PATIENCE_S, SITE


def spec(
    target: str,
    interface: str,
    folder: Path,
    workers: int = 1,
    start_timeout_s: float | None = PATIENCE_S,
    grace_s: float = 5.0,
    python: str = sys.executable,
    environ: dict[str, str] | None = None,
    name: str | None = None,
    **settings: Any,
) -> PoolSpec:
    """What runs ``module:variable`` of ``folder``."""
    module, _, variable = target.partition(":")
    own = {"PATH": os.environ["PATH"], **(environ or {})}
    wanted = Settings(name or target, interface, module, variable, str(folder), own, **settings)
    key = ForkServerKey(python, interface, (), (), tuple(sorted(own.items())))
    return PoolSpec(wanted.app, wanted, workers, key, start_timeout_s, grace_s)


class House:
    """Use as an async context manager; everything in it has ended afterwards."""

    def __init__(self, timings: Timings = TIMINGS) -> None:
        self.connections = Connections(
            asyncio.get_running_loop(),
            lambda connection: connection.app.over(connection),
            lambda connection: connection.app.place(connection),
        )
        self.origins = WorkerOrigins([SITE], timings)
        self.apps: list[App] = []
        self._clients: list[socket.socket] = []
        self._placed: list[Connection] = []

    async def __aenter__(self) -> House:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        for app in self.apps:
            app.stop()
            app.kill()
        async with asyncio.timeout(PATIENCE_S):
            for app in self.apps:
                await app.ended()
            await self.origins.close(patience_s=5.0)
        self.connections.close()
        for client in self._clients:
            client.close()

    def app(self, wanted: PoolSpec) -> App:
        """A new app, not started."""
        app = App(wanted, self.origins, self.connections)
        self.apps.append(app)
        return app

    async def started(self, wanted: PoolSpec) -> App:
        app = self.app(wanted)
        async with asyncio.timeout(PATIENCE_S):
            await app.start()
        return app

    def connect(self, app: App) -> socket.socket:
        """A client's socket, its other end placed with ``app``; closed with the house at the latest."""
        client, server = socket.socketpair()
        client.settimeout(PATIENCE_S)
        self._clients.append(client)
        connection = Connection(server.detach(), TAKE_TRUSTED, app)
        self._placed.append(connection)
        self.connections.adopt(connection)
        app.place(connection)
        return client

    async def all_idle(self) -> None:
        """Wait until the workers have said of all that they hold that it is idle: shortly after the last answer."""
        await until(
            lambda: all(
                each.worker is None or each.worker.gauges.page.slots[each.slot] == vitals.SLOT_IDLE
                for each in self._placed
            ),
            "idleness",
        )

    async def ask(self, app: App, target: str = "/") -> tuple[int, bytes]:
        """GET ``target`` over a connection of its own."""
        client = self.connect(app)
        try:
            return await asyncio.to_thread(exchange, client, target)
        finally:
            client.close()


async def until(condition: Callable[[], object], what: str = "it") -> None:
    """Wait until ``condition()`` is true."""
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"{what} did not happen"
        await asyncio.sleep(0.01)


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run ``work`` on the daemon's kind of loop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)
