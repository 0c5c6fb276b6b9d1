"""Where a running daemon is. Every command asks here, so that all of them find the same one, wherever they are called.

A daemon is known by the Caddyfile that it runs: its default socket has a name that follows from the file's path, the
file may say another address, and the daemon announces the one that it has (``admin.attending``), whatever the
environment that it was started in. A file that goes by several names is one file.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

from ..doctor.findings import Silence
from .calling import CallFailed, Target, call, is_strangers, peer_of
from .reading import add_config_arguments

_PROBE_S = 1.0
_ASK_S = 3.0
_ASK_ALL_S = 10.0
_ASKED_MAX = 64
"""Who announces more daemons than that is up to no good."""


_OPTIONS = re.compile(r"(?:\s|#[^\n]*\n)*\{[ \t]*\n(.*?)^\}", re.DOTALL | re.MULTILINE)
_OPTIONS_MAX = 1 << 20
_ADMIN = re.compile(
    r"^[ \t]*admin[ \t]+(?:unix/(/[^\s|{}\"`]+)(?:\|\S+)?|(localhost|127\.0\.0\.1):(\d{1,5}))[ \t]*(?:\{[ \t]*)?$",
    re.MULTILINE,
)
_ADMIN_OFF = re.compile(r"^[ \t]*admin[ \t]+off[ \t]*$", re.MULTILINE)
_LISTENS = "0A"
"""TCP_LISTEN, in /proc/net/tcp."""


class _Seen(NamedTuple):
    """A daemon, as far as it could be looked at without a question."""

    target: Target
    uid: int
    """Whose it is; -1 over TCP, where nobody says."""
    is_refused: bool = False
    """It is there, and this user may not ask it."""


def add_daemon_arguments(parser: argparse.ArgumentParser) -> None:
    """The options by which a command is told which daemon it is about: see ``find``."""
    add_config_arguments(parser)
    about = "the daemon's admin API (default: found through the Caddyfile)"
    parser.add_argument("--address", metavar="ADDRESS", help=about)


def find(address: str | None, config: str | None) -> Target:
    """The API at ``address``, else of the daemon that runs the Caddyfile ``config``, else of the one that runs
    ``./Caddyfile``, else, without such a file, of the only one there is.

    Raises ``CallFailed``.
    """
    if address is not None:
        return _at(address)
    if config is None and not os.path.exists("Caddyfile"):
        return _only_one()
    return _of_file("Caddyfile" if config is None else config)


def _at(address: str) -> Target:
    from ..config.language.values import InvalidValue, socket_address

    try:
        return _target(socket_address(address))
    except InvalidValue as exc:
        raise CallFailed(f"{exc}" + (f" ({exc.hint})" if exc.hint else "")) from None


def file_asked_for(config: str | None) -> str:
    """The absolute path of the Caddyfile ``config``, or of the one in the current directory. Raises ``CallFailed``."""
    from ..config.plan.places import absolute, start_folder

    file = "Caddyfile" if config is None else config
    if os.path.isabs(file):
        return absolute(file, "/")
    try:
        return absolute(file, start_folder(os.environ))
    except OSError:
        raise CallFailed(
            f"the current directory has been removed, so {file} means nothing: name the file by its absolute path"
        ) from None


def fault_of(address: str | None, config: str | None) -> None:
    """Say what is wrong with the file by which a daemon was found, though that runs what it was before: it would keep
    the next start from happening.
    """
    from ..config.language.adapt import ConfigErrors, read
    from .reading import DEFAULT_FILE, print_errors

    file = config or (DEFAULT_FILE if address is None and os.path.exists(DEFAULT_FILE) else None)
    if file is None or file == "-":
        return
    try:
        with open(file, "rb") as opened:
            read(opened.read(), file, os.environ)
    except OSError as exc:
        print(f"Error: cannot read {file}, which the daemon runs as it was: {exc.strerror}", file=sys.stderr)
    except ConfigErrors as exc:
        why = f"The daemon runs {file} as it was; as it is now, neither a reload nor a start would take it:"
        print(f"\n{why}", file=sys.stderr)
        print_errors(exc.errors)


def _of_file(file: str) -> Target:
    from ..config.plan.places import is_same
    from ..config.plan.rendezvous import name_for

    path = file_asked_for(file)
    names = {name_for(each) for each in (path, os.path.realpath(path))}
    everyone: dict[Target, _Seen] = {}
    for seen in chain(_by_default(), _announced_ones(path)):
        if not seen.is_refused and os.path.basename(seen.target.path) in names:
            return seen.target  # before what the file says: with a supervised Caddy that address is Caddy's
        everyone.setdefault(seen.target, seen)
    mine = [seen for seen in everyone.values() if os.path.basename(seen.target.path) in names]
    said = None
    for said_in in (_plainly_said_in, _said_in):
        said = said_in(path)
        if said is not None and _look(said) is not None:
            return said
    others: list[tuple[_Seen, str]] = []
    until = time.monotonic() + _ASK_ALL_S
    for seen in everyone.values():
        if not seen.is_refused and time.monotonic() < until:
            runs = _file_of(seen.target)
            if os.path.isabs(runs) and is_same(path, runs):
                return seen.target
            others.append((seen, runs))
    is_off = bool(_ADMIN_OFF.search(_options_of(path)))
    unit = "" if mine or is_off else _unit_of(path)
    if said is not None and not unit:
        return said  # whoever calls it says why that cannot be
    if mine:
        where = f"the daemon of {path} is at {mine[0].target}, which this user may not use"
        raise CallFailed(f"{where}: {_call_as(mine[0].uid)}", silence=Silence.DENIED)
    silence = Silence.UNKNOWN if is_off else Silence.ABSENT
    raise CallFailed(unit or _nobody(path, file, others, is_off), silence=silence)


def _unit_of(path: str) -> str:
    """What to say of the unit that is to run ``path``, and does not answer; empty where there is none."""
    from ..doctor.service import unit_of

    unit = unit_of(path)
    if unit is None:
        return ""
    text, command = unit.silence()
    return f"no daemon answers for {path}: {text}\n{'Its log' if command == unit.log else 'Hint'}: {command}"


def _nobody(path: str, file: str, others: list[tuple[_Seen, str]], is_off: bool) -> str:
    start = f"`caddysnake run --config {file}`"
    text = f"no daemon answers for {path}: start it with {start}, or say where its admin API is with --address"
    if is_off:
        text = (
            f"{path} says `admin off`, so a daemon that runs it can be asked nothing: take that line out, "
            f"or write `admin unix//path`, and start it anew with {start}"
        )
    if others:
        text += "\nThese run something else:" + "".join(f"\n  {_listed(*each)}" for each in others)
    return text


def _only_one() -> Target:
    # Those that a daemon started like this would be among; only when there are none, what others have.
    for running in (list(_by_default()), list(_announced_ones(None))):
        usable = [seen for seen in running if not seen.is_refused]
        if len(usable) == 1:
            return usable[0].target
        if usable:
            listed = "".join(f"\n  {_listed(seen, _file_of(seen.target))}" for seen in usable[:_ASKED_MAX])
            raise CallFailed(f"several daemons are running; choose one with --config, or:{listed}")
        if running:
            target, uid, _ = running[0]
            raise CallFailed(f"the daemon at {target} is not this user's: {_call_as(uid)}")
    raise CallFailed("no daemon is running, as far as this user can see; say where its admin API is with --address")


def _listed(seen: _Seen, file: str) -> str:
    whose = f" ({_user(seen.uid)})" if seen.uid not in (-1, os.geteuid()) else ""
    return f"--address {seen.target}   {file}{whose}"


def _call_as(uid: int) -> str:
    return f"call as {_user(uid)}, or as root" if uid > 0 else "call as root"


def _user(uid: int) -> str:
    from ..files import user_name

    return f"user {user_name(uid)}"


# -- who is there ------------------------------------------------------------------------------------------------------


def _by_default() -> Iterator[_Seen]:
    from ..config.plan.rendezvous import default_sockets

    return filter(None, (_look(Target(path)) for path in default_sockets(os.environ)))


def _announced_ones(file: str | None) -> Iterator[_Seen]:
    """Anybody can announce anything. What comes of it is what the socket itself says: whose it is, and what it runs."""
    from ..config.plan.rendezvous import TCP

    for said in _announced()[:_ASKED_MAX]:
        port = said.removeprefix(TCP)
        seen = _look_at_port(int(port)) if port != said and port.isdigit() else _look(Target(said))
        if seen is not None and (seen.is_refused or _may_be_asked(seen.uid, file)):
            yield seen


def _announced() -> list[str]:
    """Paths of sockets, and ports, as ``admin.attending`` has them: all users' are in one table (proc_pid_net(5))."""
    from ..config.plan.rendezvous import ANNOUNCED, TCP

    try:
        with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as table:
            names = [fields[7].rstrip("\n") for line in table if len(fields := line.split(" ", 7)) == 8]
    except OSError:
        return []
    said = [name.removeprefix(f"@{ANNOUNCED}") for name in names if name.startswith(f"@{ANNOUNCED}")]
    return [each for each in dict.fromkeys(said) if each.startswith(("/", TCP))]


