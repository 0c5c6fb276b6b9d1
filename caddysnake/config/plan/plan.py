"""A configuration with every question answered: which sockets to open, and what runs behind each.

Nothing is started, opened or changed. The file system is looked at for two things only, because their answers are part
of the plan: the content of each ``env_file``, and which Python a ``venv`` holds.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

from ... import files
from ...caddyfile.errors import CaddyfileError
from ..language.listeners import Kind, Opening, openings, own_hosts, own_socket_path, root_paths
from ..language.models import GRACE_PERIOD_S, Config, GlobalOptions, Position, PythonApp
from ..language.values import InvalidValue, SocketAddress, check_unix_path, unescaped
from . import accounts, envfile
from .accounts import AccountError
from .places import absolute, default_socket_dir, start_folder
from .search import misleads


@dataclass(frozen=True, slots=True)
class AppSpec:
    """One app: what its block leaves open, resolved. Equal ones run the same code in the same way."""

    name: str
    """For people and logs; unique in the plan: ``main:app``, ``blog/main:app`` where two are alike."""
    block: PythonApp = field(repr=False)
    """What the file says, with the position of each line."""
    working_dir: str
    """Absolute."""
    python: str
    """The interpreter, absolute. It may not exist; the checks say so."""
    venv: str | None
    workers: int
    workers_most: int
    """0: always as many as ``workers``."""
    loop: Literal["uvloop", "asyncio"]
    environ: dict[str, str]
    """What ``env_file`` and ``env_var`` say. Not yet the worker's whole environment: see ``worker_environ``."""
    grace_period_s: float
    root_path: str = ""
    """What Caddy takes off the path of every request: the app's SCRIPT_NAME or root_path."""
    strategy: Literal["parallel", "rolling", "stop_first"] = "parallel"
    """How a new build takes over."""
    host: str = ""
    """One that its requests are for, where the file names one."""
    problems: tuple[CaddyfileError, ...] = field(default=(), compare=False, repr=False)
    """What of it could not be resolved: its env files. With one it must not be started."""

    @property
    def dynamic(self) -> bool:
        """Values hold placeholders of requests, so this is a template of apps and not one."""
        return bool(self.block.request_placeholders)

    @property
    def module(self) -> str:
        """The module that holds the app."""
        return self.block.module.module

    @property
    def variable(self) -> str:
        """Where it is in there, an attribute path, or a factory: ``app``, ``site.app``, ``make_app()``."""
        return self.block.module.variable

    @property
    def position(self) -> Position:
        """Where the ``python`` block begins."""
        return self.block.position


@dataclass(frozen=True, slots=True)
class PlannedListener:
    """One socket, resolved."""

    socket: SocketAddress
    """With an absolute path, and the mode of a unix socket; owner and group ``None``: the daemon's own."""
    kind: Kind
    reason: str
    apps: tuple[int, ...]
    """Indices into the plan's apps, in the order in which they are tried."""
    hosts: tuple[str, ...]
    """For which hosts there is something behind it; none means every host."""
    own: bool
    """A block's own socket, whose name we chose."""
    position: Position = field(compare=False)

    @property
    def app(self) -> int:
        """The index of the one app of a direct listener."""
        (index,) = self.apps
        return index

    @property
    def path(self) -> str:
        """Of a unix socket; else empty."""
        return self.socket.path

    def __str__(self) -> str:
        return self.socket.name


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything to open and to run. Nothing in it refers to the text any more but for messages."""

    listeners: tuple[PlannedListener, ...]
    apps: tuple[AppSpec, ...]
    options: GlobalOptions
    grace_period_s: float
    """Of the daemon: the longest of the apps'."""
    problems: tuple[CaddyfileError, ...] = field(default=(), compare=False)
    """What could not be resolved, but for what is one app's. A plan with problems must not be carried out."""
    files: tuple[str, ...] = field(default=(), compare=False)
    """Those that it was read from, absolute."""


def plan(
    config: Config, *, cores: int, base_dir: str | None = None, socket_dir: str | None = None, own_sockets: bool = False
) -> Plan:
    """Answer every question that *config* leaves open. ``cores``: so many workers ``auto`` means. ``base_dir``: where
    relative paths begin, absolute, or the current directory. ``socket_dir``: for sockets of blocks whose site names
    none. ``own_sockets``: Caddy reads the same file, so every block of a site of Caddy's has its own.
    """
    base = base_dir or start_folder(os.environ)
    sockets = absolute(socket_dir or default_socket_dir(), base)
    needed, problems = openings(config, own_sockets=own_sockets)
    roots = root_paths(config, needed)
    hosts = own_hosts(config)
    grace_s = config.options.grace_period_s or GRACE_PERIOD_S
    blocks = config.apps()
    apps = [
        replace(
            _app(block, name, base, cores, grace_s),
            root_path=roots.get(id(block), ""),
            host=hosts.get(id(block), ""),
            strategy=block.reload_strategy or config.options.reload_strategy,
        )
        for block, name in zip(blocks, _names(blocks), strict=True)
    ]
    index = {id(spec.block): number for number, spec in enumerate(apps)}
    listeners = [_listener(opening, config.options, base, sockets, index, problems) for opening in needed]
    longest = max((spec.grace_period_s for spec in apps), default=grace_s)
    read_from = tuple(absolute(file, base) for file in config.files)
    return Plan(tuple(listeners), tuple(apps), config.options, longest, tuple(problems), read_from)


