"""What of an app runs beside its workers: the processes of its builds, and its schedules.

A build of an app holds it by four words: ``switch_over``, when its workers serve, lets the processes of the build
before go and begins its own; the same with the build before gives back; ``end`` and ``ended`` are for the app's end.
Processes that leave at their own pace hold up neither this nor the next ``switch_over``.
"""

from __future__ import annotations

import asyncio
import math

from ..system.as_json import named, plain
from ..system.snapshots import BackgroundSnapshot
from .fullness import Fullness
from .process import SupervisedProcess
from .schedule import Schedule
from .spec import Commands, ProcessSpec
from .surroundings import BuildSurroundings, Surroundings


class Background:
    """Of one app. ``has_schedules``: whether they are seen to here."""

    def __init__(self, app: str, has_schedules: bool = True) -> None:
        self.app = app
        self.processes: list[SupervisedProcess] = []
        self.leaving: list[SupervisedProcess] = []
        """Those of former builds that have not ended."""
        self.schedules: dict[str, Schedule] = {}
        self.closed: list[Schedule] = []
        """Schedules that are no more, whose last run goes on."""
        self.around: BuildSurroundings | None = None
        """Of the build that runs."""
        self._has_schedules = has_schedules
        self._due = math.inf
        self._seen = 0.0
        self._is_over = False
        self._predecessors: list[Background] = []
        self._fullness = Fullness()

    @property
    def longest_stop_s(self) -> float:
        """How long its processes may take to end."""
        return max((each.spec.stop_timeout_s for each in self.everyone()), default=0.0)

    def everyone(self) -> list[SupervisedProcess]:
        """Return the processes that are kept up, and those that leave."""
        return [*self.processes, *self.leaving]

    def _all_schedules(self) -> list[Schedule]:
        return [*self.schedules.values(), *self.closed]

    def follow(self, other: Background) -> None:
        """Begin processes once those of ``other``, which was told to go, have ended."""
        self._predecessors.append(other)

    def switch_over(self, commands: Commands, around: BuildSurroundings) -> None:
        """Begin ``commands``, and let go what runs; each process begins when the one before it has ended."""
        if self._is_over:
            return
        said = {each.name for each in commands.processes}
        staying = [
            each
            for each in self.processes
            if (each.spec.stays and each.spec in commands.processes)
            or (each.spec.is_asked_for and each.spec.name not in said)
        ]
        former = [each for each in self.processes if each not in staying]
        for each in former:
            each.stop()
        self.leaving += former
        self.around = around
        self.processes = staying
        there = {each.spec for each in staying}
        for spec in commands.processes:
            if spec in there:
                continue
            after = self._before(spec)
            for index in range(spec.copies):
                process = SupervisedProcess(self.app, spec, index, around)
                self.processes.append(process)
                process.begin(after)
        if self._has_schedules:
            self._replace_schedules(commands, around)
        self._sweep()

    def keep(self, commands: Commands, around: BuildSurroundings) -> None:
        """Begin what is to be there before a build's first worker, unless it is: that waits for no build."""
        known = {each.spec.name for each in self.processes if each.spec.stays}
        for spec in commands.processes:
            if spec.stays and spec.name not in known and not self._is_over:
                process = SupervisedProcess(self.app, spec, 0, around)
                self.processes.append(process)
                process.begin()

    def _before(self, spec: ProcessSpec) -> list[SupervisedProcess]:
        if spec.overlap:
            return []
        former = [each for other in self._predecessors for each in other.everyone()]
        return [each for each in (*self.leaving, *former) if each.spec.name == spec.name and not each.ended.is_set()]

    def _replace_schedules(self, commands: Commands, around: BuildSurroundings) -> None:
        former, self.schedules = self.schedules, {}
        for spec in commands.schedules:
            same = former.pop(spec.name, None) or Schedule(self.app, spec, around)
            same.follow(spec, around)
            self.schedules[spec.name] = same
        for gone in former.values():
            gone.close()
            self.closed.append(gone)
        self._due = 0.0

    def look(self, now: float) -> None:
        """Begin the commands that are due at ``now`` (``time.time()``); to be called every second or so."""
        if self.leaving or self.closed:
            self._sweep()
        for store in self.processes:
            if store.spec.stays:
                self._fullness.look(store)
        before, self._seen = self._seen, now
        if before <= now < self._due:
            return
        for each in self.schedules.values():
            each.look(now)
        times = [each.next_at for each in self.schedules.values() if each.next_at is not None]
        self._due = min(times, default=math.inf)

    def _sweep(self) -> None:
        self.leaving = [each for each in self.leaving if not each.ended.is_set()]
        self.closed = [each for each in self.closed if each.is_busy]

    # -- its end -------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """Begin nothing more; schedules' commands, then processes, are told to end."""
        self._is_over = True
        for schedule in self._all_schedules():
            schedule.end()
        for process in self.everyone():
            process.stop()

    def kill(self) -> None:
        """End all of it by force."""
        self.end()
        for schedule in self._all_schedules():
            schedule.kill()
        for process in self.everyone():
            process.kill()

    async def ended(self) -> None:
        """Wait until nothing of it is left."""
        processes = (each.ended.wait() for each in self.everyone())
        await asyncio.gather(*processes, *(each.ended() for each in self._all_schedules()))

    # -- going on in another image of the daemon -----------------------------------------------------------------

    @property
    def is_settled(self) -> bool:
        """Nothing of it is being started, or reaped, just now."""
        are_settled = [each.is_settled for each in self.everyone()]
        return all(are_settled) and all(each.is_settled for each in self._all_schedules())

    def snapshot(self) -> BackgroundSnapshot:
        """Return what ``restore`` needs in another image of the daemon."""
        known = None if self.around is None else self.around.known
        return BackgroundSnapshot(
            surroundings=None if known is None else plain(known),
            processes=[each.snapshot() for each in self.processes],
            leaving=[each.snapshot() for each in self.leaving if not each.ended.is_set()],
            schedules=[each.snapshot() for each in self.schedules.values()],
            closed=[each.snapshot() for each in self.closed if each.is_busy],
        )

    def restore(self, saved: BackgroundSnapshot, commands: Commands, around: BuildSurroundings) -> None:
        """Go on where ``saved`` says. What starts from now on is as ``commands`` and ``around`` have it."""
        if saved.surroundings is not None:
            around.known = named(Surroundings, saved.surroundings)
        self.around = around
        for group, those in ((self.leaving, saved.leaving), (self.processes, saved.processes)):
            for each in those:
                group.append(SupervisedProcess(self.app, named(ProcessSpec, each.spec), each.index, around))
            for process, each in zip(group, those, strict=True):
                process.restore(each, [other for other in self._before(process.spec) if other is not process])
        if self._has_schedules:
            self._replace_schedules(commands, around)
        known = {each.name: each for each in saved.schedules}
        for name in self.schedules.keys() & known.keys():
            self.schedules[name].restore(known.pop(name))
        for left in (*saved.closed, *known.values()):
            self.closed.append(Schedule.gone(self.app, left, around))
