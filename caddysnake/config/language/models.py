"""What a Caddyfile says, as frozen models.

Nothing is resolved here: paths are as written, placeholders are still in them, ``None`` means that the file did not say
and the default is somebody else's to know (the plan's). Durations are seconds, sizes are bytes; ``None`` for a limit
means none.

Every model knows where it was written (``position``, ``where``), for the checks that come later; that is never part of
the JSON, nor of a comparison.
"""

# No `from __future__ import annotations` where models are: pydantic would compile each of them again.
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, SerializerFunctionWrapHandler, model_serializer

from ...caddyfile.errors import CaddyfileError
from ...channel.settings import Settings
from .values import DEFAULT_SOCKET_MODE, ModuleVariable, SocketAddress

Interface = Literal["wsgi", "asgi"]

START_TIMEOUT_S = 120.0
RELEASE_TIMEOUT_S = 300.0
GRACE_PERIOD_S = 10.0
MAX_DYNAMIC_APPS = 128
IDLE_TIMEOUT_S = 1800.0
MAX_QUEUE = 1024
CACHE_BYTES = 64 * 1000 * 1000
WEBSOCKET_PING_S = 20.0


class Position(NamedTuple):
    """Where something was written. Lines count from 1; ``imports`` names the imports it came through, as in a token."""

    file: str
    line: int
    imports: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"

    def error(self, message: str, hint: str | None = None) -> CaddyfileError:
        """An error that points here."""
        return CaddyfileError(message, self.file, self.line, hint=hint, imports=self.imports)


NOWHERE = Position("", 0)

Socket = Annotated[SocketAddress, PlainSerializer(str)]
Mode = Annotated[int, PlainSerializer(lambda mode: f"{mode:04o}", return_type=str)]
Module = Annotated[ModuleVariable, PlainSerializer(str)]
if TYPE_CHECKING:
    Opaque = Settings
else:
    Opaque = Any  # sixty fields that pydantic need not know


class Model(BaseModel):
    """The base of all: frozen, no unknown fields, compared without positions."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=False, defer_build=True)

    position: Position = Field(default=NOWHERE, exclude=True, repr=False)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        assert isinstance(other, Model)
        return _said(self) == _said(other)

    __hash__ = None  # type: ignore[assignment]


def _said(model: Model) -> dict[str, Any]:
    fields = type(model).model_fields
    return {name: getattr(model, name) for name, field in fields.items() if not field.exclude}


def _changed(said: "Settings | Canary", default: "Settings | Canary") -> dict[str, Any]:
    return {name: value for name, value in said._asdict().items() if value != getattr(default, name)}


class NamedLines(Model):
    """A block of lines with names."""

    where: dict[str, Position] = Field(default_factory=dict, exclude=True, repr=False)
    """Where each was written first. ``env_file`` and ``env_var`` of an app have ``env_file[0]`` … too, and so have the
    lines of ``sandbox``: ``read[0]``."""

    def at(self, *names: str) -> Position:
        """Where the first of *names* that the file has was written; else where the block begins."""
        return next((self.where[name] for name in names if name in self.where), self.position)


class Autoreload(Model):
    """Watch the working directory and start afresh when it changes."""

    on_error: Literal["show", "keep"] = "show"
    watch: tuple[str, ...] = ()
    debounce_s: float = 0.5


class Limits(Model):
    """What a worker's process may use. ``None``: what the daemon may."""

    memory_bytes: int | None = None
    open_files: int | None = None
    processes: int | None = None
    file_size_bytes: int | None = None
    niceness: int | None = None
    cpu_percent: int | None = None
    """Of one processor."""


class Sandbox(Model):
    """Walls of the kernel's. A path after ``-`` may be missing. ``audit``: none; what would be denied is told."""

    mode: Literal["on", "audit"] = "on"
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    connect: tuple[int, ...] | None = None
    """Ports of TCP; ``None``: any."""
    listen: tuple[int, ...] = ()
    unix: bool | None = None
    """Unix sockets; ``None``: where the app has a user of its own."""


class AccessLog(Model):
    """Log the requests of an app. ``log_credentials``: with what is in Cookie, Authorization and their like."""

    log_credentials: bool = False


class Canary(NamedTuple):
    """How a new build is tried beside the old one."""

    share: float = 0.1
    workers: int = 0
    """So many new workers, which get their part of the requests; 0: ``share`` of the requests."""
    for_s: float = 60.0
    min_requests: int = 50
    max_errors: float = 0.01
    max_slowdown: float = 2.0


class Warmup(Model):
    """Requests that each new worker answers before it counts as ready."""

    paths: tuple[str, ...]
    host: str | None = None
    """``None``: the host of the site, where it has one without a wildcard, or ``localhost``."""
    timeout_s: float = 10.0
    expect: tuple[str, ...] = ("2xx", "3xx")


