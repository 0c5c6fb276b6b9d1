"""A change of what runs, as a whole: each participant prepares beside what runs; then all commit, or all roll back.

Nothing that runs hears of a change before all of it is prepared (sockets open, new workers ready). If any part of it
fails, all of it is taken back, and what ran goes on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterable, Sequence
from typing import Protocol

from ...channel.settings import RelaySettings
from ...matchers.table import Table
from ..apps.app import App
from ..apps.beginning import Beginning
from ..apps.spec import PoolSpec, StartFailed
from ..sockets.addresses import key_of
from ..sockets.listeners import Opened
from ..tenants.tenants import Tenants
from ..workers.worker import Worker
from .desired import Desired, ListenerSpec
from .running import Running, tell_ready

log = logging.getLogger("caddysnake.daemon")

_DECIDED_S = 30.0
"""Longer than this no app that is starting keeps the others from being told ready."""
_NOTHING: Table = {"sites": [], "templates": {}, "variables": {}}


class Participant(Protocol):
    """A part of what a change is about."""

    async def prepare(self) -> None:
        """Make ready what shall be, beside what is. Raises; ``rollback`` is called then, too."""

    def commit(self) -> None:
        """Let what was prepared be. Nothing can fail here."""

    def rollback(self) -> None:
        """Give up what was prepared, and be as before."""


async def carry_out(stages: Iterable[Sequence[Participant]]) -> None:
    """Have the participants of each stage prepare side by side, stage after stage; then all commit, in their order.

    Raises what the first of them to fail has raised, when all have been rolled back, the last one first.
    """
    prepared: list[Participant] = []
    try:
        for stage in stages:
            prepared += stage
            await _side_by_side(each.prepare() for each in stage)
    except BaseException:
        for each in reversed(prepared):
            each.rollback()
        raise
    for each in prepared:
        each.commit()


async def _side_by_side(work: Iterable[Coroutine[object, object, None]]) -> None:
    """Begin in their order; when one fails, cancel the others, and raise what it raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for each in work:
                group.create_task(each)
    except BaseExceptionGroup as problems:
        raise problems.exceptions[0] from None


class ListenersChange:
    """Opens the listeners that are new, and lets the connections of all go where ``desired`` has them go."""

    def __init__(self, running: Running, desired: Desired) -> None:
        self._running = running
        self._desired = desired
        self.opened: Opened = {}

    async def prepare(self) -> None:
        """Raises ``ListenError``."""
        self.opened = self._running.listeners.open(binding.address for binding in self._desired.bindings)

    def bind(self, apps: dict[str, App]) -> None:
        """Let connections go to the relays, or to one of ``apps``."""
        relays = self._running.relays
        owners = {each.address: relays if each.app is None else apps[each.app] for each in self._desired.bindings}
        self._running.listeners.bind(owners, self.opened)

    def commit(self) -> None:
        """``AppsChange`` binds them."""

    def rollback(self) -> None:
        """Close what was opened."""
        self._running.listeners.give_up(self.opened)

    def names_of(self, bindings: Iterable[ListenerSpec]) -> list[str]:
        """Return what the listeners of ``bindings`` are called."""
        return [self._running.listeners.find(each.address, self.opened).listener.name for each in bindings]

    def arranged(self, relay: PoolSpec) -> PoolSpec:
        """Return ``relay`` with its tables under the numbers of the listeners."""
        assert isinstance(relay.settings, RelaySettings)
        listeners = self._running.listeners
        tables: list[Table] = [_NOTHING] * listeners.numbers
        for binding, table in zip(self._desired.bindings, relay.settings.listeners, strict=True):
            tables[listeners.find(binding.address, self.opened).number] = table
        return relay._replace(settings=relay.settings._replace(listeners=tables))


