"""All thread hosts: where an app fits in, and which apps are better alone."""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import threading
from collections.abc import Callable
from typing import NamedTuple

from ....channel.settings import Settings
from ...system.state import DaemonSnapshot, ThreadHostSnapshot
from ..child.child import Launcher
from ..child.launcher import ForkServerKey, SpawnError
from ..forking.fork_servers import ForkServers
from .host import HostPlace, ThreadHost

APPS_MAX = 64
"""In one host: so many at most are gone when one crashes."""

_ASKED_MAX = 4
"""Hosts that are asked whether an app fits in, before it gets one of its own."""

_CRASHES = 2
_CRASHES_WITHIN_S = 60.0
_SUSPECTED_S = 600.0
"""For so long after the last crash an app that was in two hosts that crashed has one of its own."""
_CLONE_FS = 0x200


class Wanted(NamedTuple):
    """What a pool wants a place for."""

    key: ForkServerKey
    settings: Settings
    root: str
    """Where its app is imported from; its links have been followed."""
    is_private: bool
    """Not with other apps."""
    avoided: frozenset[ThreadHost]
    """Not in these: they hold other workers of its pool, with whom a new one is, or whom it replaces."""

    @property
    def module(self) -> str:
        """The top-level module of the app: two apps that have it in common cannot be in one process."""
        return self.settings.module.partition(".")[0]


