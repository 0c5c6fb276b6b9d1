"""Apps imported as their workers would import them, and let go again: ``validate --import``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from ..channel.settings import Settings
from ..daemon.apps.app import App
from ..daemon.apps.spec import PoolSpec, StartFailed
from ..daemon.sockets.connections import Connections
from ..daemon.supervisor.desired import Desired
from ..daemon.system import processes, tempdirs
from ..daemon.workers.launchers import WorkerOrigins

_PATIENCE_S = 10.0

Tell = Callable[[str, float | None, str], None]
"""Hears of each app: its name, the seconds that its import took, or None and why it failed."""


def try_all(desired: Desired, tell: Tell) -> bool:
    """Import each static app of ``desired`` once; whether all could be."""
    import uvloop

    processes.become_supervisor()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_try_all(list(_alone(desired)), tell))


def _alone(desired: Desired) -> Iterator[PoolSpec]:
    """One worker of each, which only imports: nothing is asked of it, and no lifespan begins."""
    for spec in desired.apps.values():
        assert isinstance(spec.settings, Settings)
        yield spec._replace(workers=1, warmup=None, settings=spec.settings._replace(lifespan="off"))


async def _try_all(specs: list[PoolSpec], tell: Tell) -> bool:
    loop = asyncio.get_running_loop()
    connections = Connections(loop, lambda connection: None, lambda connection: None)
    origins = WorkerOrigins()
    all_well = True
    try:
        for spec in specs:
            app = App(spec, origins, connections)
            try:
                took = await app.start()
            except StartFailed as exc:
                all_well = False
                tell(spec.name, None, f"({exc.code}):\n{exc}")
            else:
                tell(spec.name, took, "")
            finally:
                app.stop()
                app.kill()
                await app.ended()
    finally:
        await origins.close(_PATIENCE_S)
        await tempdirs.settle(_PATIENCE_S)
        connections.close()
    return all_well
