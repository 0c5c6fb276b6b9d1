"""What an app in a sandbox may reach, from its block to rules for the kernel.

Rules are of inodes: where names lead is looked at when a process is about to start, not before.
"""

from __future__ import annotations

import os
import site
import stat
import tempfile
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from ... import files
from ...caddyfile.errors import Hinted
from ...installation import PACKAGE
from ...placeholders import template
from ...sandbox.walls import Grant, Walls
from ..language.models import PythonApp
from ..language.values import unescaped
from . import accounts
from .environment import worker_environ
from .places import absolute, default_socket_dir, runtime_folder, service_folder
from .plan import AppSpec, Plan
from .routing import settled_fields
from .search import installation

_READ: Final = (
    *("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/nix/store", "/gnu/store"),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d"),
    # Names of hosts, users and services. The resolver's file is another after each change of the network.
    *("/etc/hosts", "/etc/host.conf", "/etc/nsswitch.conf", "/etc/gai.conf", "/etc/resolv.conf"),
    "/run/systemd/resolve",
    *("/etc/passwd", "/etc/group", "/etc/services", "/etc/protocols"),
    # Certificates: without them TLS trusts nobody, and says so only when it is used.
    *("/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/var/lib/ca-certificates", "/etc/crypto-policies"),
    # What is there and cannot be read is an error where what is missing is none: mimetypes, git.
    *("/etc/mime.types", "/etc/httpd/mime.types", "/etc/httpd/conf/mime.types", "/etc/apache/mime.types"),
    *("/etc/apache2/mime.types", "/etc/gitconfig", "/etc/localtime", "/etc/timezone", "/etc/os-release"),
    *("/etc/lsb-release", "/etc/debian_version", "/etc/fonts", "/etc/locale.alias"),
    *("/proc", "/sys/fs/cgroup", "/sys/devices/system/cpu", "/sys/devices/system/node"),
    *("/dev/urandom", "/dev/random"),
)
"""Of any system; what is missing is passed over."""
_USE: Final = ("/dev/null", "/dev/zero", "/dev/full")
_SHARE: Final = ("/dev/shm",)
"""Locks and queues of ``multiprocessing`` are there. It is not listed: names are random, and stay unknown."""

_OF_INSTALLATION: Final = ("lib", "lib64", "share", "ssl", "etc")


