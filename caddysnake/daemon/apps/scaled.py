"""Gives an app as many workers as ``scaling`` decides: looks at their pages, and at what waits for them."""

from __future__ import annotations

import asyncio
import select
import time
from collections.abc import Callable
from typing import NamedTuple

from ...channel.settings import Settings
from ..system.log.fields import FieldLog
from ..system.memory import available_bytes, reserve
from ..system.processes import cpu_seconds, resident_bytes, run_delay_s
from ..system.state import ScaleSnapshot
from ..workers.worker import Worker
from .dispatcher import Dispatcher
from .pool import Pool
from .scaling import LOOK_CLOSELY_S, LOOK_S, Bounds, Decision, Observation, Scaler

log = FieldLog("caddysnake.app")

_SLOW_S = 1.0
"""How often the processor time of workers is looked at."""
_AT_FIRST = 4  # so many looks are close ones after something has come for an app that had nothing to do
_LOOKED_AT_MAX = 512
"""Of so many idle connections of a worker is seen whether something waits on them."""


class Change(NamedTuple):
    """The last one. ``at``: ``time.time()``."""

    at: float
    workers: int
    reason: str


class Scaled:
    """One app's number of workers."""

    def __init__(self, app: Dispatcher, may_grow: Callable[[], bool]) -> None:
        self._app = app
        self._may_grow = may_grow
        self._scaler = Scaler()
        self._timer: asyncio.TimerHandle | None = None
        self._pending: set[int] = set()
        self._cpu = self._cpu_now = (0.0, dict[int, float]())
        self._slow: float | None = None
        self._ready = self._looks = 0
        self.asked_for: int | None = None
        """A number that somebody has set; it holds until the next reload of the file."""
        self.last: Change | None = None
        """Why there are as many as there are; None: the file says so."""

    def wake(self) -> None:
        """Something has come for the app."""
        spec = self._app.pool.spec
        if self._timer is None and spec.most > spec.workers:
            self._looks = 0
            self._timer = asyncio.get_running_loop().call_later(LOOK_CLOSELY_S, self._look)

    def ask_for(self, workers: int | None) -> None:
        """Have so many, or, with None, as many as it takes."""
        self.asked_for = workers
        spec = self._app.pool.spec
        if workers is not None:
            self._carry_out(Decision(workers, "asked for"))
        elif spec.most <= spec.workers:
            self._carry_out(Decision(spec.workers, "as the file says"))
        self.wake()

    def size_for(self, least: int, most: int) -> int:
        """Return how many a new generation begins with: as many as the present one has, where that is allowed."""
        size = self._app.pool.core.size
        return min(max(size, least), most) if most > least else least

    def shrink(self, reason: str) -> None:
        """Have one worker fewer, if that is allowed."""
        pool = self._app.pool
        if pool.core.size > pool.spec.workers:
            self._carry_out(Decision(pool.core.size - 1, reason))

    # -- looking -------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        self._timer = None
        app, pool = self._app, self._app.pool
        spec, core = pool.spec, pool.core
        if app.takeover.is_stopping or spec.most <= spec.workers:
            return
        sight = self._sight(pool)
        if core.is_kept and pool.is_started and not core.is_growing and not core.replacing:
            bounds = Bounds(spec.workers, spec.most, spec.scale_down_after_s, self.asked_for)
            decision = self._scaler.look(time.monotonic(), bounds, sight, lambda: self._room(pool))
            if decision is not None and (decision.workers < core.size or self._may_grow()):
                self._carry_out(decision)
        if sight.ready > self._ready:
            app.even_out()  # what waits at a busy one goes to the new one
        self._ready = sight.ready
        if core.size > spec.workers or app.waiting or any(worker.slots.connections for worker in pool.ready):
            self._looks += 1
            is_close = sight.waiting or self._pending or core.size > sight.ready or self._looks < _AT_FIRST
            pause_s = LOOK_CLOSELY_S if is_close else LOOK_S
            self._timer = asyncio.get_running_loop().call_later(pause_s, self._look)

    def _sight(self, pool: Pool) -> Observation:
        settings = pool.spec.settings
        threads = settings.threads if isinstance(settings, Settings) and settings.interface != "asgi" else 0
        pending = {fd for worker in pool.ready for fd in with_input(worker.slots.idle_fds(_LOOKED_AT_MAX))}
        both, self._pending = pending & self._pending, pending
        behind = 0 if threads else sum(map(_behind, pool.ready))
        cores, cores_now = self._cores(pool) if not threads else (0.0, 0.0)
        return Observation(
            workers=pool.core.size,
            ready=len(pool.ready),
            busy=sum(worker.load().busy for worker in pool.ready),
            waiting=self._app.waiting + max(len(both), behind),
            threads=threads,
            cores=cores,
            cores_now=cores_now,
        )

    def _cores(self, pool: Pool) -> tuple[float | None, float]:
        """See ``Observation``."""
        now, pids = time.monotonic(), {worker.pid for worker in pool.ready if not worker.process.shares_process}
        used = {pid: cpu_seconds(pid) + run_delay_s(pid) for pid in pids}
        recent = _rate(self._cpu_now, now, used)
        if now - self._cpu[0] >= _SLOW_S:
            self._slow, self._cpu = _rate(self._cpu, now, used) if self._cpu[1] else None, (now, used)
        self._cpu_now = now, used
        return self._slow, recent

    def _room(self, pool: Pool) -> int:
        mean = _mean_bytes(pool)
        coming = pool.core.size - len(pool.ready)
        return max(0, available_bytes() // mean - coming) if mean else 1 << 30

    def _carry_out(self, decision: Decision) -> None:
        pool = self._app.pool
        if decision.workers == pool.core.size:
            return
        (workers, reason), before = decision, pool.core.size
        log.info("app is scaled", app=pool.spec.name, workers=workers, before=before, reason=reason)
        self.last = Change(time.time(), workers, reason)
        reserve(max(0, workers - before) * _mean_bytes(pool))
        pool.resize(workers)

    # -- going on in another image of the daemon -------------------------------------------------------------

    def snapshot(self) -> ScaleSnapshot:
        """For another image of the daemon."""
        return ScaleSnapshot(asked_for=self.asked_for, last=self.last)

    def restore(self, saved: ScaleSnapshot) -> None:
        """Go on where ``saved`` says."""
        self.asked_for = saved.asked_for
        self.last = None if saved.last is None else Change(*saved.last)
        self.wake()


def _mean_bytes(pool: Pool) -> int:
    return sum(resident_bytes(worker.pid) for worker in pool.ready) // max(1, len(pool.ready))


def _behind(worker: Worker) -> int:
    """How many requests wait in its event loop, which does not turn: it has not even read what it was told before."""
    busy = worker.load().busy
    if worker.peer.is_unread:
        return max(busy - 1, int(worker.slots.is_behind))
    if busy > 1:
        worker.shed(0)  # to be read by the next look
    return 0


def _rate(before: tuple[float, dict[int, float]], now: float, used: dict[int, float]) -> float:
    at, then = before
    return sum(used[pid] - then[pid] for pid in used.keys() & then.keys()) / max(now - at, 0.001)


def with_input(fds: list[int]) -> list[int]:
    """Return those of ``fds`` on which something has come that nobody has read."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return [fd for fd, events in poll.poll(0) if events & select.POLLIN]
