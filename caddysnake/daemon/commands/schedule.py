"""A schedule of an app: its command begins when it is due, once for the app, and what came of it is known."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Coroutine, Mapping
from typing import Any, Final, NamedTuple, TypeVar

from ...channel.throttle import Throttle
from ...config.language import cron
from ...config.language.models import ScheduleLine
from ..system.log.fields import FieldLog
from ..system.snapshots import ScheduleSnapshot
from .execution import Ending, Execution, NotExecuted
from .surroundings import BuildSurroundings
from .timetable import Timetable

log = FieldLog("caddysnake.app")

_PATIENCE_S = 10.0
"""A run that is told to end has so long until it is ended by force."""
_told = Throttle()


_Done = TypeVar("_Done")
_NOTHING: Final[Mapping[Any, float | None]] = {}
"""Of thousands of schedules nearly all rest: they share it."""


class Run(NamedTuple):
    """The last run that has ended. ``at``: ``time.time()`` of its beginning."""

    at: float
    duration_s: float
    reason: str
    is_good: bool


class StillRuns(Exception):
    """It was asked for, and its last run goes on. The text says which."""

    @classmethod
    def of(cls, schedule: Schedule) -> StillRuns:
        """Return that of ``schedule``."""
        pid = next((run.pid for run in schedule.runs), None)
        what = "is about to run" if pid is None else f"runs already, as process {pid}"
        return cls(f"{schedule.spec.name} {what}")


class Schedule:
    """``surroundings``: of the build that runs when it is due."""

    __slots__ = (
        "_is_over", "_surroundings", "_tasks", "_timetable", "app", "last_run", "missed", "runs", "skipped", "spec",
    )  # fmt: skip

    def __init__(self, app: str, spec: ScheduleLine, surroundings: BuildSurroundings) -> None:
        self.app = app
        self.spec = spec
        self.runs: Mapping[Execution, float | None] = _NOTHING
        """What runs, each with when it is to be ended, on the clock of ``time.monotonic()``."""
        self.last_run: Run | None = None
        self.skipped = 0
        self.missed = 0
        self._surroundings = surroundings
        self._timetable = Timetable(spec.cron, cron.zone(spec.timezone), time.time())
        self._tasks: Mapping[asyncio.Task[Any], float | None] = _NOTHING
        """Whoever sees to a run; with when that is to begin, on the same clock, while it has not."""
        self._is_over = False

    @property
    def next_at(self) -> float | None:
        """When it is due next, as ``time.time()``; None: never again."""
        return None if self._is_over else self._timetable.next

    @property
    def is_busy(self) -> bool:
        """A run of it goes on, or is about to begin."""
        return bool(self.runs or self._waiting())

    def _waiting(self) -> list[float]:
        return [due for due in self._tasks.values() if due is not None]

    def follow(self, spec: ScheduleLine, surroundings: BuildSurroundings) -> None:
        """Go on as ``spec``, of the build that runs now. What runs already runs on."""
        if (spec.cron, spec.timezone) != (self.spec.cron, self.spec.timezone):
            self._timetable = Timetable(spec.cron, cron.zone(spec.timezone), time.time(), self._timetable.last)
        self.spec, self._surroundings = spec, surroundings

    def look(self, now: float) -> None:
        """Begin what is due at ``now`` (``time.time()``)."""
        if self._is_over:
            return
        found = self._timetable.look(now)
        if found.missed:
            self.missed += found.missed
            self._tell("scheduled times were missed: the clock went on, or the machine slept", missed=found.missed)
        if found.due is None:
            return
        if self.is_busy and not self.spec.overlap:
            self.skipped += 1
            self._tell("schedule is due, and its last run goes on still: skipped", skipped=self.skipped)
            return
        self._begin(random.uniform(0.0, self.spec.jitter_s))

    def _tell(self, what: str, **fields: Any) -> None:
        if _told.is_due((self.app, self.spec.name, what), time.monotonic()):
            log.warning(what, app=self.app, process=self.spec.name, **fields)

    def _begin(self, in_s: float) -> asyncio.Task[Run]:
        return self._spawn(self._run_in(in_s), time.monotonic() + in_s)

    def _spawn(self, work: Coroutine[Any, Any, _Done], due: float | None = None) -> asyncio.Task[_Done]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks = {**self._tasks, task: due}
        task.add_done_callback(self._over)
        return task

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._tasks = {each: due for each, due in self._tasks.items() if each is not task}

    def run(self) -> asyncio.Task[Run]:
        """Run it now; done when it has ended. Raises ``StillRuns``."""
        if self.is_busy and not self.spec.overlap:
            raise StillRuns.of(self)
        return self._begin(0.0)

    async def _run_in(self, in_s: float) -> Run:
        await asyncio.sleep(in_s)
        begun, name = time.time(), self.spec.name
        try:
            around, environ = await self._surroundings.get(), {"CADDYSNAKE_SCHEDULE": name}
            execution = await Execution.begin(around, self.spec.command, name, environ=environ)
        except (NotExecuted, OSError) as exc:
            self.last_run = Run(begun, 0.0, str(exc), False)
            log.error("schedule's command cannot be run", app=self.app, process=name, error=str(exc))
            return self.last_run
        log.info("schedule's command begins", app=self.app, process=name, pid=execution.pid)
        return await self._watched(execution, self.spec.timeout_s)

    async def _watched(self, execution: Execution, left_s: float | None) -> Run:
        current = asyncio.current_task()
        if current is not None:
            self._tasks = {**self._tasks, current: None}
        self.runs = {**self.runs, execution: None if left_s is None else time.monotonic() + left_s}
        try:
            await asyncio.wait((execution.ending,), timeout=left_s)
            is_late = not execution.ending.done()
            if is_late:
                await execution.stop(signal.SIGTERM, _PATIENCE_S)
            ending = execution.ending.result()
        finally:
            self.runs = {run: at for run, at in self.runs.items() if run is not execution}
        self.last_run = self._done(execution, ending, is_late)
        return self.last_run

    def _done(self, execution: Execution, ending: Ending, is_late: bool) -> Run:
        reason = f"not done within {self.spec.timeout_s:g}s ({ending.reason})" if is_late else ending.reason
        is_good = ending.is_good and not is_late
        what, tell, duration = "schedule's command has ended", log.info if is_good else log.error, ending.duration_s
        tell(what, app=self.app, process=self.spec.name, pid=execution.pid, reason=reason, duration=round(duration, 3))
        return Run(execution.started_at, ending.duration_s, reason, is_good)

    # -- its end -------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Begin nothing more. What runs, runs on."""
        self._is_over = True
        for task, due in list(self._tasks.items()):
            if due is not None:
                task.cancel()

    def end(self) -> None:
        """Begin nothing more, and tell what runs to end."""
        self.close()
        for execution in list(self.runs):
            self._spawn(execution.stop(signal.SIGTERM, _PATIENCE_S))

    def kill(self) -> None:
        """End what runs by force."""
        self.close()
        for execution in self.runs:
            execution.kill()

    async def ended(self) -> None:
        """Wait until nothing of it runs."""
        while self._tasks or self.runs:
            await asyncio.gather(*self._tasks, *(run.ending for run in self.runs), return_exceptions=True)
            await asyncio.sleep(0)

    # -- going on in another image of the daemon -----------------------------------------------------------------

    @property
    def is_settled(self) -> bool:
        """Nothing of it is being started, or reaped, just now."""
        is_starting = any(due <= time.monotonic() for due in self._waiting())
        return not is_starting and all(run.is_settled for run in self.runs)

    def snapshot(self) -> ScheduleSnapshot:
        """Return what ``restore`` needs in another image of the daemon."""
        now = time.monotonic()
        return ScheduleSnapshot(
            app=self.app,
            name=self.spec.name,
            last=self._timetable.last,
            next=self._timetable.next,
            runs=[(run.snapshot(), None if at is None else max(0.0, at - now)) for run, at in self.runs.items()],
            waits=[max(0.0, due - now) for due in self._waiting()],
            last_run=self.last_run,
            skipped=self.skipped,
            missed=self.missed,
        )

    @classmethod
    def gone(cls, app: str, saved: ScheduleSnapshot, surroundings: BuildSurroundings) -> Schedule:
        """Return one that begins nothing more, with the runs that ``saved`` tells of."""
        found = cls(app, ScheduleLine(saved.name, "@yearly", ()), surroundings)
        found.restore(saved)
        found.close()
        return found

    def restore(self, saved: ScheduleSnapshot) -> None:
        """Go on where ``saved`` says."""
        self._timetable.restore(saved.next, saved.last)
        self.skipped, self.missed = saved.skipped, saved.missed
        self.last_run = None if saved.last_run is None else Run(*saved.last_run)
        for run, left_s in saved.runs:
            self._spawn(self._watched(Execution.restored(self.app, run), left_s))
        for wait_s in saved.waits:
            self._begin(wait_s)
