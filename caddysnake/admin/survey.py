"""What the running daemon looks like just now, as models. Reads, changes nothing.

The loop reads what is in memory, and gives way after every few workers; a thread reads what is in ``/proc``.
"""

from __future__ import annotations

import asyncio
import os
import platform
import resource
import time
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from .. import __version__
from ..channel import vitals
from ..channel.codec import shorten
from ..channel.settings import Settings
from ..daemon.apps import App
from ..daemon.builds import Builds
from ..daemon.composition import address_name
from ..daemon.estates import Estate
from ..daemon.main import Daemon, Phase
from ..daemon.pools import Pool
from ..daemon.processes import cpu_seconds, resident_bytes
from ..daemon.workers import Worker
from .models import (
    AppModel,
    BuildModel,
    DaemonModel,
    Health,
    ListenerModel,
    RefusedModel,
    Status,
    TemplateModel,
    WorkerModel,
)

RELAY = "relay"
_TEXT_MAX = 8 * 1024
_WORKERS_A_TURN = 50


class Usage(NamedTuple):
    """Of one process."""

    memory_bytes: int
    cpu_s: float


_GONE = Usage(0, 0.0)


class Known(NamedTuple):
    """An app and the template it was made of, if it was made of one."""

    app: App
    template: str | None = None
    key: str | None = None


def known_apps(daemon: Daemon) -> list[Known]:
    """Every app, static ones first."""
    found = [Known(app) for app in daemon.serving.apps.values()]
    for estate in daemon.serving.estates.values():
        tenants = {**estate.starting, **estate.apps}
        found += [Known(app, estate.spec.name, key) for key, app in tenants.items()]
    return found


def workers_of(app: App) -> Iterator[tuple[Pool, Worker]]:
    """Every process of every generation, each once."""
    for pool in app.pools():
        for worker in {*pool.workers.values(), *pool.leaving}:
            if worker.pid and not worker.ended.is_set():
                yield pool, worker


async def usage_of(pids: Iterable[int]) -> dict[int, Usage]:
    """Of the processes that are there."""
    wanted = list(pids)
    return await asyncio.to_thread(lambda: {pid: Usage(resident_bytes(pid), cpu_seconds(pid)) for pid in wanted})


async def status(daemon: Daemon, admin: str) -> Status:
    """All of it, from one moment, or nearly."""
    known = known_apps(daemon)
    relays = daemon.serving.relays
    workers = await workers_by_app(daemon)
    usage = await usage_of([worker.pid for found in workers.values() for worker in found] + [os.getpid()])
    workers = {
        app: [_with_usage(worker, usage.get(worker.pid, _GONE)) for worker in found] for app, found in workers.items()
    }
    return Status(
        daemon=_daemon(daemon, admin, usage.get(os.getpid(), _GONE), await asyncio.to_thread(_open_files)),
        listeners=listeners(daemon),
        apps=[_app(daemon, each, workers.get(each.app, [])) for each in known],
        templates=[_template(estate) for estate in daemon.serving.estates.values()],
        relays=workers.get(relays, []) if relays is not None else [],
    )


async def workers_by_app(daemon: Daemon) -> dict[App, list[WorkerModel]]:
    """Without what only ``/proc`` knows. Relays are an app, too."""
    relays = daemon.serving.relays
    everyone = [each.app for each in known_apps(daemon)] + ([relays] if relays is not None else [])
    found: dict[App, list[WorkerModel]] = {}
    seen = 0
    for app in everyone:
        found[app] = []
        for pool, worker in list(workers_of(app)):
            seen += 1
            if seen % _WORKERS_A_TURN == 0:
                await asyncio.sleep(0)
            if not worker.is_over:
                found[app].append(_worker(app, pool, worker, is_relay=app is relays))
        found[app].sort(key=lambda each: (each.generation, each.index, each.pid))
    return found


def _worker(app: App, pool: Pool, worker: Worker, *, is_relay: bool) -> WorkerModel:
    cells = worker.cells()
    oldest = worker.oldest_ms()
    return WorkerModel(
        pid=worker.pid,
        app=RELAY if is_relay else app.name,
        index=worker.settings.worker_index,
        state=worker.state.value,
        generation=pool.generation,
        runs=worker.detail,
        age_s=round(time.monotonic() - worker.started_at, 3),
        requests=cells[vitals.CELL_REQUESTS],
        errors=cells[vitals.CELL_ERRORS],
        bytes_in=cells[vitals.CELL_BYTES_IN],
        bytes_out=cells[vitals.CELL_BYTES_OUT],
        responses=cells[vitals.CELL_CLASS_1XX : vitals.CELL_CLASS_1XX + 5],
        latencies=cells[vitals.CELL_LATENCY : vitals.CELL_LATENCY + len(vitals.LATENCY_BOUNDS_S) + 1],
        latency_sum_s=cells[vitals.CELL_LATENCY_SUM_US] / 1e6,
        in_flight=worker.load().busy,
        connections=worker.connections,
        memory_bytes=0,
        cpu_s=0.0,
        oldest_request_s=None if oldest is None else oldest / 1000,
    )


