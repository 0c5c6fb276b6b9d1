"""The table of endpoints: what there is, who answers, with which models. The server and the description follow it."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from importlib import import_module
from typing import Any, NamedTuple, get_type_hints

from pydantic import BaseModel

from ..config.plan.places import is_same
from ..daemon.commands.release import Tell
from ..daemon.main import Daemon
from ..daemon.supervisor.app_changes import Manner
from ..daemon.supervisor.document import Document
from ..logs.records import LEVELS
from ..logs.ring import Query
from . import actions, journal, models, profiling, survey
from .errors import ApiError
from .flames import FORMS
from .history import History
from .request import Answer, Request

LOAD_MAX_BYTES = 4 << 20
"""Of a Caddyfile. The largest known are some hundred kilobytes."""

CADDYFILE_TYPES = ("text/caddyfile", "text/plain", "application/octet-stream")
LINES_MAX = 1_000_000
_STACK_MAX = 8
WORKERS_MAX = 512
"""That may be asked for at run time."""


class Call(NamedTuple):
    """A request, as far as handlers need to know it."""

    daemon: Daemon
    history: History
    admin: str
    """Where the API listens."""
    request: Request
    body: bytes
    tell: Tell | None = None
    """Hears what release commands write, if whoever calls reads along."""


class Lines(NamedTuple):
    """An answer that goes on."""

    pieces: AsyncGenerator[bytes, None]
    media_type: str


Outcome = BaseModel | dict[str, Any] | Answer | Lines
Handler = Callable[[Call], Awaitable[Outcome]]


class Parameter(NamedTuple):
    """Of a path or a query."""

    name: str
    place: str
    about: str
    schema: dict[str, Any]


class Endpoint(NamedTuple):
    """``path`` is as OpenAPI writes it. ``fails``: the codes that it may answer with, besides everybody's."""

    method: str
    path: str
    handler: Handler
    about: str
    model: type[BaseModel] | None
    fails: Sequence[str]
    parameters: Sequence[Parameter]
    takes: str
    """The media type of its body."""
    gives: str
    """The media type of its answer."""
    unhealthy: bool
    """It answers with 503, in the same form, when all is not well."""
    streams: bool
    """Whoever accepts ``application/x-ndjson`` may read along."""


def _in_path(name: str, about: str, **schema: Any) -> Parameter:
    return Parameter(name, "path", about, schema)


def _query(name: str, about: str, **schema: Any) -> Parameter:
    return Parameter(name, "query", about, schema)


_KEY = _in_path("key", "an app's key, as GET /apps has it, percent-encoded", type="string")
_NAME = _in_path("name", "a process's, or a schedule's, as the file has it", type="string")
_PID = _in_path("pid", "a worker's process", type="integer", minimum=1)
_FILE = _query("file", "the path of the Caddyfile, which its imports are relative to", type="string")
_CHANGED = _query("changed", "only apps whose definition has changed get new workers", type="boolean", default=False)
_SECONDS = _query("seconds", "how long to look", type="number", maximum=profiling.SECONDS_MAX, default=10)
_FORMS = "html, json (speedscope), txt (collapsed stacks, by processor time), or wall (the same, by wall time)"
_FORMAT = _query("format", _FORMS, type="string", enum=[*FORMS], default="html")
_APP = _query("app", "only of this app: its name, or a tenant's host", type="string")
_PROCESS = _query("process", "only of this process, or schedule, beside the workers", type="string")
_SINCE = _query("since", "only what is later: seconds since 1970", type="number")
_LEVEL = _query("level", "only of this level, or above", type="string", enum=[*LEVELS])
_LINES = _query("lines", "only so many of the last", type="integer", maximum=LINES_MAX)
_FOLLOW = _query("follow", "go on with what comes", type="boolean", default=False)
_ALL = _query("all_or_nothing", "one app that does not start refuses the whole", type="boolean", default=False)
_CANARY = _query("canary", "whether new builds are tried first; else as their blocks say", type="boolean")
_WORKERS = _query("workers", "a number, or auto", type="string", default="auto")

ENDPOINTS: list[Endpoint] = []


def _endpoint(
    method: str,
    path: str,
    *parameters: Parameter,
    fails: str = "",
    takes: str = "",
    gives: str = "application/json",
    unhealthy: bool = False,
    streams: bool = False,
) -> Callable[[Handler], Handler]:
    """Enter a handler into the table. What it is about is its docstring; its model, what it returns."""

    def enter(handler: Handler) -> Handler:
        about, given = " ".join((handler.__doc__ or "").split()), get_type_hints(handler)["return"]
        model = given if isinstance(given, type) and issubclass(given, BaseModel) else None
        ENDPOINTS.append(
            Endpoint(method, path, handler, about, model, fails.split(), parameters, takes, gives, unhealthy, streams)
        )
        return handler

    return enter


