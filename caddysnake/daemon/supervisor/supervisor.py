"""Makes what runs equal to what is wanted: brings it up, changes it as a whole, and ends it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence

from ..apps.app import App
from ..apps.judging import Ruling, chosen
from ..apps.spec import StartFailed
from ..apps.trial import Trial
from ..commands.release import Tell, releases
from ..sockets.connections import Connection
from ..sockets.opener import ListenerOpener
from ..system import cgroups
from ..system.log.fields import FieldLog
from ..system.timings import TIMINGS, Timings
from ..tenants.lookup import DynamicApp, UnknownApp, find
from ..workers.child.launcher import ForkServerKey
from .app_changes import AS_USUAL, AppsChange, FirstStart, Manner, Outcome, tell_shared
from .budget import MemoryBudget
from .change import ListenersChange, Participant, carry_out
from .desired import Desired
from .relays_change import RelaysChange
from .running import Running
from .shutdown import Shutdown

log = FieldLog("caddysnake.daemon")

_TOLD_S = 0.5  # so long whoever asked for a change that has just ended has to read what came of it

_PROGRESS_S = 2.0


class Supervisor:
    """Everything that runs is in ``running``. One change of all at a time; single apps change beside it."""

    def __init__(
        self, desired: Desired, opener: ListenerOpener | None = None, timings: Timings = TIMINGS
    ) -> None:
        self.running = Running(desired, opener or ListenerOpener(), self._lend, timings)
        self.budget = MemoryBudget(self.running)
        self._changing = asyncio.Lock()
        self._may_change = asyncio.Event()
        self._may_change.set()
        self._changers: dict[asyncio.Future[None], tuple[asyncio.Task[object] | None, str | None]] = {}
        """Who carries a change out that may be cancelled, until when, and of which app; None: of all."""
        self._shutdown = Shutdown(self.running)

    def sweep(self) -> None:
        """To be called every second or so."""
        self.running.sweep()
        self.budget.look()

    # -- starting and changing --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Bring everything up. Raises ``ListenError``, ``StartFailed``; call ``abandon`` then."""
        desired = self.running.desired
        log.info("starting", apps=len(desired.apps), workers=_workers_of(desired))
        tell_shared(desired)
        _tell_limits(desired)
        progress = asyncio.create_task(self._tell_progress())
        listeners = ListenersChange(self.running, desired)
        kind = AppsChange if desired.start_policy == "all" else FirstStart
        apps = kind(self.running, desired, listeners, Manner(all_or_nothing=True))
        relays = RelaysChange(self.running, desired, listeners, apps)
        try:
            await carry_out([[listeners], [apps, relays]])
        finally:
            progress.cancel()

    async def change(
        self,
        desired: Desired,
        manner: Manner = AS_USUAL,
        first: Sequence[Participant] = (),
        last: Sequence[Participant] = (),
    ) -> list[Outcome]:
        """Run ``desired`` with new workers for every app; what became of each, once they serve. Live dynamic apps
        follow, one after the other, and one that does not start goes on as it was. ``first`` are prepared before,
        ``last`` when all else is ready. Raises ``ListenError``, ``StartFailed`` (see ``AppsChange.prepare``), and what
        those raise; nothing has changed then, and each app's ``builds`` say why.
        """
        running = self.running
        async with self._changing, self._cancellable(None), self._at_rest():
            for key in self._keys_of_changed(desired) if manner.changed_only else [None]:
                running.origins.outdate(key)
            listeners = ListenersChange(running, desired)
            apps = AppsChange(running, desired, listeners, manner)
            relays = RelaysChange(running, desired, listeners, apps, manner.changed_only)
            await carry_out([*([each] for each in first), [listeners], [apps, relays], *([each] for each in last)])
            running.beginnings.overtake()
        _tell_limits(desired)
        return list(apps.outcomes.values())

    def cancel_change(self, name: str | None = None) -> bool:
        """Cancel the change of all, or of the app that was asked for by ``name``: the old code keeps serving; what is
        on trial is returned. False when there is nothing of that. Raises ``UnknownApp``.
        """
        changers = [(task, app) for task, app in self._changers.values() if task is not None]
        tasks = [task for task, app in changers if app == name] or [task for task, _ in changers if name is None]
        for task in tasks:
            task.cancel()
        if tasks:
            return True
        apps = self.running.served_apps() if name is None else [self._awake(name)]
        tried = [app for app in apps if app.deploys.trial is not None]
        for app in tried:
            app.deploys.end_trial("cancelled")
        return bool(tried)

    @contextlib.asynccontextmanager
    async def _cancellable(self, name: str | None) -> AsyncIterator[None]:
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._changers[over] = asyncio.current_task(), name
        try:
            yield
        finally:
            del self._changers[over]
            over.set_result(None)

    @contextlib.asynccontextmanager
    async def _at_rest(self) -> AsyncIterator[None]:
        """Nothing is started afresh, or tried again, meanwhile."""
        await self.running.autoreload.pause()
        await self.running.beginnings.pause()
        try:
            yield
        finally:
            self.running.autoreload.resume()
            self.running.beginnings.resume()

    def _keys_of_changed(self, desired: Desired) -> set[ForkServerKey]:
        present = [app.spec for app in self.running.apps.values()]
        return {spec.key for spec in desired.apps.values() if spec not in present}

    async def reload_app(
        self, name: str, key: str | None = None, tell: Tell | None = None, canary: bool | None = None
    ) -> float:
        """Give one app new workers, with the definition that it has; the seconds until they serve.

        ``tell`` and ``canary`` as in ``Manner``. ``name`` and ``key`` as for ``lookup.find``. Raises ``UnknownApp``;
        ``StartFailed``, and nothing has changed.
        """
        begun = time.monotonic()
        took, trial = await self._reload_app(name, key, tell, canary)
        if trial is None:
            return took
        await asyncio.shield(trial.result)
        failure = trial.outcome()
        if failure is not None:
            raise failure
        return time.monotonic() - begun

    async def _reload_app(
        self, name: str, key: str | None, tell: Tell | None, canary: bool | None
    ) -> tuple[float, Trial | None]:
        running = self.running
        await self._may_change.wait()
        async with self._cancellable(name):
            found = find(running.apps, running.templates, name, key)
            if isinstance(found, DynamicApp):
                try:
                    return await found.tenants.reload(found.key, tell, canary)
                except KeyError:
                    raise UnknownApp.asleep(name) from None
            while True:
                async with found.changing:
                    again = find(running.apps, running.templates, name, key)  # the file may have been reloaded
                    if again is found or not isinstance(again, App):
                        return await self._renew(found, tell, canary)
                found = again

    async def _renew(self, found: App, tell: Tell | None, canary: bool | None) -> tuple[float, Trial | None]:
        running = self.running
        beginning = running.beginnings.get(found)
        await running.autoreload.pause(found)
        try:
            running.origins.outdate(found.spec.key)
            if beginning is None:
                tried = chosen(found.spec.canary, canary)
                took = await found.renew(found.spec, running.restarts, tell, releases=True, canary=tried)
                return took, found.deploys.trial
            await beginning.pause()
            try:
                took = await found.renew(await beginning.spec(), running.restarts, tell, releases=True)
                beginning.end()
                running.beginnings.came_up(found, took)
                return took, None
            finally:
                beginning.resume()
        finally:
            running.autoreload.resume(found)

    def _awake(self, name: str) -> App:
        found = find(self.running.apps, self.running.templates, name)
        app = found if isinstance(found, App) else found.tenants.apps.get(found.key)
        if app is None:
            raise UnknownApp.asleep(name)
        return app

    async def promote(self, name: str) -> bool:
        """Let the build of an app that is tried take over now; False when there is none. Raises ``UnknownApp``."""
        trial = self._awake(name).deploys.trial
        if trial is None:
            return False
        return (await trial.promote("asked for")).ruling is Ruling.PROMOTE

    def roll_back(self, name: str) -> int | None:
        """Let the build before serve again, or, while one is tried, the present one alone; its number, or None when
        there is none. Raises ``UnknownApp``.
        """
        app = self._awake(name)
        if app.deploys.trial is not None:
            app.deploys.end_trial("rolled back")
            return None if app.builds.running is None else app.builds.running.number
        return app.roll_back()

    def scale(self, name: str, workers: int | None) -> App:
        """Give an app so many workers, or, with None, as many as it takes; the app. Raises ``UnknownApp``."""
        app = self._awake(name)
        app.scaled.ask_for(workers)
        return app

    async def evict(self, name: str, key: str | None = None) -> None:
        """Let a dynamic app go, and wait until it has: the next request starts it. Raises ``UnknownApp``."""
        found = find(self.running.apps, self.running.templates, name, key)
        if isinstance(found, App):
            what = f"{name!r} is not a dynamic app: it runs for as long as the Caddyfile has it"
            raise UnknownApp(what, "static-app")
        if not await found.tenants.evict(found.key):
            raise UnknownApp.asleep(name)

    def _lend(self, connection: Connection) -> bool:
        """Let a relay wait, or answer, for an app that is not up. Relays are started when first needed."""
        running, relays = self.running, self.running.relays
        if running.is_stopping:
            return False
        if relays.pool.is_started:
            return relays.borrow(connection)
        if not relays.is_wanted:
            relays.is_wanted = True
            running.spawn(self._start_relays_late())
        return False

    async def _start_relays_late(self) -> None:
        running = self.running
        async with self._changing:
            if running.relays.pool.is_started:
                return
            change = RelaysChange(running, running.desired, ListenersChange(running, running.desired))
            try:
                await change.prepare()
            except StartFailed as exc:
                log.error("no relay", code=exc.code, error=str(exc))

    # -- going on in another image of the daemon --------------------------------------------------------------

    async def hold_changes(self) -> None:
        """Wait for what changes, and begin nothing more until ``release_changes``."""
        running, was_busy = self.running, self._changing.locked() or bool(self._changers)
        await self._changing.acquire()
        self._may_change.clear()
        try:
            if self._changers:
                await asyncio.wait(self._changers)
            await releases.hold()
            await running.autoreload.pause()
            await running.beginnings.pause()
            running.starts.hold()
            for tenants in running.templates.values():
                await tenants.hold_renewals()
            if was_busy:
                await asyncio.sleep(_TOLD_S)
        except BaseException:
            self.release_changes()
            raise

    def release_changes(self) -> None:
        """Undo ``hold_changes``: what waited goes on."""
        running = self.running
        releases.is_held = False
        for tenants in running.templates.values():
            tenants.release_renewals()
        running.starts.release()
        running.autoreload.resume()
        running.beginnings.resume()
        self._may_change.set()
        self._changing.release()

    # -- stopping ---------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """End everything, within the grace period."""
        await self._shutdown.stop()

    async def abandon(self) -> None:
        """Leave nothing behind of a start that failed."""
        await self._shutdown.abandon()

    # -- telling ----------------------------------------------------------------------------------------------

    async def _tell_progress(self) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while True:
            await asyncio.sleep(_PROGRESS_S)
            apps = self.running.apps
            missing = [name for name, app in apps.items() if len(app.pool.ready) < app.spec.workers]
            ready = sum(len(app.pool.ready) for app in apps.values())
            workers, seconds = f"{ready}/{_workers_of(self.running.desired)}", round(loop.time() - begun)
            log.info("still starting", waiting_for=", ".join(missing), workers_ready=workers, seconds=seconds)

    @property
    def serves_any(self) -> bool:
        """Somebody is answered, or there is nobody to answer for."""
        apps, amiss = self.running.apps.values(), self._amiss()
        return not (apps or amiss) or any(
            [*(app.pool.ready for app in apps), *(name not in amiss for name in self.running.templates)]
        )

    def failed(self) -> dict[str, str]:
        """The apps and templates that do not come up, each with a stable word why."""
        failures = {name: app.failure for name, app in self.running.apps.items()}
        found = {name: failure.code for name, failure in failures.items() if failure is not None}
        return found | dict.fromkeys(self._amiss(), "setup-failed")

    def _amiss(self) -> list[str]:
        templates = self.running.templates
        return [name for name in self.running.desired.amiss if name in templates and not templates[name].apps]

    def summary(self) -> str:
        """What is served, in a line for people."""
        running = self.running
        workers = sum(len(app.pool.ready) for app in running.served_apps())
        parts = [f"{len(running.apps)} {_plural('app', len(running.apps))}, {workers} {_plural('worker', workers)}"]
        if running.templates:
            awake = sum(len(tenants.apps) for tenants in running.templates.values())
            parts.append(f"{awake} {_plural('tenant', awake)} awake")
        failed = self.failed()
        if down := [name for name, app in running.apps.items() if not app.pool.ready] + self._amiss():
            told = [f"{name} ({failed[name]})" if name in failed else name for name in down[:5]]
            parts.append("not up: " + ", ".join(told) + (" …" if len(down) > 5 else ""))
        return "; ".join(parts)


def _tell_limits(desired: Desired) -> None:
    """What limits of memory and processor time are worth here."""
    if desired.with_cpu_limit and (why := cgroups.why_no_cpu()):
        apps = ", ".join(desired.with_cpu_limit)
        log.warning("processor time is not limited here, whatever limits { cpu } says", apps=apps, no_cgroup=why)
    if not desired.with_memory_limit:
        return
    apps = ", ".join(desired.with_memory_limit)
    if (cgroup := cgroups.root()) is not None:
        log.info("memory is limited for each worker with all that it starts", apps=apps, cgroup=cgroup)
    else:
        why = cgroups.why_not()
        log.info("memory is limited for each process by itself (RLIMIT_DATA)", apps=apps, no_cgroup=why)


def _workers_of(desired: Desired) -> int:
    return sum(spec.workers for spec in desired.apps.values())


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else noun + "s"