def resolve_app(
    block: PythonApp, spec: AppSpec, base: str, name: str | None = None, loose: tuple[str, ...] = ()
) -> AppSpec:
    """*spec* made anew of *block*, which is its own, perhaps with values in the place of placeholders; ``loose``:
    folders that a request has chosen."""
    found = _app(block, name or spec.name, base, 1, spec.grace_period_s, loose)
    kept = ("workers", "workers_most", "root_path", "host", "strategy")
    return replace(found, **{name: getattr(spec, name) for name in kept})


def usable_cores() -> int:
    """How many cores this process may use: its affinity, and what its control group's quota allows, rounded up."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        cores = os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        # cgroup v2: "max 100000", or microseconds of CPU per period.
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, -(-int(quota) // int(period)))
    return max(cores, 1)


def interpreter(app: PythonApp, base: str) -> str:
    """The Python that runs *app*: ``python_path``, else the venv's, else the one that runs us."""
    if app.python_path is not None:
        in_path = None if os.sep in app.python_path else shutil.which(app.python_path)
        return in_path or os.path.join(base, app.python_path)
    if app.venv is None:
        return sys.executable
    # Not resolved further: a venv's Python is a link, and finds the venv by the name it is called with.
    candidates = [os.path.join(base, unescaped(app.venv), "bin", name) for name in ("python3", "python")]
    return next((path for path in candidates if os.path.exists(path)), candidates[0])


def _names(blocks: Sequence[PythonApp]) -> list[str]:
    """``module:variable``; the working directory's name goes in front and a number behind where that is not enough."""
    plain = [str(block.module) for block in blocks]
    uses = Counter(plain)
    names = []
    for block, name in zip(blocks, plain, strict=True):
        folder = os.path.basename((block.working_dir or "").rstrip("/"))
        names.append(f"{folder}/{name}" if uses[name] > 1 and folder else name)
    seen: dict[str, int] = {}
    for number, name in enumerate(names):
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            names[number] = f"{name}#{seen[name]}"
    return names


def _app(block: PythonApp, name: str, base: str, cores: int, grace_s: float, loose: tuple[str, ...] = ()) -> AppSpec:
    working_dir = absolute(unescaped(block.working_dir or ""), base)
    environ, problems = ({}, []) if block.placeholders else _environ(block, Path(working_dir), loose)
    return AppSpec(
        name,
        block,
        working_dir,
        python=interpreter(block, base),
        venv=None if block.venv is None else os.path.join(base, unescaped(block.venv)),
        workers=_workers(block, cores),
        workers_most=0 if block.workers_most is None else cores if block.workers_most == "auto" else block.workers_most,
        loop="asyncio" if block.runtime == "native" else "uvloop",
        environ=environ,
        grace_period_s=grace_s if block.grace_period_s is None else block.grace_period_s,
        problems=tuple(problems),
    )


def _workers(block: PythonApp, cores: int) -> int:
    if isinstance(block.workers, int):
        return block.workers
    if block.workers is None and (block.simple or block.request_placeholders or block.workers_runtime == "thread"):
        return 1  # more threads of one interpreter do not use more cores
    return cores


def _environ(
    block: PythonApp, working_dir: Path, loose: tuple[str, ...]
) -> tuple[dict[str, str], list[CaddyfileError]]:
    found: dict[str, str] = {}
    problems: list[CaddyfileError] = []
    try:
        account = accounts.resolve(block.user, block.group)
    except AccountError:  # the checks say so
        return {}, []
    for number, text in enumerate(block.env_files):
        position = block.where[f"env_file[{number}]"]
        try:
            path = envfile.locate(unescaped(text), working_dir)
            within = _written(block, path, working_dir, loose) if os.path.isabs(unescaped(text)) else working_dir
            found.update(envfile.read(path, partial(misleads, str(path), account=account), within))
        except InvalidValue as exc:
            problems.append(position.error(str(exc), exc.hint))
        except CaddyfileError as exc:
            exc.hint = "; ".join(filter(None, (exc.hint, f"env_file at {position}")))
            problems.append(exc)
    found.update((variable.name, unescaped(variable.value)) for variable in block.env_vars)
    return found, problems


def _written(block: PythonApp, path: Path, working_dir: Path, loose: tuple[str, ...]) -> Path | None:
    """The folder through which *path* leads, and in which the app, in a sandbox, or a tenant, may make links."""
    texts = () if block.sandbox is None or block.sandbox.mode == "audit" else (*block.sandbox.write, *loose)
    written = [os.path.realpath(absolute(unescaped(text.removeprefix("-")), str(working_dir))) for text in texts]
    places = [os.path.realpath(place) for place in path.parents]
    return next((Path(each) for each in written if any(files.is_within(place, each) for place in places)), None)


def _listener(
    opening: Opening,
    options: GlobalOptions,
    base: str,
    socket_dir: str,
    index: dict[int, int],
    problems: list[CaddyfileError],
) -> PlannedListener:
    socket = opening.socket
    if socket.network == "unix":
        path = absolute(own_socket_path(socket_dir, socket.path) if opening.own else socket.path, base)
        try:
            check_unix_path(path)
        except InvalidValue as exc:
            problems.append(opening.position.error(str(exc), exc.hint))
        socket = socket._replace(
            path=path,
            mode=options.socket_mode if socket.mode is None else socket.mode,
            owner=socket.owner or options.socket_owner,
            group=socket.group or options.socket_group,
        )
    hosts = {host for tenancy in opening.tenancies for host in tenancy.hosts}
    return PlannedListener(
        socket=socket,
        kind=opening.kind,
        reason=opening.reason,
        apps=tuple(index[id(app)] for app in opening.apps),
        hosts=tuple(sorted(hosts)) if all(tenancy.hosts for tenancy in opening.tenancies) else (),
        own=opening.own,
        position=opening.position,
    )