class Cache(Model):
    """What all workers of an app share. ``url``: of one elsewhere; None: one that the daemon supervises."""

    url: str | None = None
    max_bytes: int = CACHE_BYTES
    persist: bool = False
    env: tuple[str, ...] = ()
    """Variables that hold its address too."""


class Affinity(Model):
    """By what a client is known whose requests are to reach one worker. ``name`` None: a cookie's default, which
    ``daemon.relays.affinity_settings`` makes.
    """

    kind: Literal["cookie", "header"]
    name: str | None = None


class WebSocketDrain(Model):
    """What a reload does with open WebSockets. ``keep_s`` None: closes them with 1012."""

    keep_s: float | None = None


class WebSocketPing(Model):
    """Signs of life that clients of WebSockets are asked for."""

    interval_s: float | None = WEBSOCKET_PING_S
    """Nobody is asked when ``None``."""
    timeout_s: float = WEBSOCKET_PING_S


class EnvVar(NamedTuple):
    """A variable of an app's environment."""

    name: str
    value: str


class ReleaseLine(Model):
    """A command that must succeed before a build's first worker."""

    command: tuple[str, ...]
    timeout_s: float = RELEASE_TIMEOUT_S


class ProcessLine(Model):
    """A process beside the workers. ``stop_timeout_s`` None: the app's ``grace_period``."""

    name: str
    command: tuple[str, ...]
    count: int = 1
    stop_signal: str = "SIGTERM"
    stop_timeout_s: float | None = None
    restart: Literal["always", "on_failure", "never"] = "always"
    overlap: bool = False
    env_vars: Annotated[tuple[EnvVar, ...], PlainSerializer(dict)] = ()


@dataclass(frozen=True, slots=True)
class ScheduleLine:
    """A command at certain times; of a model's size a fifth. ``timezone`` None: the machine's."""

    name: str
    cron: str
    command: tuple[str, ...]
    overlap: Annotated[bool, PlainSerializer(lambda may: "allow" if may else "skip", return_type=str)] = False
    """It begins also while the last run goes on."""
    timeout_s: float | None = None
    jitter_s: float = 0.0
    timezone: str | None = None
    position: Annotated[Position, Field(exclude=True)] = field(default=NOWHERE, compare=False, repr=False)


UNSAID = Settings(app="", interface="", module="", variable="", working_dir="", environ={})

_SHOWN_AS = {
    "websocket_max_message_bytes": "websocket_max_bytes",
    "max_body_bytes": "request_body_max_bytes",
    "health_path": "health_uri",
}
"""The names of settings in the JSON of a file, where they are others."""


