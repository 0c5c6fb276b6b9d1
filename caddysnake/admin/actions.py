"""What the API changes: load, stop, reload one, evict one, dump. Each returns once it is done, or begun, as it says."""

from __future__ import annotations

import asyncio
import os
import time

from .. import __version__
from ..channel.codec import shorten
from ..daemon.apps.app import App
from ..daemon.apps.spec import StartFailed
from ..daemon.commands.release import Tell
from ..daemon.commands.schedule import StillRuns
from ..daemon.main import Daemon, DaemonPhase
from ..daemon.sockets.socket_file import ListenError
from ..daemon.supervisor.app_changes import Manner, Outcome
from ..daemon.supervisor.document import Document, ReloadFailed
from ..daemon.tenants.lookup import UnknownApp
from ..daemon.upgrade.upgrade import UpgradeRefused
from . import models
from .errors import ApiError, of_reload
from .survey import RELAY, TEXT_MAX, known_apps, workers_of

_NAMES_HINT = "`caddysnake status APP` lists them"


async def run_schedule(daemon: Daemon, key: str, name: str) -> models.Ran:
    """Run a schedule now; done when its command has ended. Raises ``ApiError``."""
    _refuse_unless_ready(daemon)
    task = asyncio.ensure_future(daemon.running.oneoffs.run_schedule(key, name))
    try:
        run = await asyncio.shield(task)
    except KeyError as exc:
        why = UnknownApp.among(name, exc.args, "the app has no schedule")
        raise ApiError("no-such-schedule", str(why), _NAMES_HINT) from None
    except StillRuns as exc:
        raise ApiError("busy", str(exc), "wait for its end, or write `overlap allow` in its block") from None
    except asyncio.CancelledError:
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # it goes on
        raise
    return models.Ran(app=key, schedule=name, seconds=round(run.duration_s, 3), reason=run.reason, ok=run.is_good)


async def restart_process(daemon: Daemon, key: str, name: str) -> models.Restarted:
    """Have the processes of that name end, each at its own pace, and start again. Raises ``ApiError``."""
    _refuse_unless_ready(daemon)
    found = await daemon.running.oneoffs.find(key)
    app = found if isinstance(found, App) else found.tenants.apps.get(found.key)
    if app is None:
        raise UnknownApp.asleep(key)
    meant = [each for each in app.background.processes if name in (each.spec.name, each.label)]
    if not meant:
        names = dict.fromkeys(each.spec.name for each in app.background.processes)
        raise ApiError("no-such-process", str(UnknownApp.among(name, names, "the app has no process")), _NAMES_HINT)
    for each in meant:
        each.renew()
    return models.Restarted(app=key, process=name, count=len(meant))


def cancel(daemon: Daemon, key: str | None = None) -> models.Cancelled:
    """Cancel the change that is under way, or that of one app. Raises ``ApiError``."""
    if not daemon.serving.cancel_change(key):
        raise ApiError("no-change", "no change is under way", "there is nothing to do")
    return models.Cancelled(cancelled=True)


async def load(daemon: Daemon, document: Document | None, manner: Manner) -> models.Loaded:
    """Run ``document``, or what the file says now; done when the new workers serve. Raises ``ApiError``."""
    begun = time.monotonic()
    try:
        configuration, outcomes = await daemon.reloads.reload(document, manner)
    except ReloadFailed as exc:
        raise of_reload(exc, _hint(daemon, exc.app) if exc.app in daemon.running.apps else "") from None
    return models.Loaded(
        apps=len(configuration.composition.apps),
        templates=len(configuration.composition.templates),
        seconds=round(time.monotonic() - begun, 3),
        file=configuration.document.file,
        warnings=[*configuration.warnings, *_still_under_way(daemon)],
        outcomes=[_outcome(each) for each in outcomes],
    )


def _hint(daemon: Daemon, name: str) -> str:
    serves = any(app.name == name and app.pool.ready for app in daemon.running.served_apps())
    return "" if serves else "fix the app: nothing of it serves, and it is tried again"


def _outcome(outcome: Outcome) -> models.OutcomeModel:
    failure = outcome.failure
    return models.OutcomeModel(
        app=outcome.app,
        result=outcome.result,
        seconds=round(outcome.seconds, 3),
        serves=outcome.serves,
        code="" if failure is None else failure.code,
        error="" if failure is None else shorten(str(failure), TEXT_MAX),
    )


def _still_under_way(daemon: Daemon) -> list[str]:
    """Apps that were started on demand are renewed one by one, after everything else."""
    count = sum(len(tenants.apps) for tenants in daemon.running.templates.values())
    if not count:
        return []
    what = "1 app of a template gets" if count == 1 else f"{count} apps of templates get"
    return [f"{what} new workers from now on; `caddysnake status` has the outcome"]


