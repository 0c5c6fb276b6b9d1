"""Schedules of dynamic apps: a run needs no worker, so who sleeps sleeps on.

There is one timetable for a template, whatever the number of its apps. Those take part that were up since the daemon
knows them; of what is due as many run at a time as there are cores, and the rest wait their turn.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Coroutine

from ...config.language import cron
from ...config.plan.plan import usable_cores
from ..apps.folder import PrivateFolder
from ..apps.spec import PoolSpec
from ..apps.surroundings import AppSurroundings
from ..commands.schedule import Run, Schedule
from ..commands.spec import ScheduleSpec
from ..commands.surroundings import BuildSurroundings, Surroundings
from ..commands.timetable import Timetable
from ..sockets.refusals import Refusal
from ..system.carried import CarriedSchedule, CarriedTenantSchedules
from ..system.state import CarriedEstate
from .tenant import TenantTable

log = logging.getLogger("caddysnake.tenants")


class TenantSchedules:
    """Of one template."""

    def __init__(self, table: TenantTable) -> None:
        self._table = table
        self.timetables: dict[str, Timetable] = {}
        self.active: dict[tuple[str, str], Schedule] = {}
        """What runs, by the key of its app and its own name."""
        self.last: dict[tuple[str, str], Run] = {}
        self.skipped = 0
        self._waiting: set[tuple[str, str]] = set()
        self._slots = asyncio.Semaphore(usable_cores())
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_over = False
        self.take_over()

    async def resolve(self, key: str) -> PoolSpec | Refusal:
        """Return what the app of ``key`` runs, be it asleep; or why there is none."""
        return await self._table.resolve(key)

    def take_over(self) -> None:
        """Have the schedules of the template as it is now; a line that has not changed goes on."""
        former, self.timetables = self.timetables, {}
        now = time.time()
        for spec in self._table.spec.schedules:
            fresh = Timetable(spec.cron, cron.zone(spec.timezone), now)
            before = former.get(spec.name)
            self.timetables[spec.name] = before if before is not None and before.is_like(fresh) else fresh

    def look(self, now: float) -> None:
        """Begin what is due at ``now`` (``time.time()``)."""
        for spec in self._table.spec.schedules:
            found = self.timetables[spec.name].look(now)
            if found.missed:
                fields = {"template": self._table.spec.name, "process": spec.name, "missed": found.missed}
                what = "scheduled times were missed: the clock went on, or the machine slept"
                log.warning(what, extra={"fields": fields})
            if found.due is not None:
                for key in list(self._table.seen):
                    self._begin(key, spec)

    def _begin(self, key: str, spec: ScheduleSpec) -> None:
        if (key, spec.name) in self._waiting or ((key, spec.name) in self.active and not spec.overlap):
            self.skipped += 1
            return
        self._waiting.add((key, spec.name))
        self._spawn(self._run_in_turn(key, spec, random.uniform(0.0, spec.jitter_s) if spec.jitter_s else 0.0))

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_in_turn(self, key: str, spec: ScheduleSpec, in_s: float) -> None:
        await asyncio.sleep(in_s)
        async with self._slots:
            self._waiting.discard((key, spec.name))
            if not self._is_over:
                await self.run(key, spec.name)

    async def run(self, key: str, name: str) -> Run | Refusal:
        """Run the schedule ``name`` of the app of ``key`` now, and wait for its end. Raises ``KeyError``: it has none.

        A ``Refusal``: there is no such app (any more).
        """
        resolved = await self._table.resolve(key)
        if isinstance(resolved, Refusal):
            self._table.seen.discard(key)
            return resolved
        spec = next((each for each in resolved.commands.schedules if each.name == name), None)
        if spec is None:
            raise KeyError(name)
        tenant = self._table.get(key)
        live = None if tenant is None or tenant.app is None else tenant.app.background.around
        folder = None if live is not None else PrivateFolder(resolved.name)
        try:
            around = live or AppSurroundings(folder or PrivateFolder(resolved.name), self._table.ledger).of(resolved)
            schedule = Schedule(resolved.name, spec, around)
            return await self._ran(key, schedule)
        finally:
            if folder is not None:
                folder.end()

    async def _ran(self, key: str, schedule: Schedule) -> Run:
        at = (key, schedule.spec.name)
        self.active[at] = schedule
        try:
            self.last[at] = run = await schedule.run()
            return run
        finally:
            if self.active.get(at) is schedule:
                del self.active[at]

    # -- the end -------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """Begin nothing more, and tell what runs to end."""
        self._is_over = True
        for schedule in self.active.values():
            schedule.end()
        self._waiting.clear()

    def kill(self) -> None:
        """End what runs by force."""
        self.end()
        for schedule in self.active.values():
            schedule.kill()
        for task in self._tasks:
            task.cancel()

    async def ended(self) -> None:
        """Wait until nothing runs."""
        if self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.gather(*(each.ended() for each in list(self.active.values())))

    # -- going on in another image of the daemon -----------------------------------------------------------------

    @property
    def is_settled(self) -> bool:
        """Nothing is being started, or buried, just now."""
        return all(each.runs and each.is_settled for each in self.active.values())

    def carry(self) -> CarriedTenantSchedules:
        """Return what ``resume`` needs in another image of the daemon."""
        return CarriedTenantSchedules(
            times={name: (each.next, each.last) for name, each in self.timetables.items()},
            active=[(key, each.carry()) for (key, _), each in self.active.items()],
            waiting=sorted(self._waiting),
            last=[(key, name, run) for (key, name), run in self.last.items()],
            skipped=self.skipped,
        )

    def resume(self, estate: CarriedEstate) -> None:
        """Go on where ``estate`` says."""
        carried = estate.schedules
        for name, times in carried.times.items():
            if name in self.timetables:
                self.timetables[name].resume(*times)
        self.skipped = carried.skipped
        self.last = {(key, name): Run(*run) for key, name, run in carried.last}
        for key, each in carried.active:
            self._spawn(self._go_on(key, each))
        specs = {each.name: each for each in self._table.spec.schedules}
        for key, name in carried.waiting:
            if name in specs:
                self._begin(key, specs[name])

    async def _go_on(self, key: str, carried: CarriedSchedule) -> None:
        around = BuildSurroundings(_nowhere)
        schedule = Schedule(self._table.spec.name, ScheduleSpec(carried.name, "@yearly", ()), around)
        schedule.resume(carried)
        self.active[key, carried.name] = schedule
        await schedule.ended()
        if schedule.last_run is not None:
            self.last[key, carried.name] = schedule.last_run
        self.active.pop((key, carried.name), None)


def _nowhere() -> Surroundings:
    raise OSError("it begins no more")