class FenceError(Hinted):
    """It cannot be put up as things are. ``at``: the line, as in ``PythonApp.where``."""

    def __init__(self, at: str, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.at = at


class Wish(NamedTuple):
    """A file or folder, by its name in the file, absolute, and how it is to be used. ``at`` as in ``FenceError``."""

    path: str
    how: str
    at: str
    is_optional: bool = False


class Fence(NamedTuple):
    """What the processes of an app, or of several, may reach; names are still names."""

    wishes: tuple[Wish, ...]
    walls: Walls
    """But for its grants."""
    loose: tuple[str, ...] = ()
    """Folders that a request has chosen: a link in one may lead nowhere but into them."""
    closed: tuple[str, ...] = ()
    """What must not be written to."""
    is_rehearsed: bool = False
    """It is not put up: what it would deny is told."""
    owner: str = ""
    """The app whose private folder is in it; empty: those of all."""


def closed_places(plan: Plan, environ: Mapping[str, str]) -> tuple[str, ...]:
    """What no app in a sandbox may write to: what says what runs, what our Python imports, sockets' folders."""
    found = [*map(os.path.realpath, filter(os.path.isfile, plan.files)), site.getusersitepackages()]
    found += [os.path.dirname(listener.path) for listener in plan.listeners if listener.path]
    found += [default_socket_dir(), runtime_folder(environ) or "", service_folder(environ) or ""]
    return tuple(dict.fromkeys(path for path in found if path))


def unwalled(plan: Plan) -> list[str]:
    """The names of apps, and templates, in no sandbox."""
    return [app.name for app in plan.apps if app.block.sandbox is None or app.block.sandbox.mode == "audit"]


def fence_of(spec: AppSpec, closed: Iterable[str], *, isolated: bool, loose: tuple[str, ...] = ()) -> Fence | None:
    """That of one app; ``None`` when it is in no sandbox. ``isolated``: nobody else runs as its user."""
    box = spec.block.sandbox
    if box is None:
        return None
    wishes = [Wish(spec.working_dir, "read", "working_dir")]
    for how in ("read", "write"):
        for number, text in enumerate(getattr(box, how)):
            name, is_optional = unescaped(text.removeprefix("-")), text.startswith("-")
            wishes.append(Wish(absolute(name, spec.working_dir), how, f"{how}[{number}]", is_optional))
    walls = Walls((), box.connect, box.listen, isolated if box.unix is None else box.unix)
    return Fence(tuple(wishes), walls, loose, tuple(closed), box.mode == "audit", spec.name)


def common_fence(spec: AppSpec, closed: Iterable[str], environ: Mapping[str, str], base: str) -> Fence | None:
    """What all tenants of a template share: folders up to where a request has a say. Raises ``FenceError``: ``/``."""
    box = spec.block.sandbox
    if box is None or box.mode == "audit":
        return None
    wishes = []
    for at, text in _paths(spec.block, environ).items():
        if at != "venv":
            path = absolute(_fixed(text.removeprefix("-")), base)
            wishes.append(Wish(path, "write" if at.startswith("write") else "read", at, is_optional=True))
    # System calls are refused in this layer alone. Tenants who share a fork server have one user.
    walls = Walls((), box.connect, box.listen, bool(box.unix))
    return Fence(tuple(wishes), walls, closed=(*closed, *_imported_from(spec, environ)))


def _imported_from(spec: AppSpec, environ: Mapping[str, str]) -> list[str]:
    """Where an interpreter finds code that tenants must not put there: it runs before they are apart."""
    try:
        own = worker_environ(spec, environ, accounts.resolve(spec.block.user, spec.block.group))
    except accounts.AccountError:  # a request decides, and no two tenants share one
        return []
    values = settled_fields(spec.block, environ)
    own |= {pair.name: values.get(f"env_var[{n}]", pair.value) for n, pair in enumerate(spec.block.env_vars)}
    bases = (("PYTHONUSERBASE", "lib"), ("HOME", ".local/lib"), ("PYTHONPYCACHEPREFIX", ""))
    # Who has one of his own shares no fork server.
    return [os.path.join(own[name], below) for name, below in bases if own.get(name) and "{" not in own[name]]


def tops(spec: AppSpec, values: Mapping[str, str], environ: Mapping[str, str], base: str) -> tuple[str, ...]:
    """The folders that *values*, by the names of fields, have chosen: each path up to where the first of them ends."""
    found = []
    for at, text in _paths(spec.block, environ, "env_file[").items():
        if at in values:
            chosen = values[at].removeprefix("-")
            end = chosen.find("/", len(_fixed(text.removeprefix("-"), whole=True)))
            found.append(absolute(chosen if end < 0 else chosen[:end], base))
    return tuple(dict.fromkeys(found))


def _paths(block: PythonApp, environ: Mapping[str, str], *more: str) -> dict[str, str]:
    wanted = ("working_dir", "venv", "read[", "write[", *more)
    return {name: text for name, text in settled_fields(block, environ).items() if name.startswith(wanted)}


def _fixed(text: str, *, whole: bool = False) -> str:
    """*text* up to its first placeholder; unless ``whole``, only the folders that are whole there."""
    compiled = template.compile(text)
    if compiled.is_static:
        return text
    before = compiled.fill(dict.fromkeys(compiled.names, "\0")).partition("\0")[0]
    return before if whole else before.rpartition("/")[0] or ("/" if before.startswith("/") else "")


class Sites(NamedTuple):
    """What is on disk around a fence: the interpreter, our libraries, the private folder ("" where there is none)."""

    python: str
    libraries: tuple[str, ...]
    private: str


def walls_of(fence: Fence, sites: Sites) -> Walls:
    """Rules, as names lead just now. Blocks for as long as the file system does. Raises ``FenceError``: a path is
    missing, of the wrong kind, leads astray, or must not be had.
    """
    venv, roots = _interpreter(sites.python)
    ours = (str(PACKAGE), *sites.libraries)
    found = {**dict.fromkeys((*_READ, *ours), "read"), **dict.fromkeys(_USE, "use"), **dict.fromkeys(_SHARE, "share")}
    grants = [Grant(path, how) for path, how in found.items()]
    wishes = [Wish(path, "read", "venv", is_optional=True) for path in (*venv, *roots)]
    known = {path: path for path in roots if not os.path.islink(path)}
    reals = {wish: known.get(wish.path) or os.path.realpath(wish.path) for wish in (*wishes, *fence.wishes)}
    private = os.path.realpath(sites.private) if sites.private else ""
    loose = [*map(os.path.realpath, fence.loose), *(real for wish, real in reals.items() if wish.how == "write")]
    loose += [private] if private else []
    settled = [real for wish, real in reals.items() if not any(files.is_within(wish.path, each) for each in loose)]
    if roots and fence.loose:
        _check_program(sites.python, roots[0], fence, [*loose, *(reals[wish] for wish in fence.wishes)])
    for wish, real in reals.items():
        if not os.path.lexists(real):
            if wish.is_optional:
                continue
            raise FenceError(wish.at, f"{wish.path} does not exist", f"create it, correct it, or write -{wish.path}")
        _check_kind(wish, real)
        if fence.owner:
            _check_apart(wish, real, private)
        if not any(files.is_within(real, each) for each in (*loose, *settled)):
            _check_way(wish, real, loose)
        if wish.how == "write":
            _check_written(wish, real, fence.closed, (*venv, *roots, *ours))
        grants.append(Grant(real, wish.how, is_plain=True))
    if private:
        grants.append(Grant(private, "own", is_plain=True))
    return fence.walls._replace(grants=tuple(grants))


def identities(walls: Walls) -> tuple[tuple[int, int], ...]:
    """Which files and folders they are of: a name may come to mean another."""
    return tuple(map(_identity, walls.grants))


def _identity(grant: Grant) -> tuple[int, int]:
    try:
        info = os.stat(grant.path)
    except OSError:
        return 0, 0
    return info.st_dev, info.st_ino


def _interpreter(python: str) -> tuple[list[str], list[str]]:
    """The virtual environment of *python*, and what is needed of the installation that it is of."""
    root, real = os.path.dirname(os.path.dirname(python)), os.path.realpath(python)
    base = os.path.dirname(os.path.dirname(real))
    venv = [root] if os.path.exists(os.path.join(root, "pyvenv.cfg")) else []
    # Only of what is an installation: a link of a tenant's may lead to any file.
    if base == "/" or not installation(real).folders:
        return venv, []
    return venv, [real, *(os.path.join(base, name) for name in _OF_INSTALLATION)]


def _check_kind(wish: Wish, real: str) -> None:
    if real == "/":
        hint = "name the folders that it needs"
        raise FenceError(wish.at, f"{wish.path} is the whole file system, which leaves nothing of a sandbox", hint)
    if files.is_within(real, "/proc"):
        hint = "take it away: /proc can be read in a sandbox, and written to it never is"
        raise FenceError(wish.at, f"{wish.path} may mean another file to each process", hint)
    try:
        mode = os.stat(real).st_mode
    except OSError as exc:
        hint = "let the daemon's user look at it"
        raise FenceError(wish.at, f"{wish.path} cannot be looked at: {exc.strerror}", hint) from None
    is_device = stat.S_ISCHR(mode) and files.is_within(real, "/dev")
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode) or is_device):
        hint = "name a file, a device in /dev, or the folder that it is in"
        raise FenceError(wish.at, f"{wish.path} is neither a file nor a folder", hint)


