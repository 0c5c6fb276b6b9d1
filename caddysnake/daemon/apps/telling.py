"""What is told of a pool's workers."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from ..workers.lifecycle import WorkerState
from ..workers.worker import Worker
from .generation import TryAgain
from .spec import PoolSpec

log = logging.getLogger("caddysnake.app")


def tell_ready(app: str, worker: Worker) -> float:
    """Log that ``worker`` is ready; the seconds since its start."""
    took = round(time.monotonic() - worker.started_at, 3)
    fields = {"app": app, "worker": worker.settings.worker_index, "pid": worker.pid}
    log.debug("worker ready", extra={"fields": {**fields, "runs": worker.detail, "duration": took}})
    return took


def look_at_starts(workers: Mapping[int, Worker]) -> None:
    """Have each of the ``workers`` that are starting look whether it will ever be ready."""
    for worker in workers.values():
        if worker.state is WorkerState.STARTING and worker.pid:
            worker.process.ask_where()


def warn_slow(spec: PoolSpec, workers: Mapping[int, Worker]) -> None:
    """Log that a start still goes on; each of the ``workers`` that are starting tells where it stands."""
    fields = {"app": spec.name, "waited_s": spec.slow_start_s, "start_timeout_s": spec.start_timeout_s}
    log.warning("app is taking a long time to load", extra={"fields": fields})
    look_at_starts(workers)


def tell_failed(order: TryAgain, worker: Worker | None, failures: int) -> None:
    """Log that whoever was at a place has failed, and is started again."""
    pause_s, failure, pid = order.pause_s, order.failure, worker.pid if worker is not None else 0
    fields = {"app": failure.app, "worker": order.place, "pid": pid, "code": failure.code, "error": str(failure)}
    what = "worker failed; it is started again" if pause_s < 1 else f"worker failed; next start in {pause_s:.1f}s"
    log.error(what, extra={"fields": {**fields, "failures_in_a_row": failures}})
