"""What the running daemon looks like just now, as models. Reads, changes nothing.

The loop reads what is in memory, and gives way after every few workers; a thread reads what is in ``/proc``.
"""

from __future__ import annotations

import asyncio
import os
import platform
import resource
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from .. import __version__
from ..channel import codes, vitals
from ..channel.codec import shorten
from ..channel.settings import Settings
from ..config.check.sandbox import REHEARSED, Held, held
from ..daemon.apps.app import App
from ..daemon.apps.builds import Builds
from ..daemon.apps.counters import Counters
from ..daemon.apps.judging import Figures
from ..daemon.apps.metrics.asking import MetricsPlace
from ..daemon.apps.pool import Pool
from ..daemon.main import Daemon, DaemonPhase
from ..daemon.sockets.addresses import address_name
from ..daemon.supervisor.running import Running
from ..daemon.system import cgroups
from ..daemon.system.processes import cpu_seconds, resident_bytes
from ..daemon.tenants.tenants import Tenants
from ..daemon.workers.worker import Worker
from ..sandbox import landlock
from . import models
from .background import processes_of, schedules_of, schedules_of_template

RELAY = "relay"
TEXT_MAX = 8 * 1024
_A_TURN = 10
"""So many workers, or apps, are read before the loop may do something else."""
_CLASSES = slice(vitals.CELL_CLASS_1XX, vitals.CELL_CLASS_1XX + 5)
_LATENCIES = slice(vitals.CELL_LATENCY, vitals.CELL_LATENCY + len(vitals.LATENCY_BOUNDS_S) + 1)
_QUEUES = slice(vitals.CELL_QUEUE, vitals.CELL_QUEUE + len(vitals.QUEUE_BOUNDS_S) + 1)
_ERROR = 500
_NO_CELLS = (0,) * vitals.CELLS


class Usage(NamedTuple):
    """Of one process."""

    memory_bytes: int
    cpu_s: float


_GONE = Usage(0, 0.0)


class Known(NamedTuple):
    """An app and the template it was made of, if it was made of one."""

    app: App
    template: str | None = None


class Row(NamedTuple):
    """A process."""

    name: str
    """Of its app, or ``relay``."""
    pool: Pool
    worker: Worker


class Glance(NamedTuple):
    """What there is at one moment.

    A worker that ends afterwards still says what it had counted, and the ledgers have not yet been told of it: so no
    request is counted twice, nor missed, however long the reading takes.
    """

    rows: dict[App, list[Row]]
    gone: dict[Counters, tuple[list[int], float]]
    """What those had counted, and used, that had gone before."""


def known_apps(daemon: Daemon) -> list[Known]:
    """Every app, static ones first."""
    found = [Known(app) for app in daemon.running.apps.values()]
    for tenants in daemon.running.templates.values():
        found += [Known(app, tenants.spec.name) for app in {**tenants.starting, **tenants.apps}.values()]
    return found


def places(running: Running) -> list[MetricsPlace]:
    """Where apps count what they count themselves."""
    known = [Known(app) for app in running.apps.values()]
    for tenants in running.templates.values():
        known += [Known(app, tenants.spec.name) for app in tenants.all_apps()]
    return [
        MetricsPlace(each.template or each.app.name, path, each.app.spec.key.account)
        for each in known
        if (path := each.app.folder.existing) is not None
    ]


def workers_of(app: App) -> Iterator[tuple[Pool, Worker]]:
    """Every process of every generation, each once."""
    for pool in app.pools():
        for worker in {*pool.workers.values(), *pool.leaving}:
            if worker.pid and not worker.gauges.is_over:
                yield pool, worker


def glance(daemon: Daemon) -> Glance:
    """At everything, without reading any page yet."""
    running = daemon.running
    apps = [*running.apps.values(), *(app for tenants in running.templates.values() for app in tenants.all_apps())]
    names = {app: app.name for app in apps}
    if running.relays.is_wanted:
        names[running.relays] = RELAY
    rows = {app: [Row(name, *found) for found in workers_of(app)] for app, name in names.items()}
    ledgers = [app.ledger for app in names] + [tenants.ledger for tenants in running.templates.values()]
    return Glance(rows, {ledger: (ledger.cells, ledger.cpu_s) for ledger in ledgers})


