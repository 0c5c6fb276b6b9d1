"""Limits of the system, and of whoever asks: the daemon that they would start has the same."""

from __future__ import annotations

import os
import re
import resource
import shlex
from collections.abc import Iterator
from pathlib import Path

from ..config.plan.plan import Plan
from ..daemon.sockets.shares import reserve
from ..daemon.system.cgroups import runs_systemd
from ..sandbox import landlock, walls
from .findings import Finding, Topic
from .service import Runner, in_container, runner_of

TOPIC = Topic("machine")

_BACKLOG = 4096
_DESCRIPTORS = 16_384
_SPACE = 1 << 20
_OLDEST_KERNEL = (5, 4)
"""waitid(2) on a pidfd came with 5.4, and what else is used not later than this."""


def check_machine(
    plan: Plan | None, proc: str = "/proc", cgroups: str = "/sys/fs/cgroup", runner: Runner | None = None
) -> Iterator[Finding]:
    """What there is to say about the machine; with a ``plan`` also about what that needs of it."""
    yield _kernel(os.uname().release)
    yield _descriptors((runner or runner_of(None, None)).open_files)
    yield from _backlog(Path(proc) / "sys/net/core/somaxconn")
    yield _walls(walls.why_not(), landlock.abi())
    yield from _space(plan)
    yield from _processes(resource.getrlimit(resource.RLIMIT_NPROC)[1], plan)
    if plan is not None and any(limits.memory_bytes is not None for app in plan.apps if (limits := app.block.limits)):
        yield _memory(Path(cgroups) / "cgroup.controllers")


def _kernel(release: str) -> Finding:
    version = tuple(map(int, re.findall(r"\d+", release)[:2]))
    if len(version) < 2:
        return TOPIC.doubt(f"the kernel calls itself {release}: is it Linux?")
    if version < _OLDEST_KERNEL:
        text = f"Linux {release} is older than {'.'.join(map(str, _OLDEST_KERNEL))}, the oldest that is supported"
        return TOPIC.bad(text, "upgrade the system")
    return TOPIC.good(f"Linux {release}")


def _walls(why_not: str, abi: int) -> Finding:
    if why_not:
        return TOPIC.doubt(f"no `sandbox` here: {why_not}", "give each app a user of its own")
    if abi < landlock.SCOPES_ABI:
        text = f"Landlock {abi}: `sandbox` only for apps with users of their own"
        text += "" if abi >= landlock.PORTS_ABI else ", and without ports of TCP"
        return TOPIC.doubt(text, "for apps of one user: Linux 6.12 or later")
    return TOPIC.good(f"Landlock {abi}: `sandbox on` keeps apps apart, also those of one user")


def isolating(runner: Runner, uid: int) -> str:
    """How apps that run as user ``uid`` are kept apart here: root's cannot be in a sandbox."""
    first = "" if runner.who.uid == 0 else "a daemon that is root (`caddysnake systemd --install --now --users`), and "
    wall = "" if uid == 0 or walls.why_not() else "; or put each into a sandbox: sandbox on"
    return f"give each app a user of its own: {first}user NAME in its block{wall}"


def _descriptors(hard: int) -> Finding:
    if hard == resource.RLIM_INFINITY:
        return TOPIC.good("no limit of open files")
    # The daemon keeps a duplicate of each connection, and pipes, channel and page of each worker. A relayed connection
    # may need a link as well.
    connections = (
        f"about {max(hard - reserve(hard) - 64, 0):,} connections at a time, less eight for each worker; relayed "
        "ones count twice"
    )
    text = f"{hard:,} open files a process: {connections}"
    if hard < _DESCRIPTORS:
        most = _DESCRIPTORS * 4
        fix = _unit(f"LimitNOFILE={most}", f"ulimit -n {most}", f"--ulimit nofile={most}:{most}")
        return (TOPIC.doubt if hard > 256 else TOPIC.bad)(text, fix)  # with fewer, hardly a worker
    return TOPIC.good(text)


def _backlog(path: Path) -> Iterator[Finding]:
    try:
        longest = int(path.read_text())
    except (OSError, ValueError):
        return
    if longest < _BACKLOG:
        text = f"a socket's queue holds {longest} connections; when it is full, Caddy answers 502 at once"
        yield TOPIC.doubt(text, f"sysctl -w net.core.somaxconn={_BACKLOG}")
    else:
        yield TOPIC.good(f"a socket's queue holds {longest:,} connections")


def _space(plan: Plan | None) -> Iterator[Finding]:
    """File systems that are full, of those that a daemon and its apps write to."""
    folders = {os.environ.get("TMPDIR", "/tmp"), "/var/log", "/var/lib"}
    if plan is not None:
        folders |= {os.path.dirname(listener.path) for listener in plan.listeners if listener.path}
        folders |= {app.working_dir for app in plan.apps if not app.block.placeholders}
    seen = set()
    for folder in sorted(folders):
        try:
            device, system = os.stat(folder).st_dev, os.statvfs(folder)
        except OSError:
            continue
        if device in seen or system.f_flag & os.ST_RDONLY or not system.f_blocks:
            continue
        seen.add(device)
        free = system.f_bavail * system.f_frsize
        if free < _SPACE or (system.f_files and not system.f_favail):
            what = f"{free:,} bytes are free" if free < _SPACE else "it takes no more files, however small"
            option = "" if free < _SPACE else " --inodes"
            fix = f"find what can go: du -x{option} {shlex.quote(_mount_of(folder))} | sort -n | tail -n 30"
            yield TOPIC.bad(f"the file system of {folder} is full: {what}", fix)


def _mount_of(folder: str) -> str:
    folder = os.path.realpath(folder)
    while not os.path.ismount(folder):
        folder = os.path.dirname(folder)
    return folder


def _processes(limit: int, plan: Plan | None) -> Iterator[Finding]:
    if plan is None or limit == resource.RLIM_INFINITY or os.geteuid() == 0:
        return
    needed = sum(
        app.block.max_dynamic_apps if app.dynamic else app.workers * (app.block.settings.threads + 2)
        for app in plan.apps
    )
    if needed > limit:
        text = f"the file asks for up to {needed:,} processes and threads, and this user may have {limit:,}"
        option = "--pids-limit -1 --ulimit nproc=-1"
        fix = _unit("LimitNPROC=infinity and TasksMax=infinity", "ulimit -u unlimited", option)
        yield TOPIC.doubt(text, fix)


def _memory(path: Path) -> Finding:
    try:
        controllers = path.read_text().split()
    except OSError:
        controllers = []
    if "memory" in controllers:
        text = (
            "cgroup v2 with the memory controller: `limits { memory … }` can count what a worker has started, too; "
            "`caddysnake status` says what holds"
        )
        return TOPIC.good(text)
    text = (
        "there is no memory controller of cgroup v2: `limits { memory … }` holds for each process by itself "
        "(RLIMIT_DATA), not for a worker with what it has started"
    )
    fix = "boot with systemd.unified_cgroup_hierarchy=1, or leave it so" if runs_systemd() else ""
    return TOPIC.doubt(text, fix)


def _unit(setting: str, command: str, option: str) -> str:
    """How a limit is raised: by a unit's ``setting``, a container's ``option``, or a ``command`` before the start."""
    if runs_systemd():
        return f"in the unit: {setting}"
    if in_container():
        return f"start the container with {option}, as {command} does elsewhere"
    return f"{command}, by root where the daemon is started"
