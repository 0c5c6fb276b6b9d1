"""What a change makes of the apps: each by itself, or all together."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any, Literal, NamedTuple

from ...config.language.models import Canary
from ..apps.app import App
from ..apps.beginning import Beginning
from ..apps.judging import chosen, first_few
from ..apps.spec import PoolSpec, StartFailed
from ..apps.stop_first import as_it_ran
from ..apps.trial import Trial
from ..commands.release import Tell
from ..sockets.addresses import key_of
from ..system.log.fields import FieldLog
from ..tenants.tenants import Tenants
from .change import ListenersChange, side_by_side
from .desired import Desired
from .running import Running, tell_ready

log = FieldLog("caddysnake.daemon")


class Manner(NamedTuple):
    """How a change is carried out."""

    changed_only: bool = False
    """What runs already as is desired stays."""
    all_or_nothing: bool = False
    """One app that does not start refuses the whole."""
    tell: Tell | None = None
    """Hears what release commands write, and how a build does that is tried."""
    canary: bool | None = None
    """Whether new builds are tried; None: as their blocks say."""
    swaps_early: bool = False
    """An app's new build need not wait for those of others, as nothing that is prepared later can be refused."""


AS_USUAL = Manner()


class Outcome(NamedTuple):
    """What became of one app in a change."""

    app: str
    result: Literal["started", "reloaded", "unchanged", "refused"]
    seconds: float = 0.0
    failure: StartFailed | None = None
    serves: bool = True
    """Some build of it does; of one that was refused, the old."""
    trial: Trial | None = None
    """Its new build is tried; what becomes of that is known by ``judged``."""

    async def judged(self) -> Outcome:
        """Wait for the verdict, if there is to be one."""
        if self.trial is None:
            return self
        begun = time.monotonic()
        await asyncio.shield(self.trial.result)
        failure, seconds = self.trial.outcome(), self.seconds + time.monotonic() - begun
        return self._replace(result="reloaded" if failure is None else "refused", seconds=seconds, failure=failure)


class AppsChange:
    """Starts the apps that are new, and gives the others new workers."""

    def __init__(
        self, running: Running, desired: Desired, listeners: ListenersChange, manner: Manner = AS_USUAL
    ) -> None:
        self._running = running
        self._desired = desired
        self._listeners = listeners
        self._manner = manner
        self._begun_at = time.time()
        """What apps are made of may have been read from then on."""
        self.kept: dict[str, App] = {}
        """Apps that go on, by their name from now on."""
        self.gone: list[App | Tenants] = []
        """What does not go on, when this has been committed."""
        self.outcomes: dict[str, Outcome] = {}
        self.others_are_ready = asyncio.Event()
        """All but the apps is prepared."""
        self._started: dict[str, App] = {}
        self._renewed: dict[App, str] = {}
        """Prepared beside the old, and not swapped yet: their names from now on."""
        self._judged: dict[App, Canary] = {}
        """Of those prepared, how each is to be tried."""
        self._exchanged: dict[App, PoolSpec] = {}
        """Serving instead of the old already, with what that ran."""
        self._have_fallen = False
        """What ended for another build has not come back: it cannot be said that nothing has changed."""

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
        """Raises ``StartFailed`` when the whole is refused: by one app, if it is all or nothing; when no app's change
        was taken; or when one that was refused loses a listener, on whose connections requests for others will come.
        """
        desired = self._desired
        if not self._running.listeners:
            self.introduce()
        self.kept = self._running.successors(desired)
        losing = {name for name, app in self.kept.items() if self._loses_listener(app)}
        swaps_early = self._manner.swaps_early and not losing and not self._manner.all_or_nothing
        turn = asyncio.Semaphore(1)
        specs = desired.apps.values()
        await side_by_side(self._tried(spec, turn, swaps_early) for spec in specs if not self._is_exchange(spec))
        # The last of all: these cannot be taken back unseen.
        await side_by_side(self._tried(spec, turn, False) for spec in specs if self._is_exchange(spec))
        refused = {each.app: each.failure for each in self.outcomes.values() if each.failure is not None}
        # What becomes of dynamic apps is not known before they are asked for, or renewed, when this is done.
        taken = any(each.result in ("started", "reloaded") for each in self.outcomes.values())
        taken |= self._have_fallen
        hopeless = next((failure for name, failure in refused.items() if name in losing or not taken), None)
        if hopeless is not None:
            raise hopeless

    def _is_exchange(self, spec: PoolSpec) -> bool:
        app = self.kept.get(spec.name)
        return spec.strategy == "stop_first" and app is not None and bool(app.pool.ready)

    async def _tried(self, spec: PoolSpec, turn: asyncio.Semaphore, swaps_early: bool) -> None:
        name = spec.name
        app = self.kept.get(name)
        if app is not None:
            await app.changing.acquire()  # somebody may have it reloaded by its name
        was_up = app is not None and bool(app.pool.ready)
        try:
            self.outcomes[name] = await self._ready(spec, turn, swaps_early)
        except StartFailed as exc:
            if self._manner.all_or_nothing:
                raise
            serves = app is not None and bool(app.pool.ready)
            self._have_fallen |= was_up and not serves
            self.outcomes[name] = Outcome(name, "refused", 0.0, exc, serves)
        finally:
            if app is not None and app not in self._renewed:
                app.changing.release()

    async def _ready(self, spec: PoolSpec, turn: asyncio.Semaphore, swaps_early: bool) -> Outcome:
        running = self._running
        app = self.kept.get(spec.name)
        is_same = app is not None and self._manner.changed_only and app.spec == spec and app not in running.beginnings
        if app is not None and is_same and not self._loses_listener(app):
            return Outcome(spec.name, "unchanged")
        if app is None or not (app.pool.is_begun or app in running.beginnings):
            is_new = app is None
            if app is None:
                app = self._started[spec.name] = running.new_app(spec)
            await app.surroundings.release(spec, self._manner.tell, app.builds)
            took = await app.start()
            tell_ready(self._desired, spec, took)
            return Outcome(spec.name, "started" if is_new else "reloaded", took)
        trial: Trial | None = None
        if self._is_exchange(spec):
            former = as_it_ran(app.pool)
            took = await app.renew(spec, running.restarts, self._manner.tell, releases=True)
            self._exchanged[app] = former
        else:
            async with turn if spec.strategy == "rolling" else contextlib.nullcontext():
                await app.surroundings.release(spec, self._manner.tell, app.builds)
                canary = self._canary(app, spec)
                if canary is not None:
                    self._judged[app] = canary
                few = 0 if canary is None else first_few(canary, spec.workers)
                took = await app.prepare(spec, running.restarts, first=few)
            self._renewed[app] = spec.name
            if swaps_early:
                await self.others_are_ready.wait()
                trial = self._swap(app)
        tell_ready(self._desired, spec, took)
        return Outcome(spec.name, "reloaded", took, trial=trial)

    def _swap(self, app: App) -> Trial | None:
        """Let its new build serve, or be tried: what tries it then."""
        del self._renewed[app]
        self._running.beginnings.end(app)
        canary = self._judged.get(app)
        if canary is not None:
            return app.deploys.try_out(canary, self._manner.tell)
        app.swap()
        return None

    def _canary(self, app: App, spec: PoolSpec) -> Canary | None:
        """How its new build is to be tried, if it is: not where nothing serves, or where the old loses a listener."""
        if not app.pool.ready or self._loses_listener(app):
            return None
        return chosen(spec.canary, self._manner.canary)

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
        running.make_templates(desired, self._manner.changed_only, self._manner.canary)
        self._listeners.bind(running.apps)
        for app, name in list(self._renewed.items()):
            self.outcomes[name] = self.outcomes[name]._replace(trial=self._swap(app))
            app.changing.release()
        remaining = {*running.apps.values(), *running.templates.values()}
        self.gone = [each for each in former if each not in remaining]
        running.watch_from(self._begun_at)
        for outcome in self.outcomes.values():
            if outcome.failure is not None:
                self._leave_refused(outcome, outcome.failure)

    def _leave_refused(self, outcome: Outcome, failure: StartFailed) -> None:
        """The old build goes on; without one it is tried again, as at the start of the daemon."""
        app = self._running.apps[outcome.app]
        fields: dict[str, Any] = {"app": outcome.app, "code": failure.code, "error": str(failure)}
        if app.pool.ready:
            log.error("app is not reloaded; its old build keeps serving", **fields)
            return
        log.error("app is not reloaded, and does not serve", **fields)
        self._running.beginnings.try_again(app, failure)

    def rollback(self) -> None:
        """Let the new workers and the new apps go."""
        for app in self._renewed:
            app.discard()
            app.changing.release()
        for app, former in self._exchanged.items():
            self._running.spawn(_put_back(app, former))
        for app in self._started.values():
            self._running.part_with(app)
            app.kill()