async def usage_of(pids: Iterable[int]) -> dict[int, Usage]:
    """Of the processes that are there."""
    wanted = list(pids)
    return await asyncio.to_thread(lambda: {pid: Usage(resident_bytes(pid), cpu_seconds(pid)) for pid in wanted})


async def status(daemon: Daemon, admin: str) -> models.Status:
    """Everything at a glance; other tasks get their turn between apps. ``admin``: where the API listens."""
    known = known_apps(daemon)
    relays = daemon.running.relays
    seen = glance(daemon)
    pids = [row.worker.pid for rows in seen.rows.values() for row in rows]
    usage = await usage_of([*pids, os.getpid()])
    workers = await _workers(seen, usage)
    apps = []
    for number, each in enumerate(known):
        if number % _A_TURN == 0:
            await asyncio.sleep(0)
        apps.append(_app(daemon, each, workers.get(each.app, []), seen))
    return models.Status(
        daemon=_daemon(daemon, admin, usage.get(os.getpid(), _GONE), await asyncio.to_thread(_open_files)),
        listeners=listeners(daemon),
        apps=apps,
        templates=[_template(tenants, workers, seen) for tenants in daemon.running.templates.values()],
        relays=workers.get(relays, []),
        relay_traffic=_traffic(seen, relays.ledger, workers.get(relays, [])) if relays.is_wanted else traffic([]),
        latency_bounds_s=list(vitals.LATENCY_BOUNDS_S),
        queue_bounds_s=list(vitals.QUEUE_BOUNDS_S),
    )


async def _workers(seen: Glance, usage: dict[int, Usage]) -> dict[App, list[models.WorkerModel]]:
    found: dict[App, list[models.WorkerModel]] = {}
    count = 0
    for app, rows in seen.rows.items():
        found[app] = []
        for row in rows:
            count += 1
            if count % _A_TURN == 0:
                await asyncio.sleep(0)
            found[app].append(_worker(row, usage.get(row.worker.pid, _GONE)))
        found[app].sort(key=lambda each: (each.generation, each.index, each.pid))
    return found


def cells_of(worker: Worker) -> list[int]:
    """What it has counted, also when it has ended since it was seen."""
    return worker.gauges.cells()


def _worker(row: Row, usage: Usage) -> models.WorkerModel:
    worker = row.worker
    over = worker.gauges.is_over
    oldest, blocked = (None, None) if over else (worker.gauges.oldest_ms(), worker.gauges.blocked_ms())
    return models.WorkerModel(
        pid=worker.pid,
        app=row.name,
        index=worker.settings.worker_index,
        state=worker.state.told,
        generation=row.pool.generation,
        runs=worker.detail,
        age_s=round(time.monotonic() - worker.started_at, 3),
        traffic=traffic(cells_of(worker)),
        in_flight=0 if over else worker.load().busy,
        connections=worker.slots.connections,
        websockets=worker.gauges.websockets,
        memory_bytes=usage.memory_bytes,
        memory_limit=worker.process.memory_limit,
        cpu_limit=worker.process.cpu_limit,
        cpu_s=_cpu_of(worker, usage),
        oldest_request_s=None if oldest is None else oldest / 1000,
        blocked_s=None if blocked is None else blocked / 1000,
    )


def listeners(daemon: Daemon) -> list[models.ListenerModel]:
    """The sockets of the configuration that runs."""
    return [
        models.ListenerModel(
            address=address_name(binding.address),
            mode="relay" if binding.app is None else "direct",
            reason=binding.reason,
            apps=list(binding.serves),
            trouble=daemon.running.listeners.trouble_of(binding.address),
        )
        for binding in daemon.running.desired.bindings
    ]