class ThreadHosts:
    """All thread hosts."""

    def __init__(self, fork_servers: ForkServers) -> None:
        self._fork_servers = fork_servers
        self._hosts: list[ThreadHost] = []
        self._locks: dict[HostPlace, asyncio.Lock] = {}
        self._private: set[tuple[HostPlace, str]] = set()
        self._crashes: dict[tuple[HostPlace, str], list[float]] = {}
        self._may_share_folders: bool | None = None
        self._numbers = itertools.count(1 << 30)  # workers have the numbers below

    @property
    def is_settled(self) -> bool:
        """None of them is being forked or reaped just now."""
        return all(host.is_settled or host.gone.is_set() for host in self._hosts)

    def by_number(self) -> dict[int, ThreadHost]:
        """All of them, by the number that ``ThreadHostSnapshot`` has."""
        return {host.number: host for host in self._hosts}

    def number(self) -> int:
        """Return a number that nothing else has: for a host, or a group of workers in one."""
        return next(self._numbers)

    def snapshot(self, state: DaemonSnapshot) -> None:
        """All that whoever goes on with them must know, but for what is suspected of apps."""
        state.hosts = [host.snapshot() for host in self._hosts if host.is_settled]
        state.host_numbers = self.number()

    def restore(
        self,
        state: DaemonSnapshot,
        place_of: Callable[[ThreadHostSnapshot], HostPlace],
        launcher_of: Callable[[int], Launcher],
    ) -> None:
        """Go on with those of another image of the daemon."""
        self._numbers = itertools.count(state.host_numbers)
        lost_s = self._fork_servers.timings.host_lost_s
        for each in state.hosts:
            place, launcher = place_of(each), launcher_of(each.spawner)
            host = ThreadHost(place, launcher, self._crashed_with, each.number, lost_s, None, each)
            host.restore(each)
            self._hosts.append(host)

    def sources(self) -> list[tuple[int, Callable[[], None]]]:
        """Their channels, each with what to call when there is something to read."""
        return [source for host in self._hosts for source in host.peer.sources()]

    def place_of(self, wanted: Wanted) -> HostPlace:
        """What a host and an app must have in common; folders count only where a thread cannot have its own."""
        if self._may_share_folders is None:
            self._may_share_folders = can_have_folders()
        settings = wanted.settings
        return HostPlace(
            wanted.key._replace(interface=""),
            tuple(sorted(settings.environ.items())),
            tuple(sorted((settings.limits or {}).items())),
            "" if self._may_share_folders else wanted.root,
        )

    def lock(self, wanted: Wanted) -> asyncio.Lock:
        """One app after the other finds its place: those that come together shall be together."""
        return self._locks.setdefault(self.place_of(wanted), asyncio.Lock())

    def candidates(self, wanted: Wanted) -> list[ThreadHost]:
        """Where it may fit in, the fullest first."""
        if self._is_private(wanted):
            return []
        place, root, module = self.place_of(wanted), wanted.root, wanted.module
        fitting = [
            host
            for host in self._hosts
            if host.place == place
            and host.is_open
            and self.is_current(host)
            and not host.is_private
            and len(host.groups) < APPS_MAX
            and host not in wanted.avoided
            and all(root != other and module != name for other, name in host.groups.values())
        ]
        return sorted(fitting, key=lambda host: -len(host.groups))[:_ASKED_MAX]

    async def begin(self, wanted: Wanted) -> ThreadHost:
        """A new one. Raises ``SpawnError``."""
        server = self._fork_servers.get(wanted.key)
        try:
            lost_s = self._fork_servers.timings.host_lost_s
            place, number = self.place_of(wanted), self.number()
            host = ThreadHost(place, server, self._crashed_with, number, lost_s, wanted.settings)
        except OSError as exc:
            raise SpawnError("resources", f"no room for another thread host: {exc}") from None
        host.is_private = self._is_private(wanted)
        await host.begin()
        self._hosts.append(host)
        await host.child.confinement.settled()  # nothing else may be sent before it knows what to run
        return host

    def gave_up(self, key: ForkServerKey) -> None:
        """Somebody has waited in vain for what a host for ``key`` is forked from."""
        self._fork_servers.gave_up(key)

    def remember_private(self, wanted: Wanted) -> None:
        """The successors of this pool, too, get a host of their own, as long as this daemon runs."""
        self._private.add((self.place_of(wanted), wanted.root))

    def _is_private(self, wanted: Wanted) -> bool:
        if wanted.is_private:
            return True
        key = (self.place_of(wanted), wanted.root)
        crashes = self._crashes.get(key, [])
        return key in self._private or (len(crashes) == _CRASHES and crashes[-1] - crashes[0] <= _CRASHES_WITHIN_S)

    def _crashed_with(self, host: ThreadHost) -> None:
        now = asyncio.get_running_loop().time()
        for root, _ in host.groups.values():
            self._crashes[host.place, root] = [*self._crashes.get((host.place, root), [])[1 - _CRASHES :], now]

    def is_current(self, host: ThreadHost) -> bool:
        """What it was forked from is what its workers would be started from now."""
        return self._fork_servers.has(host.launcher)

    def look(self) -> None:
        """To be called every second or so."""
        now = asyncio.get_running_loop().time()
        for host in self._hosts:
            host.look(now)
        self._hosts = [host for host in self._hosts if not host.gone.is_set()]
        for key in [key for key, times in self._crashes.items() if now - times[-1] > _SUSPECTED_S]:
            del self._crashes[key]
        living = {host.place for host in self._hosts}
        for place in [place for place, lock in self._locks.items() if place not in living and not lock.locked()]:
            del self._locks[place]

    def pids(self) -> set[int]:
        """Processes of theirs; each is its fork server's child."""
        return {host.pid for host in self._hosts if host.pid}

    async def close(self, patience_s: float) -> None:
        """Let all leave; kill what has not after ``patience_s`` seconds."""
        for host in self._hosts:
            host.close()
        for host in self._hosts:
            try:
                await asyncio.wait_for(host.gone.wait(), patience_s)
            except TimeoutError:
                host.kill()
                await host.gone.wait()
        self._hosts.clear()


def can_have_folders() -> bool:
    """Whether a thread may have a working directory of its own here: a sandbox may forbid it."""
    outcome: list[int] = []
    libc = ctypes.CDLL(None, use_errno=True)
    thread = threading.Thread(target=lambda: outcome.append(libc.unshare(_CLONE_FS)), name="asks for a directory")
    thread.start()
    thread.join()
    return outcome == [0]
