"""Listeners: whether Caddy's user gets to each, who holds it, and what a daemon that is gone has left of it."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import stat
from collections.abc import Iterator, Sequence

from ..config.plan.accounts import AccountError, group_id, user_id
from ..config.plan.plan import PlannedListener
from ..daemon.system.cgroups import runs_systemd
from ..daemon.system.log.records import printable
from ..files import group_name, user_name
from .findings import Finding, Topic
from .front import Front
from .reach import Obstacle, entering, group_of, has_list, may, of_database
from .service import Runner, runner_of

TOPIC = Topic("sockets")


def check_sockets(
    listeners: Sequence[PlannedListener], front: Front | None, runner: Runner | None = None
) -> Iterator[Finding]:
    """What there is to say about each unix socket of ``listeners``. ``runner``: who runs the daemon, or would."""
    runner = runner or runner_of(None, None)
    unix = [listener for listener in listeners if listener.path]
    if unix and front is None:
        text = "no Caddy runs and there is no user caddy: whether it gets to the sockets cannot be told"
        yield TOPIC.doubt(text, "caddysnake doctor --caddy-user USER")
    for listener in unix:
        yield from _check(listener, front, runner)


def _check(listener: PlannedListener, front: Front | None, runner: Runner) -> Iterator[Finding]:
    path, folder = listener.path, os.path.dirname(listener.path)
    if not os.path.isdir(folder):
        yield TOPIC.bad(f"the folder of {path} is not there", _folder_of(folder, runner))
        return
    holder = holder_of(path)
    exists = _is_socket(path)
    if holder is None and exists and not _accepts(path):
        text = f"{path} is what a daemon that is gone has left; the next start replaces it"
        yield TOPIC.doubt(text, f"rm {shlex.quote(path)}")
    if holder is not None and not exists:
        text = f"process {holder} listens at {path}, but the socket is gone: somebody has removed it"
        yield TOPIC.bad(text, "the daemon makes it anew within seconds; else see its log, and reload")
    if front is None:
        return
    obstacle = entering(front.who, folder)
    if obstacle is not None:
        yield _no_entry(path, obstacle, front, runner)
        return
    yield _connecting(listener, front, runner) if not exists else _connected(listener, front, runner)


def check_upstreams(listeners: Sequence[PlannedListener], named: frozenset[str] | None, file: str) -> Iterator[Finding]:
    """Whether the Caddy of this machine forwards to the sockets of ``file``. ``named``: where it forwards to."""
    unix = {f"unix/{listener.path}": listener for listener in listeners if listener.path}
    if named is None or not unix:
        return
    folder = os.path.dirname(next(iter(unix.values())).path)
    part = f"reverse_proxy {next(iter(unix))}"
    if all(listener.own for listener in unix.values()):
        part = f"what `caddysnake caddyfile --config {shlex.quote(file)} --socket-dir {shlex.quote(folder)}` prints"
    fix = f"put {part} into Caddy's file, in the place of what is wrong there, and reload Caddy"
    for each in sorted(unix.keys() - named):
        yield TOPIC.doubt(f"the configuration of the Caddy that runs here does not name {each}", fix)
    for each in sorted(named - unix.keys()):
        path = each.removeprefix("unix/")
        if path != each and os.path.dirname(path) == folder and not _accepts(path):
            yield TOPIC.bad(f"Caddy forwards to {printable(each)}, where nobody listens: 502", fix)


def _folder_of(folder: str, runner: Runner) -> str:
    """How a folder that is not there comes to be: where systemd makes it, by a start of the unit."""
    unit = runner.unit
    if unit is not None and any(folder == each or folder.startswith(f"{each}/") for each in unit.folders):
        return f"systemctl restart {unit.name}"
    owner = "" if runner.who.uid == os.geteuid() else f" -o {shlex.quote(runner.who.name)}"
    return f"install -d -m 0755{owner} {shlex.quote(folder)}"


def _no_entry(path: str, obstacle: Obstacle, front: Front, runner: Runner) -> Finding:
    text = f"{front} cannot get to {path}: it may not enter {obstacle.path}"
    if has_list(obstacle.path):
        return TOPIC.doubt(f"{text} by its mode, but it has an access control list")
    info = obstacle.info
    if info is None:
        return TOPIC.bad(text, _folder_of(obstacle.path, runner))
    unit = runner.unit
    if unit is not None and obstacle.path in unit.folders:
        given = _number_of(unit.front_group)
        if given not in (-1, *front.who.gids):  # what is changed by hand here, the next start takes back
            return TOPIC.bad(text, _join(given, front))
    elif info.st_mode & stat.S_IXGRP and info.st_gid != 0:
        return TOPIC.bad(text, _join(info.st_gid, front))
    # Others may not enter it, and are not to: only Caddy's group is let through.
    folder = shlex.quote(obstacle.path)
    return TOPIC.bad(text, f"chgrp {shlex.quote(group_of(front.who))} {folder} && chmod g=x {folder}")


def _connected(listener: PlannedListener, front: Front, runner: Runner) -> Finding:
    """The socket is there, and tells."""
    path, info = listener.path, os.stat(listener.path)
    if may(front.who, info, 2):
        who = f"process {front.pid}" if front.pid is not None else f"user {front.who.name}"
        return TOPIC.good(f"Caddy ({who}) gets to {path}")
    text = f"{front} may not write to {path} ({_mode(info)})"
    if has_list(path):
        return TOPIC.doubt(f"{text} by its mode, but it has an access control list")
    with contextlib.suppress(AccountError):
        planned = _planned(listener, runner)
        if may(front.who, planned, 2):
            quoted = shlex.quote(path)
            steps = [f"chgrp {group_name(planned.st_gid)} {quoted}"] * (info.st_gid != planned.st_gid)
            steps += [f"chmod {planned.st_mode:04o} {quoted}"] * (stat.S_IMODE(info.st_mode) != planned.st_mode)
            return TOPIC.bad(f"{text}: somebody has changed it", " && ".join(steps))
    return TOPIC.bad(text, _let_write(info, front, runner))


def _connecting(listener: PlannedListener, front: Front, runner: Runner) -> Finding:
    """The socket will be made as the file says, by ``runner``."""
    try:
        planned = _planned(listener, runner)
    except AccountError as exc:
        return TOPIC.bad(f"{listener.path}: {exc}", exc.hint or "")
    if may(front.who, planned, 2):
        return TOPIC.good(f"Caddy's user {front.who.name} will get to {listener.path} ({_mode(planned)})")
    text = f"{front} will not get to {listener.path} ({_mode(planned)}, if {runner.who.name} starts it)"
    return TOPIC.bad(text, _let_write(planned, front, runner))


def _planned(listener: PlannedListener, runner: Runner) -> os.stat_result:
    """Mode and owners that the socket has when ``runner`` makes it. Raises ``AccountError``."""
    socket = listener.socket
    uid = runner.who.uid if socket.owner is None else user_id(socket.owner)
    gid = _given_by(os.path.dirname(listener.path), runner) if socket.group is None else group_id(socket.group)
    return os.stat_result((socket.mode or 0, 0, 0, 1, uid, gid, 0, 0, 0, 0))


def _mode(info: os.stat_result) -> str:
    return f"{stat.S_IMODE(info.st_mode):04o} {user_name(info.st_uid)}:{group_name(info.st_gid)}"


def _given_by(folder: str, runner: Runner) -> int:
    """The group of what ``runner`` makes in ``folder``: that of the folder, if it is marked so (inode(7), S_ISGID)."""
    info = os.stat(folder)
    return info.st_gid if info.st_mode & stat.S_ISGID else runner.gid


def _let_write(info: os.stat_result, front: Front, runner: Runner) -> str:
    """How Caddy comes to write to a socket like that of ``info``, by what its daemon may do."""
    mode = "" if info.st_mode & stat.S_IWGRP else "socket_mode 0660"
    if info.st_gid in front.who.gids:
        return _options(mode, runner)
    group = group_of(front.who)
    if runner.who.uid == 0 or _number_of(group) in runner.who.gids:
        return _options(f"socket_group {group}" + (f" and {mode}" if mode else ""), runner)
    # Only root, and who is in a group, may give a socket to it (chown(2)).
    steps = _join(info.st_gid, front)
    return f"{steps}; and {_options(mode, runner)}" if mode else steps


def _options(line: str, runner: Runner) -> str:
    verb = "reload" if runner.pid is not None else "start"
    return f"put this into the global options (a mode behind an address goes before it), and {verb}: {line}"


def _join(gid: int, front: Front) -> str:
    """How Caddy's user comes into the group ``gid``, or its process, if the user is there already."""
    group = group_name(gid)
    try:
        is_member = gid in of_database(str(front.who.uid)).gids
    except LookupError:
        is_member = False
    steps = [] if is_member else [f"usermod -aG {shlex.quote(group)} {shlex.quote(front.who.name)}"]
    if runs_systemd():
        return " && ".join([*steps, "systemctl restart caddy"])
    return ", and ".join([*steps, "start Caddy anew"])


def _number_of(group: str) -> int:
    try:
        return group_id(group)
    except AccountError:
        return -1


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def _accepts(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            handle = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)  # a link may be a tenant's
        except OSError:
            return False
        try:
            probe.connect(f"/proc/self/fd/{handle}")
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True  # its backlog is full, or it is not ours to ask
        finally:
            os.close(handle)
    return True


def holder_of(path: str) -> int | None:
    """The process that holds the lock beside the socket, by the kernel's list: asking with a lock of our own could get
    in the way of a daemon that is just starting."""
    try:
        info = os.stat(f"{path}.lock")
        with open("/proc/locks", encoding="ascii") as file:
            lines = [line.split() for line in file]
    except OSError:
        return None
    place = f"{os.major(info.st_dev):02x}:{os.minor(info.st_dev):02x}:{info.st_ino}"
    for fields in lines:
        if len(fields) >= 6 and fields[1] == "FLOCK" and fields[5] == place:
            return int(fields[4])
    return None