class PythonApp(NamedLines):
    """One ``python`` block."""

    interface: Interface
    module: Module
    simple: bool = False
    """Written as ``python module:variable``, which means WSGI with one worker."""

    working_dir: str | None = None
    venv: str | None = None
    python_path: str | None = None

    workers: int | Literal["auto"] | None = None
    workers_most: int | Literal["auto"] | None = None
    """``None``: always as many as ``workers``."""
    scale_down_after_s: float = 60.0
    workers_runtime: Literal["process", "thread"] = "process"
    runtime: Literal["native", "uvloop", "sync"] | None = None

    env_files: tuple[str, ...] = ()
    env_vars: Annotated[tuple[EnvVar, ...], PlainSerializer(dict)] = ()
    pass_env: tuple[str, ...] = ()
    preload: tuple[str, ...] = ()
    autoreload: Autoreload | None = None

    start_timeout_s: float | None = START_TIMEOUT_S
    grace_period_s: float | None = None
    """``None``: the global ``grace_period``, or 10 s."""

    warmup: Warmup | None = None
    canary: Annotated[Canary, PlainSerializer(lambda said: _changed(said, Canary()))] | None = None
    keep_previous_s: float = 0.0
    reload_strategy: Literal["parallel", "rolling", "stop_first"] | None = None
    """``None``: the global ``reload_strategy``."""

    max_requests: int | None = None
    max_requests_jitter: int = 0
    max_lifetime_s: float | None = None
    max_memory_bytes: int | None = None
    websocket_drain: WebSocketDrain = WebSocketDrain()
    websocket_ping: WebSocketPing = WebSocketPing()

    affinity: Affinity | None = None
    cache: Cache | None = None

    max_dynamic_apps: int = MAX_DYNAMIC_APPS
    idle_timeout_s: float | None = IDLE_TIMEOUT_S
    max_queue: int = MAX_QUEUE

    user: str | None = None
    group: str | None = None
    limits: Limits | None = None
    sandbox: Sandbox | None = None

    log: AccessLog | None = None

    releases: tuple[ReleaseLine, ...] = ()
    processes: tuple[ProcessLine, ...] = ()
    schedules: tuple[ScheduleLine, ...] = ()

    settings: Opaque = UNSAID
    """What is its workers' alone to carry out. Which app they run, and where, is not in it yet."""

    placeholders: tuple[str, ...] = ()
    """The placeholders in the values above."""

    @property
    def request_placeholders(self) -> tuple[str, ...]:
        """Those that differ from request to request. Any makes the app dynamic."""
        return tuple(name for name in self.placeholders if name.startswith(("http.", "time.")))

    @model_serializer(mode="wrap")
    def _with_settings(self, rest: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Those settings that are not the default stand among the fields."""
        shown: dict[str, Any] = rest(self)
        shown.pop("settings", None)
        changed = _changed(self.settings, UNSAID)
        return shown | {_SHOWN_AS.get(name, name): value for name, value in changed.items()}


class Route(Model):
    """A matcher and what it leads to: a ``python`` block, or further routes tried in order.

    ``directive`` is ``python``, ``handle``, ``handle_path``, ``route`` or ``invoke``. Of the routes that share a
    ``group``, only the first that matches is taken. A ``handle`` without routes stands for directives of Caddy's: what
    it matches is not ours.
    """

    directive: str
    matcher: dict[str, Any] | None = None
    """A matcher set in the form of Caddy's JSON; ``None`` matches everything."""
    group: str | None = None
    strip_prefix: str | None = None
    app: PythonApp | None = None
    routes: tuple["Route", ...] = ()

    def apps(self) -> list[PythonApp]:
        """The apps below, in the order in which they are tried."""
        own = [] if self.app is None else [self.app]
        return _once([*own, *(app for route in self.routes for app in route.apps())])


class SiteAddress(Model):
    """One address of a site block: a socket to listen on, or a host (and port, and path) that belongs to Caddy."""

    text: str
    socket: Socket | None = None
    scheme: str = ""
    host: str = ""
    port: str = ""
    path: str = ""


_WILD = frozenset("*{")


class Site(Model):
    """One site block."""

    addresses: tuple[SiteAddress, ...]
    bind: tuple[Socket, ...] = ()
    bind_position: Position = Field(default=NOWHERE, exclude=True, repr=False)
    routes: tuple["Route", ...] = ()

    @property
    def named_hosts(self) -> list[str]:
        """The hosts that its addresses name in full."""
        return [address.host for address in self.addresses if address.host and not _WILD & set(address.host)]

    def apps(self) -> list[PythonApp]:
        """The apps of the site, in the order in which they are tried."""
        return _once(app for route in self.routes for app in route.apps())


def _once(apps: Iterable[PythonApp]) -> list[PythonApp]:
    """*apps* without repeats. A block in a named route is one app, however often the route is invoked."""
    return list({id(app): app for app in apps}.values())


class Admin(Model):
    """The option ``admin``, with the names of Caddy's JSON. ``listen`` is as written: it may be for Caddy alone."""

    disabled: bool = False
    listen: str | None = None
    enforce_origin: bool = False
    origins: tuple[str, ...] = ()


class Log(Model):
    """How the log is written. ``None``: as ``debug`` says, and console style on a terminal, else JSON."""

    level: Literal["debug", "info", "warn", "error", "panic", "fatal"] | None = None
    format: Literal["json", "console"] | None = None


class GlobalOptions(NamedLines):
    """The global options that mean something here. Those that are only Caddy's are not kept."""

    default_bind: tuple[Socket, ...] = ()
    grace_period_s: float | None = None
    socket_mode: Mode = DEFAULT_SOCKET_MODE
    socket_owner: str | None = None
    socket_group: str | None = None
    relays: int = 1
    max_spawners: int = 16
    trusted_proxies: tuple[str, ...] = ()
    admin: Admin | None = None
    http_port: str = Field(default="80", exclude=True)
    https_port: str = Field(default="443", exclude=True)
    auto_https: str = Field(default="", exclude=True)
    log: Log = Log()
    debug: bool = False
    on_demand_ask: str | None = None
    reload_strategy: Literal["parallel", "rolling"] = "parallel"
    start_policy: Literal["each", "all"] = "each"
    memory_budget: int | None = None
    """Bytes."""


class Config(Model):
    """One Caddyfile."""

    options: GlobalOptions = GlobalOptions()
    sites: tuple[Site, ...] = ()
    warnings: tuple[str, ...] = Field(default=(), exclude=True)
    """What was accepted but is likely a mistake, each with file and line."""
    files: tuple[str, ...] = Field(default=(), exclude=True)
    """The file itself, and those that were imported, absolute."""

    def apps(self) -> list[PythonApp]:
        """Every app, in the order of the sites and, within one, in the order in which they are tried."""
        return _once(app for site in self.sites for app in site.apps())