@_endpoint("GET", "/config/")
async def get_config(call: Call) -> dict[str, Any]:
    """The configuration that runs, as `caddysnake adapt` prints it."""
    return dict(call.daemon.reloads.configuration.meaning)


@_endpoint(
    "POST",
    "/load",
    _FILE,
    _CHANGED,
    _ALL,
    _CANARY,
    fails="config restart caddy listen request-timeout too-large unsupported-media-type start cancelled busy",
    takes="text/caddyfile",
    streams=True,
)
async def post_load(call: Call) -> models.Loaded:
    """Run another configuration, or, without a body, read the file again. Answers when the new workers serve. An app
    that does not start keeps its old build, as `outcomes` say; a failure of the whole changes nothing.
    """
    document = None
    if call.body:
        if call.request.content_type not in CADDYFILE_TYPES:
            hint = "send a Caddyfile as text/caddyfile, or nothing to have the file read again"
            raise ApiError("unsupported-media-type", f"a configuration is no {call.request.content_type}", hint)
        file = call.request.query.get("file") or call.daemon.reloads.configuration.document.file
        if "\0" in file:
            raise ApiError("bad-request", "file holds a NUL character", "send the path of the Caddyfile")
        document = Document(call.body, file)
    elif "file" in call.request.query:
        _expect(call.daemon.reloads.configuration.document.file, call.request.query["file"])
    manner = Manner(_flag(call, "changed"), _flag(call, "all_or_nothing"), tell=call.tell, canary=_canary(call))
    return await actions.load(call.daemon, document, manner)


@_endpoint("DELETE", "/load", _APP, fails="no-change no-such-app asleep")
async def delete_load(call: Call) -> models.Cancelled:
    """Cancel the reload that is under way: a release command is killed, what is on trial is returned, and the old code
    keeps serving.
    """
    return actions.cancel(call.daemon, call.request.query.get("app"))


def _expect(running: str, file: str) -> None:
    """Raise ``ApiError`` when the daemon is not the one that the caller has in mind."""
    if "\0" in file or not is_same(running, file):
        hint = f"reload that with --config {running}, or have the daemon run this one with --config {file}"
        raise ApiError("config", f"the daemon runs {running}, not {file}", hint)


def _flag(call: Call, name: str) -> bool:
    text = call.request.query.get(name, "false")
    if text not in ("true", "false", ""):
        raise ApiError("bad-request", f"{name}={text[:80]!r} is neither true nor false", f"write {name}=true")
    return text != "false"


def _canary(call: Call) -> bool | None:
    """Whether new builds are tried; None: as their blocks say."""
    return _flag(call, "canary") if "canary" in call.request.query else None


@_endpoint("POST", "/stop")
async def post_stop(call: Call) -> models.Stopping:
    """Stop, when requests in flight are done."""
    return actions.stop(call.daemon, call.request.caller)


@_endpoint("POST", "/upgrade", fails="upgrade busy")
async def post_upgrade(call: Call) -> models.UpgradeAnswer:
    """Become the version that is installed now, without losing a request. Answers when that has been rehearsed; it is
    done when `upgrades` has grown.
    """
    return await actions.upgrade(call.daemon)


@_endpoint("GET", "/upgrade")
async def get_upgrade(call: Call) -> models.UpgradeAnswer:
    """Whether an upgrade is under way, or was refused."""
    return actions.upgrading(call.daemon)


@_endpoint("GET", "/status")
async def get_status(call: Call) -> models.Status:
    """Everything at a glance."""
    return await survey.status(call.daemon, call.admin)


@_endpoint("GET", "/apps")
async def get_apps(call: Call) -> models.Apps:
    """All apps, and their workers."""
    return models.Apps(apps=(await survey.status(call.daemon, call.admin)).apps)


@_endpoint("GET", "/apps/{key}", _KEY, fails="no-such-app")
async def get_app(call: Call) -> models.AppModel:
    """One app."""
    key = call.request.found["key"]
    for app in (await survey.status(call.daemon, call.admin)).apps:
        if app.key == key:
            return app
    raise ApiError("no-such-app", f"there is no app {key[:200]!r}", "GET /apps lists them")


