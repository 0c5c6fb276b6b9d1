"""Where workers come from: what a pool asks of fork servers and thread hosts alike."""

from __future__ import annotations

import contextlib
import signal
from abc import ABC, abstractmethod
from typing import NamedTuple

from ....config.plan.accounts import Account
from ....config.plan.fence import Fence
from ...system import processes
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