def stop(daemon: Daemon, asked_by: str) -> models.Stopping:
    """Begin to stop; ``asked_by`` is for the log. ``grace_s`` seconds for requests in flight are in the answer."""
    daemon.stop(asked_by)
    return models.Stopping(pid=os.getpid(), grace_s=daemon.running.desired.grace_s)


async def upgrade(daemon: Daemon) -> models.UpgradeAnswer:
    """Rehearse the version that is installed now; it takes over in a moment. Raises ``ApiError``."""
    if daemon.phase is not DaemonPhase.READY or daemon.is_upgrading:
        raise ApiError("busy", "the daemon is " + ("upgrading" if daemon.is_upgrading else daemon.phase.value))
    try:
        version = await daemon.upgrade()
    except UpgradeRefused as exc:
        raise ApiError("upgrade", str(exc)) from None
    return upgrading(daemon).model_copy(update={"version": version})


def upgrading(daemon: Daemon) -> models.UpgradeAnswer:
    """Whether an upgrade is under way, and why the last one was refused."""
    return models.UpgradeAnswer(
        pid=os.getpid(),
        version=__version__,
        upgrades=daemon.upgrades,
        is_under_way=daemon.is_upgrading,
        refused=daemon.upgrade_refused,
    )


async def reload_app(daemon: Daemon, key: str, tell: Tell | None = None, canary: bool | None = None) -> models.Reloaded:
    """Give one app new workers. ``tell`` hears its release commands. Raises ``ApiError``."""
    _refuse_unless_ready(daemon)
    task = asyncio.ensure_future(daemon.serving.reload_app(key, tell=tell, canary=canary))
    try:
        seconds = await asyncio.shield(task)
    except (StartFailed, ListenError) as exc:
        code = exc.code if isinstance(exc, StartFailed) else "listen"
        what = "is returned" if code == "canary-failed" else "does not start"
        hint = _hint(daemon, key)
        raise ApiError("start", f"app {key} {what} ({code}):\n{exc}", hint, app=key, detail=code) from None
    except asyncio.CancelledError:
        if task.cancelled():
            what = f"the reload of {key} was cancelled; the old code keeps serving"
            raise ApiError("cancelled", what, app=key) from None
        # Whoever asked has left; what was begun is carried out, and the app's builds say how it went.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        raise
    return models.Reloaded(app=key, seconds=round(seconds, 3))


async def promote(daemon: Daemon, key: str) -> models.Promoted:
    """Let the build that is tried take over. Raises ``ApiError``."""
    _refuse_unless_ready(daemon)
    is_promoted = await daemon.serving.promote(key)
    if not is_promoted:
        raise ApiError("nothing-to-promote", f"no build of {key} is on trial")
    return models.Promoted(app=key)


def roll_back(daemon: Daemon, key: str) -> models.RolledBack:
    """Let the build before serve again. Raises ``ApiError``."""
    _refuse_unless_ready(daemon)
    number = daemon.serving.roll_back(key)
    if number is None:
        raise ApiError("nothing-kept", f"no build of {key} is kept, and none is on trial")
    return models.RolledBack(app=key, build=number)


def scale(daemon: Daemon, key: str, workers: int | None) -> models.ScaleModel:
    """Give an app so many workers; None: as many as it takes. Raises ``ApiError``."""
    _refuse_unless_ready(daemon)
    app = daemon.serving.scale(key, workers)
    least = app.spec.workers
    most = max(least, app.spec.most)
    return models.ScaleModel(app=key, workers=app.pool.core.size, least=least, most=most, is_fixed=workers is not None)


async def evict(daemon: Daemon, key: str) -> models.Evicted:
    """Let a dynamic app go; done when its workers have left. Raises ``ApiError``."""
    _refuse_unless_ready(daemon)
    await daemon.serving.evict(key)
    return models.Evicted(app=key)


def dump(daemon: Daemon, pid: int) -> models.Dumped:
    """Have a worker, or a relay, write its stacks to the log. Raises ``ApiError``."""
    relays = daemon.running.relays
    names = [(each.app, each.app.name) for each in known_apps(daemon)]
    for app, name in [*names, (relays, RELAY)]:
        for _, worker in workers_of(app):
            if worker.pid == pid:
                worker.dump()
                return models.Dumped(pid=pid, app=name)
    raise ApiError("no-such-worker", f"no worker has the pid {pid}", "GET /workers lists them")


def _refuse_unless_ready(daemon: Daemon) -> None:
    if daemon.phase is not DaemonPhase.READY:
        raise ApiError("busy", f"the daemon is {daemon.phase.value}")
