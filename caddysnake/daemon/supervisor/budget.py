"""How much memory all workers together may have (``memory_budget``): who gives way before the kernel has to act.

Tenants that nobody has asked for longest go to sleep first, then workers that are more than the least of their app, and
builds that are kept.
What is measured is each process's share of what it occupies (PSS), where the kernel tells us that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ..apps.app import App
from ..system import memory
from ..system.log.fields import FieldLog
from .running import Running

log = FieldLog("caddysnake.daemon")

_LOOK_SELDOM_S, _MANY = 10.0, 64
"""Between two looks, where there are more workers than that: each is a read of its own."""
_NEAR = 0.9
_TELL_S = 60.0


class Sleeper(NamedTuple):
    """A tenant that could sleep."""

    template: str
    key: str
    idle_s: float
    size_bytes: int


class Growth(NamedTuple):
    """An app with more workers than the least that it has."""

    app: str
    spare: int
    worker_bytes: int


class Relief(NamedTuple):
    """What is given up: tenants sleep, apps have one worker fewer. ``is_enough``: the rest is within the budget."""

    sleep: list[Sleeper]
    shrink: list[str]
    is_enough: bool


def relief(excess_bytes: int, sleepers: Iterable[Sleeper], growths: Iterable[Growth], idle_s: float) -> Relief:
    """Return what to give up of what is ``excess_bytes`` too much; who sleeps has been idle for ``idle_s``. Pure."""
    left = excess_bytes
    sleep: list[Sleeper] = []
    shrink: list[str] = []
    for each in sorted(sleepers, key=lambda each: each.idle_s, reverse=True):
        if left <= 0:
            break
        if each.idle_s >= idle_s:
            sleep.append(each)
            left -= each.size_bytes
    # One of each at a time: what is measured next says whether that was enough.
    for growth in sorted(growths, key=lambda each: each.spare * each.worker_bytes, reverse=True):
        if left <= 0:
            break
        if growth.spare > 0:
            shrink.append(growth.app)
            left -= growth.worker_bytes
    return Relief(sleep, shrink, left <= 0)


class MemoryBudget:
    """Looks every few seconds, where there is a budget."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self.used_bytes: int | None = None
        """What all workers have, as it was seen last; None: it was not looked at."""
        self._next = 0.0
        self._told_at = 0.0
        self._looking: asyncio.Task[object] | None = None

    def look(self) -> None:
        """To be called every second or so."""
        running = self._running
        budget = running.desired.memory_budget
        if budget is None:
            self.used_bytes = memory.Budget.left_bytes = None
        elif time.monotonic() >= self._next and not (running.is_stopping or self._is_looking):
            self._looking = running.spawn(self._look(budget))

    @property
    def _is_looking(self) -> bool:
        return self._looking is not None and not self._looking.done()

    async def _look(self, budget: int) -> None:
        running = self._running
        pids = [*running.pids()]
        sizes = await asyncio.to_thread(lambda: {pid: memory.share_bytes(pid) for pid in pids})
        look_s = running.origins.timings.memory_look_s if len(pids) <= _MANY else _LOOK_SELDOM_S
        self._next = time.monotonic() + look_s
        used = self.used_bytes = sum(sizes.values())
        memory.Budget.left_bytes = max(0, budget - used)
        if used <= budget:
            if used > budget * _NEAR:
                self._tell(f"memory is used up to {used / budget:.0%} of memory_budget", used, budget)
            return
        sleepers, growths = _sleepers(running, sizes), _growths(running.served_apps(), sizes)
        wanted = relief(used - budget, sleepers, growths, running.origins.timings.sleeper_idle_s)
        for each in wanted.sleep:
            idle_s = round(each.idle_s)
            log.info("app is put to sleep: memory_budget", app=each.key, template=each.template, idle_s=idle_s)
            running.spawn(running.templates[each.template].evict(each.key))
        for app in running.served_apps():
            if app.name in wanted.shrink:
                app.scaled.shrink("memory_budget")
        kept = [app for app in running.served_apps() if app.deploys.shelf.pool is not None]
        for app in [] if wanted.is_enough else kept:
            log.info("the build before is let go: memory_budget", app=app.name)
            app.carry_out(app.takeover.drop_kept())
        if not (wanted.is_enough or kept):
            self._tell("memory_budget is exceeded, and nobody is left to give way", used, budget)

    def _tell(self, what: str, used: int, budget: int) -> None:
        now = time.monotonic()
        if not self._told_at or now - self._told_at >= _TELL_S:
            self._told_at = now
            log.warning(what, used_bytes=used, budget_bytes=budget)


def _size(app: App, sizes: Mapping[int, int]) -> int:
    return sum(sizes.get(pid, 0) for pid in {worker.pid for pool in app.pools() for worker in pool.everyone()})


def _sleepers(running: Running, sizes: Mapping[int, int]) -> list[Sleeper]:
    found = []
    for name, tenants in running.templates.items():
        apps = tenants.apps
        found += [
            Sleeper(name, key, idle_s, _size(apps[key], sizes))
            for key, idle_s in tenants.ages()
            if key in apps and apps[key].is_idle and not apps[key].has_open_ends
        ]
    return found


def _growths(apps: Sequence[App], sizes: Mapping[int, int]) -> list[Growth]:
    found = []
    for app in apps:
        core = app.pool.core
        spare = 0 if app.scaled.asked_for is not None else core.size - app.spec.workers
        if spare > 0 and app.pool.ready:
            found.append(Growth(app.name, spare, _size(app, sizes) // len(app.pool.ready)))
    return found