def _app(daemon: Daemon, known: Known, workers: list[models.WorkerModel], seen: Glance) -> models.AppModel:
    app = known.app
    settings = app.spec.settings
    assert isinstance(settings, Settings)
    name = known.template or app.name
    bindings = [each for each in daemon.running.desired.bindings if name in each.serves]
    is_direct = any(each.app == app.name for each in bindings) and known.template is None
    account = app.spec.key.account
    sandbox = _sandbox(daemon, app, name)
    return models.AppModel(
        key=app.name,
        name=app.name,
        template=known.template,
        interface=settings.interface,
        module=f"{settings.module}:{settings.variable}",
        working_dir=settings.working_dir,
        runtime="thread" if settings.shares_process else "process",
        python=app.spec.key.python,
        user=None if account is None else account.name,
        isolated=app.spec.isolated,
        shared_with=_shared_with(daemon, name),
        sandbox=sandbox.word,
        sandbox_holds=sandbox.sentence,
        mode="direct" if is_direct else "relay",
        listeners=[address_name(each.address) for each in bindings],
        reason="; ".join(dict.fromkeys(each.reason for each in bindings if each.reason)),
        state=state_of(app),
        build=_build(app.builds),
        refused=_refused(app.builds),
        generation=app.pool.generation,
        workers_wanted=app.pool.core.size,
        workers_least=app.spec.workers,
        workers_most=max(app.spec.most, app.spec.workers),
        workers_asked_for=app.scaled.asked_for,
        scaled=None if app.scaled.last is None else models.ScaledModel(**app.scaled.last._asdict()),
        workers_ready=len(app.pool.ready),
        workers=workers,
        processes=processes_of(app),
        schedules=schedules_of(app),
        traffic=_traffic(seen, app.ledger, workers),
        restarts=dict(app.ledger.restarts),
        refusals=_refusals(seen, app.ledger, (row.worker for row in seen.rows.get(app, []))),
        last_failure=_failure(app.ledger),
        starts=_starts(app.ledger),
        generations=[
            models.GenerationModel(generation=pool.generation, state=state.value, workers=len(pool.workers))
            for pool, state in app.takeover.states(app.deploys.trial is not None)
        ],
        trial=_trial(app),
        kept=_kept(app),
        verdicts=dict(app.builds.verdicts),
        builds_accepted=app.builds.times_accepted,
        builds_refused=app.builds.times_refused,
        in_flight=vitals.plus(*(each.in_flight for each in workers)),
        waiting=app.waiting + len(app.waiters),
        connections=sum(each.connections for each in workers),
        websockets=vitals.plus(*(each.websockets for each in workers)),
        memory_bytes=sum({each.pid: each.memory_bytes for each in workers}.values()),
        cpu_s=_cpu(seen, app.ledger, workers),
    )


def _sandbox(daemon: Daemon, app: App, name: str) -> Held:
    if app.spec.rehearsal is not None:
        return REHEARSED
    fence, without = app.spec.fence, daemon.running.desired.unwalled
    walls = None if fence is None else fence.walls
    unwalled = [other for other in _shared_with(daemon, name) if other in without]
    return held(walls, landlock.abi(), is_shared=not app.spec.isolated, unwalled=unwalled)


def _trial(app: App) -> models.TrialModel | None:
    trial = app.deploys.trial
    if trial is None:
        return None
    new, old = map(_figures, trial.compared())
    return models.TrialModel(share=trial.share, since_at=trial.began_at, ends_at=trial.ends_at, new=new, old=old)


def _figures(figures: Figures) -> models.FiguresModel:
    return models.FiguresModel(requests=figures.total, errors=figures.errors, p95_s=figures.p95_s)


def _kept(app: App) -> models.KeptModel | None:
    shelf = app.deploys.shelf
    if shelf.pool is None:
        return None
    return models.KeptModel(build=shelf.build, workers=len(shelf.pool.ready), until_at=shelf.until)


