"""The ``python`` directive: one registered function for each of its subdirectives.

A subdirective is added here (its function, syntax line and docstring). Its value is declared once: what a worker
carries out in ``channel.settings``, all else in ``models``.
"""

from __future__ import annotations

import contextlib
import re
from typing import Any

from ...caddyfile.dispenser import Dispenser
from ...caddyfile.errors import CaddyfileError
from . import models, registry, values
from .values import InvalidValue
from .variables import check_name, check_pattern, check_value


class AppDraft:
    """A ``python`` block while it is read."""

    def __init__(self, position: models.Position) -> None:
        self.position = position
        self.fields: dict[str, Any] = {}
        """By the names of ``PythonApp``."""
        self.settings: dict[str, Any] = {}
        """By the names of the worker's ``Settings``."""
        self.where: dict[str, models.Position] = {}
        self.warnings: list[CaddyfileError] = []
        self.placeholders: list[str] = []

    def add(self, field: str, value: object) -> None:
        """Append to a field that is a list."""
        self.fields[field] = (*self.fields.get(field, ()), value)

    def template(self, text: str) -> str:
        """*text*, in which placeholders are allowed."""
        self.placeholders += [check_placeholder(name) for name in values.placeholders(text)]
        return text

    def plain(self, text: str) -> str:
        """*text*, in which placeholders are not allowed."""
        if names := values.placeholders(text):
            raise InvalidValue(f"placeholders are not possible here: {{{names[0]}}}")
        return text


SUBDIRECTIVES: registry.Registry[AppDraft] = registry.Registry("subdirective of python")
SUBDIRECTIVES.refused = {
    "module_esgi": "ESGI is the Go plugin's own interface; make the app an ASGI app and write `module_asgi "
    "module:variable`, or a WSGI app and write `module_wsgi module:variable`",
}
SUBDIRECTIVES.elsewhere = registry.ELSEWHERE
_subdirective = SUBDIRECTIVES.register

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_HEALTH_PATH = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@/-]*")

PLACEHOLDER_ROOTS = ("http.", "env.", "system.", "file.", "time.")


def check_placeholder(name: str) -> str:
    """*name* when it can be a placeholder's. Raises ``InvalidValue``: it cannot, as in literal JSON."""
    if not name.startswith(PLACEHOLDER_ROOTS) or any(char in name for char in "\"' \t\n,"):
        raise InvalidValue(f"unknown placeholder {{{name}}}", "a literal brace is written \\{ or \\}")
    return name


# What runs


@_subdirective("module_wsgi <module:variable>")
def module_wsgi(d: Dispenser, app: AppDraft) -> None:
    """The WSGI application: a module and a variable in it, which may be an attribute path (`site.app`) or a factory
    without arguments (`make_app()`). May hold placeholders."""
    app.fields.update(interface="wsgi", module=values.module_variable(app.template(registry.argument(d))))


@_subdirective("module_asgi <module:variable>")
def module_asgi(d: Dispenser, app: AppDraft) -> None:
    """The ASGI application, written as with `module_wsgi`. May hold placeholders."""
    app.fields.update(interface="asgi", module=values.module_variable(app.template(registry.argument(d))))


@_subdirective("working_dir <path>")
def working_dir(d: Dispenser, app: AppDraft) -> None:
    """The directory the app runs in, and the first place its modules are looked for. A relative path is relative to the
    directory the daemon was started in, which is also the default. May hold placeholders."""
    app.fields["working_dir"] = app.template(registry.argument(d))


@_subdirective("venv <path>")
def venv(d: Dispenser, app: AppDraft) -> None:
    """The virtual environment whose Python runs the app. Default: the Python that runs caddysnake. May hold
    placeholders."""
    app.fields["venv"] = app.template(registry.argument(d))


@_subdirective("python_path <path>")
def python_path(d: Dispenser, app: AppDraft) -> None:
    """The Python interpreter that runs the app. It overrides that of `venv`."""
    app.fields["python_path"] = app.plain(registry.argument(d))


# How many