class AppsChange:
    """Starts the apps that are new, and gives the others new workers."""

    def __init__(
        self, running: Running, desired: Desired, listeners: ListenersChange, changed_only: bool = False
    ) -> None:
        """``changed_only``: what runs already as ``desired`` has it stays."""
        self._running = running
        self._desired = desired
        self._listeners = listeners
        self._changed_only = changed_only
        self._begun_at = time.time()
        """What apps are made of may have been read from then on."""
        self.kept: dict[str, App] = {}
        """Apps that go on, by their name from now on."""
        self.gone: list[App | Tenants] = []
        """What does not go on, when this has been committed."""
        self._started: dict[str, App] = {}
        self._renewed: list[App] = []

    def introduce(self) -> None:
        """Let connections that come while the first apps are starting wait: nobody else could answer them."""
        running, desired = self._running, self._desired
        running.expect(desired)
        for spec in desired.apps.values():
            running.apps[spec.name] = running.new_app(spec)
        running.bound_queues(desired)
        running.make_templates(desired)
        self._listeners.bind(running.apps)

    async def prepare(self) -> None:
        """Raises ``StartFailed``."""
        desired = self._desired
        if not self._running.listeners:
            self.introduce()
        self.kept = self._running.successors(desired)
        turn = asyncio.Semaphore(1 if desired.is_rolling else len(desired.apps) + 1)
        await _side_by_side(self._ready(spec, turn) for spec in desired.apps.values())

    async def _ready(self, spec: PoolSpec, turn: asyncio.Semaphore) -> None:
        running = self._running
        app = self.kept.get(spec.name)
        is_same = app is not None and self._changed_only and app.spec == spec and app not in running.beginnings
        if app is not None and is_same and not self._loses_listener(app):
            return
        if app is not None and app.pool.is_begun:
            async with turn:
                took = await app.prepare(spec, running.restarts, self._desired.is_rolling)
            self._renewed.append(app)
        else:
            if app is None:
                app = self._started[spec.name] = running.new_app(spec)
            took = await app.start()
        tell_ready(self._desired, spec, took)

    def _loses_listener(self, app: App) -> bool:
        """Its workers have connections on which requests for others will come: it needs new ones, so they move."""
        names = {key_of(binding.address): binding.app for binding in self._desired.bindings}
        keys = self._running.listeners.keys_of(app)
        return any(self.kept.get(names.get(key) or "") is not app for key in keys)

    def commit(self) -> None:
        """Make what is desired what runs, and swap generations; connections follow their listeners' new owners."""
        running, desired = self._running, self._desired
        if desired.shared != running.desired.shared:
            tell_shared(desired)
        running.desired = desired
        running.expect(desired)
        former: list[App | Tenants] = [*running.apps.values(), *running.templates.values()]
        running.apps = self.kept | self._started
        running.bound_queues(desired)
        running.make_templates(desired, self._changed_only)
        self._listeners.bind(running.apps)
        for app in self._renewed:
            running.beginnings.end(app)
            app.swap()
        remaining = {*running.apps.values(), *running.templates.values()}
        self.gone = [each for each in former if each not in remaining]
        running.watch_from(self._begun_at)

    def rollback(self) -> None:
        """Let the new workers and the new apps go."""
        for app in self._running.apps.values():
            app.discard()
        for app in self._started.values():
            self._running.part_with(app)
            app.kill()


