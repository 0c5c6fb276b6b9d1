"""Looks after the workers of one pool that serve: which stand still, hang, or have served long enough."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import Any

from ...channel.settings import Settings
from ..system.log.fields import FieldLog
from ..system.processes import resident_bytes
from ..workers.hanging import HangFinding
from ..workers.worker import Worker
from .counters import Counters
from .generation import Generation, Order
from .recycling import RecycleLimit, WorkerReading
from .source import WorkerSource
from .spec import PoolSpec

log = FieldLog("caddysnake.app")


class Upkeep:
    """``carry_out(orders)`` carries out what the generation decides; ``spawn(work)`` runs ``work`` beside."""

    def __init__(
        self,
        spec: PoolSpec,
        generation: Generation[Worker],
        source: WorkerSource,
        ledger: Counters,
        carry_out: Callable[[list[Order[Worker]]], None],
        spawn: Callable[[Coroutine[object, object, None]], object],
    ) -> None:
        self._spec = spec
        self._generation = generation
        self._source = source
        self._ledger = ledger
        self._carry_out = carry_out
        self._spawn = spawn
        self._limits: dict[Worker, RecycleLimit] = {}

    def begin(self, worker: Worker) -> None:
        """``worker`` is ready: draw its limits."""
        if self._spec.limits.is_any:
            self._limits[worker] = RecycleLimit(self._spec.limits)

    def end(self, worker: Worker) -> None:
        """``worker`` serves no more."""
        self._limits.pop(worker, None)

    def watch(self) -> None:
        """To be called every second or so: tell of workers that stand still, and end those that hang."""
        now_ms = time.monotonic_ns() // 1_000_000
        for worker in list(self._generation.ready):
            finding = worker.watch.look(worker.gauges.pulse(), now_ms)
            if finding is not None:
                self._found(worker, finding)

    def _found(self, worker: Worker, finding: HangFinding) -> None:
        fields = self._fields(worker)
        settings = self._spec.settings
        limit_s = settings.request_timeout_s if isinstance(settings, Settings) else None
        if finding is HangFinding.HANGS and limit_s is not None and not worker.is_hung:
            log.error("worker hangs, and is replaced; its stacks are in its output", **fields)
            self._spawn(worker.end_hung(limit_s))
        elif finding is HangFinding.OVERDUE:
            if self._generation.may_replace:
                reason = "requests that do not end at request_timeout"
                log.error("worker is replaced", **fields, code="deadline", reason=reason)
                self._ledger.restarted("deadline")
                self._replace(worker)
        elif finding is HangFinding.LOOP_STILL:
            what = f"event loop has been blocked for {worker.watch.loop_still_s:g} s; its stacks are in its output"
            log.warning(what, **fields)
            worker.write_stacks()
        elif finding is HangFinding.THREAD_STILL:
            still_s = worker.watch.thread_still_s
            what = f"a thread has been at one request for {still_s:g} s; its stack is in the worker's output"
            log.warning(what, **fields)
            worker.write_stacks()

    def recycle(self) -> None:
        """To be called every second or so: replace a worker that has reached a limit, one at a time."""
        if not self._generation.is_whole:
            return
        for worker in self._generation.ready:
            limit = self._limits.get(worker)
            reason = None if limit is None else limit.over(_reading(worker))
            if self._source.is_doomed(worker):
                reason = "host-replaced"
            if reason is not None:
                self._source.move_out(worker)  # it is the process that has grown old, not the thread
                log.info("worker is replaced", **self._fields(worker), code=reason)
                self._ledger.restarted(reason)
                self._replace(worker)
                return

    def _replace(self, worker: Worker) -> None:
        self._carry_out(self._generation.replace(worker.settings.worker_index, worker))

    def _fields(self, worker: Worker) -> dict[str, Any]:
        return {"app": self._spec.name, "worker": worker.settings.worker_index, "pid": worker.pid}


def _reading(worker: Worker) -> WorkerReading:
    age_s = time.monotonic() - worker.ready_at if worker.ready_at is not None else 0.0
    return WorkerReading(worker.gauges.requests(), age_s, resident_bytes(worker.pid))


def forget_ended(core: Generation[Worker]) -> None:
    """Let ``core`` know of workers of which nothing is left."""
    for worker in [*core.workers.values(), *core.leaving]:
        if worker.ended.is_set():
            core.ended(worker)