@_subdirective("workers <count>|auto [<most>|auto]")
def workers(d: Dispenser, app: AppDraft) -> None:
    """How many workers run the app. `auto`, the default, is one for each core the daemon may use; it is 1 for a dynamic
    app, for `workers_runtime thread` and for the form `python module:variable`. With a second number, that many at
    most: more are started when requests wait, or all are busy, and let go after `scale_down_after`."""
    least, *most = (values.workers(text) or "auto" for text in registry.arguments(d, 1, 2))
    if most and isinstance(least, int) and isinstance(most[0], int) and most[0] < least:
        raise InvalidValue(f"the most, {most[0]}, is less than the least, {least}", "write the smaller number first")
    app.fields["workers"] = least
    app.fields["workers_most"] = most[0] if most else None


@_subdirective("workers_runtime process|thread")
def workers_runtime(d: Dispenser, app: AppDraft) -> None:
    """Whether a worker is a process of its own, the default, or threads in a process that several apps share."""
    app.fields["workers_runtime"] = values.choice(registry.argument(d), ("process", "thread"))


@_subdirective("threads <count>")
def threads(d: Dispenser, app: AppDraft) -> None:
    """How many requests a worker of a WSGI app runs at a time, each on a thread. Default: 8."""
    app.settings["threads"] = values.count(registry.argument(d), most=1024)


@_subdirective("runtime native|uvloop|sync")
def runtime(d: Dispenser, app: AppDraft) -> None:
    """What drives an ASGI app: `uvloop`, the default, or `native`, which is asyncio's own event loop. A WSGI app knows
    only `sync`."""
    text = registry.argument(d)
    if text == "gevent":
        app.warnings.append(d.error("runtime gevent is read as sync: requests run on threads"))
        text = "sync"
    elif text == "libuv":
        text = "uvloop"
    app.fields["runtime"] = values.choice(text, ("native", "uvloop", "sync"))


@_subdirective("lifespan on|off|auto")
def lifespan(d: Dispenser, app: AppDraft) -> None:
    """Whether the lifespan of an ASGI app is run. `auto`, the default: it is, and an app that has none is served as
    well. `on`: a failure fails the start. `off`: it is not."""
    app.settings["lifespan"] = values.choice(registry.argument(d), ("on", "off", "auto"))


@_subdirective("sendfile on|off")
def sendfile(d: Dispenser, app: AppDraft) -> None:
    """Whether an ASGI app may answer with a file by its path, which the kernel then sends (`http.response.pathsend`, as
    Starlette's `FileResponse` does where it is offered). `off`, the default: it reads the file itself. Middleware that
    waits for the content of an answer, to compress or change it, may lose such a one: then it becomes 500
    `no-response`."""
    app.settings["sendfile"] = values.choice(registry.argument(d), ("on", "off")) == "on"


# Its environment


@_subdirective("env_file <path>", repeatable=True)
def env_file(d: Dispenser, app: AppDraft) -> None:
    """A file of `KEY=VALUE` lines for the app's environment; of several, the later wins. A relative path lies under
    `working_dir` and may not leave it. May hold placeholders."""
    text = app.template(registry.argument(d))
    app.where[f"env_file[{len(app.fields.get('env_files', ()))}]"] = registry.position_of(d.token())
    app.add("env_files", text)


@_subdirective("env_var <name> <value>", repeatable=True)
def env_var(d: Dispenser, app: AppDraft) -> None:
    """A variable of the app's environment; it overrides one of the same name in an `env_file`. The value may hold
    placeholders."""
    name, value = registry.arguments(d, 2, 2)
    check_name(name)
    check_value(value)
    app.add("env_vars", models.EnvVar(name, app.template(value)))


@_subdirective("pass_env <name>...", repeatable=True)
def pass_env(d: Dispenser, app: AppDraft) -> None:
    """Variables of the daemon's own environment to hand on to the app; `*` stands for any letters, as in `DATABASE_*`.
    Without it an app sees only those that say where it runs: `PATH`, `HOME`, `LANG`, `LC_*`, `TZ`, `USER`, `LOGNAME`,
    `SSL_CERT_FILE`, `SSL_CERT_DIR` and the proxies. `TMPDIR` is in a folder of the app's own, unless it is passed by
    its full name, or set."""
    for pattern in registry.arguments(d, 1):
        check_pattern(pattern)
        app.add("pass_env", pattern)


@_subdirective("preload <module>...", repeatable=True)
def preload(d: Dispenser, app: AppDraft) -> None:
    """Modules to import once, before workers are forked: they start faster and share the memory. They must not start
    threads."""
    for name in registry.arguments(d, 1):
        app.add("preload", values.module_name(name))


# Change and time


