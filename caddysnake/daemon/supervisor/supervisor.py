"""What runs: listeners, apps, templates of apps, relays; brought up, changed as a whole, and ended.

A change is prepared completely (sockets open, new workers ready) before anything that runs hears of it. If any part of
it fails, all of it is taken back, and what ran goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from ...channel.farewell import AFTER_END_S, END_S
from ...channel.messages import TAKE_LAST, TAKE_LISTENER_SHIFT, TAKE_TRUSTED
from ...channel.settings import RelaySettings
from ...config.language.models import Autoreload as Options
from ...config.plan.plan import usable_cores
from ...matchers.table import Table
from ..apps.app import App
from ..apps.autoreload.renewal import Autoreload, Watched
from ..apps.beginning import Beginning
from ..apps.dispatcher import Recourse
from ..apps.pool import Pool
from ..apps.spec import PoolSpec, StartFailed
from ..relays.launcher import RelayStarter
from ..relays.link_broker import LinkBroker
from ..relays.relays import Relays
from ..sockets.addresses import Address, UnixAddress, address_name, key_of
from ..sockets.connections import BoundListener, Connection, Connections, ListenerOwner
from ..sockets.listener import Listener
from ..sockets.opener import ListenerOpener
from ..sockets.socket_file import ListenError
from ..sockets.trust import Trust
from ..system import cgroups, tempdirs
from ..tenants.lookup import DynamicApp, UnknownApp, find
from ..tenants.tenants import Tenants
from ..workers.child.launcher import ForkServerKey
from ..workers.forking.start_limiter import StartLimiter
from ..workers.launchers import WorkerOrigins
from ..workers.worker import Worker
from .desired import Desired, ListenerSpec, successors
from .fallback import Fallback

log = logging.getLogger("caddysnake.daemon")

_PROGRESS_S = 2.0
_DECIDED_S = 30.0
"""Longer than this no app that is starting keeps the others from being told ready."""
_AFTER_GRACE_S = END_S + AFTER_END_S
_ASKING_S, _ASKING_LOOK_S = 0.8, 0.02
"""What a relay has asked an app for when it was told to leave has been read by then."""
_READ_S = 0.05
"""What has been sent on a connection by the time that it is accepted, or right after, is with a worker by then."""
_LAST_CALL_S = 0.25
"""So long before workers are told to go, idle connections bring one more request each, which ends them."""
_SERVE_WAITING_S = 5.0
"""How long a stop goes on giving what waits to workers that are busy, if the grace period is not shorter."""
_SOCKETS_A_SWEEP = 20
_REMOVAL_S = 5.0
"""How long a stop waits for the removal of what apps have left."""
_NOTHING: Table = {"sites": [], "templates": {}, "variables": {}}

class _Change(NamedTuple):
    """A change that is being prepared."""

    composition: Desired
    opened: dict[object, BoundListener]
    started: dict[str, App]
    """Apps that are new."""
    renewed: list[App]
    """Apps of which a new generation is ready."""
    relay: PoolSpec | None
    kept: dict[str, App]
    """Apps that go on, by their name from now on."""
    begun_at: float
    """``time.time()``: what apps are made of may have been read from then on."""
    changed_only: bool = False
    """What runs already as the composition has it stays."""


class Supervisor:
    """Everything that runs. One change at a time."""

    def __init__(self, composition: Desired, openings: ListenerOpener | None = None) -> None:
        self.composition = composition
        self._openings = openings or ListenerOpener()
        self.apps: dict[str, App] = {}
        self.templates: dict[str, Tenants] = {}
        self.relays: Relays | None = None
        self.connections: Connections
        self.spawners = WorkerOrigins()
        self.starter = RelayStarter()
        self._loop = asyncio.get_running_loop()
        self.connections = Connections(self._loop, self._over, self._requested)
        self._bound: dict[object, BoundListener] = {}
        self._numbers = 0
        self._looked_at = 0
        self._starts = StartLimiter(usable_cores())
        self._restarts = StartLimiter(max(1, usable_cores() // 2))
        """Workers of a reload: requests need the other cores meanwhile."""
        self.trust = Trust(self.spawners.uids)
        self._parting: set[App | Tenants] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._relays_wanted = False
        self._stopping = False
        self._is_hurried = False
        self._changing = asyncio.Lock()
        self._autoreload = Autoreload(self.spawners)
        self._beginnings: dict[App, Beginning] = {}
        """Of apps that have not come up since the start."""
        self._deciding: asyncio.Future[None] | None = None
        self.farewell = Fallback(self.connections)

    # -- starting and changing --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Bring everything up. Raises ``ListenError``, ``StartFailed``; call ``abandon`` then."""
        composition = self.composition
        log.info("starting", extra={"fields": {"apps": len(composition.apps), "workers": _workers_of(composition)}})
        self._tell_shared(composition)
        _tell_memory(composition)
        progress = asyncio.create_task(self._tell_progress())
        try:
            await (self._apply(composition) if composition.start_policy == "all" else self._begin(composition))
        finally:
            progress.cancel()

    async def _begin(self, composition: Desired) -> None:
        """Each app by itself: done when each is up, has failed once, or has taken its time. Raises as ``start``."""
        change = _Change(composition, {}, {}, [], self._relay_spec(composition), {}, time.time())
        try:
            self._open_new(change)
            self._openings.tell_rest()
            if change.relay is not None:
                change = change._replace(relay=self._arranged(change, change.relay))
            self._begin_early(change)
            for name, why in composition.amiss.items():
                log.error("no app of this template can be started", extra={"fields": {"template": name, "error": why}})
            for app in self.apps.values():
                self._new_beginning(app).begin()
            self._deciding = asyncio.ensure_future(self._all_decided(list(self._beginnings.values())))
            if change.relay is not None:
                await self._ready_relays(change, change.relay)
            await asyncio.wait((self._deciding,), timeout=_DECIDED_S)
            if self._deciding.done():
                self._deciding.result()
        except BaseException:
            self._take_back(change)
            raise
        if not self._deciding.done():
            fields = {"apps": ", ".join(self.undecided)}
            log.warning("apps have not come up yet; the others serve", extra={"fields": fields})
        change.kept.update(self.apps)
        self._commit(change._replace(composition=self.composition))

    async def _all_decided(self, beginnings: list[Beginning]) -> None:
        """Raises ``StartFailed`` when none has come up, and that is a failed start."""
        for each in beginnings:
            await each.decided.wait()
        composition = self.composition
        has_templates = len(composition.templates) > len(composition.amiss)
        if composition.is_patient or has_templates or any(each.was_up for each in beginnings):
            return
        failures = [failure for each in beginnings if (failure := each.app.failure) is not None]
        failures += [StartFailed(name, "setup", why) for name, why in composition.amiss.items()]
        if failures:
            raise failures[0]

    async def none_comes_up(self) -> StartFailed:
        """Wait until the start has failed after all; for ever, if it does not."""
        if self._deciding is not None:
            await asyncio.wait((self._deciding,))
            failure = None if self._deciding.cancelled() else self._deciding.exception()
            if isinstance(failure, StartFailed):
                return failure
        return await self._loop.create_future()  # type: ignore[no-any-return]

    def _new_beginning(self, app: App) -> Beginning:
        number = next(number for number, spec in self.composition.apps.items() if spec.name == app.name)
        beginning = Beginning(app, self.composition.again[number], self._restarts, self._began)
        self._beginnings[app] = beginning
        return beginning

    def resume_beginning(self, app: App) -> None:
        """``app`` was carried here: if it had not come up, it is tried again."""
        if app.attempts:
            self._new_beginning(app).go_on()

    def _began(self, app: App, took: float) -> None:
        """It is up for the first time, as the file had it just now."""
        self._beginnings.pop(app, None)
        specs = {number: app.spec if each.name == app.name else each for number, each in self.composition.apps.items()}
        self.composition = self.composition._replace(apps=specs)
        self._set_trusted(self.composition)
        self._tell_ready(self.composition, app.spec, took)

    def _beginnings_by_name(self) -> list[tuple[str, Beginning]]:
        return [(name, self._beginnings[app]) for name, app in self.apps.items() if app in self._beginnings]

    async def _pause_beginnings(self) -> None:
        for each in list(self._beginnings.values()):
            await each.pause()

    def _resume_beginnings(self) -> None:
        for each in list(self._beginnings.values()):
            each.resume()

    def _end_beginning(self, app: App | Tenants) -> None:
        beginning = self._beginnings.pop(app, None) if isinstance(app, App) else None
        if beginning is not None:
            beginning.end()

    @property
    def undecided(self) -> list[str]:
        """Apps of the start that are neither up, nor have failed."""
        return [name for name, each in self._beginnings_by_name() if not each.decided.is_set()]

    @property
    def serves_any(self) -> bool:
        """Somebody is answered, or there is nobody to answer for."""
        amiss = self._amiss()
        return not (self.apps or amiss) or any(
            [*(app.pool.ready for app in self.apps.values()), *(name not in amiss for name in self.templates)]
        )

    def failed(self) -> dict[str, str]:
        """The apps and templates that do not come up, each with a stable word why."""
        failures = {name: app.failure for name, app in self.apps.items()}
        found = {name: failure.code for name, failure in failures.items() if failure is not None}
        return found | dict.fromkeys(self._amiss(), "setup")

    def _amiss(self) -> list[str]:
        return [name for name in self.composition.amiss if name in self.templates and not self.templates[name].apps]

    def _tell_shared(self, composition: Desired) -> None:
        for each in composition.shared:
            tell = log.warning if each.many else log.info
            tell("apps are not isolated", extra={"fields": {"user": each.user, "apps": ", ".join(each.apps)}})
            if each.uid == 0:
                log.warning("apps run as root: give each a user", extra={"fields": {"apps": ", ".join(each.apps)}})

    async def change(
        self, composition: Desired, changed_only: bool = False, last: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Run ``composition`` instead of what runs: every app gets new workers, since a reload follows a deploy.

        ``changed_only``: only apps whose definition differs from the one that runs. Returns once the new workers serve;
        dynamic apps that are live follow, one after the other, and each that does not start goes on as it was.
        ``last`` is called when all is ready and nothing has changed yet, and may raise: then nothing does.
        Raises ``ListenError``, ``StartFailed``; nothing has changed then. What was refused, and why, is in each app's
        ``builds``.
        """
        async with self._changing:
            await self._autoreload.pause()
            await self._pause_beginnings()
            for key in self._keys_of_changed(composition) if changed_only else [None]:
                self.spawners.outdate(key)
            try:
                await self._apply(composition, changed_only, last)
                if self._deciding is not None:
                    self._deciding.cancel()  # whatever becomes of what was to be started at first
            finally:
                self._autoreload.resume()
                self._resume_beginnings()
            _tell_memory(composition)

    async def reload_app(self, name: str, key: str | None = None) -> float:
        """Give one app new workers, with the definition that it has; the seconds until they serve.

        ``name`` and ``key`` as for ``directory.find``. Raises ``UnknownApp``; ``StartFailed``, and nothing has changed.
        """
        async with self._changing:
            found = find(self.apps, self.templates, name, key)
            if isinstance(found, DynamicApp):
                try:
                    return await found.tenants.reload(found.key)
                except KeyError:
                    raise UnknownApp.asleep(name) from None
            await self._autoreload.pause(found)
            self.spawners.outdate(found.spec.key)
            beginning = self._beginnings.get(found)
            try:
                if beginning is None:
                    return await found.renew(found.spec, self._restarts, self.composition.is_rolling)
                await beginning.pause()
                took = await found.renew(await beginning.spec(), self._restarts, self.composition.is_rolling)
                beginning.end()
                self._began(found, took)
                return took
            finally:
                self._autoreload.resume(found)
                if beginning is not None:
                    beginning.resume()

    async def evict(self, name: str, key: str | None = None) -> None:
        """Let a dynamic app go, and wait until its workers have: its next request starts it afresh, and none fails.

        ``name`` and ``key`` as for ``directory.find``. Raises ``UnknownApp``, also for static apps: the file has them.
        """
        found = find(self.apps, self.templates, name, key)
        if isinstance(found, App):
            raise UnknownApp.static(name)
        if not await found.tenants.evict(found.key):
            raise UnknownApp.asleep(name)

    def _keys_of_changed(self, composition: Desired) -> set[ForkServerKey]:
        running = [app.spec for app in self.apps.values()]
        return {spec.key for spec in composition.apps.values() if spec not in running}

    async def _apply(
        self, composition: Desired, changed_only: bool = False, last: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        change = _Change(composition, {}, {}, [], self._relay_spec(composition), {}, time.time(), changed_only)
        try:
            self._open_new(change)
            self._openings.tell_rest()
            if change.relay is not None:
                change = change._replace(relay=self._arranged(change, change.relay))
            if not self._bound:
                # Connections that come while the first apps are starting wait: nobody else could answer them.
                self._begin_early(change)
            change.kept.update(self._kept(composition))
            await self._ready(change)
            if last is not None:
                await last()
        except BaseException:
            self._take_back(change)
            raise
        self._commit(change)

    def _open_new(self, change: _Change) -> None:
        for binding in change.composition.bindings:
            key = key_of(binding.address)
            if key not in self._bound and key not in change.opened:
                self._numbers += 1
                change.opened[key] = BoundListener(self._openings.open(binding.address), self._numbers - 1)
            elif key in self._bound:
                self._renew_if_lost(self._bound[key].listener, binding.address)

    def _renew_if_lost(self, listener: Listener, address: Address) -> None:
        """Raises ``ListenError``."""
        if isinstance(address, UnixAddress) and listener.is_lost:
            self._openings.renew(listener, address.mode, address.owner, address.group)

    def _look_after_sockets(self) -> None:
        """A few at a time: somebody may have removed the file of one, or emptied its folder."""
        bindings = self.composition.bindings
        for _ in range(min(_SOCKETS_A_SWEEP, len(bindings))):
            self._looked_at = (self._looked_at + 1) % len(bindings)
            address = bindings[self._looked_at].address
            bound = self._bound.get(key_of(address))
            if bound is not None:
                with contextlib.suppress(ListenError):  # it is told, and tried again
                    self._renew_if_lost(bound.listener, address)

    def _kept(self, composition: Desired) -> dict[str, App]:
        running = {name: app.spec.identity for name, app in self.apps.items()}
        wanted = {spec.name: spec.identity for spec in composition.apps.values()}
        return {name: self.apps[former] for name, former in successors(running, wanted).items()}

    def _relay_spec(self, composition: Desired) -> PoolSpec | None:
        """How relays are to run, if there are, or must be, any."""
        needed = any(binding.app is None for binding in composition.bindings)
        return composition.relay if needed or self.relays is not None else None

    def _arranged(self, change: _Change, relay: PoolSpec) -> PoolSpec:
        """``relay`` with its tables under the numbers of the listeners."""
        assert isinstance(relay.settings, RelaySettings)
        tables: list[Table] = [_NOTHING] * self._numbers
        for binding, table in zip(change.composition.bindings, relay.settings.listeners, strict=True):
            tables[self._find(change, binding).number] = table
        return relay._replace(settings=relay.settings._replace(listeners=tables))

    def arranged(self, composition: Desired) -> PoolSpec | None:
        """How relays of ``composition``, whose listeners are open, are to run."""
        change = _Change(composition, {}, {}, [], None, {}, 0.0)
        return None if composition.relay is None else self._arranged(change, composition.relay)

    def _find(self, change: _Change, binding: ListenerSpec) -> BoundListener:
        key = key_of(binding.address)
        return change.opened.get(key) or self._bound[key]

    def _begin_early(self, change: _Change) -> None:
        self._set_trusted(change.composition)
        for spec in change.composition.apps.values():
            self.apps[spec.name] = self._new_app(spec)
        self._bound_queues(change.composition)
        self._make_templates(change.composition)
        if change.relay is not None:
            self.relays = self._new_relays(change.relay, change.composition)
        self._bind(change)

    async def _ready(self, change: _Change) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                turn = asyncio.Semaphore(1 if change.composition.is_rolling else len(change.composition.apps) + 1)
                for spec in change.composition.apps.values():
                    group.create_task(self._ready_app(change, spec, turn))
                if change.relay is not None:
                    group.create_task(self._ready_relays(change, change.relay))
        except BaseExceptionGroup as problems:
            raise problems.exceptions[0] from None

    async def _ready_app(self, change: _Change, spec: PoolSpec, turn: asyncio.Semaphore) -> None:
        app = change.kept.get(spec.name)
        is_same = app is not None and change.changed_only and app.spec == spec and app not in self._beginnings
        if app is not None and is_same and not self._loses_listener(change, app):
            return
        if app is not None and app.pool.is_begun:
            async with turn:
                took = await app.prepare(spec, self._restarts, change.composition.is_rolling)
            change.renewed.append(app)
        else:
            if app is None:
                app = change.started[spec.name] = self._new_app(spec)
            took = await app.start()
        self._tell_ready(change.composition, spec, took)

    def _tell_ready(self, composition: Desired, spec: PoolSpec, took: float) -> None:
        direct = [str(address_name(each.address)) for each in composition.bindings if each.app == spec.name]
        fields = {"app": spec.name, "listener": ", ".join(direct) or "none", "mode": "direct" if direct else "relay"}
        more = {"workers": spec.workers, "isolated": "yes" if spec.isolated else "no", "ms": round(took * 1000)}
        log.info("app ready", extra={"fields": fields | more})

    def _loses_listener(self, change: _Change, app: App) -> bool:
        """Its workers have connections on which requests for others will come: it needs new ones, so they move."""
        names = {key_of(binding.address): binding.app for binding in change.composition.bindings}
        return any(
            bound.app is app and change.kept.get(names.get(key) or "") is not app for key, bound in self._bound.items()
        )

    async def _ready_relays(self, change: _Change, spec: PoolSpec) -> None:
        if change.changed_only and self._suits_relays(change, spec):
            return
        if self.relays is not None and self.relays.pool.is_started:
            took = await self.relays.prepare(spec)
            change.renewed.append(self.relays)
        else:
            if self.relays is None:
                self.relays = self._new_relays(spec, change.composition)
            took = await self.relays.start()
            for app in self.apps.values():
                app.place_waiting_again()  # what waits for one that is not up is answered by a relay
        names = [
            self._find(change, binding).listener.name
            for binding in change.composition.bindings
            if binding.app is None
        ]
        templates = ", ".join(tenants.name for tenants in change.composition.templates.values())
        fields = {"listener": ", ".join(names) or "none", "mode": "relay", "relays": spec.workers}
        log.info("relay ready", extra={"fields": {**fields, "templates": templates, "ms": round(took * 1000)}})

    def _suits_relays(self, change: _Change, spec: PoolSpec) -> bool:
        """The relays that run may go on: their tables say the same, and so do the numbers in them."""
        if self.relays is None or not self.relays.pool.is_started or self.relays.spec != spec:
            return False
        apps = {number: self.apps.get(each.name) for number, each in self.composition.apps.items()}
        if apps != {number: change.kept.get(each.name) for number, each in change.composition.apps.items()}:
            return False
        former = {number: (each.name, each.identity) for number, each in self.composition.templates.items()}
        return former == {number: (each.name, each.identity) for number, each in change.composition.templates.items()}

    def _take_back(self, change: _Change) -> None:
        for app in (*self.apps.values(), *([self.relays] if self.relays is not None else [])):
            app.discard()
        for app in change.started.values():
            self._part_with(app)
            app.kill()
        for key, bound in change.opened.items():
            if self._bound.get(key) is not bound:
                self._openings.give_up(bound.listener)

    def _commit(self, change: _Change) -> None:
        """From here on nothing can fail."""
        composition = change.composition
        if composition.shared != self.composition.shared:
            self._tell_shared(composition)
        self.composition = composition
        self._set_trusted(composition)
        former: list[App | Tenants] = [*self.apps.values(), *self.templates.values()]
        self.apps = change.kept | change.started
        self._bound_queues(composition)
        self._make_templates(composition, change.changed_only)
        remaining = {*self.apps.values(), *self.templates.values()}
        if self.relays is not None:
            self.relays.set_desk(self._new_desk(composition))
        self._bind(change)
        relays = self.relays.pool.workers.values() if self.relays in change.renewed and self.relays is not None else ()
        asking = list(relays)
        for app in change.renewed:
            self._end_beginning(app)
            app.swap()
        for each in former:
            if each not in remaining:
                self._part_with(each, asking)
        self._watch(change)

    def _watch(self, change: _Change) -> None:
        self.watch_from(change.begun_at)

    def watch_from(self, since: float) -> None:
        """What changes from ``since`` (``time.time()``) on is started afresh, where the composition has it so."""
        composition = self.composition
        options = composition.autoreload
        apps = {self.apps[spec.name]: options[n] for n, spec in composition.apps.items() if n in options}
        self._autoreload.cover(apps, since)
        templates = composition.templates.items()
        guarded = [(self.templates[spec.name], options[n]) for n, spec in templates if n in options]
        self._autoreload.guard(dict[Watched, Options](guarded))

    def _bind(self, change: _Change) -> None:
        """Let each listener's connections go where the composition has them go, and close those it does not have."""
        wanted = {key_of(binding.address): binding for binding in change.composition.bindings}
        for key in [key for key in self._bound if key not in wanted]:
            bound = self._bound.pop(key)
            bound.app = None
            self.connections.shares.leave(bound)
            self._openings.give_up(bound.listener)
        for key, binding in wanted.items():
            if key not in self._bound:
                bound = self._bound[key] = change.opened[key]
                self._accept(bound)
                self._openings.keep(bound.listener)
            self._bound[key].app = self.relays if binding.app is None else self.apps[binding.app]

    def _accept(self, bound: BoundListener) -> None:
        shares = self.connections.shares
        shares.enter(bound)
        bound.listener.has_room = lambda: shares.has_room(bound)
        bound.listener.accept_descriptors(self._loop, self._acceptor(bound))

    def _set_trusted(self, composition: Desired) -> None:
        static = [spec.key for spec in composition.apps.values()]
        self.spawners.expect(static)
        warm = [spec.warm for spec in composition.templates.values() if spec.warm is not None]
        self.spawners.keep([*static, *warm], composition.max_spawners)
        self.trust.set_proxies(composition.trusted_proxies)

    def _new_app(self, spec: PoolSpec) -> App:
        recourse = Recourse(self._lend, self._pass_on, self.farewell.turn_away)
        return App(spec, self.spawners, self.connections, recourse)

    def _bound_queues(self, composition: Desired) -> None:
        for number, spec in composition.apps.items():
            if number in composition.max_queue and spec.name in self.apps:
                self.apps[spec.name].max_queue = composition.max_queue[number]

    def _pass_on(self, connection: Connection, former: ListenerOwner) -> None:
        if self._stopping:
            self.farewell.see_off(connection)
        else:
            self.farewell.pass_on(connection, former)

    def _new_relays(self, spec: PoolSpec, composition: Desired) -> Relays:
        recourse = Recourse(pass_on=self._pass_on)
        return Relays(spec, self.starter, self.connections, self._new_desk(composition), recourse)

    def _new_desk(self, composition: Desired) -> LinkBroker:
        apps = {number: self.apps[spec.name] for number, spec in composition.apps.items() if spec.name in self.apps}
        templates = {number: self.templates[spec.name] for number, spec in composition.templates.items()}
        return LinkBroker(self.connections, apps, templates, composition.max_queue, composition.development)

    def _make_templates(self, composition: Desired, changed_only: bool = False) -> None:
        wanted = {spec.name: spec for spec in composition.templates.values()}
        running = {name: tenants.spec.identity for name, tenants in self.templates.items()}
        kept = successors(running, {name: spec.identity for name, spec in wanted.items()})
        former = self.templates
        self.templates = {}
        for name, spec in wanted.items():
            if name not in kept:
                self.templates[name] = Tenants(spec, self.spawners, self.connections, self._starts)
                continue
            tenants = self.templates[name] = former[kept[name]]
            if tenants.spec is not spec:
                tenants.renew(spec, changed_only)

    def _part_with(self, each: App | Tenants, asking: Sequence[Worker] = ()) -> None:
        """Let it go; but for those relays (``asking``) that are about to leave and may still ask for it."""
        self._end_beginning(each)
        if not asking:
            each.stop()
        self._see_off(each, asking)

    def _see_off(self, each: App | Tenants, asking: Sequence[Worker] = ()) -> None:
        self._parting.add(each)
        task = self._loop.create_task(self._ended(each, asking))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: self._parting.discard(each))

    async def _ended(self, each: App | Tenants, asking: Sequence[Worker]) -> None:
        if asking:
            await self._until_asked(asking, _ASKING_S)
            each.stop()
        await each.ended()

    async def _until_asked(self, asking: Sequence[Worker], patience_s: float) -> None:
        for _ in range(round(patience_s / _ASKING_LOOK_S)):
            if not any(relay.slots.may_ask for relay in asking):
                break
            await asyncio.sleep(_ASKING_LOOK_S)

    async def _tell_progress(self) -> None:
        begun = self._loop.time()
        while True:
            await asyncio.sleep(_PROGRESS_S)
            missing = [name for name, app in self.apps.items() if len(app.pool.ready) < app.spec.workers]
            ready = sum(len(app.pool.ready) for app in self.apps.values())
            fields = {
                "waiting_for": ", ".join(missing),
                "workers_ready": f"{ready}/{_workers_of(self.composition)}",
                "seconds": round(self._loop.time() - begun),
            }
            log.info("still starting", extra={"fields": fields})

    def trouble_of(self, address: Address) -> str:
        """Why nobody can connect there; empty when they can, as far as is known."""
        bound = self._bound.get(key_of(address))
        return "" if bound is None else bound.listener.trouble

    def summary(self) -> str:
        """What is served, in a line for people."""
        workers = sum(len(app.pool.ready) for app in self._all_apps())
        parts = [f"{len(self.apps)} {_plural('app', len(self.apps))}, {workers} {_plural('worker', workers)}"]
        if self.templates:
            awake = sum(len(tenants.apps) for tenants in self.templates.values())
            parts.append(f"{awake} {_plural('tenant', awake)} awake")
        failed = self.failed()
        if down := [name for name, app in self.apps.items() if not app.pool.ready] + self._amiss():
            told = [f"{name} ({failed[name]})" if name in failed else name for name in down[:5]]
            parts.append("not up: " + ", ".join(told) + (" …" if len(down) > 5 else ""))
        return "; ".join(parts)

    # -- connections ------------------------------------------------------------------------------------------

    def _acceptor(self, bound: BoundListener) -> Callable[[int], None]:
        listener = bound.listener
        number = bound.number << TAKE_LISTENER_SHIFT
        believes = self.trust.believes

        def accepted(fd: int) -> None:
            flags = TAKE_TRUSTED if believes(listener, fd) else 0
            assert bound.app is not None
            connection = Connection(fd, flags | number, bound.app, bound)
            self.connections.adopt(connection)
            bound.app.place(connection)

        return accepted

    def _over(self, connection: Connection) -> None:
        connection.app.over(connection)

    def _requested(self, connection: Connection) -> None:
        connection.app.place(connection)

    def _lend(self, connection: Connection) -> bool:
        """Let a relay wait, or answer, for an app that is not up. Relays are started when first needed."""
        if self._stopping:
            return False
        if self.relays is not None and self.relays.pool.is_started:
            return self.relays.borrow(connection)
        if self.relays is None and not self._relays_wanted and self.composition.relay is not None:
            self._relays_wanted = True
            task = self._loop.create_task(self._start_relays_late(self.composition.relay))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return False

    async def _start_relays_late(self, spec: PoolSpec) -> None:
        async with self._changing:
            change = _Change(self.composition, {}, {}, [], spec, {}, time.time())
            try:
                await self._ready_relays(change, self._arranged(change, spec))
            except StartFailed as exc:
                log.error("no relay", extra={"fields": {"code": exc.code, "error": str(exc)}})
                return
            finally:
                self._relays_wanted = False
        for app in self.apps.values():
            app.place_waiting_again()

    # -- going on in another image of the daemon --------------------------------------------------------------

    async def hold_changes(self) -> None:
        """Wait for what changes, and begin nothing more until ``release_changes``."""
        await self._changing.acquire()
        try:
            await self._autoreload.pause()
            await self._pause_beginnings()
            self._starts.hold()
            for tenants in self.templates.values():
                await tenants.hold_renewals()
        except BaseException:
            self.release_changes()
            raise

    def release_changes(self) -> None:
        """Undo ``hold_changes``: what waited goes on."""
        for tenants in self.templates.values():
            tenants.release_renewals()
        self._starts.release()
        self._autoreload.resume()
        self._resume_beginnings()
        self._changing.release()

    @property
    def is_settled(self) -> bool:
        """Nothing is starting or being buried just now."""
        apps = [*self._all_apps(), *([self.relays] if self.relays is not None else [])]
        return (
            not any(tenants.starting for tenants in self.templates.values())
            and not self.spawners.is_asked
            and self.spawners.hosts.is_settled
            and all(app.is_settled for app in apps)
        )

    def sources(self) -> list[tuple[int, Callable[[], None]]]:
        """Descriptors, each with what to call when there is something to read: for who stands in."""
        found = self.connections.sources() + self.spawners.hosts.sources()
        for bound in self._bound.values():
            found += bound.listener.sources()
        for worker in self._workers():
            found += worker.peer.sources()
        return found

    def serve_waiting(self) -> None:
        """Look again whether anybody can serve what waits."""
        for app in (*self._all_apps(), *([self.relays] if self.relays is not None else [])):
            if app.waiting:
                app.serve_waiting()

    def reconcile(self) -> None:
        """Somebody who stood in may have handed out connections, of which nothing is known."""
        for worker in self._workers():
            worker.slots.reconcile()

    def _workers(self) -> list[Worker]:
        apps = [*self._all_apps(), *([self.relays] if self.relays is not None else [])]
        pools: list[Pool] = [pool for app in apps for pool in app.pools()]
        return [worker for pool in pools for worker in pool.everyone() if worker.is_settled]

    # -- stopping ---------------------------------------------------------------------------------------------

    def sweep(self) -> None:
        """To be called every second or so."""
        self.connections.shares.sweep()
        if not self._stopping:
            self._look_after_sockets()
        for tenants in self.templates.values():
            tenants.sweep()
        self.spawners.sweep()
        if self.relays is not None:
            self.relays.sweep()
            self.relays.even_out()
        for app in self._all_apps():
            app.even_out()
            app.pool.upkeep.watch()
            app.pool.upkeep.recycle()

    def pids(self) -> set[int]:
        """Processes that somebody here reaps."""
        pools: list[Pool] = [pool for app in self._all_apps() for pool in app.pools()]
        known = {worker.pid for pool in pools for worker in (*pool.workers.values(), *pool.leaving)}
        return known | self.spawners.pids() | self.starter.pids()

    def kill(self) -> None:
        """End all workers, relays too, at once by force."""
        self._is_hurried = True
        for each in (*self._served(), *([self.relays] if self.relays is not None else [])):
            each.kill()

    async def stop(self) -> None:
        """End everything, within the grace period: what the relays have in flight needs the apps.

        The apps are told once no relay has a request that may still ask for one: their WebSockets, which go through
        the relays, are closed by them.
        """
        self._stopping = True
        await self._end_beginnings()
        await self._autoreload.close()
        grace_s = self.composition.grace_s
        for bound in self._bound.values():
            self._openings.leave(bound.listener)
        await self._last_call(min(grace_s / 2, _LAST_CALL_S))
        await self._serve_accepted(min(grace_s, _SERVE_WAITING_S))
        if self.relays is not None and self.relays.pool.is_started:
            self.relays.stop()
            asking = [worker for pool in self.relays.pools() for worker in pool.everyone()]
            await self._until_asked(asking, grace_s / 2)
            self._stop_served()
            await self._until_ended([self.relays], grace_s + _AFTER_GRACE_S)
        else:
            self._stop_served()
        longest = max((app.spec.grace_s for app in self.apps.values()), default=grace_s)
        await self._end(longest + _AFTER_GRACE_S)

    async def _end_beginnings(self) -> None:
        if self._deciding is not None:
            self._deciding.cancel()
        for each in list(self._beginnings.values()):
            await each.pause()
            each.end()
        self._beginnings.clear()

    async def _last_call(self, patience_s: float) -> None:
        """Nobody can connect any more, but Caddy keeps connections, and sends requests on them. While all workers are
        still there, each of these answers one, with ``Connection: close``; the next goes to another sidecar.
        """
        for connection in self.connections:
            if connection.bound is not None:
                connection.flags |= TAKE_LAST
        for _ in range(round(patience_s / _ASKING_LOOK_S)):
            idle = [(worker, worker.slots.idle) for worker in self._workers() if not worker.gauges.is_over]
            for worker, count in idle:
                if count:
                    worker.shed(count)  # it was given them as ones that stay
            parked = any(each.parked for each in self.connections)
            if self._is_hurried or not (parked or any(count for _, count in idle)):
                break
            await asyncio.sleep(_ASKING_LOOK_S)

    async def _serve_accepted(self, patience_s: float) -> None:
        """Let workers begin with what has been accepted, before they are told to go."""
        if not self.connections or self._is_hurried:
            return
        await asyncio.sleep(min(_READ_S, patience_s))
        for _ in range(round(patience_s / _ASKING_LOOK_S)):
            if self._is_hurried or not self._is_behind():
                break
            await asyncio.sleep(_ASKING_LOOK_S)

    def _is_behind(self) -> bool:
        """Connections wait, and there are workers to serve them."""
        apps = [*self._all_apps(), *([self.relays] if self.relays is not None else [])]
        return any(
            app.pool.ready and (app.waiting or any(worker.slots.is_behind for worker in app.pool.ready)) for app in apps
        )

    async def abandon(self) -> None:
        """Leave nothing behind of a start that failed."""
        self._stopping = True
        await self._end_beginnings()
        await self._autoreload.close()
        for bound in self._bound.values():
            self._openings.give_up(bound.listener)
        everything = [*self._served(), *([self.relays] if self.relays is not None else [])]
        for each in everything:
            each.stop()
            each.kill()
        await self._until_ended(everything, AFTER_END_S)
        await self._end(AFTER_END_S)

    def _stop_served(self) -> None:
        for each in self._served():
            each.stop()

    def _served(self) -> list[App | Tenants]:
        return [*self.apps.values(), *self.templates.values(), *self._parting]

    def _all_apps(self) -> list[App]:
        served = self._served()
        tenants = [app for each in served if isinstance(each, Tenants) for app in each.all_apps()]
        return [*(each for each in served if isinstance(each, App)), *tenants]

    async def _end(self, patience_s: float) -> None:
        await self._until_ended(self._served(), patience_s)
        self.farewell.see_off_rest()
        await self.spawners.close(patience_s=2.0)
        await tempdirs.settle(_REMOVAL_S)
        self.connections.close()

    async def _until_ended(self, what: Sequence[App | Tenants], patience_s: float) -> None:
        for attempt in (patience_s, AFTER_END_S):
            try:
                async with asyncio.timeout(attempt):
                    await asyncio.gather(*(each.ended() for each in what))
                break
            except TimeoutError:
                self.kill()


def _tell_memory(composition: Desired) -> None:
    """What limits of memory are worth here."""
    if not composition.with_memory_limit:
        return
    fields = {"apps": ", ".join(composition.with_memory_limit)}
    if cgroups.root() is not None:
        fields["cgroup"] = f"{cgroups.root()}"
        log.info("memory is limited for each worker with all that it starts", extra={"fields": fields})
    else:
        fields["no_cgroup"] = cgroups.why_not()
        log.info("memory is limited for each process by itself (RLIMIT_DATA)", extra={"fields": fields})


def _workers_of(composition: Desired) -> int:
    return sum(spec.workers for spec in composition.apps.values())


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else noun + "s"
