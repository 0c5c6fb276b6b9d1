"""A cgroup of its own for each worker process that has a limit of memory, and for each command that is executed as an
app is, where the daemon's own is delegated to it.

Of cgroup v2 (the kernel's admin-guide/cgroup-v2). A group that has limits for its children may hold no process itself,
so the daemon moves over, before it starts anything:

    …/caddysnake.service/          what the service manager has made, and delegated
        daemon/                    the daemon, fork servers, relays, the log process, workers without such a limit
        app-blog-17/               one worker process, thread host or command, and whatever it starts

Nothing here is for the loop: moving a process may wait for every CPU.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from ... import files
from .kinship import is_ours
from .log.fields import FieldLog

log = FieldLog("caddysnake.daemon")

LEAF = "daemon"
PREFIX = "app-"
_NAME_MAX = 100
_SYSTEMD = "/run/systemd/system"
_MOVES = 8
"""Rounds in which all processes are moved: they may fork meanwhile."""
_REMOVE_AFTER_S = (0.0, 0.01, 0.05, 0.2, 0.8)
"""Who is killed is not gone at once."""

_BESIDES = ("cpu", "pids")
"""Controllers that are used where they are delegated, too."""
_CPU_PERIOD_US = 100_000
_CONTROLLERS = {"memory": "memory", "cpu": "cpu", "processes": "pids"}
"""By what each of an app's limits is held."""

_tree: CgroupTree | None = None
_why_not = "it has not been looked at"


def runs_systemd() -> bool:
    """Whether systemd is the machine's manager, see sd_booted(3)."""
    return os.path.isdir(_SYSTEMD)


class Undelegated(Exception):
    """The daemon's cgroup is not its own to divide. The text says why."""