@_endpoint(
    "POST", "/apps/{key}/reload", _KEY, _CANARY, fails="no-such-app template asleep start cancelled busy", streams=True
)
async def post_reload(call: Call) -> models.Reloaded:
    """Give one app new workers. Answers when they serve. A failure changes nothing."""
    return await actions.reload_app(call.daemon, call.request.found["key"], call.tell, _canary(call))


@_endpoint("POST", "/apps/{key}/promote", _KEY, fails="no-such-app template asleep nothing-to-promote busy")
async def post_promote(call: Call) -> models.Promoted:
    """Let the build that is on trial take over now."""
    return await actions.promote(call.daemon, call.request.found["key"])


@_endpoint("POST", "/apps/{key}/rollback", _KEY, fails="no-such-app template asleep nothing-kept busy")
async def post_rollback(call: Call) -> models.RolledBack:
    """Let the build before serve again, where `keep_previous` has kept it, or end a trial. It holds until the next
    reload or restart; what release commands have done stays done.
    """
    return actions.roll_back(call.daemon, call.request.found["key"])


@_endpoint("POST", "/apps/{key}/scale", _KEY, _WORKERS, fails="no-such-app template asleep bad-request busy")
async def post_scale(call: Call) -> models.ScaleModel:
    """Give an app so many workers, until the next reload, or `auto`: as many as the file says, or as it takes."""
    text = call.request.query.get("workers", "")
    if text != "auto" and not (text.isascii() and text.isdigit() and len(text) < 6 and 0 < int(text) <= WORKERS_MAX):
        message = f"workers={text[:80]!r} is no number of workers"
        raise ApiError("bad-request", message, f"write one up to {WORKERS_MAX}, or auto")
    return actions.scale(call.daemon, call.request.found["key"], None if text == "auto" else int(text))


@_endpoint("POST", "/apps/{key}/schedules/{name}/run", _KEY, _NAME, fails="no-such-app template no-such-schedule busy")
async def post_run(call: Call) -> models.Ran:
    """Run a schedule now, of an app that sleeps too. Answers when its command has ended."""
    return await actions.run_schedule(call.daemon, call.request.found["key"], call.request.found["name"])


@_endpoint(
    "POST",
    "/apps/{key}/processes/{name}/restart",
    _KEY,
    _NAME,
    fails="no-such-app template asleep no-such-process busy",
)
async def post_restart(call: Call) -> models.Restarted:
    """Have the processes of that name end, within their `stop_timeout`, and start again."""
    return await actions.restart_process(call.daemon, call.request.found["key"], call.request.found["name"])


@_endpoint("DELETE", "/apps/{key}", _KEY, fails="no-such-app template asleep static-app busy")
async def delete_app(call: Call) -> models.Evicted:
    """Put a dynamic app to sleep. Requests in flight finish, and the next one starts it."""
    return await actions.evict(call.daemon, call.request.found["key"])


@_endpoint("GET", "/workers")
async def get_workers(call: Call) -> models.Workers:
    """All workers and relays."""
    found = await survey.status(call.daemon, call.admin)
    return models.Workers(workers=[worker for app in found.apps for worker in app.workers] + found.relays)


@_endpoint("POST", "/workers/{pid}/dump", _PID, fails="no-such-worker")
async def post_dump(call: Call) -> models.Dumped:
    """Have a worker write the stacks of its threads, and tasks, to the log."""
    return actions.dump(call.daemon, _pid(call))


def _pid(call: Call) -> int:
    text = call.request.found["pid"]
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise ApiError("bad-request", f"{text[:80]!r} is no pid", "GET /workers lists them")
    return int(text)


@_endpoint("POST", "/apps/{key}/profile", _KEY, _SECONDS, _FORMAT, fails="no-such-app template asleep profile busy")
async def post_app_profile(call: Call) -> models.Profiled:
    """Look for some seconds at what the workers of an app are at. Answers when that is done."""
    return await _profiled(call, profiling.of_app(call.daemon, call.request.found["key"]))


@_endpoint("POST", "/workers/{pid}/profile", _PID, _SECONDS, _FORMAT, fails="no-such-worker profile busy")
async def post_process_profile(call: Call) -> models.Profiled:
    """The same of one worker."""
    return await _profiled(call, profiling.of_process(call.daemon, _pid(call)))


