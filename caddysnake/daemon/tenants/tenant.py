"""What is known of the dynamic apps of one template: one record for each, from the first who asks to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable
from typing import Any, NamedTuple

from ...channel.throttle import Throttle
from ...config.language.models import ScheduleLine
from ..apps.app import App
from ..apps.autoreload.renewal import Guard
from ..apps.counters import Counters
from ..apps.dispatcher import Recourse, Successor
from ..apps.spec import Identity, PoolSpec, StartFailed
from ..sockets.connections import Connections
from ..sockets.refusals import Refusal, of_failure
from ..system.log.fields import FieldLog
from ..system.tasks import KeptTasks
from ..workers.child.launcher import ForkServerKey
from ..workers.launchers import WorkerOrigins
from .known_apps import KnownApps
from .policy import TenantPolicy, TenantStage

log = FieldLog("caddysnake.tenants")

_PROMISE_S = 0.3
"""How long after it was given an app counts as busy without a request: its own is on the way."""

Tell = Callable[["App | Refusal"], None]


class TemplateSpec(NamedTuple):
    """What a template says. ``resolve(key)`` runs in a thread: it looks at the file system."""

    name: str
    resolve: Callable[[str], PoolSpec | Refusal]
    capacity: int
    max_queue: int
    idle_timeout_s: float | None
    identity: Identity
    warm: ForkServerKey | None = None
    """What all its apps are forked from, if that is one: prepared before the first of them is asked for."""
    key_of_host: Callable[[str], str | None] = lambda _: None
    """The key of what a browser would ask for first at a host; None: there can be no such app."""
    schedules: tuple[ScheduleLine, ...] = ()
    """Of each of its apps; what they run may differ."""
    keeps: str = ""
    """The file in which it is kept which apps there are; empty: nowhere."""


class Asker(NamedTuple):
    """Who waits while a key is looked at, and until when there may be room for it yet."""

    tell: Tell
    patient_until: float


class Tenant:
    """One key of a template."""

    __slots__ = (
        "app",
        "is_outdated",
        "key",
        "looking",
        "promised_at",
        "renewal",
        "requests",
        "spec",
        "starting",
        "waiters",
    )

    def __init__(self, key: str) -> None:
        self.key = key
        self.looking: dict[Hashable, Asker] | None = None
        """Who asks while it is looked at, or while there is no room; None: neither."""
        self.waiters: dict[Hashable, Tell] = {}
        """Who waits for its start."""
        self.spec: PoolSpec | None = None
        """What it was when it was looked at, until it starts."""
        self.starting: App | None = None
        self.app: App | None = None
        """Live."""
        self.is_outdated = False
        """Its code has changed since its start began."""
        self.renewal: bool | None = None
        """Whether it is to be renewed even if it runs what it should; None: it is not to be."""
        self.requests = 0
        """How many it had begun when it was looked at last; one more for who was promised it."""
        self.promised_at: float | None = None
        """When somebody was told of it whose request has not come yet."""


class TenantTable:
    """The tenants of one template, and what all who see to them need."""

    def __init__(
        self,
        spec: TemplateSpec,
        launchers: WorkerOrigins,
        connections: Connections,
        successor_of: Callable[[str], Successor],
    ) -> None:
        self.spec = spec
        self.launchers = launchers
        self.policy = TenantPolicy[str](spec.capacity, spec.max_queue, spec.idle_timeout_s, self._is_idle)
        self.leaving: set[App] = set()
        """Apps that were let go and have not ended."""
        self.released: set[str] = set()
        """The keys of those whose release commands have run since the file was loaded."""
        self.known = KnownApps()
        """Those that were up."""
        self.guard: Guard | None = None
        self.ledger = Counters()
        """Of all its apps."""
        self.is_stopping = False
        self.loop = asyncio.get_running_loop()
        self.tasks = KeptTasks()
        """What runs until the template stops."""
        self._connections = connections
        self._successor_of = successor_of
        self._tenants: dict[str, Tenant] = {}
        self._complaints = Throttle()

    def get(self, key: str) -> Tenant | None:
        """The tenant of ``key``; None when nothing is known of it."""
        return self._tenants.get(key)

    def enter(self, key: str) -> Tenant:
        """The tenant of ``key``, made if need be. ``forget`` it once nothing may be left to know."""
        tenant = self._tenants.get(key)
        if tenant is None:
            tenant = self._tenants[key] = Tenant(key)
        return tenant

    def forget(self, tenant: Tenant) -> None:
        """Drop its record, unless there is an app, a start, or somebody who waits."""
        has_any = tenant.app is not None or tenant.starting is not None
        if has_any or tenant.looking is not None or tenant.waiters:
            return
        if self.policy.stage(tenant.key) is not TenantStage.STARTING and self._tenants.get(tenant.key) is tenant:
            del self._tenants[tenant.key]

    def all(self) -> list[Tenant]:
        """All that anything is known of."""
        return list(self._tenants.values())

    def live(self) -> list[tuple[Tenant, App]]:
        """Those whose app is up."""
        return [(tenant, tenant.app) for tenant in self._tenants.values() if tenant.app is not None]

    def all_apps(self) -> list[App]:
        """Every app that has, or may have, a process."""
        starting = [tenant.starting for tenant in self._tenants.values() if tenant.starting is not None]
        return [*(app for _, app in self.live()), *starting, *self.leaving]

    def new_app(self, key: str, spec: PoolSpec, ledger: Counters | None = None) -> App:
        """An app of ``key`` that has not started. ``ledger``: of one that was tried before."""
        recourse = Recourse(successor=self._successor_of(key))
        ledger = ledger or Counters(self.ledger)
        app = App(spec, self.launchers, self._connections, recourse, ledger, has_schedules=False)
        for former in self.leaving:
            if former.name == app.name:
                app.background.follow(former.background)
        return app

    # -- what the key is -----------------------------------------------------------------------------------------

    async def resolve(self, key: str) -> PoolSpec | Refusal:
        """What ``key`` is; whatever goes wrong as it is looked at, whoever asks is answered."""
        try:
            return await asyncio.to_thread(self.spec.resolve, key)
        except Exception as exc:
            return self.failed_of_us(key, exc)

    def failed_of_us(self, key: str, exc: Exception) -> Refusal:
        """Log ``exc``, which nobody has thought of; what whoever asks for ``key`` is told."""
        log.error("app cannot be looked at, or started", exc_info=exc, template=self.spec.name, key=key[:200])
        return of_failure(StartFailed(self.spec.name, "internal", f"{type(exc).__name__}: {exc}"))

    def complain(self, key: str, refusal: Refusal) -> None:
        """Log that there is no app of ``key``."""
        if self._complaints.is_due(key, self.loop.time()):
            more = {"untold": str(untold)} if (untold := self._complaints.take_untold()) else {}
            fields: dict[str, Any] = {"code": refusal.code, "error": refusal.text, **more}
            log.warning("no app for this request", template=self.spec.name, key=key[:200], **fields)

    # -- who is used ---------------------------------------------------------------------------------------------

    def promise(self, tenant: Tenant, app: App) -> None:
        """Somebody is about to be told of its live ``app``, and to use it."""
        tenant.requests = app.requests_begun() + 1
        tenant.promised_at = self.loop.time()

    def ages(self) -> list[tuple[str, float]]:
        """Live apps by key, each with the seconds since it was last asked for."""
        self.see_who_is_used()
        return self.policy.ages(self.loop.time())

    def see_who_is_used(self) -> None:
        """Look for requests over connections that apps have already: those are not asked for here."""
        now = self.loop.time()
        for tenant, app in self.live():
            begun = app.requests_begun()
            if begun >= tenant.requests or (tenant.promised_at is not None and now - tenant.promised_at >= _PROMISE_S):
                tenant.promised_at = None
            if begun > tenant.requests or app.has_open_ends:
                self.policy.touch(tenant.key, now)
            if begun > tenant.requests or begun < tenant.requests - 1:  # fewer: a worker was replaced
                tenant.requests = begun

    def _is_idle(self, key: str) -> bool:
        tenant = self._tenants.get(key)
        if tenant is None or tenant.app is None:
            return False
        return tenant.app.is_idle and not tenant.app.waiters and tenant.promised_at is None

    # -- letting go ----------------------------------------------------------------------------------------------

    def outdated(self, key: str) -> str | None:
        """Its code has changed: it leaves, and the next request starts it afresh. Its name, if it was there."""
        self.policy.forgive(key)
        tenant = self._tenants.get(key)
        if tenant is None:
            return None
        if tenant.starting is not None:
            tenant.is_outdated = True  # it may have the old code, or some of each
        if tenant.app is None or self.is_stopping:
            return None
        name = tenant.app.name
        self.drain(tenant)
        return name

    def drain_all(self, keys: Iterable[str], why: str) -> None:
        """Drain the live apps of ``keys``, and log ``why``."""
        for tenant in map(self.get, keys):
            if tenant is not None and tenant.app is not None:
                log.info(why, app=tenant.app.name)
                self.drain(tenant)

    def drain(self, tenant: Tenant) -> None:
        """Drain its live app; whoever asks for the key from now on gets another."""
        app, tenant.app = tenant.app, None
        assert app is not None
        self.policy.release(tenant.key)
        tenant.requests, tenant.promised_at, tenant.renewal = 0, None, None
        self.forget(tenant)
        app.make_way()
        self.drain_out(app)

    def discard(self, app: App) -> None:
        """Drain ``app``, whose start has failed."""
        app.stop()
        self.drain_out(app)

    def drain_out(self, app: App) -> None:
        """Wait for the end of ``app``, which was told to go."""
        self.leaving.add(app)
        task = self.loop.create_task(app.ended())
        task.add_done_callback(lambda _: self.leaving.discard(app))
