"""Starts of dynamic apps: who is next, what becomes of a start, and who waits for it."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from typing import Any

from ...channel.settings import Settings
from ..apps.app import App
from ..apps.spec import StartFailed
from ..sockets.refusals import Refusal, of_failure
from ..system.log.fields import FieldLog
from ..system.timings import TIMINGS
from ..workers.child.launcher import NO_ROOM, SpawnError
from ..workers.forking.start_limiter import FRESH, SLICE_S, Starting, StartLimiter
from .policy import REMEMBERED_MAX
from .tenant import Tenant, TenantTable

log = FieldLog("caddysnake.tenants")

_LOOK_AGAIN_S = 0.05

_LATE_S = 60.0
"""So long who has failed to start, or used up its time without coming up, goes behind those who have not."""
_USUAL_OF, _USUAL_FACTOR = 9, 1.5
"""A start may take this many times what is usual here, the median of so many, before it has used up its time."""

_ROOM_PATIENCE_S = 5.0
"""How long an app that needs a fork server of its own waits for another's to leave, when there are ``max_spawners``."""


class TenantStarter:
    """Starts the apps of one template, in turn with those of others (a ``Starter``)."""

    def __init__(self, table: TenantTable, starts: StartLimiter) -> None:
        self._table = table
        self._starts = starts
        self._late: OrderedDict[str, float] = OrderedDict()
        """Until when those go behind that have failed, or used up their time."""
        self._took: deque[float] = deque(maxlen=_USUAL_OF)
        """How long the last starts took that came up."""
        self._under_way: set[Tenant] = set()

    def want(self) -> None:
        """One more app is in the queue."""
        self._starts.want(self)

    async def warm_up(self) -> None:
        """Prepare what all are forked from: the first tenant is not to wait for an interpreter and its preloads."""
        spec, launchers = self._table.spec, self._table.launchers
        if spec.warm is None:
            return
        try:
            await launchers.get(spec.warm).prepared()
        except SpawnError as exc:
            log.error("apps of this template cannot be started", template=spec.name, code=exc.code, error=str(exc))
            launchers.discard(spec.warm)

    # -- whose turn it is ----------------------------------------------------------------------------------------

    def start_next(self) -> Starting | None:
        """Start the app that is next in the queue; None when nobody waits for one any more."""
        key = None if self._table.is_stopping else self._table.policy.next_start(self._ranking())
        if key is None:
            return None
        tenant = self._table.enter(key)
        usual_s = sorted(self._took)[len(self._took) // 2] if self._took else 0.0
        slice_s = min(max(SLICE_S, _USUAL_FACTOR * usual_s), TIMINGS.start_counts_s)
        task = self._table.tasks.begin(self._start(tenant))
        return Starting(task, lambda: _pids_of(tenant), slice_s, lambda: self._is_late(key))

    def rank(self) -> tuple[int, int]:
        """Of the app that is next in the queue."""
        return min(map(self._ranking(), self._table.policy.queued()), default=FRESH)

    def _ranking(self) -> Callable[[str], tuple[int, int]]:
        """Who lately failed, or used up its time, goes behind; among equals, whose user has fewer starts under way."""
        now = self._table.loop.time()
        starting = [tenant.starting for tenant in self._under_way if tenant.starting is not None]
        shares = Counter(app.account for app in starting if app.account is not None)

        def rank(key: str) -> tuple[int, int]:
            tenant = self._table.get(key)
            account = None if tenant is None or tenant.spec is None else tenant.spec.key.account
            return int(self._late.get(key, now) > now), 0 if account is None else shares[account]

        return rank

    def _is_late(self, key: str) -> None:
        """It has failed, or used up its time."""
        self._late.pop(key, None)
        self._late[key] = self._table.loop.time() + _LATE_S
        if len(self._late) > REMEMBERED_MAX:
            self._late.popitem(last=False)

    # -- one start -----------------------------------------------------------------------------------------------

    async def _start(self, tenant: Tenant) -> None:
        self._under_way.add(tenant)
        try:
            found = await self._started(tenant)
        except StartFailed as exc:
            log.error("app does not start", app=exc.app, code=exc.code, error=str(exc))
            found = of_failure(exc)
        except Exception as exc:
            found = self._table.failed_of_us(tenant.key, exc)
        finally:
            self._under_way.discard(tenant)
            app, tenant.starting = tenant.starting, None
            if app is not None and app is not tenant.app:
                self._table.discard(app)
        if isinstance(found, Refusal):
            self._fail(tenant, found)
        else:
            self._succeed(tenant, found)
        self._table.forget(tenant)

    async def _started(self, tenant: Tenant) -> App | Refusal:
        """Its app, which is up. Raises ``StartFailed``."""
        table = self._table
        spec, tenant.spec = tenant.spec, None
        if spec is None:  # whoever asked first has left, and its folder may have changed since
            resolved = await table.resolve(tenant.key)
            if isinstance(resolved, Refusal):
                return resolved
            spec = resolved
        if table.guard is not None and isinstance(spec.settings, Settings):
            table.guard.begins(tenant.key, spec.settings.working_dir)
        tenant.is_outdated = False
        app, took = await self._brought_up(tenant, table.new_app(tenant.key, spec))
        apart: dict[str, Any] = spec.apart
        log.info("app ready", app=spec.name, mode="relay", **apart, ms=round(took * 1000))
        self._took.append(took)
        table.known.saw(tenant.key)
        tenant.app = app
        return app

    async def _brought_up(self, tenant: Tenant, app: App) -> tuple[App, float]:
        """``app``, or one like it, once it is up, and the seconds it took. Raises ``StartFailed``."""
        table = self._table
        patient_until = table.loop.time() + _ROOM_PATIENCE_S
        again = 1
        while True:
            tenant.starting = app
            try:
                if tenant.key not in table.released:
                    await app.surroundings.release(app.spec)
                    if app.spec.commands.release:
                        table.released.add(tenant.key)
                return app, await app.start()
            except StartFailed as exc:
                if exc.code == NO_ROOM and table.loop.time() < patient_until:
                    self._make_room_for_a_fork_server()
                    await asyncio.sleep(_LOOK_AGAIN_S)
                elif exc.code in ("spawn-failed", "crashed") and again:
                    # What it was to be forked from has died; or somebody, or the want of memory, has killed it. Both
                    # say little about this app, and people wait for it.
                    again -= 1
                else:
                    raise
                table.discard(app)
                app = table.new_app(tenant.key, app.spec, app.ledger)

    def _make_room_for_a_fork_server(self) -> None:
        """Let an app go that has nothing to do, the one that was used longest ago; its fork server makes room then."""
        table = self._table
        if table.leaving - {tenant.starting for tenant in self._under_way}:
            return  # somebody is on the way out
        table.see_who_is_used()
        key = table.policy.idlest()
        table.drain_all([] if key is None else [key], "app makes room for another interpreter")

    def _succeed(self, tenant: Tenant, app: App) -> None:
        self._late.pop(tenant.key, None)  # the machine may have been busy; else it would wait as long as others come
        self._table.policy.started(tenant.key, self._table.loop.time())
        waiters, tenant.waiters = tenant.waiters, {}
        for tell in waiters.values():
            self._table.promise(tenant, app)
            tell(app)
        if tenant.is_outdated:
            self._table.outdated(tenant.key)

    def _fail(self, tenant: Tenant, refusal: Refusal) -> None:
        self._is_late(tenant.key)
        self._table.policy.failed(tenant.key, refusal, self._table.loop.time())
        if tenant.is_outdated:
            self._table.policy.forgive(tenant.key)
        waiters, tenant.waiters = tenant.waiters, {}
        for tell in waiters.values():
            tell(refusal)


def _pids_of(tenant: Tenant) -> list[int]:
    app = tenant.starting
    return [worker.pid for worker in app.pool.workers.values() if worker.pid] if app is not None else []