@_subdirective("autoreload [on|off] [{ on_error show|keep, watch <pattern>..., debounce <duration> }]")
def autoreload(d: Dispenser, app: AppDraft) -> None:
    """Start the app afresh when a `.py` file under its working directory changes. In the block: `watch` adds patterns
    such as `*.html`; `debounce` is how long to wait for further changes (default 500ms); `on_error keep` keeps the old
    code serving when the new one does not start, instead of showing the traceback."""
    switched = values.on_off((registry.arguments(d, 0, 1) or ["on"])[0])
    fields = registry.block_fields(
        d,
        on_error=("on_error", registry.one(values.choice, ("show", "keep"))),
        watch=("watch", lambda inner: tuple(registry.arguments(inner, 1))),
        debounce=("debounce_s", registry.one(values.positive_duration)),
    )
    app.fields["autoreload"] = models.Autoreload(**fields) if switched else None


@_subdirective("start_timeout <duration>|forever")
def start_timeout(d: Dispenser, app: AppDraft) -> None:
    """How long a worker may take until it is ready. Default: 120s."""
    app.fields["start_timeout_s"] = values.duration_or_endless(registry.argument(d))


@_subdirective("grace_period <duration>")
def grace_period(d: Dispenser, app: AppDraft) -> None:
    """How long requests may still run after a worker was told to stop. Default: the global `grace_period`, or 10s."""
    app.fields["grace_period_s"] = values.positive_duration(registry.argument(d))


@_subdirective("request_timeout <duration>|off")
def request_timeout(d: Dispenser, app: AppDraft) -> None:
    """How long one request may take, its response included. Then its stack goes to the log and the client gets 504;
    a worker in which it does not end is replaced. An accepted WebSocket has no such limit. Default: off."""
    app.settings["request_timeout_s"] = values.duration_or_off(registry.argument(d))


@_subdirective("app_metrics on|off")
def app_metrics(d: Dispenser, app: AppDraft) -> None:
    """Whether what the app counts with prometheus-client, over all its workers, is in `/metrics` of the admin API with
    the label `app`. It is off where the app's environment has a `PROMETHEUS_MULTIPROC_DIR` of its own. Default: on."""
    app.settings["app_metrics"] = values.choice(registry.argument(d), ("on", "off")) == "on"


@_subdirective("slow_request <duration>|off")
def slow_request(d: Dispenser, app: AppDraft) -> None:
    """Log each request that takes longer, once while it runs, with where it stands, and once at its end, with how long
    it took. Default: off."""
    app.settings["slow_request_s"] = values.duration_or_off(registry.argument(d))


@_subdirective("max_requests <count>|off [<jitter>]")
def max_requests(d: Dispenser, app: AppDraft) -> None:
    """Replace a worker after so many requests, give or take a random part of the jitter. Default: off."""
    number, *jitter = registry.arguments(d, 1, 2)
    app.fields["max_requests"] = None if number == "off" else values.count(number)
    app.fields["max_requests_jitter"] = values.count(jitter[0], least=0) if jitter else 0


@_subdirective("max_lifetime <duration>|off")
def max_lifetime(d: Dispenser, app: AppDraft) -> None:
    """Replace a worker after so long. Default: off."""
    app.fields["max_lifetime_s"] = values.duration_or_off(registry.argument(d))


@_subdirective("max_memory <size>|off")
def max_memory(d: Dispenser, app: AppDraft) -> None:
    """Replace a worker that has grown beyond so much memory. Default: off."""
    text = registry.argument(d)
    app.fields["max_memory_bytes"] = None if text == "off" else values.memory_size(text)


@_subdirective("websocket_drain close|keep <duration>")
def websocket_drain(d: Dispenser, app: AppDraft) -> None:
    """What a reload does with open WebSockets: `close`, the default, ends them with 1012 at slightly different times;
    `keep` leaves them on the old worker for so long."""
    match registry.arguments(d, 1, 2):
        case ["close"]:
            app.fields["websocket_drain"] = models.WebSocketDrain()
        case ["keep", text]:
            app.fields["websocket_drain"] = models.WebSocketDrain(keep_s=values.positive_duration(text))
        case _:
            raise InvalidValue("expected close, or keep with a duration")


