"""All that a Caddyfile asks for, served in the test's own loop: listeners, apps with real workers, relays."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

from caddysnake.config.check.settled import settle
from caddysnake.config.language.adapt import load
from caddysnake.config.plan.plan import plan
from caddysnake.daemon.supervisor.desired import Desired, compose
from caddysnake.daemon.supervisor.supervisor import Supervisor
from caddysnake.daemon.system.timings import TIMINGS, Timings
from support.worker import PATIENCE_S


def composition(folder: Path, text: str) -> Desired:
    """What ``text``, as a Caddyfile in ``folder``, asks for."""
    config = load(text.encode(), str(folder / "Caddyfile"), os.environ)
    planned, routes, problems, unready = settle(config, plan(config, cores=1), os.environ)
    assert (problems, unready) == ([], {})
    return compose(planned, os.environ, routes, str(folder))


@contextlib.asynccontextmanager
async def serving(wanted: Desired, timings: Timings = TIMINGS) -> AsyncIterator[Supervisor]:
    """``wanted`` at work; everything has ended afterwards."""
    runs = Supervisor(wanted, timings=timings)

    async def sweep() -> None:
        while True:
            await asyncio.sleep(0.2)
            runs.sweep()

    try:
        async with asyncio.timeout(PATIENCE_S):
            await runs.start()
        sweeping = asyncio.create_task(sweep())
        try:
            yield runs
        finally:
            sweeping.cancel()
    finally:
        async with asyncio.timeout(PATIENCE_S):
            await runs.stop()
