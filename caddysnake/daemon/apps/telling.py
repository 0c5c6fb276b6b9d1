"""What is told of a pool's workers."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from itertools import chain, repeat

from ..system.log.fields import FieldLog
from ..workers.lifecycle import WorkerState
from ..workers.worker import Worker
from .generation import Spawn
from .spec import PoolSpec, StartFailed

log = FieldLog("caddysnake.app")

_EARLY_S = 3.0
"""After so long an app that will never be ready, since it runs a server of its own, says so."""

_AGAIN_S = 1.0


def tell_ready(app: str, worker: Worker) -> float:
    """Log that ``worker`` is ready; the seconds since its start."""
    took = round(time.monotonic() - worker.started_at, 3)
    index = worker.settings.worker_index
    log.debug("worker ready", app=app, worker=index, pid=worker.pid, runs=worker.detail, duration=took)
    return took


async def watch_start(spec: PoolSpec, workers: Mapping[int, Worker]) -> None:
    """Until cancelled, have the ``workers`` that are starting look whether they will ever be ready, and tell where they
    stand when that is due; log that the start still goes on. Each is asked twice, one that only listens by then later.
    """
    asked = Counter[Worker]()
    early_s = min(_EARLY_S, spec.slow_start_s / 2)
    for turn, pause_s in enumerate(chain((early_s, spec.slow_start_s - early_s), repeat(_AGAIN_S))):
        await asyncio.sleep(pause_s)
        if turn == 1:
            waited_s, limit_s = spec.slow_start_s, spec.start_timeout_s
            log.warning("app is taking a long time to load", app=spec.name, waited_s=waited_s, start_timeout_s=limit_s)
        for worker in workers.values():
            if worker.state is WorkerState.STARTING and worker.pid and asked[worker] < 2:
                asked[worker] += worker.process.ask_where()


def tell_failed(failure: StartFailed, again: Spawn, pid: int, failures: int) -> None:
    """Log that whoever was at a place, as process ``pid`` if it was one, has failed, and is started again."""
    pause_s = again.pause_s
    what = "worker failed; it is started again" if pause_s < 1 else f"worker failed; next start in {pause_s:.1f}s"
    app, code, error = failure.app, failure.code, str(failure)
    log.error(what, app=app, worker=again.place, pid=pid, code=code, error=error, failures_in_a_row=failures)