def _with_usage(worker: WorkerModel, usage: Usage) -> WorkerModel:
    return worker.model_copy(update=usage._asdict())


def listeners(daemon: Daemon) -> list[ListenerModel]:
    """The sockets of the configuration that runs."""
    return [
        ListenerModel(
            address=address_name(binding.address),
            mode="relay" if binding.app is None else "direct",
            reason=binding.reason,
            apps=list(binding.serves),
        )
        for binding in daemon.serving.composition.bindings
    ]


def _app(daemon: Daemon, known: Known, workers: list[WorkerModel]) -> AppModel:
    app = known.app
    settings = app.spec.settings
    assert isinstance(settings, Settings)
    name = known.template or app.name
    bindings = [each for each in daemon.serving.composition.bindings if name in each.serves]
    is_direct = any(each.app == app.name for each in bindings) and known.template is None
    account = app.spec.key.account
    return AppModel(
        key=app.name,
        name=app.name,
        template=known.template,
        interface=settings.interface,
        module=f"{settings.module}:{settings.variable}",
        working_dir=settings.working_dir,
        python=app.spec.key.python,
        user=None if account is None else account.name,
        isolated=app.spec.isolated,
        mode="direct" if is_direct else "relay",
        listeners=[address_name(each.address) for each in bindings],
        reason="; ".join(dict.fromkeys(each.reason for each in bindings if each.reason)),
        state=state_of(app),
        build=_build(app.builds),
        refused=_refused(app.builds),
        generation=app.pool.generation,
        workers_wanted=app.spec.workers,
        workers_ready=len(app.pool.ready),
        workers=workers,
        requests=sum(each.requests for each in workers),
        errors=sum(each.errors for each in workers),
        in_flight=sum(each.in_flight for each in workers),
        waiting=app.waiting + app.hopeful,
        connections=sum(each.connections for each in workers),
        memory_bytes=sum(each.memory_bytes for each in workers),
        cpu_s=sum(each.cpu_s for each in workers),
    )


def state_of(app: App) -> Literal["serving", "starting", "broken", "failing", "stopping"]:
    """In one word."""
    if app.is_stopping:
        return "stopping"
    if app.is_broken:
        return "broken"
    if app.pool.ready:
        return "serving"
    return "failing" if app.is_hopeless or app.pool.last_failure is not None else "starting"


def _template(estate: Estate) -> TemplateModel:
    return TemplateModel(
        name=estate.spec.name,
        capacity=estate.spec.capacity,
        live=len(estate.apps),
        starting=len(estate.starting),
        leaving=len(estate.leaving),
        idle_timeout_s=estate.spec.idle_timeout_s,
    )


def _build(builds: Builds) -> BuildModel | None:
    running = builds.running
    return None if running is None else BuildModel(number=running.number, since_at=running.since)


def _refused(builds: Builds) -> RefusedModel | None:
    refused = builds.refused
    if refused is None:
        return None
    return RefusedModel(
        number=refused.number,
        since_at=refused.since,
        last_at=refused.at,
        tries=refused.tries,
        code=refused.code,
        error=shorten(refused.text, _TEXT_MAX),
    )


def _daemon(daemon: Daemon, admin: str, usage: Usage, open_files: int) -> DaemonModel:
    return DaemonModel(
        pid=os.getpid(),
        version=__version__,
        python=f"{platform.python_implementation()} {platform.python_version()}",
        phase=daemon.phase.value,
        started_at=daemon.started_at,
        file=os.path.abspath(daemon.configuration.document.file),
        admin=admin,
        build=_build(daemon.builds),
        refused=_refused(daemon.builds),
        memory_bytes=usage.memory_bytes,
        cpu_s=usage.cpu_s,
        open_files=open_files,
        open_files_limit=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        connections=len(daemon.serving.connections),
    )


def _open_files() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0


def health(daemon: Daemon) -> Health:
    """Whether requests are answered."""
    without = [name for name, app in daemon.serving.apps.items() if not app.pool.ready]
    if daemon.phase is not Phase.READY:
        return Health(status=daemon.phase.value, apps_without_worker=without)
    return Health(status="degraded" if without else "ok", apps_without_worker=without)