class FirstStart(AppsChange):
    """Each app by itself: done when each is up, has failed once, or has taken its time."""

    async def prepare(self) -> None:
        """Raises ``StartFailed`` when none has come up, and that is a failed start."""
        running = self._running
        self.introduce()
        for name, why in self._desired.amiss.items():
            log.error("no app of this template can be started", extra={"fields": {"template": name, "error": why}})
        for app in running.apps.values():
            running.begin(app)
        deciding = asyncio.ensure_future(self._all_decided(running.beginnings.all()))
        running.beginnings.deciding = deciding
        await asyncio.wait((deciding,), timeout=_DECIDED_S)
        if deciding.done():
            deciding.result()
            return
        undecided = running.undecided
        log.warning("apps have not come up yet; the others serve", extra={"fields": {"apps": ", ".join(undecided)}})

    async def _all_decided(self, beginnings: list[Beginning]) -> None:
        """Raises ``StartFailed`` as ``prepare``."""
        for each in beginnings:
            await each.decided.wait()
        desired = self._running.desired
        has_templates = len(desired.templates) > len(desired.amiss)
        if desired.is_patient or has_templates or any(each.was_up for each in beginnings):
            return
        failures = [failure for each in beginnings if (failure := each.app.failure) is not None]
        failures += [StartFailed(name, "setup", why) for name, why in desired.amiss.items()]
        if failures:
            raise failures[0]

    def commit(self) -> None:
        """Keep what has come up meanwhile, as it has."""
        self._desired = self._running.desired
        self.kept = dict(self._running.apps)
        super().commit()


class RelaysChange:
    """Starts the relays, where something needs them, or gives them new workers with new tables."""

    def __init__(
        self, running: Running, desired: Desired, listeners: ListenersChange, apps: AppsChange | None = None,
        changed_only: bool = False,
    ) -> None:  # fmt: skip
        self._running = running
        self._desired = desired
        self._listeners = listeners
        self._apps = apps
        self._changed_only = changed_only
        self._is_renewed = False

    async def prepare(self) -> None:
        """Raises ``StartFailed``."""
        desired, relays = self._desired, self._running.relays
        relayed = [binding for binding in desired.bindings if binding.app is None]
        if not relayed and not relays.is_wanted:
            return
        spec = self._listeners.arranged(desired.relay)
        if self._changed_only and self._suits(spec):
            return
        if relays.pool.is_started:
            took = await relays.prepare(spec)
            self._is_renewed = True
        else:
            took = await relays.start_as(spec, self._running.new_broker(desired))
            for app in self._running.apps.values():
                app.place_waiting_again()  # what waits for one that is not up is answered by a relay
        names = self._listeners.names_of(relayed)
        templates = ", ".join(tenants.name for tenants in desired.templates.values())
        fields = {"listener": ", ".join(names) or "none", "mode": "relay", "relays": spec.workers}
        log.info("relay ready", extra={"fields": {**fields, "templates": templates, "ms": round(took * 1000)}})

    def _suits(self, spec: PoolSpec) -> bool:
        """The relays that run may go on: their tables say the same, and so do the numbers in them."""
        running, desired = self._running, self._desired
        kept = {} if self._apps is None else self._apps.kept
        if not running.relays.pool.is_started or running.relays.spec != spec:
            return False
        apps = {number: running.apps.get(each.name) for number, each in running.desired.apps.items()}
        if apps != {number: kept.get(each.name) for number, each in desired.apps.items()}:
            return False
        former = {number: (each.name, each.identity) for number, each in running.desired.templates.items()}
        return former == {number: (each.name, each.identity) for number, each in desired.templates.items()}

    def commit(self) -> None:
        """Swap generations; what is gone is let go, once no relay may still ask for it."""
        running, relays = self._running, self._running.relays
        asking: list[Worker] = []
        if relays.is_wanted:
            relays.set_desk(running.new_broker(self._desired))
        if self._is_renewed:
            asking = list(relays.pool.workers.values())
            relays.swap()
        for each in self._apps.gone if self._apps is not None else ():
            running.part_with(each, asking)

    def rollback(self) -> None:
        """Let the new relays go."""
        self._running.relays.discard()


def tell_shared(desired: Desired) -> None:
    """Log which apps are not kept apart."""
    for each in desired.shared:
        tell = log.warning if each.many else log.info
        tell("apps are not isolated", extra={"fields": {"user": each.user, "apps": ", ".join(each.apps)}})
        if each.uid == 0:
            log.warning("apps run as root: give each a user", extra={"fields": {"apps": ", ".join(each.apps)}})