def _may_be_asked(uid: int, file: str | None) -> bool:
    """Root asks other users' daemons too, but sends nobody a file that he could not read himself."""
    from ..files import closed_to, groups_of

    if uid in (0, os.geteuid()):
        return True
    if os.geteuid() != 0:
        return False
    return file is None or closed_to(file, uid, groups_of(uid)) is None


def _look(target: Target) -> _Seen | None:
    """Who answers there, if somebody does."""
    if not target.path:
        with contextlib.suppress(OSError), socket.create_connection((target.host, target.port), _PROBE_S):
            return _Seen(target, -1)
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_S)
        try:
            probe.connect(target.path)
            uid = peer_of(probe)
        except PermissionError:
            return _Seen(target, _owner_of(target.path), is_refused=True)
        except (OSError, ValueError):
            return None
    return _Seen(target, uid, is_strangers(uid))


def _look_at_port(port: int) -> _Seen | None:
    """Who listens at ``port`` of this machine, by the kernel's table: anybody could have announced it."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as opened:
                lines = [line.split() for line in opened]
        except OSError:
            continue
        for fields in lines:
            if len(fields) > 7 and fields[3] == _LISTENS and fields[1].endswith(f":{port:04X}"):
                uid = int(fields[7])
                return _Seen(Target("", "localhost", port), uid, is_strangers(uid))
    return None


def _owner_of(path: str) -> int:
    """Whose ``path`` is, or the first folder above it that may be looked at."""
    while path != "/":
        with contextlib.suppress(OSError):
            return os.stat(path).st_uid
        path = os.path.dirname(path)
    return 0


def _file_of(target: Target) -> str:
    try:
        return str(call(target, "GET", "/status", _ASK_S)["daemon"]["file"])
    except (CallFailed, KeyError, TypeError):
        return "?"


def _options_of(file: str) -> str:
    """Its global options, read as text: at once, and whatever else is wrong there."""
    try:
        with open(file, encoding="utf-8", errors="replace") as opened:
            found = _OPTIONS.match(opened.read(_OPTIONS_MAX))
    except OSError:
        return ""
    return "" if found is None else found[1]


def _plainly_said_in(file: str) -> Target | None:
    """The address that a line of the global options gives."""
    found = _ADMIN.search(_options_of(file))
    if found is None:
        return None
    path, host, port = found.groups()
    return Target(path) if path else Target("", host, int(port))


def _said_in(file: str) -> Target | None:
    """The address that the option ``admin`` of ``file`` gives, if that is one."""
    from ..caddyfile.errors import CaddyfileError
    from ..config.language.adapt import ConfigErrors, read
    from ..config.plan.admin import admin_endpoint

    try:
        with open(file, "rb") as opened:
            config = read(opened.read(), file, os.environ).config
        endpoint = admin_endpoint(config.options, file, os.environ, for_caddy=False, base_dir=os.path.dirname(file))
    except (OSError, ConfigErrors, CaddyfileError):
        return None  # whoever reads it next says so
    if endpoint.listen is None or endpoint.is_default:
        return None
    return _target(endpoint.listen)


def _target(address: Any) -> Target:
    from ..config.language.values import InvalidValue

    if address.network == "unix":
        return Target(file_asked_for(address.path))
    if address.network == "fd" or not address.port:
        raise InvalidValue(f"{address.name!r} cannot be connected to", "write unix//run/x.sock or localhost:2020")
    return Target("", address.host if address.host not in ("", "0.0.0.0", "::") else "localhost", address.port)
