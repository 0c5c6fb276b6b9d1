"""Where the workers of one pool are threads.

A placement is what a pool has in the place of a fork server: all its workers get their places in one host. A new
generation has a placement of its own, in another host than the old one's, which serves on meanwhile (see
``worker.threads.host``).
"""

from __future__ import annotations

from ....channel.settings import Settings
from ...system.state import ThreadPlacementSnapshot
from ..child.child import Child, Launcher
from ..child.launcher import ForkServerKey, SpawnError
from .host import ThreadHost
from .hosts import ThreadHosts, Wanted


class Placement(Launcher):
    """Where the workers of one pool are threads: in one host, over one import of their app."""

    def __init__(self, hosts: ThreadHosts, key: ForkServerKey, settings: Settings, is_private: bool) -> None:
        self.key = key
        self.settings = settings
        self.is_private = is_private
        self._hosts = hosts
        self.root = settings.working_dir
        """Where its app is imported from; its links have been followed."""
        self._group = hosts.number()
        self._host: ThreadHost | None = None
        self._of: dict[int, ThreadHost] = {}

    @property
    def pid(self) -> int:
        """Its host's pid; 0 when none has been found yet."""
        return self._host.pid if self._host is not None else 0

    def _wanted(self) -> Wanted:
        return Wanted(self.key, self.settings, self.root, self.is_private, frozenset(self._of.values()))

    def folder(self, found: str) -> str:
        """Where the app's code is, for a worker to come: ``found``, unless it joins those of its pool in one import."""
        usual = self._usual()
        if usual is None or usual not in self._of.values():
            self.root = found
        return self.root

    def surround(self, settings: Settings) -> None:
        """Take sandbox and environment of a process, should one be started, from ``settings``."""
        self.settings = self.settings._replace(environ=settings.environ, sandbox=settings.sandbox)

    def _usual(self) -> ThreadHost | None:
        """That of its other workers, if it takes more."""
        host = self._host
        is_fit = host is not None and host.is_usable and not host.is_doomed and self._hosts.is_current(host)
        return host if is_fit else None

    async def fork(self, worker: int, channel: int, grace_s: float) -> tuple[int, int]:
        """Its host's pid, and a descriptor that can be read once it has ended. Raises ``SpawnError``."""
        async with self._hosts.lock(self._wanted()):
            candidates = self._hosts.candidates(self._wanted())
            if (usual := self._usual()) is not None:
                candidates = [usual]
            for host in candidates:
                fd = await self._ask(host, worker, channel, grace_s)
                if fd is not None:
                    return host.pid, fd
            self._group = self._hosts.number()
            host = await self._hosts.begin(self._wanted())
            fd = await self._ask(host, worker, channel, grace_s)
            if fd is None:
                raise SpawnError("spawn-failed", "its modules collide with those of an app in a thread host of its own")
            return host.pid, fd

    def gave_up(self) -> None:
        """See ``Launcher.gave_up``."""
        self._hosts.gave_up(self.key)

    async def _ask(self, host: ThreadHost, worker: int, channel: int, grace_s: float) -> int | None:
        fd = await host.join(worker, self._group, self.root, self._wanted().module, channel, grace_s)
        if fd is not None:
            self._host = self._of[worker] = host
        return fd

    def move_out(self, worker: int) -> None:
        """Workers to come get a place in another host than that of ``worker``."""
        if self._host is self._of.get(worker):
            self._host = None

    def needs_own_host(self, worker: int, for_good: bool) -> bool:
        """Workers to come share no process with others; ``for_good``: nor successors'. False: ``worker`` did not."""
        host = self._of.get(worker)
        if self.is_private if host is None else len(host.ever) == 1:
            return False
        if not self.is_private:
            self.is_private = True
            self._host = None
        if for_good:
            self._hosts.remember_private(self._wanted())
        return True

    def is_doomed(self, worker: int) -> bool:
        """Its host is to be replaced."""
        host = self._of.get(worker)
        return host is not None and host.is_doomed

    def snapshot(self) -> ThreadPlacementSnapshot:
        """All that whoever goes on with it must know. Hosts that are being forked or reaped are left out."""
        return ThreadPlacementSnapshot(
            group=self._group,
            host=self._host.number if self._host is not None and self._host.is_settled else 0,
            is_private=self.is_private,
            hosts={worker: host.number for worker, host in self._of.items() if host.is_settled},
        )

    def restore(self, saved: ThreadPlacementSnapshot) -> None:
        """Go on where ``saved`` says, after ``ThreadHosts.restore``. Hosts that are gone by now are forgotten."""
        hosts = self._hosts.by_number()
        self._group = saved.group
        self._host = hosts.get(saved.host)
        self.is_private = saved.is_private
        self._of = {worker: hosts[number] for worker, number in saved.hosts.items() if number in hosts}

    async def reap(self, worker: int, gone: int) -> int | None:
        """The exit status of its threads, that of the process when it has ended; None when it cannot be learnt."""
        host = self._of.pop(worker, None)
        return host.status_of(worker) if host is not None else None

    def host_of(self, worker: int) -> Child | None:
        """See ``Launcher.host_of``. A signal to it meets others, too; its main thread is at no app."""
        host = self._of.get(worker)
        return None if host is None else host.child

    def terminate(self, worker: int, pidfd: int) -> None:
        """Have SystemExit raised in its threads (``Cancel``): a signal would end its neighbours."""
        host = self._of.get(worker)
        if host is not None:
            host.cancel(worker)

    def end(self, worker: int, pid: int, gone: int) -> None:
        """Have nothing more to do with it: threads cannot be killed, and what it holds may stay in use."""
        host = self._of.get(worker)
        if host is not None:
            host.release(worker)

    def may_run_on(self, worker: int) -> bool:
        """Its threads have not ended since ``end``."""
        host = self._of.get(worker)
        return host is not None and host.is_straggler(worker)