@_subdirective("websocket_ping <interval>|off [<timeout>]")
def websocket_ping(d: Dispenser, app: AppDraft) -> None:
    """After how long without data the client of a WebSocket is pinged, and how long its answer may take before the
    connection is closed. Default: 20s 20s."""
    interval, *timeout = registry.arguments(d, 1, 2)
    if interval == "off" and timeout:
        raise InvalidValue("off takes no timeout")
    app.fields["websocket_ping"] = models.WebSocketPing(
        interval_s=values.duration_or_off(interval),
        timeout_s=values.positive_duration(timeout[0]) if timeout else models.WEBSOCKET_PING_S,
    )


@_subdirective("affinity cookie [<name>]|header <name>")
def affinity(d: Dispenser, app: AppDraft) -> None:
    """Have the requests of one client reach one worker while that lives, as Socket.IO with long polling needs it. A
    client is known by a cookie of ours, signed, or by a header field that it sends anyway. New ones go to the worker
    with the fewest. When the worker of a client is gone, another takes over, and the app finds
    `Caddysnake-Affinity: lost` among the fields of that request. Requests go through the relay."""
    match registry.arguments(d, 1, 2):
        case ["cookie"]:
            app.fields["affinity"] = models.Affinity(kind="cookie")
        case ["cookie" | "header" as kind, name]:
            if not _TOKEN.fullmatch(name):
                raise InvalidValue(f"{name!r} cannot be the name of a {kind}", "write letters, digits, - and _")
            app.fields["affinity"] = models.Affinity(kind=kind, name=name)
        case _:
            raise InvalidValue("expected cookie, or header with its name", "write affinity cookie")


# Bounds


@_subdirective("max_websockets <count>")
def max_websockets(d: Dispenser, app: AppDraft) -> None:
    """How many WebSockets may be open in a worker before further ones get 503 `websockets-full`. Default: 256 for WSGI,
    where each holds a thread; for ASGI as many as come."""
    app.settings["max_websockets"] = values.count(registry.argument(d))


@_subdirective("websocket_max_size <size>")
def websocket_max_size(d: Dispenser, app: AppDraft) -> None:
    """How large a message of a WebSocket may be, unpacked and put together; a larger one ends it with 1009. Default:
    16MiB."""
    app.settings["websocket_max_message_bytes"] = values.positive_size(registry.argument(d))


@_subdirective("max_dynamic_apps <count>")
def max_dynamic_apps(d: Dispenser, app: AppDraft) -> None:
    """How many apps of a block with placeholders may be live at a time. Default: 128."""
    app.fields["max_dynamic_apps"] = values.count(registry.argument(d))


@_subdirective("idle_timeout <duration>|off")
def idle_timeout(d: Dispenser, app: AppDraft) -> None:
    """How long an app of a block with placeholders may go without a request until it is stopped. Default: 30m."""
    app.fields["idle_timeout_s"] = values.duration_or_off(registry.argument(d))


@_subdirective("max_queue <count>")
def max_queue(d: Dispenser, app: AppDraft) -> None:
    """How many connections may wait for a worker before further ones get 503, and how many requests where
    `max_in_flight` is reached. Default: 1024."""
    app.fields["max_queue"] = values.count(registry.argument(d))


@_subdirective("max_in_flight <count>")
def max_in_flight(d: Dispenser, app: AppDraft) -> None:
    """How many requests the workers of an app answer at a time, each its share. Further ones wait, as many as
    `max_queue` allows, and then get 429 `in-flight-full`. So one app's slow requests do not fill the machine. Default:
    as many as come."""
    app.settings["max_in_flight"] = values.count(registry.argument(d))


@_subdirective("request_body_max_size <size>|unlimited")
def request_body_max_size(d: Dispenser, app: AppDraft) -> None:
    """How large the content of a request may be; a larger one gets 413. Default: unlimited."""
    _limit_body(registry.argument(d), app)


@_subdirective("request_body <size>, or request_body { max_size <size> }")
def request_body(d: Dispenser, app: AppDraft) -> None:
    """The Go plugin's spelling of `request_body_max_size`."""
    given = registry.arguments(d, 0, 1)
    given += registry.block_fields(d, max_size=("max_size", registry.argument)).values()
    if len(given) != 1:
        raise InvalidValue(f"takes one size, got {len(given)}")
    _limit_body(given[0], app)


def _limit_body(text: str, app: AppDraft) -> None:
    if {"request_body", "request_body_max_size"} <= app.where.keys():
        raise InvalidValue("the limit is written twice, as request_body_max_size and as request_body", "keep one")
    app.settings["max_body_bytes"] = None if text == "unlimited" else values.positive_size(text)