async def _profiled(call: Call, subjects: profiling.Subjects) -> models.Profiled:
    text, form = call.request.query.get("seconds", "10"), call.request.query.get("format", "html")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= profiling.SECONDS_MAX:
        hint = f"write a number up to {profiling.SECONDS_MAX:g}"
        raise ApiError("bad-request", f"seconds={text[:80]!r} is no time to look", hint)
    if form not in FORMS:
        raise ApiError("bad-request", f"there is no format {form[:80]!r}", f"there is: {', '.join(FORMS)}")
    profile = await profiling.look(subjects, seconds, lambda: call.request.connection.is_there)
    content = await asyncio.to_thread(FORMS[form], profile)
    return models.Profiled(
        name=profile.name, seconds=profile.seconds, workers=profile.workers, warnings=profile.warnings, content=content
    )


@_endpoint(
    "GET",
    "/logs",
    _APP,
    _PROCESS,
    _SINCE,
    _LEVEL,
    _LINES,
    _FOLLOW,
    fails="bad-request no-such-app no-such-process busy",
    gives=journal.MEDIA_TYPE,
)
async def get_logs(call: Call) -> Lines:
    """What was logged last, one JSON object a line, and with `follow` what is logged from now on."""
    query = call.request.query
    level = query.get("level", "debug")
    if level not in LEVELS:
        raise ApiError("bad-request", f"there is no level {level[:80]!r}", f"there is: {', '.join(LEVELS)}")
    try:
        since = float(query.get("since", "0"))
        lines = int(query["lines"]) if "lines" in query else None
        if not math.isfinite(since) or (lines is not None and not 0 <= lines <= LINES_MAX):
            raise ValueError
    except ValueError:
        hint = f"since is seconds since 1970, lines is a number up to {LINES_MAX}"
        raise ApiError("bad-request", "since or lines cannot be read", hint) from None
    wanted = Query(query.get("app") or None, since, LEVELS[level], lines, _flag(call, "follow"), query.get("process"))
    return Lines(await journal.read(call.daemon, wanted), journal.MEDIA_TYPE)


@_endpoint("GET", "/history")
async def get_history(call: Call) -> models.HistoryModel:
    """The last quarter of an hour, as the live page shows it."""
    return await asyncio.to_thread(call.history.model)


@_endpoint("GET", "/health/live")
async def get_live(call: Call) -> models.Health:
    """The daemon's loop turns."""
    return models.Health(status="ok", ready=True, serves_any=call.daemon.serving.serves_any)


@_endpoint("GET", "/health/ready", unhealthy=True)
async def get_ready(call: Call) -> models.Health:
    """Each is up or failed; one serves; else 503."""
    return survey.health(call.daemon)


@_endpoint("GET", "/metrics", gives="text/plain")
async def get_metrics(call: Call) -> Answer:
    """For Prometheus."""
    status = await survey.status(call.daemon, call.admin)
    is_ready, accept = survey.health(call.daemon).ready, call.request.headers.get("accept", "")
    metrics = await asyncio.to_thread(import_module, ".metrics", __package__)  # a library that who scrapes pays for
    running = call.daemon.running
    templates = [tenants.spec.name for tenants in running.templates.values()]
    counted = await running.app_metrics.collect(survey.places(running), templates, metrics.is_open(accept))
    body, media_type = await asyncio.to_thread(metrics.render, status, accept, is_ready=is_ready, counted=counted)
    return Answer(200, body, {"Content-Type": media_type})


@_endpoint("GET", "/debug/tasks")
async def get_tasks(call: Call) -> models.Tasks:
    """What the daemon's loop is at."""
    found = []
    for task in asyncio.all_tasks():
        frames = task.get_stack(limit=_STACK_MAX)
        stack = [f"{frame.f_code.co_qualname} ({frame.f_code.co_filename}:{frame.f_lineno})" for frame in frames]
        doing = getattr(task.get_coro(), "__qualname__", "")
        found.append(models.TaskModel(name=task.get_name(), doing=doing, stack=stack))
    return models.Tasks(tasks=sorted(found, key=lambda task: task.name))


@_endpoint("GET", "/debug/descriptors")
async def get_descriptors(call: Call) -> models.Descriptors:
    """The daemon's open files."""
    return models.Descriptors(descriptors=await asyncio.to_thread(_descriptors))


def _descriptors() -> list[models.DescriptorModel]:
    found = []
    for name in sorted(os.listdir("/proc/self/fd"), key=int):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        found.append(
            models.DescriptorModel(number=int(name), target=target.encode("utf-8", "backslashreplace").decode())
        )
    return found
