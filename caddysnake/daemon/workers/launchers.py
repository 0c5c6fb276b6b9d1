"""Where workers come from: fork servers for processes, hosts for threads."""

from __future__ import annotations

from ...channel.settings import Settings
from ..system.timings import TIMINGS, Timings
from .child.launcher import ForkServerKey
from .forking.fork_servers import ForkServers
from .threads.hosts import ThreadHosts
from .threads.placement import Placement


class WorkerOrigins(ForkServers):
    """All launchers of workers."""

    def __init__(self, libraries: list[str] | None = None, timings: Timings = TIMINGS) -> None:
        super().__init__(libraries, timings)
        self.hosts = ThreadHosts(self)

    def seat(self, key: ForkServerKey, settings: Settings, is_private: bool) -> Placement:
        """A placement for the workers of one pool; its host is found when the first of them starts."""
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