@_subdirective("cache [local|<url>] [{ max_size <size>, persist on|off, env <name>... }]")
def cache(d: Dispenser, app: AppDraft) -> None:
    """What all workers of the app share: a Valkey or Redis of its own, which the daemon supervises, or one elsewhere by
    its address (`redis://host:6379/0`). The app finds it by `from caddysnake import cache`, and its address in
    `CADDYSNAKE_STORE_URL`, for Celery in `CADDYSNAKE_STORE_CELERY_URL`, and in the variables after `env`. It keeps
    running over reloads. `max_size` bounds it (64MB): then keys with a time to live go first, and further writes are
    refused. With `persist on` it is on disk too, in the daemon's state folder."""
    words = registry.arguments(d, 0, 1)
    fields: dict[str, Any] = {}
    if words == ["cluster"]:
        hint = "name a Valkey or Redis that all reach: cache redis://host:6379/0"
        raise InvalidValue("the plugin's cluster is not offered here", hint)
    if words and words[0] != "local":
        fields["url"] = values.store_url(app.plain(words[0]))
    for inner in registry.block_lines(d):
        match inner.val():
            case "max_size" if not words or words[0] == "local":
                fields["max_bytes"] = values.positive_size(registry.argument(inner))
            case "persist" if not words or words[0] == "local":
                fields["persist"] = values.on_off(registry.argument(inner))
            case "env":
                for name in registry.arguments(inner, 1):
                    check_name(name)
                    fields["env"] = (*fields.get("env", ()), name)
            case ("max_size" | "persist") as name:
                raise InvalidValue(f"{name} is for one that the daemon supervises", "take it away")
            case unknown:
                raise InvalidValue(f'unknown line "{unknown}" in its block', "known are max_size, persist and env")
    app.fields["cache"] = models.Cache(**fields)


# Who it runs as


@_subdirective("isolation none")
def isolation(d: Dispenser, app: AppDraft) -> None:
    """The Go plugin's word for workers that are not in containers, as none are here. `sandbox`, `user` and `limits`
    keep apps apart."""
    here = registry.position_of(d.token())
    words = d.remaining_args()
    block = registry.lines(d)
    if words == ["none"] and not block:
        return
    said = {line[0].text: " ".join(token.text for token in line[1:]) for line in block}
    inner = [f"`memory {said.get('memory', '512MiB')}`"]
    with contextlib.suppress(ValueError):
        inner += [f"`cpu {float(said['cpus']) * 100:g}%`"] if "cpus" in said else []
    raise here.error(
        f"isolation: {' '.join(words) or 'it'} is not offered here: workers do not run in containers",
        f"write in its place the lines `user NAME`, `sandbox on`, `limits` with {' and '.join(inner)} in its block; or "
        "run the sidecar itself in an image",
    )


@_subdirective("user <name>")
def user(d: Dispenser, app: AppDraft) -> None:
    """The user the app runs as, where the daemon may change it. Default: the daemon's."""
    app.fields["user"] = app.template(registry.argument(d))


@_subdirective("group <name>")
def group(d: Dispenser, app: AppDraft) -> None:
    """The group the app runs as. Default: the primary group of `user`, or the daemon's."""
    app.fields["group"] = app.template(registry.argument(d))


@_subdirective(
    "limits { memory <size>, cpu <percent>, open_files <count>, processes <count>, file_size <size>, "
    "niceness <count> }",
)
def limits(d: Dispenser, app: AppDraft) -> None:
    """What the process of a worker may use; each line is optional. `cpu 50%` is half of one processor, for the worker
    with all that it starts, and holds where the daemon's cgroup is delegated; there `memory` and `processes` count what
    it has started as well."""
    registry.arguments(d, 0, 0)
    fields = registry.block_fields(
        d,
        memory=("memory_bytes", registry.one(values.memory_size)),
        cpu=("cpu_percent", lambda inner: int(values.percent(registry.argument(inner), 1, 100 * 1024))),
        open_files=("open_files", registry.one(values.count)),
        processes=("processes", registry.one(values.count)),
        file_size=("file_size_bytes", registry.one(values.positive_size)),
        niceness=("niceness", registry.one(values.count, least=-20, most=19)),
    )
    if not fields:
        raise InvalidValue("limits nothing")
    app.fields["limits"] = models.Limits(**fields)