class CgroupTree:
    """The daemon's own cgroup, below which others are made."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.known: set[str] = set()
        """The names of those that are in use."""

    @classmethod
    def take(cls, controller: str = "memory", proc: str = "/proc") -> CgroupTree:
        """Move this process, and what it has started, into the leaf. Raises ``Undelegated``, before or after that."""
        root = own_group(Path(proc))
        _check(root, controller)
        tree = cls(root)
        leaf = root / LEAF
        try:
            if leaf.exists() and _strangers(leaf):
                raise Undelegated(f"another daemon is in {leaf}")
            leaf.mkdir(exist_ok=True)
            for _ in range(_MOVES):
                _move(root, leaf)
                if not _pids(root):
                    break
            _write(root / "cgroup.subtree_control", f"+{controller}")
        except OSError as exc:
            raise Undelegated(f"{root}: {exc.strerror}") from None
        for name in _words(root / "cgroup.controllers") & {*_BESIDES}:
            with contextlib.suppress(OSError):
                _write(root / "cgroup.subtree_control", f"+{name}")
        tree.tidy()
        return tree

    def bounds(self, limits: Mapping[str, int]) -> dict[str, int]:
        """What of ``limits`` can be held here, for all processes of a group together."""
        has = {"memory"} | _words(self.root / "cgroup.subtree_control")
        return {name: value for name, value in limits.items() if _CONTROLLERS.get(name) in has}

    def place(self, app: str, number: int | str, pid: int, bounds: Mapping[str, int]) -> str:
        """Put process ``pid`` into a new group, with what it starts from now on; its path. Raises ``OSError``."""
        name = f"{PREFIX}{re.sub(r'[^A-Za-z0-9_.-]', '_', app)[:_NAME_MAX]}-{number}"
        group = self.root / name
        self.known.add(name)
        try:
            group.mkdir()
            if "memory" in bounds:
                _limit_memory(group, bounds["memory"])
            if "cpu" in bounds:
                _write(group / "cpu.max", f"{bounds['cpu'] * _CPU_PERIOD_US // 100} {_CPU_PERIOD_US}")
            if "processes" in bounds:
                _write(group / "pids.max", str(bounds["processes"]))
            _write(group / "cgroup.procs", str(pid))
        except OSError:
            self.known.discard(name)
            _remove(group)
            raise
        return str(group)

    def tidy(self) -> None:
        """Remove what nobody answers for, with the processes in it."""
        for group in self.root.glob(f"{PREFIX}*"):
            if group.name not in self.known:
                clear(group)


def _limit_memory(group: Path, memory_bytes: int) -> None:
    _write(group / "memory.max", str(memory_bytes))
    # One of them gone and the others left would be an app that is half there.
    _write(group / "memory.oom.group", "1")
    with contextlib.suppress(OSError):  # the kernel counts no swap
        _write(group / "memory.swap.max", "0")  # or it would fill the swap first, and slow everybody down


def _words(path: Path) -> set[str]:
    """Those in a file, without signs."""
    try:
        return {word.lstrip("+") for word in path.read_text().split()}
    except OSError:
        return set()


def own_group(proc: Path) -> Path:
    """The folder of the cgroup of this process. Raises ``Undelegated``: there is no cgroup v2."""
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
        mounts = (proc / "self/mountinfo").read_text().splitlines()
    except OSError as exc:
        raise Undelegated(f"{proc}: {exc.strerror}") from None
    own = next((line[3:] for line in lines if line.startswith("0::")), None)
    for fields, _, source in (line.partition(" - ") for line in mounts):
        _, _, _, root, place, *_ = fields.split()
        if own is not None and source.startswith("cgroup2 ") and Path(own).is_relative_to(root):
            return Path(place) / Path(own).relative_to(root)
    raise Undelegated("cgroup v2 is not mounted")


def _check(root: Path, controller: str) -> None:
    """Raises ``Undelegated``."""
    try:
        controllers = (root / "cgroup.controllers").read_text().split()
    except OSError as exc:
        raise Undelegated(f"{root}: {exc.strerror}") from None
    if controller not in controllers:
        raise Undelegated(f"{root} has no {controller} controller")
    if not (root / "cgroup.type").exists():
        raise Undelegated(f"{root} is everybody's")
    if not all(os.access(root / name, os.W_OK) for name in ("", "cgroup.procs", "cgroup.subtree_control")):
        raise Undelegated(f"{root} may not be written to: it is not delegated")
    if runs_systemd() and not _is_marked(root):
        raise Undelegated(f"systemd has not delegated {root}")
    strangers = _strangers(root)
    if strangers:
        raise Undelegated(f"others are in {root}: process {strangers[0]}")


def _is_marked(root: Path) -> bool:
    """systemd says of a group that it is delegated. From any other it may take the controller away again."""
    for name in ("user.delegate", "trusted.delegate"):
        try:
            if os.getxattr(root, name) == b"1":
                return True
        except OSError:
            continue
    return False


def _strangers(group: Path) -> list[int]:
    """Those in ``group`` that are neither this process nor anything that it has started."""
    return [pid for pid in sorted(_pids(group)) if not is_ours(pid)]


def _pids(group: Path) -> list[int]:
    return [int(line) for line in (group / "cgroup.procs").read_text().split()]


def _move(source: Path, target: Path) -> None:
    for pid in _pids(source):
        with contextlib.suppress(ProcessLookupError):
            _write(target / "cgroup.procs", str(pid))


def _write(path: Path, text: str) -> None:
    with files.closing(os.open(path, os.O_WRONLY | os.O_CLOEXEC)) as fd:
        os.write(fd, text.encode())


def _remove(group: Path) -> bool:
    """Remove ``group``, and those that were made in it; False when somebody is still in it."""
    try:
        for folder, _, _ in os.walk(group, topdown=False):
            os.rmdir(folder)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def end(group: Path) -> None:
    """SIGKILL to all that is in ``group``."""
    try:
        _write(group / "cgroup.kill", "1")
    except FileNotFoundError:  # before Linux 5.14
        with contextlib.suppress(OSError):
            for pid in _pids(group):
                os.kill(pid, signal.SIGKILL)
    except OSError:
        pass


def clear(group: Path) -> None:
    """End all that is in ``group``, and remove it."""
    for pause_s in _REMOVE_AFTER_S:
        time.sleep(pause_s)
        end(group)
        if _remove(group):
            return
    log.warning("cgroup not removed: processes in it do not end", cgroup=str(group))


def why_killed(group: Path, memory_bytes: int | None) -> str:
    """For want of which memory the kernel has killed in ``group``; empty when it has not."""
    try:
        words = (group / "memory.events").read_text().split()
        events = dict(zip(words[::2], map(int, words[1::2]), strict=False))
    except (OSError, ValueError):
        return ""
    if not events.get("oom_kill"):
        return ""
    if memory_bytes is None or not events.get("oom"):
        return "the kernel killed it: the service, or the machine, is out of memory"
    return (
        f"the kernel killed it: with all that it had started it came to its limit of {memory_bytes / 1e6:,.0f} MB "
        "(limits { memory })"
    )


# -- what the daemon does with them ------------------------------------------------------------------------------------


def begin() -> None:
    """Look whether there can be any; to be called before anything is started."""
    global _tree, _why_not
    try:
        _tree, _why_not = CgroupTree.take(), ""
    except Undelegated as exc:
        _tree, _why_not = None, str(exc)
    log.debug("cgroups", root=root() or "", why_not=_why_not)


def restore(root: str | None) -> None:
    """Another image of this daemon has taken ``root``; None: it had none."""
    global _tree, _why_not
    if root is None or not os.path.isdir(root):
        begin()
    else:
        _tree, _why_not = CgroupTree(Path(root)), ""


def tidy() -> None:
    """Remove those that no worker is known to have; for a thread, after ``restore``, when the workers have resumed."""
    if _tree is not None:
        _tree.tidy()


def root() -> str | None:
    """The group below which they are made; None: there are none."""
    return None if _tree is None else str(_tree.root)


def why_not() -> str:
    """Why there are none; empty when there are."""
    return _why_not


def bounds_of(limits: Mapping[str, int] | None) -> dict[str, int]:
    """What a process with these ``limits`` is to have a group for; without any it gets none."""
    return _tree.bounds(limits) if limits and _tree is not None else {}


def why_no_cpu() -> str:
    """Why there is no limit of processor time; empty when there is."""
    if _tree is None:
        return _why_not
    return "" if "cpu" in _words(_tree.root / "cgroup.subtree_control") else f"{_tree.root} has no cpu controller"


class Group:
    """The cgroup of one process."""

    def __init__(self, path: str, memory_bytes: int | None) -> None:
        self.path = path
        self._memory_bytes = memory_bytes
        if _tree is not None:
            _tree.known.add(Path(path).name)

    @classmethod
    async def of(cls, app: str, number: int | str, pid: int, bounds: Mapping[str, int]) -> Group | None:
        """A new one, with process ``pid`` in it; None when that cannot be, which is in the log."""
        if _tree is None:
            return None
        try:
            return cls(await asyncio.to_thread(_tree.place, app, number, pid, bounds), bounds.get("memory"))
        except OSError as exc:
            if exc.errno != errno.ESRCH:
                error = f"{_tree.root}: {exc.strerror}"
                log.warning("no cgroup for a process: memory is limited by RLIMIT_DATA", app=app, pid=pid, error=error)
            return None

    def snapshot(self) -> tuple[str, int | None]:
        """What to make it of in another image of the daemon."""
        return self.path, self._memory_bytes

    async def why_killed(self) -> str:
        """Why the kernel has killed its process, if it was for want of memory; else empty."""
        return await asyncio.to_thread(why_killed, Path(self.path), self._memory_bytes)

    def end(self) -> None:
        """SIGKILL to all that is in it, in a moment."""
        end(Path(self.path))

    async def remove(self) -> None:
        """Its process is gone: so is, from now on, all that this one has started."""
        await asyncio.to_thread(clear, Path(self.path))
        if _tree is not None:
            _tree.known.discard(Path(self.path).name)
