"""What apps run beside their workers, from the running daemon to the models. Reads, changes nothing."""

from __future__ import annotations

from ..daemon.apps.app import App
from ..daemon.commands.process import SupervisedProcess
from ..daemon.commands.schedule import Run, Schedule
from ..daemon.system.processes import cpu_seconds, resident_bytes
from ..daemon.tenants.tenants import Tenants
from .models import EndModel, ProcessModel, RunModel, ScheduleModel


def processes_of(app: App) -> list[ProcessModel]:
    """Return the processes of ``app``, with those of former builds that have not ended."""
    leaving = [each for each in app.background.leaving if not each.ended.is_set()]
    return [_process(each, is_leaving=False) for each in app.background.processes] + [
        _process(each, is_leaving=True) for each in leaving
    ]


def _process(each: SupervisedProcess, *, is_leaving: bool) -> ProcessModel:
    is_running = each.state.value == "running"
    return ProcessModel(
        name=each.label,
        state="full" if each.is_full and is_running
        else "failed" if each.has_failed and each.state.value in ("paused", "starting") else each.state.value,
        pid=each.pid,
        since_at=each.since,
        restarts=each.restarts,
        is_leaving=is_leaving,
        last_end=None if each.last_end is None else EndModel(at=each.last_end[0], reason=each.last_end[1][:1000]),
        memory_bytes=resident_bytes(each.pid) if each.pid else 0,
        cpu_s=cpu_seconds(each.pid) if each.pid else 0.0,
    )


def schedules_of(app: App) -> list[ScheduleModel]:
    """Return the schedules of ``app``; for one of a template, ``schedules_of_template`` has them."""
    return [_schedule(each) for each in app.background.schedules.values()]


def _schedule(each: Schedule) -> ScheduleModel:
    return ScheduleModel(
        name=each.spec.name,
        cron=each.spec.cron,
        next_at=each.next_at,
        running=[run.pid for run in each.runs],
        last_run=_run(each.last_run),
        skipped=each.skipped,
        missed=each.missed,
    )


def schedules_of_template(tenants: Tenants) -> list[ScheduleModel]:
    """Return the schedules of all apps of a template; ``last_run`` is one that failed, if the last of any has."""
    found = []
    for spec in tenants.spec.schedules:
        own = tenants.schedules
        runs = [run for (_, name), run in own.last.items() if name == spec.name]
        found.append(
            ScheduleModel(
                name=spec.name,
                cron=spec.cron,
                next_at=own.timetables[spec.name].next,
                running=[run.pid for each in own.active if each.spec.name == spec.name for run in each.runs],
                last_run=_run(max(runs, key=lambda run: (not run.is_good, run.at), default=None)),
                skipped=own.left_out[spec.name],
                missed=0,
            )
        )
    return found


def _run(run: Run | None) -> RunModel | None:
    if run is None:
        return None
    return RunModel(at=run.at, seconds=run.duration_s, reason=run.reason[:1000], ok=run.is_good)