@_subdirective(
    "sandbox on|audit|off [{ read <path>..., write <path>..., connect <port>...|any|none, listen <port>...|none, "
    "unix any|none }]",
)
def sandbox(d: Dispenser, app: AppDraft) -> None:
    """Limits that the kernel enforces (Landlock and seccomp) on the app and all that it starts, without root too. `on`:
    it may read its `working_dir`, its Python and what programs need of the system, and write to its `TMPDIR`. In the
    block: `read` and `write` add files and folders, which must be there unless they begin with `-`, and may hold
    placeholders; `connect`, TCP ports that it may connect to (default any); `listen`, TCP ports that it may open
    (default none); `unix`, whether it may have unix sockets (default: any with a user of its own, else none). `audit`:
    it is in no sandbox; with each build one more worker is started, watched while it is imported and warmed up, and the
    lines that it would need are in the log. `off` is the default."""
    mode = values.choice(registry.arguments(d, 1, 1)[0], ("on", "audit", "off"))
    fields: dict[str, Any] = {"mode": mode}
    for inner in registry.block_lines(d):
        if inner.val() in ("connect", "listen", "unix") and inner.val() in fields:
            raise InvalidValue(f"{inner.val()} is written twice in its block", "make one line of them")
        match inner.val():
            case ("read" | "write") as how:
                _paths(inner, how, fields, app)
            case "connect":
                fields["connect"] = _ports(registry.arguments(inner, 1), "any", "none")
            case "listen":
                fields["listen"] = _ports(registry.arguments(inner, 1), "none")
            case "unix":
                fields["unix"] = values.choice(registry.argument(inner), ("any", "none")) == "any"
            case unknown:
                known = "known are read, write, connect, listen and unix"
                raise InvalidValue(f'unknown line "{unknown}" in its block', known)
    app.fields["sandbox"] = models.Sandbox(**fields) if mode != "off" else None


_MOST = 64


def _paths(line: Dispenser, how: str, fields: dict[str, Any], app: AppDraft) -> None:
    for text in registry.arguments(line, 1):
        if text in ("", "-"):
            raise InvalidValue(f"{how}: a path is empty")
        if ".." in text.split("/"):
            raise InvalidValue(f"{how}: {text} leaves a folder by ..", "write the whole path")
        app.where[f"{how}[{len(fields.get(how, ()))}]"] = registry.position_of(line.token())
        fields[how] = (*fields.get(how, ()), app.template(text))
        if len(fields[how]) > _MOST:
            hint = "name the folders that they are in; each path makes every start, and every file opened, slower"
            raise InvalidValue(f"more than {_MOST} paths after {how}", hint)


def _ports(words: list[str], *single: str) -> tuple[int, ...] | None:
    if len(words) == 1 and words[0] in single:
        return None if words[0] == "any" else ()
    found = []
    for word in words:
        if word in single:
            raise InvalidValue(f"{word} stands alone")
        found.append(values.count(word, most=65535))
    if len(found) > _MOST:
        raise InvalidValue(f"more than {_MOST} ports", "write any, or those that it needs")
    return tuple(sorted(set(found)))


# Operations


@_subdirective("log [{ log_credentials }]")
def log(d: Dispenser, app: AppDraft) -> None:
    """Write an access log of the requests to this app, in Caddy's form, where the daemon's log goes. The values of
    `Cookie`, `Set-Cookie`, `Authorization` and `Proxy-Authorization` are left out, unless `log_credentials` is in its
    block."""
    registry.arguments(d, 0, 0)
    with_credentials = False
    for inner in registry.block_lines(d):
        if inner.val() in ("output", "format", "level"):
            raise InvalidValue(f"{inner.val()} is not for one app", "it belongs into the global option log")
        if inner.val() != "log_credentials":
            raise InvalidValue(f'unknown line "{inner.val()}" in its block', "known is log_credentials")
        registry.arguments(inner, 0, 0)
        with_credentials = True
    app.fields["log"] = models.AccessLog(log_credentials=with_credentials)


@_subdirective("health_uri <path>")
def health_uri(d: Dispenser, app: AppDraft) -> None:
    """A path that is answered here, without the app, for the health checks of Caddy: `health_uri /healthz` in its
    `reverse_proxy`."""
    text = registry.argument(d)
    app.settings["health_path"] = values.like(text, _HEALTH_PATH, "a plain path", "write one such as /healthz")
