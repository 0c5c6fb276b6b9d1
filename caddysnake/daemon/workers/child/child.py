"""A child, be it a worker or a thread host, and the launcher that forks it: a fork server, or a thread host's place."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from ...system import cgroups, processes
from ...system.log.pipes import OutputPipes
from ...system.log.process import logger
from ...system.state import ThreadHostSnapshot, WorkerSnapshot
from .equipment import outlets_for
from .peer import Peer


class Confinement:
    """Of one process. Where its limits ask for no cgroup, or there can be none, it does nothing."""

    def __init__(self, app: str, number: int, limits: Mapping[str, int] | None) -> None:
        self._app = app
        self._number = number
        self._bounds = cgroups.bounds_of(limits)
        self._group: cgroups.Group | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def is_wanted(self) -> bool:
        """It is to be in a cgroup: ``begin`` says when it may hear what to run."""
        return bool(self._bounds)

    @property
    def held(self) -> frozenset[str]:
        """Which limits, by their names, a cgroup holds."""
        return frozenset(self._bounds) if self._group is not None else frozenset()

    @property
    def is_settled(self) -> bool:
        """It is not on its way into a cgroup."""
        return self._task is None or self._task.done()

    def begin(self, pid: int, configure: Callable[[frozenset[str]], None]) -> None:
        """Put process ``pid`` into a cgroup, and then call ``configure`` with what that holds."""
        if self._bounds:
            self._task = asyncio.get_running_loop().create_task(self._place(pid, configure))

    async def _place(self, pid: int, configure: Callable[[frozenset[str]], None]) -> None:
        self._group = await cgroups.Group.of(self._app, self._number, pid, self._bounds)
        configure(self.held)

    async def settled(self) -> None:
        """Wait until it has heard what to run."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def why_killed(self) -> str:
        """Return why the kernel has killed it, if that was for want of memory; else an empty text."""
        return await self._group.why_killed() if self._group is not None else ""

    async def remove(self) -> None:
        """Remove the cgroup, with all that the process, which has ended, has started there."""
        if self._group is not None:
            await self._group.remove()

    def snapshot(self) -> tuple[str, int | None] | None:
        """Return what ``restore`` needs in another image of the daemon."""
        return self._group.snapshot() if self._group is not None else None

    def restore(self, saved: tuple[str, int | None] | None) -> None:
        """Go on where ``saved`` says."""
        self._group = cgroups.Group(*saved) if saved is not None else None