def _shared_with(daemon: Daemon, name: str) -> list[str]:
    groups = [shared.apps for shared in daemon.running.desired.shared if name in shared.apps]
    return sorted({each for apps in groups for each in apps} - {name})


def state_of(app: App) -> Literal["serving", "starting", "broken", "failing", "stopping"]:
    """How ``app`` is, in one word.

    broken: its changed code does not start, and the old is not wanted; failing: no worker is up, and the last start
    failed.
    """
    if app.is_stopping:
        return "stopping"
    if app.takeover.broken is not None and not app.attempts:
        return "broken"
    if app.pool.ready:
        return "serving"
    return "failing" if app.failure is not None else "starting"


def _template(tenants: Tenants, workers: dict[App, list[models.WorkerModel]], seen: Glance) -> models.TemplateModel:
    living = [worker for app in {*tenants.all_apps()} for worker in workers.get(app, [])]
    return models.TemplateModel(
        name=tenants.spec.name,
        capacity=tenants.spec.capacity,
        live=len(tenants.apps),
        starting=len(tenants.starting),
        leaving=len(tenants.leaving),
        idle_timeout_s=tenants.spec.idle_timeout_s,
        schedules=schedules_of_template(tenants),
        traffic=_traffic(seen, tenants.ledger, living),
        restarts=dict(tenants.ledger.restarts),
        refusals=_refusals(
            seen, tenants.ledger, (row.worker for app in tenants.all_apps() for row in seen.rows.get(app, []))
        ),
        last_failure=_failure(tenants.ledger),
        starts=_starts(tenants.ledger),
        cpu_s=_cpu(seen, tenants.ledger, living),
    )


def traffic(cells: Sequence[int], *more: models.Traffic) -> models.Traffic:
    """What ``cells`` say, if anything, and all of ``more``."""
    cells = cells or _NO_CELLS
    return models.Traffic(
        requests=vitals.plus(cells[vitals.CELL_REQUESTS], *(each.requests for each in more)),
        errors=vitals.plus(cells[_CLASSES.stop - 1], *(each.errors for each in more)),
        exceptions=vitals.plus(cells[vitals.CELL_ERRORS], *(each.exceptions for each in more)),
        bytes_in=vitals.plus(cells[vitals.CELL_BYTES_IN], *(each.bytes_in for each in more)),
        bytes_out=vitals.plus(cells[vitals.CELL_BYTES_OUT], *(each.bytes_out for each in more)),
        responses=_columns(cells[_CLASSES], *(each.responses for each in more)),
        latencies=_columns(cells[_LATENCIES], *(each.latencies for each in more)),
        latency_sum_us=vitals.plus(cells[vitals.CELL_LATENCY_SUM_US], *(each.latency_sum_us for each in more)),
        queues=_columns(cells[_QUEUES], *(each.queues for each in more)),
        queue_sum_us=vitals.plus(cells[vitals.CELL_QUEUE_SUM_US], *(each.queue_sum_us for each in more)),
    )


def _traffic(seen: Glance, ledger: Counters, workers: Sequence[models.WorkerModel]) -> models.Traffic:
    """What its workers have answered, and what should have been, and was answered in their place, or cut."""
    cells, _ = seen.gone.get(ledger, ([], 0.0))
    answered = list(_NO_CELLS)
    answered[vitals.CELL_REQUESTS] = answered[_CLASSES.stop - 1] = lost(ledger)
    return traffic(cells, traffic(answered), *(worker.traffic for worker in workers))


def lost(ledger: Counters) -> int:
    """How many requests were answered with 5xx in its place, or cut."""
    return sum(count for code, count in ledger.refusals.items() if codes.STATUS.get(code, 503) >= _ERROR)


def _refusals(seen: Glance, ledger: Counters, workers: Iterable[Worker]) -> dict[str, int]:
    """What was answered in the place of an app, by code: by others, and by its workers."""
    cells, _ = seen.gone.get(ledger, ([], 0.0))
    counted = [each for each in (cells, *map(cells_of, workers)) if each]
    own = {
        code: vitals.plus(*(each[cell] for each in counted))
        for code, cell in (("deadline", vitals.CELL_LATE), ("in-flight-full", vitals.CELL_FULL))
    }
    return dict(ledger.refusals + Counter(own))


