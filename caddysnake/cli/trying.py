"""Apps imported as their workers would import them, and let go again: ``validate --import``."""

from __future__ import annotations

import asyncio
import sys

from ..channel.settings import Settings
from ..daemon.apps.app import App
from ..daemon.apps.spec import PoolSpec, StartFailed
from ..daemon.sockets.connections import Connections
from ..daemon.supervisor.desired import Desired
from ..daemon.system import processes, tempdirs
from ..daemon.workers.launchers import WorkerOrigins

_PATIENCE_S = 10.0


def try_all(desired: Desired) -> bool:
    """Import each static app of ``desired`` once, and say what came of it; whether all could be."""
    import uvloop

    processes.become_supervisor()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_try_all(list(map(_alone, desired.apps.values()))))


def _alone(spec: PoolSpec) -> PoolSpec:
    """With one worker, which only imports: nothing is asked of it, and no lifespan begins."""
    assert isinstance(spec.settings, Settings)
    return spec._replace(workers=1, warmup=None, settings=spec.settings._replace(lifespan="off"))


async def _try_all(specs: list[PoolSpec]) -> bool:
    loop = asyncio.get_running_loop()
    connections = Connections(loop, lambda connection: None, lambda connection: None)
    origins = WorkerOrigins()
    all_well = True
    try:
        for spec in specs:
            app = App(spec, origins, connections)
            try:
                print(f"{spec.name}: imported in {await app.start():.1f} s")
            except StartFailed as exc:
                all_well = False
                print(f"Error: app {spec.name} cannot be imported ({exc.code}):\n{exc}", file=sys.stderr)
            finally:
                app.stop()
                app.kill()
                await app.ended()
    finally:
        await origins.close(_PATIENCE_S)
        await tempdirs.settle(_PATIENCE_S)
        connections.close()
    return all_well
