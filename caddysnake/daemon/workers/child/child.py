"""A child that a launcher forks: a worker, or a thread host."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

from ...system import cgroups
from ...system.log.pipes import OutputPipes
from ...system.log.process import adopt_outlets
from ...system.state import ThreadHostSnapshot, WorkerSnapshot
from .equipment import outlets_for
from .launcher import Launcher
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
        return self._bounds is not None

    @property
    def held(self) -> frozenset[str]:
        """Which limits, by their names, a cgroup holds."""
        return self._bounds.held if self._group is not None and self._bounds is not None else frozenset()

    @property
    def is_settled(self) -> bool:
        """It is not on its way into a cgroup."""
        return self._task is None or self._task.done()

    def begin(self, pid: int, configure: Callable[[frozenset[str]], None]) -> None:
        """Put process ``pid`` into a cgroup, and then call ``configure`` with what that holds."""
        if self._bounds is not None:
            self._task = asyncio.get_running_loop().create_task(self._place(pid, self._bounds, configure))

    async def _place(self, pid: int, bounds: cgroups.Quotas, configure: Callable[[frozenset[str]], None]) -> None:
        self._group = await cgroups.Group.of(self._app, self._number, pid, bounds)
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
        self._outlets = adopt_outlets(saved.outlets)
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

    def process_fd(self) -> int:
        """Return a pidfd of its process, -1 when it is unknown."""
        return self.launcher.pidfd_of(self.number, self.pidfd) if self.launcher is not None else -1

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
        if self.confinement.held:
            return await self.confinement.why_killed()
        return self.launcher.why_killed(self.number) if self.launcher is not None else ""

    async def reap(self) -> int | None:
        """Return its wait status; None when it cannot be learnt."""
        return await self.launcher.reap(self.number, self.pidfd) if self.launcher is not None else None

    def close_pidfd(self) -> None:
        """Close what tells of its end, after ``reap``."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
        self.pidfd = -1