class Child:
    """Its process (or the thread that stands for one), its pipes, its cgroup, and its channel."""

    def __init__(
        self, number: int, app: str, limits: Mapping[str, int] | None, peer: Peer, theirs: socket.socket | None
    ) -> None:
        """``theirs``: the end of the channel that it will have; None when it runs already, and is to be resumed."""
        self.number = number
        self.pid = 0
        self.pidfd = -1
        """Can be read once it has ended."""
        self.launcher: Launcher | None = None
        self.peer = peer
        self.confinement = Confinement(app, number, limits)
        self._theirs = theirs
        self._outlets: OutputPipes | None = None
        self._reaping: asyncio.Task[None] | None = None
        self.killed_for = ""
        """What ``why_killed`` has found."""

    @property
    def may_run_on(self) -> bool:
        """It was ended, but cannot be by force: it may still use what it holds."""
        return self.launcher is not None and self.launcher.may_run_on(self.number)

    @property
    def is_settled(self) -> bool:
        """It runs, and is not on its way into its cgroup."""
        return self.pid > 0 and self.confinement.is_settled

    def equip(self, name: str, fields: dict[str, Any], access: dict[str, Any] | None = None) -> None:
        """Put pipes for what it writes on its channel. Raises ``OSError``."""
        self._outlets = outlets_for(self.peer, name, fields, access)

    async def fork(self, launcher: Launcher, grace_s: float, on_exit: Callable[[], None]) -> None:
        """Have it forked by ``launcher``, and heard. Raises ``SpawnError``; ``discard`` it then."""
        assert self._theirs is not None
        self.launcher = launcher
        self.pid, self.pidfd = await launcher.fork(self.number, self._theirs.fileno(), grace_s)
        self._theirs.close()
        if self._outlets is not None:
            self._outlets.begin(self.pid)
        self._watch(on_exit)
        self.peer.listen()

    def snapshot(self) -> dict[str, Any]:
        """Return what ``restore`` needs in another image of the daemon, by the names of the fields there."""
        return {
            "pid": self.pid,
            "pidfd": self.pidfd,
            "channel": self.peer.channel,
            "outlets": self._outlets.state() if self._outlets is not None else None,
            "group": self.confinement.snapshot(),
            "outbox": self.peer.outbox,
            "spawner": self.launcher.pid if self.launcher is not None else 0,
        }

    def restore(
        self, launcher: Launcher, saved: WorkerSnapshot | ThreadHostSnapshot, on_exit: Callable[[], None]
    ) -> None:
        """Go on where ``saved`` says."""
        self.launcher, self.pid, self.pidfd = launcher, saved.pid, saved.pidfd
        self._outlets = logger.adopt_outlets(saved.outlets)
        self.confinement.restore(saved.group)
        self._watch(on_exit)
        self.peer.listen(saved.outbox)

    def _watch(self, on_exit: Callable[[], None]) -> None:
        asyncio.get_running_loop().add_reader(self.pidfd, on_exit)

    def unwatch(self) -> None:
        """Hear no more of its end."""
        if self.pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self.pidfd)

    def end(self) -> None:
        """End it, and what it started, by force."""
        if self.pidfd >= 0 and self.launcher is not None:
            self.launcher.end(self.number, self.pid, self.pidfd)

    def terminate(self) -> None:
        """Ask it to end, past its channel."""
        if self.launcher is not None:
            self.launcher.terminate(self.number, self.pidfd)

    @property
    def whole(self) -> Child:
        """What has its process: itself, or the host in which it is a thread."""
        return (self.launcher.host_of(self.number) if self.launcher is not None else None) or self

    def discard(self) -> None:
        """Give up one whose start was never done."""
        self.unwatch()
        if self.pidfd >= 0:
            self.end()
            self._reaping = asyncio.get_running_loop().create_task(self._reap_discarded())
        self.shut()

    async def _reap_discarded(self) -> None:
        try:
            await self.reap()
        finally:
            self.close_pidfd()

    def shut(self) -> None:
        """Close its channel and its pipes, and whatever of them it has not been given."""
        self.peer.close()
        if self._theirs is not None:
            self._theirs.close()
        if self._outlets is not None:
            self._outlets.end()

    async def why_killed(self) -> str:
        """Return why the kernel has killed its process, if for want of memory; else an empty text. Before ``reap``."""
        await self.confinement.settled()
        if self.whole is self:
            self.killed_for = await self.confinement.why_killed()
        return self.whole.killed_for

    async def reap(self) -> int | None:
        """Return its wait status; None when it cannot be learnt."""
        return await self.launcher.reap(self.number, self.pidfd) if self.launcher is not None else None

    def close_pidfd(self) -> None:
        """Close what tells of its end, after ``reap``."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
        self.pidfd = -1


class Launcher(ABC):
    """Where workers come from. What is not abstract is right for processes."""

    @property
    @abstractmethod
    def pid(self) -> int:
        """Their parent."""

    @abstractmethod
    async def fork(self, worker: int, channel: int, grace_s: float) -> tuple[int, int]:
        """Start worker number ``worker`` on ``channel``: its pid, and its pidfd, or another descriptor that can be
        read once it has ended. Raises ``SpawnError``."""

    @abstractmethod
    async def reap(self, worker: int, gone: int) -> int | None:
        """The wait status of a worker that has ended; None when it cannot be learnt. ``gone``: what ``fork`` gave."""

    def gave_up(self) -> None:  # noqa: B027  # most have nothing to do then
        """Somebody has waited for ``fork`` in vain, for as long as an app may take to start."""

    def host_of(self, worker: int) -> Child | None:
        """The process that a worker shares with others; None: it has its own, or none any more."""
        return None

    def terminate(self, worker: int, pidfd: int) -> None:
        """Ask a worker to end that does not listen to its channel."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGTERM)

    def end(self, worker: int, pid: int, gone: int) -> None:
        """End it, and what it started, by force. ``pid`` and ``gone``: what ``fork`` gave."""
        processes.kill_group(gone, pid)

    def may_run_on(self, worker: int) -> bool:
        """It was ended, but cannot be by force: it may still use what it holds."""
        return False
