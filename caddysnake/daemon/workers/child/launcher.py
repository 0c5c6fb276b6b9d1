"""Where workers come from: what a pool asks of fork servers and thread hosts alike."""

from __future__ import annotations

import contextlib
import signal
from abc import ABC, abstractmethod
from typing import NamedTuple, Protocol

from ....channel.settings import Settings
from ....config.plan.accounts import Account
from ....config.plan.fence import Fence
from ....sandbox.walls import Walls
from ...system import processes
from ...system.state import ThreadPlacementSnapshot
from ...system.timings import Timings
from .peer import Peer

NO_ROOM = "capacity"
"""``SpawnError.code``: there may be no more of them."""


class ForkServerKey(NamedTuple):
    """What decides whether two apps may be forked from one process."""

    python: str
    interface: str
    """Its server is imported before the fork, and no other: threaded workers need no event loop."""
    preload: tuple[str, ...]
    path: tuple[str, ...]
    environ: tuple[tuple[str, str], ...]
    account: Account | None = None
    """Who it runs as before the interpreter is executed; None: the daemon's own user."""
    fence: Fence | None = None
    """The sandbox that all of its apps have in common, put up before the interpreter is executed."""


class Plot(NamedTuple):
    """Where the sandbox of a worker is put up: its own fence, and its app's private folder."""

    fence: Fence
    private: str


class SpawnError(Exception):
    """A worker cannot be spawned. ``code`` as in ``Failed``; ``fatal`` when trying again will not help."""

    def __init__(self, code: str, text: str, fatal: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.fatal = fatal


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

    def pidfd_of(self, worker: int, gone: int) -> int:
        """A pidfd of its process, -1 when that is gone. ``gone``: what ``fork`` gave."""
        return gone

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

    def peer_of(self, worker: int, own: Peer) -> Peer:
        """Who is told what concerns the process of a worker whose channel is ``own``."""
        return own

    def held(self, worker: int) -> frozenset[str]:
        """Which limits, by their names, a cgroup holds for the process that it shares with others."""
        return frozenset()

    def why_killed(self, worker: int) -> str:
        """Why the kernel has killed that process, if it was for want of memory; to be asked before ``reap``."""
        return ""


class Launchers(Protocol):
    """All of them, by what decides whether two workers may come from one."""

    timings: Timings

    async def look(self, key: ForkServerKey, plot: Plot | None = None) -> Walls | None:
        """Look at what is on disk for ``key``: ``get`` has it as it is now. Returns the walls of a worker that is in a
        sandbox. Raises ``FenceError``.
        """

    def get(self, key: ForkServerKey) -> Launcher:
        """The live one for ``key``. Raises ``SpawnError``."""

    def discard(self, key: ForkServerKey) -> None:
        """Start afresh next time."""

    def seat(self, key: ForkServerKey, settings: Settings, is_private: bool) -> ThreadLauncher:
        """Where the workers of one pool, with these ``settings``, are threads. ``is_private``: not with other apps."""


class ThreadLauncher(Launcher):
    """A place among threads."""

    @abstractmethod
    def folder(self, found: str) -> str:
        """Where the app's code is, for a worker to come: ``found``, unless it joins those of its pool."""

    @abstractmethod
    def surround(self, settings: Settings) -> None:
        """Take sandbox and environment of a process, should one be started, from ``settings``."""

    @abstractmethod
    def is_doomed(self, worker: int) -> bool:
        """It must be replaced, as its process is."""

    @abstractmethod
    def move_out(self, worker: int) -> None:
        """Workers to come do not share a process with ``worker``."""

    @abstractmethod
    def snapshot(self) -> ThreadPlacementSnapshot:
        """All that whoever goes on with it must know."""

    @abstractmethod
    def restore(self, saved: ThreadPlacementSnapshot) -> None:
        """Go on where ``saved`` says."""

    @abstractmethod
    def needs_own_host(self, worker: int, for_good: bool) -> bool:
        """Workers to come share no process with others; ``for_good``: nor successors'. False: ``worker`` did not."""
