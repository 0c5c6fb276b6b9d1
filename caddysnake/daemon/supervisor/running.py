"""What runs: apps, templates of apps, relays, and what they share; what a change, a stop and an upgrade are about."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from ...config.language.models import Autoreload as Options
from ...config.plan.plan import usable_cores
from ..apps.app import App
from ..apps.autoreload.renewal import Renewals, Watched
from ..apps.dispatcher import Recourse
from ..apps.metrics.asking import AppMetrics
from ..apps.pool import Pool
from ..apps.spec import PoolSpec
from ..commands import execution
from ..relays.launcher import RelayStarter
from ..relays.link_broker import LinkBroker
from ..relays.relays import Relays
from ..sockets.addresses import address_name
from ..sockets.connections import Connection, Connections, ListenerOwner
from ..sockets.listeners import Listeners, Trust
from ..sockets.opener import ListenerOpener
from ..system.log.fields import FieldLog
from ..system.tasks import KeptTasks
from ..system.timings import TIMINGS, Timings
from ..tenants.tenants import Tenants
from ..workers.forking.start_limiter import StartLimiter
from ..workers.launchers import WorkerOrigins
from ..workers.worker import Worker
from .beginnings import Beginnings
from .desired import Desired, successors
from .fallback import Fallback
from .oneoff import OneOffs
from .store_requests import Bell

log = FieldLog("caddysnake.daemon")

_ASKING_S, ASKING_LOOK_S = 0.8, 0.02
"""What a relay has asked an app for when it was told to leave has been read by then."""


class Running:
    """``desired`` is what it was made of. ``lend``: see ``Recourse``."""

    def __init__(
        self,
        desired: Desired,
        opener: ListenerOpener,
        lend: Callable[[Connection], bool] | None = None,
        timings: Timings = TIMINGS,
    ) -> None:
        self.desired = desired
        self.apps: dict[str, App] = {}
        self.templates: dict[str, Tenants] = {}
        self.is_stopping = False
        self.is_hurried = False
        self.origins = WorkerOrigins(timings=timings)
        self.starter = RelayStarter()
        self._lend = lend
        self._loop = asyncio.get_running_loop()
        self.connections = Connections(self._loop, lambda each: each.app.over(each), lambda each: each.app.place(each))
        self.fallback = Fallback(self.connections)
        self.trust = Trust(self.origins.uids)
        self.listeners = Listeners(opener, self.connections, self.trust)
        self.relays = self.new_relays(desired.relay)
        self.starts = StartLimiter(usable_cores())
        self.restarts = StartLimiter(max(1, usable_cores() // 2))
        """Workers of a reload: requests need the other cores meanwhile."""
        self.autoreload = Renewals(self.origins)
        self.app_metrics = AppMetrics()
        self.beginnings = Beginnings(self.restarts, self._came_up, lambda app: self.desired.again_of(app.name))
        self.bell = Bell(lambda name: next((app for app in self.served_apps() if app.name == name), None))
        self.parting: set[App | Tenants] = set()
        self._tasks = KeptTasks()
        self.oneoffs = OneOffs(self)

    # -- all of a kind ----------------------------------------------------------------------------------------

    def served(self) -> list[App | Tenants]:
        """Return everything but the relays, also what was told to go."""
        return [*self.apps.values(), *self.templates.values(), *self.parting]

    def served_apps(self) -> list[App]:
        """Return the apps of every kind but the relays."""
        served = self.served()
        tenants = [app for each in served if isinstance(each, Tenants) for app in each.all_apps()]
        return [*(each for each in served if isinstance(each, App)), *tenants]

    def all_apps(self) -> list[App]:
        """Return the apps of every kind, with the relays."""
        return [*self.served_apps(), self.relays]

    def workers(self) -> list[Worker]:
        """Return all workers of which nothing is under way."""
        pools: list[Pool] = [pool for app in self.all_apps() for pool in app.pools()]
        return [worker for pool in pools for worker in pool.everyone() if worker.is_settled]

    def pids(self) -> set[int]:
        """Return the processes that somebody here reaps."""
        pools: list[Pool] = [pool for app in self.served_apps() for pool in app.pools()]
        known = {worker.pid for pool in pools for worker in (*pool.workers.values(), *pool.leaving)}
        return known | self.origins.pids() | self.starter.pids() | execution.pids() | self.app_metrics.pids()

    def sources(self) -> list[tuple[int, Callable[[], None]]]:
        """Return descriptors, each with what to call when there is something to read: for who stands in."""
        found = self.connections.sources() + self.origins.hosts.sources() + self.listeners.sources()
        return found + [source for worker in self.workers() for source in worker.peer.sources()]

    @property
    def undecided(self) -> list[str]:
        """Apps of the start that are neither up, nor have failed."""
        beginnings = [(name, self.beginnings.get(app)) for name, app in self.apps.items()]
        return [name for name, each in beginnings if each is not None and not each.decided.is_set()]

    def successors(self, desired: Desired) -> dict[str, App]:
        """Return the apps that go on in ``desired``, by their names there."""
        present = {name: app.spec.identity for name, app in self.apps.items()}
        wanted = {spec.name: spec.identity for spec in desired.apps.values()}
        return {name: self.apps[former] for name, former in successors(present, wanted).items()}

    @property
    def is_settled(self) -> bool:
        """Nothing is starting or being reaped just now."""
        return (
            not any(tenants.starting or not tenants.schedules.is_settled for tenants in self.templates.values())
            and not self.origins.is_asked
            and self.oneoffs.is_settled
            and self.origins.hosts.is_settled
            and all(app.is_settled for app in self.all_apps())
        )

    # -- what is to be done to all of it ----------------------------------------------------------------------

    def sweep(self) -> None:
        """To be called every second or so."""
        self.connections.shares.sweep()
        if not self.is_stopping:
            self.bell.open()
            self.listeners.sweep([binding.address for binding in self.desired.bindings])
        now = time.time()
        for tenants in self.templates.values():
            tenants.sweep()
            tenants.schedules.look(now)
        self.origins.sweep()
        self.relays.sweep()
        self.relays.even_out()
        for app in self.served_apps():
            app.even_out()
            app.pool.upkeep.watch()
            if not app.deploys.is_other_on_disk:
                app.pool.upkeep.recycle()
            if app.comes_up and app.pool.ready and app.builds.running is None:
                app.comes_up = False
                app.builds.accepted()
                app.surroundings.switch_over(app.background, app.spec)
            app.background.look(now)

    def serve_waiting(self) -> None:
        """Look again whether anybody can serve what waits."""
        for app in self.all_apps():
            if app.waiting:
                app.serve_waiting()

    def reconcile(self) -> None:
        """Ask workers what they have: somebody who stood in may have handed out connections."""
        for worker in self.workers():
            worker.slots.reconcile()

    def kill(self) -> None:
        """End all workers, relays too, at once by force."""
        self.is_hurried = True
        self.oneoffs.kill()
        for each in (*self.served(), self.relays):
            each.kill()

    # -- connections ------------------------------------------------------------------------------------------

    def pass_on(self, connection: Connection, former: ListenerOwner) -> None:
        """See to a connection that ``former`` has no use for any more."""
        if self.is_stopping:
            self.fallback.drain_out(connection)
        else:
            self.fallback.pass_on(connection, former)

    # -- making and letting go --------------------------------------------------------------------------------

    def expect(self, desired: Desired) -> None:
        """Tell where workers come from what of ``desired`` is to be started, and whom to believe."""
        static = [spec.key for spec in desired.apps.values()]
        self.origins.expect(static)
        warm = [spec.warm for spec in desired.templates.values() if spec.warm is not None]
        self.origins.keep([*static, *warm], desired.max_spawners)
        self.trust.set_proxies(desired.trusted_proxies)

    def new_app(self, spec: PoolSpec) -> App:
        """Return an app that has not been started."""
        recourse = Recourse(self._lend, self.pass_on, self.fallback.turn_away)
        app = App(spec, self.origins, self.connections, recourse)
        app.fallen = partial(self.beginnings.try_again, app)
        return app

    def new_relays(self, spec: PoolSpec) -> Relays:
        """Return relays that have not been started."""
        relays = Relays(spec, self.starter, self.connections, Recourse(pass_on=self.pass_on))
        self.connections.on_untied = relays.untied
        return relays

    def new_broker(self, desired: Desired) -> LinkBroker:
        """Return who answers relays that call apps by their numbers in ``desired``."""
        apps = {number: self.apps[spec.name] for number, spec in desired.apps.items() if spec.name in self.apps}
        named = desired.templates.items()
        templates = {number: self.templates[spec.name] for number, spec in named if spec.name in self.templates}
        return LinkBroker(self.connections, apps, templates, desired.max_queue, desired.development)

    def bound_queues(self, desired: Desired) -> None:
        """Let no more wait for each app than ``desired`` has."""
        for number, spec in desired.apps.items():
            if number in desired.max_queue and spec.name in self.apps:
                self.apps[spec.name].max_queue = desired.max_queue[number]

    def make_templates(self, desired: Desired, changed_only: bool = False, canary: bool | None = None) -> None:
        """Have the templates of ``desired``; those that continue one have its apps. ``canary``: see ``Manner``."""
        wanted = {spec.name: spec for spec in desired.templates.values()}
        running = {name: tenants.spec.identity for name, tenants in self.templates.items()}
        kept = successors(running, {name: spec.identity for name, spec in wanted.items()})
        former = self.templates
        self.templates = {}
        for name, spec in wanted.items():
            if name not in kept:
                self.templates[name] = Tenants(spec, self.origins, self.connections, self.starts)
                continue
            tenants = self.templates[name] = former[kept[name]]
            if tenants.spec is not spec:
                tenants.renew(spec, changed_only, canary)

    def begin(self, app: App) -> None:
        """Start ``app`` for the first time, or go on trying when it was carried here."""
        beginning = self.beginnings.add(app)
        if app.attempts:
            beginning.go_on()
        else:
            beginning.begin()

    def _came_up(self, app: App, took: float) -> None:
        """It is as the file had it just now."""
        specs = {number: app.spec if each.name == app.name else each for number, each in self.desired.apps.items()}
        self.desired = self.desired._replace(apps=specs)
        self.expect(self.desired)
        tell_ready(self.desired, app.spec, took)

    def watch_from(self, since: float) -> None:
        """What changes from ``since`` (``time.time()``) on is started afresh, where what is desired has it so."""
        desired, options = self.desired, self.desired.autoreload
        apps = {self.apps[spec.name]: options[n] for n, spec in desired.apps.items() if n in options}
        again = {self.apps[desired.apps[n].name]: look for n, look in desired.again.items() if n in options}
        self.autoreload.cover(apps, since, again)
        templates = desired.templates.items()
        guarded = [(self.templates[spec.name], options[n]) for n, spec in templates if n in options]
        self.autoreload.guard(dict[Watched, Options](guarded))

    def part_with(self, each: App | Tenants, asking: Sequence[Worker] = ()) -> None:
        """Let it go; but for those relays (``asking``) that are about to leave and may still ask for it."""
        self.beginnings.end(each)
        if not asking:
            each.stop()
        self.drain_out(each, asking)

    def drain_out(self, each: App | Tenants, asking: Sequence[Worker] = ()) -> None:
        """Know it until it has ended; it was told to go, or is when none of ``asking`` may ask for it any more."""
        self.parting.add(each)
        self.spawn(self._ended(each, asking)).add_done_callback(lambda _: self.parting.discard(each))

    async def _ended(self, each: App | Tenants, asking: Sequence[Worker]) -> None:
        if asking:
            await until_asked(asking, _ASKING_S)
            each.stop()
        await each.ended()

    def spawn(self, work: Coroutine[object, object, object]) -> asyncio.Task[object]:
        """Return a task for ``work`` that nobody need keep."""
        return self._tasks.begin(work)


async def until_asked(relays: Sequence[Worker], patience_s: float) -> None:
    """Wait until none of ``relays``, which were told to leave, may ask for an app."""
    for _ in range(round(patience_s / ASKING_LOOK_S)):
        if not any(relay.slots.may_ask for relay in relays):
            break
        await asyncio.sleep(ASKING_LOOK_S)


def tell_ready(desired: Desired, spec: PoolSpec, took: float) -> None:
    """Log that an app is up, ``took`` seconds after it was told to start."""
    direct = [address_name(each.address) for each in desired.bindings if each.app == spec.name]
    fields: dict[str, Any] = {"listener": ", ".join(direct) or "none", "mode": "direct" if direct else "relay"}
    fields |= {"workers": spec.workers, **spec.apart}
    log.info("app ready", app=spec.name, **fields, ms=round(took * 1000))