def _cpu(seen: Glance, ledger: Counters, workers: Sequence[models.WorkerModel]) -> float:
    _, gone = seen.gone.get(ledger, ([], 0.0))
    return round(gone + sum(worker.cpu_s for worker in workers), 2)


def _cpu_of(worker: Worker, usage: Usage) -> float:
    """Of its process, if that is its own: 0 for a thread, whose processor time nobody tells apart."""
    if worker.process.shares_process:
        return 0.0
    return worker.last_cpu_s if worker.gauges.is_over else usage.cpu_s


def _starts(ledger: Counters) -> models.Starts:
    starts = ledger.starts
    return models.Starts(bounds_s=list(starts.bounds), counts=list(starts.counts), sum_s=starts.total)


def _columns(*rows: Sequence[int]) -> list[int]:
    return list(map(vitals.plus, *rows))


def _failure(ledger: Counters) -> models.FailureModel | None:
    failure = ledger.last_failure
    if failure is None:
        return None
    return models.FailureModel(at=failure.at, code=failure.code, error=failure.text, over_at=ledger.over_at)


def _build(builds: Builds) -> models.BuildModel | None:
    running = builds.running
    return None if running is None else models.BuildModel(number=running.number, since_at=running.since)


def _refused(builds: Builds) -> models.RefusedModel | None:
    refused = builds.refused
    if refused is None:
        return None
    return models.RefusedModel(
        number=refused.number,
        since_at=refused.since,
        last_at=refused.at,
        tries=refused.tries,
        code=refused.code,
        error=shorten(refused.text, TEXT_MAX),
    )


def _daemon(daemon: Daemon, admin: str, usage: Usage, open_files: int) -> models.DaemonModel:
    return models.DaemonModel(
        pid=os.getpid(),
        version=__version__,
        python=f"{platform.python_implementation()} {platform.python_version()}",
        phase=daemon.phase.value,
        started_at=daemon.started_at,
        file=daemon.reloads.configuration.document.file,
        admin=admin,
        build=_build(daemon.reloads.builds),
        refused=_refused(daemon.reloads.builds),
        reloads_accepted=max(daemon.reloads.builds.times_accepted - 1, 0),
        reloads_refused=daemon.reloads.builds.times_refused,
        last_reload_at=None if daemon.reloads.builds.running is None else daemon.reloads.builds.running.since,
        memory_bytes=usage.memory_bytes,
        cpu_s=usage.cpu_s,
        open_files=open_files,
        open_files_limit=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        memory_budget_bytes=daemon.running.desired.memory_budget,
        memory_used_bytes=daemon.serving.budget.used_bytes,
        connections=len(daemon.running.connections),
        upgrades=daemon.upgrades,
        cgroup=cgroups.root(),
        no_cgroup_because=cgroups.why_not(),
        no_cpu_limit_because=cgroups.why_no_cpu(),
    )


def _open_files() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0


def health(daemon: Daemon) -> models.Health:
    """Whether requests are answered."""
    serving, running = daemon.serving, daemon.running
    without = [name for name, app in running.apps.items() if not app.pool.ready]
    failed, any_ = serving.failed(), serving.serves_any
    if daemon.phase is not DaemonPhase.READY or (running.undecided and running.desired.start_policy == "each"):
        phase = DaemonPhase.STARTING if daemon.phase is DaemonPhase.READY else daemon.phase
        return models.Health(
            status=phase.value, ready=False, serves_any=any_, apps_without_worker=without, failed=failed
        )
    is_ready = not without if running.desired.start_policy == "all" else any_
    status: Literal["ok", "degraded"] = "degraded" if without or failed else "ok"
    return models.Health(status=status, ready=is_ready, serves_any=any_, apps_without_worker=without, failed=failed)
