"""Where workers come from: fork servers for processes, hosts for threads."""

from __future__ import annotations

from typing import Protocol

from ...channel.settings import Settings
from ...sandbox.walls import Walls
from ..system.timings import TIMINGS, Timings
from .child.child import Launcher
from .child.launcher import ForkServerKey, Plot
from .forking.fork_servers import ForkServers
from .threads.hosts import ThreadHosts
from .threads.placement import Placement


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

    def seat(self, key: ForkServerKey, settings: Settings, is_private: bool) -> Placement:
        """Where the workers of one pool, with these ``settings``, are threads. ``is_private``: not with other apps."""


class WorkerOrigins(ForkServers):
    """All launchers of workers."""

    def __init__(self, libraries: list[str] | None = None, timings: Timings = TIMINGS) -> None:
        super().__init__(libraries, timings)
        self.hosts = ThreadHosts(self)

    def seat(self, key: ForkServerKey, settings: Settings, is_private: bool) -> Placement:
        """See ``Launchers.seat``: a host is found when the first of them starts."""
        return Placement(self.hosts, key, settings, is_private)

    def sweep(self) -> None:
        """To be called every second or so."""
        self.hosts.look()
        super().sweep()

    def pids(self) -> set[int]:
        """Processes of fork servers and hosts."""
        return super().pids() | self.hosts.pids()

    async def close(self, patience_s: float) -> None:
        """Let hosts leave, then fork servers; each gets ``patience_s`` seconds before it is killed."""
        await self.hosts.close(patience_s)
        await super().close(patience_s)
