"""The dynamic apps of one template at work: carries out what ``policy`` decides.

A key that is new is first looked at on disk, in a thread, before it may wait for a start: an unknown tenant costs no
process, and is told so as quickly as a known one would be.

An app that is let go takes no request with it. Its idle connections are not ended (whoever is about to write to one
could not know), but wait; a request that comes on one asks for the key anew, and is served by the app's successor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable

from ...channel.settings import Settings
from ..apps.app import App
from ..apps.autoreload.renewal import Guard
from ..apps.counters import Counters
from ..apps.dispatcher import Recourse
from ..sockets.connections import Connection, Connections, answer, has_input
from ..sockets.refusals import CAPACITY, STOPPING, Refusal, of_failure
from ..system.state import AppSnapshot, TenantSnapshot, TenantsSnapshot
from ..workers.forking.start_limiter import StartLimiter
from ..workers.launchers import WorkerOrigins
from .policy import Admission, TenantStage
from .renewing import TenantRenewals
from .schedules import TenantSchedules
from .starting import TenantStarter
from .tenant import Asker, Tell, TemplateSpec, Tenant, TenantTable


class Reopener:
    """Has the connections of the app of ``key`` once it was let go."""

    def __init__(self, tenants: Tenants, key: str, connections: Connections) -> None:
        self.tenants = tenants
        self.key = key
        self._connections = connections

    def take(self, connection: Connection) -> None:
        """There is something to read, if only its end."""
        if not has_input(connection.fd):
            self._connections.end(connection)
            return
        self._connections.hold(connection)
        self.tenants.need(self.key, connection, lambda found: self._found(connection, found))

    def left(self, connection: Connection) -> None:
        """Its other side has left."""
        self.tenants.never_mind(self.key, connection)

    def _found(self, connection: Connection, found: App | Refusal) -> None:
        if isinstance(found, Refusal):
            # A relay waits for the response to what it sent over this link, of which nobody has read a byte.
            answer(connection.fd, found)
            self._connections.end(connection)
        else:
            connection.app = found
            found.place(connection)


_PATIENCE_S = 0.4
"""How long somebody waits for room: an app is idle as soon as its request is answered, and may be just about to be."""

_LOOK_AGAIN_S = 0.05


class Tenants:
    """``need`` answers who asks for an app of this template."""

    def __init__(
        self, spec: TemplateSpec, launchers: WorkerOrigins, connections: Connections, starts: StartLimiter
    ) -> None:
        self._connections = connections
        self._table = TenantTable(spec, launchers, connections, self._successor_of)
        self.ages, self.all_apps, self.outdated = self._table.ages, self._table.all_apps, self._table.outdated
        self.ledger = self._table.ledger
        """Of all its apps."""
        self.leaving = self._table.leaving
        self._starter = TenantStarter(self._table, starts)
        self._renewals = TenantRenewals(self._table)
        self.reload = self._renewals.reload
        self.schedules = TenantSchedules(self._table)
        self._loop = asyncio.get_running_loop()
        self._table.tasks.begin(self._starter.warm_up())

    @property
    def spec(self) -> TemplateSpec:
        """What the template says."""
        return self._table.spec

    def ledger_of(self, key: str) -> Counters:
        """Of its app of ``key``, which enters in ``ledger`` too, or that itself while there is none."""
        tenant = self._table.get(key)
        app = None if tenant is None else tenant.app or tenant.starting
        return self.ledger if app is None else app.ledger

    @property
    def guard(self) -> Guard | None:
        """Watches the code of its apps."""
        return self._table.guard

    @guard.setter
    def guard(self, guard: Guard | None) -> None:
        self._table.guard = guard

    @property
    def apps(self) -> dict[str, App]:
        """Its live apps, by key."""
        return {tenant.key: app for tenant, app in self._table.live()}

    @property
    def starting(self) -> dict[str, App]:
        """Its apps that are being started, by key."""
        return {tenant.key: tenant.starting for tenant in self._table.all() if tenant.starting is not None}

    # -- whoever asks ------------------------------------------------------------------------------------------

    def need(self, key: str, token: Hashable, tell: Tell) -> None:
        """Call ``tell`` with the app of ``key`` once it is live, or with why it will not be."""
        now = self._loop.time()
        policy = self._table.policy
        if self._table.is_stopping:
            tell(STOPPING)
            return
        tenant, asker = self._table.enter(key), Asker(tell, now + _PATIENCE_S)
        if policy.stage(key) is not None or policy.refusal(key, now) is not None:
            self._need_known(tenant, token, asker)
        elif tenant.looking is not None:
            tenant.looking[token] = asker
        else:
            tenant.looking = {token: asker}
            self._table.tasks.begin(self._look_at(tenant))

    def never_mind(self, key: str, token: Hashable) -> None:
        """Whoever asked has left."""
        tenant = self._table.get(key)
        if tenant is None:
            return
        if tenant.looking is not None and token in tenant.looking:
            del tenant.looking[token]
        elif token in tenant.waiters:
            del tenant.waiters[token]
            self._table.policy.unneed(key)
            if not tenant.waiters and self._table.policy.stage(key) is TenantStage.QUEUED:
                tenant.spec = None  # perhaps nobody comes; and if somebody does, it is looked at again
                self._table.forget(tenant)

    def _need_known(self, tenant: Tenant, token: Hashable, asker: Asker) -> None:
        now = self._loop.time()
        key, policy = tenant.key, self._table.policy
        is_new = policy.stage(key) is None
        if is_new and policy.is_full:
            self._table.see_who_is_used()
        answer = policy.need(key, now)
        self._table.drain_all(policy.take_evicted(), "app makes room for another")
        if answer is CAPACITY and now < asker.patient_until:
            if tenant.looking is None:
                tenant.looking = {}
                self._loop.call_later(_LOOK_AGAIN_S, self._look_again, tenant)
            tenant.looking[token] = asker
        elif isinstance(answer, Refusal):
            if is_new:
                tenant.spec = None
                self._table.forget(tenant)
            asker.tell(answer)
        elif answer is Admission.USE:
            assert tenant.app is not None
            self._table.promise(tenant, tenant.app)
            asker.tell(tenant.app)
        else:
            tenant.waiters[token] = asker.tell
            if is_new:
                self._starter.want()

    async def _look_at(self, tenant: Tenant) -> None:
        resolved = await self._table.resolve(tenant.key)
        if isinstance(resolved, Refusal):
            self._table.complain(tenant.key, resolved)
            self._table.policy.absent(tenant.key, resolved, self._loop.time())
        elif tenant.looking and self._table.policy.stage(tenant.key) is None:
            tenant.spec = resolved
        self._look_again(tenant)

    def _look_again(self, tenant: Tenant) -> None:
        looking, tenant.looking = tenant.looking, None
        for token, asker in (looking or {}).items():
            self._need_known(self._table.enter(tenant.key), token, asker)
        self._table.forget(tenant)

    # -- letting go --------------------------------------------------------------------------------------------

    def sweep(self) -> None:
        """To be called every second or so: apps that nobody asks for, and those that do not stay up, are let go."""
        table, policy = self._table, self._table.policy
        table.see_who_is_used()
        for tenant, app in table.live():
            if app.is_hopeless and app.failure is not None:
                policy.failed(tenant.key, of_failure(app.failure), self._loop.time())
                table.drain(tenant)
        table.drain_all(policy.expired(self._loop.time()), "app is idle and put to sleep")
        if table.guard is not None:
            now = self._loop.time()
            watched = table.guard.keys()
            known = {key for key in watched if policy.stage(key) or policy.refusal(key, now)}
            table.guard.forget(watched - known)

    async def evict(self, key: str) -> bool:
        """Let the app of ``key`` go, and wait until it has; False: there is none. No request is refused."""
        tenant = self._table.get(key)
        app = None if tenant is None else tenant.app or tenant.starting
        self.outdated(key)
        if app is not None and app.is_stopping:
            await app.ended()
        return app is not None

    # -- another configuration ---------------------------------------------------------------------------------

    def renew(self, spec: TemplateSpec, changed_only: bool = False, canary: bool | None = None) -> None:
        """Run what ``spec`` says from now on: live apps get new workers one after the other, and serve on meanwhile.

        ``changed_only``: those of which ``spec`` says nothing new keep theirs. ``canary``: see ``Manner``.
        """
        self._table.spec = spec
        for tenant in self._table.all():
            tenant.spec = None
        self._table.policy.limit(spec.capacity, spec.max_queue, spec.idle_timeout_s)
        self._table.policy.forgive_all()
        self._table.released.clear()
        self.schedules.take_over()
        self._table.tasks.begin(self._starter.warm_up())
        self._renewals.want_all(changed_only, canary)

    # -- going on in another image of the daemon --------------------------------------------------------------

    def snapshot(self, saved: Callable[[App], AppSnapshot]) -> TenantsSnapshot:
        """All that whoever goes on with it must know; ``saved`` carries one app. What is starting is left out."""
        apps = []
        for key, idle_s in self._table.policy.ages(self._loop.time()):
            tenant = self._table.get(key)
            if tenant is not None and tenant.app is not None:
                is_due = tenant.renewal is not None
                apps.append(TenantSnapshot(key=key, app=saved(tenant.app), idle_s=idle_s, is_due=is_due))
        leaving = [(self.successor_key(app), saved(app)) for app in self._table.leaving]
        return TenantsSnapshot(name=self.spec.name, apps=apps, leaving=leaving, ledger=self.ledger.snapshot(),
            released=sorted(self._table.released), seen=list(self._table.known), schedules=self.schedules.snapshot(),
        )  # fmt: skip

    def restore(self, saved: TenantsSnapshot, restored: Callable[[AppSnapshot, Recourse], App]) -> None:
        """Go on where ``saved`` says; ``restored`` makes one app. Not watched yet: ``watch_from``."""
        now = self._loop.time()
        for each in saved.apps:
            app = restored(each.app, Recourse(successor=self._successor_of(each.key)))
            tenant = self._table.enter(each.key)
            tenant.app, tenant.requests = app, app.requests_begun()
            tenant.renewal = True if each.is_due else None
            self._table.policy.revive(each.key, now, each.idle_s)
        self._table.released |= set(saved.released)
        for seen in saved.seen:
            self._table.known.saw(seen)
        self.schedules.restore(saved)
        for key, left in saved.leaving:
            successor = None if key is None else self._successor_of(key)
            self._table.drain_out(restored(left, Recourse(successor=successor)))
        self._renewals.go_on()

    def watch_from(self, since: float) -> None:
        """Code of live apps that has changed from ``since`` (``time.time()``) on is a change."""
        for tenant, app in self._table.live():
            if self._table.guard is not None and isinstance(app.spec.settings, Settings):
                self._table.guard.begins(tenant.key, app.spec.settings.working_dir, since)

    async def hold_renewals(self) -> None:
        """Renew no live app until ``release_renewals``. One that is being renewed is as it was."""
        self.schedules.may_begin.clear()
        await self._renewals.hold()

    def release_renewals(self) -> None:
        """Undo ``hold_renewals``: what is still due is renewed now."""
        self.schedules.may_begin.set()
        if not self._table.is_stopping:
            self._renewals.go_on()

    def _successor_of(self, key: str) -> Reopener:
        return Reopener(self, key, self._connections)

    def successor_key(self, app: App) -> str | None:
        """The key by which connections of ``app``, which was told to go, ask anew; None when they do not ask here."""
        successor = app.successor
        return successor.key if isinstance(successor, Reopener) and successor.tenants is self else None

    # -- the end -----------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Drain all apps; whoever waits for one is refused with ``STOPPING``. ``ended`` next."""
        self._table.is_stopping = True
        for task in self._table.tasks:
            task.cancel()
        tenants = self._table.all()
        tells = [asker.tell for tenant in tenants for asker in (tenant.looking or {}).values()]
        tells += [tell for tenant in tenants for tell in tenant.waiters.values()]
        for tenant in tenants:
            tenant.looking, tenant.waiters = None, {}
        for tell in tells:
            tell(STOPPING)
        self.schedules.end()
        for _, app in self._table.live():
            app.stop()

    def kill(self) -> None:
        """End all workers of all its apps by force."""
        self.schedules.kill()
        for app in self.all_apps():
            app.kill()

    async def ended(self) -> None:
        """Wait until nothing of it runs: no worker, no start, no renewal."""
        if self._table.tasks:
            await asyncio.wait(self._table.tasks)
        apps = (app.ended() for app in self.all_apps())
        await asyncio.gather(self.schedules.ended(), self._table.known.close(), *apps)
