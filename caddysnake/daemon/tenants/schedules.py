"""Schedules of dynamic apps: a run needs no worker, so who sleeps sleeps on.

There is one timetable for a template, whatever the number of its apps. Those take part that were up since the daemon
knows them; of what is due as many run at a time as there are cores, and the rest wait their turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter

from ...channel.throttle import Throttle
from ...config.language import cron
from ...config.language.models import ScheduleLine
from ...config.plan.plan import usable_cores
from ..apps.folder import PrivateFolder
from ..apps.spec import PoolSpec
from ..apps.surroundings import AppSurroundings
from ..commands.schedule import Run, Schedule, StillRuns
from ..commands.surroundings import BuildSurroundings, Surroundings
from ..commands.timetable import Timetable
from ..sockets.refusals import Refusal
from ..system.log.fields import FieldLog
from ..system.snapshots import ScheduleSnapshot, TenantSchedulesSnapshot
from ..system.state import TenantsSnapshot
from ..system.tasks import KeptTasks
from .tenant import TenantTable

log = FieldLog("caddysnake.tenants")


class TenantSchedules:
    """Of one template."""

    def __init__(self, table: TenantTable) -> None:
        self._table = table
        self.timetables: dict[str, Timetable] = {}
        self.active: dict[Schedule, tuple[str, PrivateFolder]] = {}
        """What runs, with the key of its app and the folder that is to end with it, which is made where that sleeps."""
        self.last: dict[tuple[str, str], Run] = {}
        self.left_out: Counter[str] = Counter()
        """Times of each that were skipped or missed."""
        self._waiting: set[tuple[str, str]] = set()
        self._looked_up = 0
        """So many are about to begin."""
        self.may_begin = asyncio.Event()
        """Until then what is due waits."""
        self.may_begin.set()
        self._told = Throttle()
        self._slots = asyncio.Semaphore(usable_cores())
        self._tasks = KeptTasks()
        self._is_over = False
        self.take_over()

    async def resolve(self, key: str) -> PoolSpec | Refusal:
        """Return what the app of ``key`` runs, be it asleep; or why there is none."""
        return await self._table.resolve(key)

    def take_over(self) -> None:
        """Have the schedules of the template as it is now; a line that has not changed goes on."""
        self._table.known.follow(self._table.spec.keeps)
        former, self.timetables = self.timetables, {}
        now = time.time()
        for spec in self._table.spec.schedules:
            fresh = Timetable(spec.cron, cron.zone(spec.timezone), now)
            before = former.get(spec.name)
            self.timetables[spec.name] = before if before is not None and before.is_like(fresh) else fresh

    def look(self, now: float) -> None:
        """Begin what is due at ``now`` (``time.time()``)."""
        if not self._table.known.is_read:
            return
        for spec in self._table.spec.schedules:
            found = self.timetables[spec.name].look(now)
            if found.missed:
                self.left_out[spec.name] += found.missed
                self._tell("scheduled times were missed: the clock went on, or the machine slept", spec)
            if found.due is not None:
                for key in list(self._table.known):
                    self._begin(key, spec)

    def _begin(self, key: str, spec: ScheduleLine) -> None:
        if (key, spec.name) in self._waiting or (not spec.overlap and self._running(key, spec.name)):
            self.left_out[spec.name] += 1
            self._tell("schedule is due, and last runs go on still: skipped", spec)
            return
        self._waiting.add((key, spec.name))
        self._tasks.begin(self._run_in_turn(key, spec, random.uniform(0.0, spec.jitter_s)))

    def _running(self, key: str, name: str) -> list[Schedule]:
        return [each for each, (owner, _) in self.active.items() if (owner, each.spec.name) == (key, name)]

    def _tell(self, what: str, spec: ScheduleLine) -> None:
        if self._told.is_due((what, spec.name), time.monotonic()):
            template, left_out = self._table.spec.name, self.left_out[spec.name]
            log.warning(what, template=template, process=spec.name, left_out=left_out)

    async def _run_in_turn(self, key: str, spec: ScheduleLine, in_s: float) -> None:
        await asyncio.sleep(in_s)
        async with self._slots:
            await self.may_begin.wait()
            if not self._is_over:
                with contextlib.suppress(KeyError, StillRuns):
                    await self.run(key, spec.name)

    async def run(self, key: str, name: str) -> Run | Refusal:
        """Run that schedule now, and wait. Raises ``KeyError``: none; ``StillRuns``. ``Refusal``: no such app."""
        self._looked_up += 1
        try:
            resolved = await self._table.resolve(key)
        finally:
            self._looked_up -= 1
            self._waiting.discard((key, name))
        if isinstance(resolved, Refusal):
            self._table.known.missed(key)
            self.last.pop((key, name), None)
            return resolved
        self._table.known.saw(key)
        spec = next((each for each in resolved.commands.schedules if each.name == name), None)
        if spec is None:
            raise KeyError(name)
        if not spec.overlap and (running := self._running(key, name)):
            raise StillRuns.of(running[0])
        tenant = self._table.get(key)
        live = None if tenant is None or tenant.app is None else tenant.app.background.around
        folder = PrivateFolder(resolved.name)
        around = live or AppSurroundings(folder, self._table.ledger).of(resolved)
        schedule = Schedule(resolved.name, spec, around)
        self.active[schedule] = key, folder
        try:
            self.last[key, name] = run = await schedule.run()
            return run
        finally:
            del self.active[schedule]
            folder.end()

    # -- the end -------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """Begin nothing more, and tell what runs to end."""
        self._is_over = True
        self.may_begin.set()
        for schedule in self.active:
            schedule.end()
        self._waiting.clear()

    def kill(self) -> None:
        """End what runs by force."""
        self.end()
        for schedule in self.active:
            schedule.kill()
        for task in self._tasks:
            task.cancel()

    async def ended(self) -> None:
        """Wait until nothing runs."""
        if self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.gather(*(each.ended() for each in list(self.active)))

    # -- going on in another image of the daemon -----------------------------------------------------------------

    @property
    def is_settled(self) -> bool:
        """Nothing is being started, or reaped, just now."""
        return not self._looked_up and all(each.runs and each.is_settled for each in self.active)

    def snapshot(self) -> TenantSchedulesSnapshot:
        """Return what ``restore`` needs in another image of the daemon."""
        return TenantSchedulesSnapshot(
            times={name: (each.next, each.last) for name, each in self.timetables.items()},
            active=[
                (key, each.snapshot().model_copy(update={"folder": folder.snapshot()}))
                for each, (key, folder) in self.active.items()
            ],
            waiting=sorted(self._waiting),
            last=[(key, name, run) for (key, name), run in self.last.items()],
            left_out=self.left_out,
        )

    def restore(self, estate: TenantsSnapshot) -> None:
        """Go on where ``estate`` says."""
        saved = estate.schedules
        for name, times in saved.times.items():
            if name in self.timetables:
                self.timetables[name].restore(*times)
        self.left_out.update(saved.left_out)
        self.last = {(key, name): Run(*run) for key, name, run in saved.last}
        for key, each in saved.active:
            self._tasks.begin(self._go_on(key, each))
        specs = {each.name: each for each in self._table.spec.schedules}
        for key, name in saved.waiting:
            if name in specs:
                self._begin(key, specs[name])

    async def _go_on(self, key: str, saved: ScheduleSnapshot) -> None:
        app = saved.app or self._table.spec.name
        schedule = Schedule.gone(app, saved, BuildSurroundings(_nowhere))
        folder = PrivateFolder(app)
        folder.restore(saved.folder)
        self.active[schedule] = key, folder
        await schedule.ended()
        if schedule.last_run is not None:
            self.last[key, saved.name] = schedule.last_run
        del self.active[schedule]
        folder.end()


def _nowhere() -> Surroundings:
    raise OSError("it begins no more")