async def _put_back(app: App, former: PoolSpec) -> None:
    try:
        await app.renew(former)
    except StartFailed as exc:
        log.error("the old build does not come back", app=app.name, code=exc.code, error=str(exc))


class FirstStart(AppsChange):
    """Each app by itself: done when each is up, has failed once, or has taken its time."""

    async def prepare(self) -> None:
        """Raises ``StartFailed`` when none has come up, and that is a failed start."""
        running = self._running
        self.introduce()
        for name, why in self._desired.amiss.items():
            log.error("no app of this template can be started", template=name, error=why)
        for app in running.apps.values():
            running.begin(app)
        beginnings, desired = list(running.beginnings.values()), running.desired
        if not desired.is_patient and len(desired.templates) == len(desired.amiss):
            running.beginnings.hopes = beginnings
        deciding = asyncio.ensure_future(self._all_decided(beginnings))
        running.beginnings.deciding = deciding
        await asyncio.wait((deciding,), timeout=running.origins.timings.decided_s)
        if deciding.done():
            deciding.result()
            return
        undecided = running.undecided
        log.warning("apps have not come up yet; the others serve", apps=", ".join(undecided))

    async def _all_decided(self, beginnings: list[Beginning]) -> None:
        """Raises ``StartFailed`` as ``prepare``."""
        for each in beginnings:
            await each.decided.wait()
        hopes = self._running.beginnings.hopes
        amiss = self._running.desired.amiss
        if hopes is not beginnings or any(each.was_up for each in hopes):
            return
        # First the one whose failure nobody has told yet.
        last_first = sorted(hopes, key=lambda each: not each.has_ended_all)
        failures = [failure for each in last_first if (failure := each.app.failure) is not None]
        failures += [StartFailed(name, "setup-failed", why) for name, why in amiss.items()]
        if failures:
            raise failures[0]

    def commit(self) -> None:
        """Keep what has come up meanwhile, as it has."""
        self._desired = self._running.desired
        self.kept = dict(self._running.apps)
        super().commit()


def tell_shared(desired: Desired) -> None:
    """Log which apps are not kept apart."""
    for each in desired.shared:
        if not desired.unwalled.intersection(each.apps):
            continue  # each is in a sandbox of its own
        tell = log.warning if each.many else log.info
        tell("apps are not isolated", user=each.user, apps=", ".join(each.apps))
        if each.uid == 0:
            log.warning("apps run as root: give each a user", apps=", ".join(each.apps))