def _check_apart(wish: Wish, real: str, private: str) -> None:
    """The private folders of all apps are in one: that of ``private``, or one that is yet to be made."""
    base = os.path.dirname(private) if private else os.path.realpath(os.path.join(tempfile.gettempdir(), "caddysnake-"))
    if files.is_within(base, real) or files.is_within(real, base):
        message = f"the private folders of all apps are in {wish.path}"
        raise FenceError(wish.at, message, "name a folder in it: TMPDIR is the app's own already")


def _check_way(wish: Wish, real: str, loose: list[str]) -> None:
    """Whoever can write to a folder can put a link there, and the sandbox of the next start would be where it leads."""
    for place in files.links_on(wish.path):
        for each in loose:
            if files.is_within(place, each):
                message = f"{wish.path} leads to {real}, by a link in {each}, where it must not lead out of that"
                raise FenceError(wish.at, message, f"write `read {real}` in the block of sandbox, or end the link")


def _check_program(python: str, real: str, fence: Fence, own: list[str]) -> None:
    """What a request has chosen may have any interpreter, but for a neighbour's, with the packages that are there."""
    near = [each for each in fence.loose if files.is_within(real, os.path.dirname(each))]
    if not any(files.is_within(real, each) for each in own):
        _check_way(Wish(python, "read", "venv"), real, near)


def _check_written(wish: Wish, real: str, closed: Iterable[str], code: Iterable[str]) -> None:
    for each in (*closed, *code):
        other = os.path.realpath(each)
        if files.is_within(other, real) or (each in code and files.is_within(real, other)):
            message = f"an app in a sandbox must not write to {wish.path}: {each} is there"
            raise FenceError(wish.at, message, "name a folder that holds nothing but what the app writes")
