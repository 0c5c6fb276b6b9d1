"""All fork servers: which there is, which stays, and for how long."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable

from ....config.plan.fence import Sites, walls_of
from ....installation import library_folders
from ....sandbox.walls import Walls
from ...system.log.fields import FieldLog
from ...system.state import ForkServerSnapshot
from ...system.timings import TIMINGS, Timings
from ..child.launcher import NO_ROOM, ForkServerKey, Plot, SpawnError
from .fork_server import ForkServer
from .interpreter import UNSEEN, Sight, replaced

log = FieldLog("caddysnake.spawner")

_LOOK_INSIDE_S = 30.0
_LAST_WORKER_S = 1.0
"""A fork server without a worker for so long has been asked for none either."""


class ForkServers:
    """All fork servers, by key. Those that ``keep`` names stay, warm, until ``close``; others go with their workers."""

    def __init__(self, libraries: list[str] | None = None, timings: Timings = TIMINGS) -> None:
        self.timings = timings
        self._by_key: dict[ForkServerKey, ForkServer] = {}
        self._sights: dict[ForkServerKey, Sight] = {}
        """What was seen by those who are about to ask for a fork server."""
        self._libraries = libraries or library_folders(os.environ)
        self._leaving: set[ForkServer] = set()
        self._outdated: set[ForkServer] = set()
        self._looked_at = 0.0
        self._told_of: frozenset[str] = frozenset()
        """What workers in a sandbox cannot read any more."""
        self._kept: frozenset[ForkServerKey] = frozenset()
        self._most: int | None = None
        self.uids: set[int] = set()
        """Users, other than our own, of whom code of apps may run: what it leaves behind may outlive a fork server."""

    async def look(self, key: ForkServerKey, plot: Plot | None = None) -> Walls | None:
        """See ``Launchers.look``. The fork server that there is keeps the workers that it has."""
        sight = await asyncio.to_thread(Sight.of, key, self._libraries, plot.private if plot is not None else "")
        server = self._by_key.get(key)
        if server is None or not server.is_open:
            self._sights[key] = sight
        elif server.sight != sight:
            what = "interpreter, or its sandbox, is another than it was: started afresh"
            log.info(what, python=sight.python, before=server.sight.python)
            self._outdated.add(self._by_key.pop(key))
            self._sights[key] = sight
        if plot is None:
            return None
        return await asyncio.to_thread(walls_of, plot.fence, Sites(key.python, tuple(self._libraries), plot.private))

    def get(self, key: ForkServerKey) -> ForkServer:
        """The live fork server for ``key``, started if there is none. Raises ``SpawnError``."""
        sight = self._sights.pop(key, None)
        server = self._by_key.get(key)
        if server is not None and not server.is_open:
            if key.fence is not None:  # it has just been looked at, with folders that nobody else knows
                sight = sight or server.sight
            self._release(key)
            server = None
        if server is None:
            self.expect([key])
            self._make_room_for(key)
            try:
                server = self._by_key[key] = ForkServer(
                    key, self._libraries, sight or Sight.of(key, self._libraries), timings=self.timings
                )
            except OSError as exc:
                raise SpawnError("resources", f"no room for another spawner: {exc}") from None
        return server

    def gave_up(self, key: ForkServerKey) -> None:
        """Somebody has waited in vain for what a thread host for ``key`` is forked from."""
        if key in self._by_key:
            self._by_key[key].gave_up()

    def has(self, server: object) -> bool:
        """It is not outdated: whoever is forked from it is what would be forked now."""
        return any(each is server for each in self._by_key.values())

    def expect(self, keys: Iterable[ForkServerKey]) -> None:
        """Apps with these keys run, or will."""
        self.uids |= {key.account.uid for key in keys if key.account is not None} - {os.geteuid()}

    def keep(self, keys: Iterable[ForkServerKey], most: int | None) -> None:
        """These stay without a worker. Of others there are ``most`` at most; None: as many as are asked for."""
        self._kept = frozenset(keys)
        self._most = most

    def _make_room_for(self, key: ForkServerKey) -> None:
        """Raises ``SpawnError``: there are as many as there may be, and none of them is without a worker."""
        now = asyncio.get_running_loop().time()
        others = {each: server for each, server in self._by_key.items() if each not in self._kept and each != key}
        if key in self._kept or self._most is None or len(others) < self._most:
            return
        idlest = max(others, key=lambda each: others[each].idle_for(now))
        if others[idlest].idle_for(now) <= 0:
            raise SpawnError(NO_ROOM, f"no further interpreter: max_spawners {self._most} is reached")
        self._release(idlest)

    def _release(self, key: ForkServerKey) -> None:
        server = self._by_key.pop(key)
        if not server.gone.is_set():
            server.close()
            self._leaving.add(server)

    def sweep(self) -> None:
        """To be called every second or so: a fork server that has had no worker for a while is let go."""
        now = asyncio.get_running_loop().time()
        for key, server in list(self._by_key.items()):
            if key not in self._kept and server.idle_for(now) > self.timings.fork_server_idle_s:
                self._release(key)
        for server in [server for server in self._outdated if server.idle_for(now) > _LAST_WORKER_S]:
            self._outdated.remove(server)
            server.close()
            self._leaving.add(server)
        self._leaving = {server for server in self._leaving if not server.gone.is_set()}
        if now - self._looked_at >= _LOOK_INSIDE_S:
            self._looked_at = now
            self._tell_replaced()

    def _tell_replaced(self) -> None:
        found = frozenset(path for server in self._by_key.values() for path in replaced(server.sight))
        if found - self._told_of:
            what = "files were replaced that workers in a sandbox may read: to them they are closed"
            hint = "caddysnake reload gives apps in a sandbox workers that can read what is there now"
            log.warning(what, files=", ".join(sorted(found)), hint=hint)
        self._told_of = found

    def outdate(self, key: ForkServerKey | None = None) -> None:
        """Code has changed: what was imported ahead of forks (for ``key``, or for all) is imported again, and a script
        may start another Python now. ``look`` sees what else may have changed.

        Fork servers that hold it stay for the workers that they have.
        """
        for each, server in list(self._by_key.items()):
            if key in (None, each) and (each.preload or server.sight.is_script):
                self._outdated.add(self._by_key.pop(each))

    def discard(self, key: ForkServerKey) -> None:
        """Start afresh next time, if the one there is could not be prepared."""
        server = self._by_key.get(key)
        if server is not None and server.is_useless:
            self._release(key)  # it may be ending just now, and is ours to reap until it has

    @property
    def is_asked(self) -> bool:
        """One of them has something to answer."""
        return any(server.is_asked for server in self._everyone())

    def _everyone(self) -> list[ForkServer]:
        return [*self._by_key.values(), *self._outdated, *self._leaving]

    def snapshot(self) -> list[ForkServerSnapshot]:
        """All that whoever goes on with them must know. One that was told to leave does so by itself."""
        return [server.snapshot() for server in (*self._by_key.values(), *self._outdated) if server.is_open]

    def restore(self, saved: Iterable[tuple[ForkServerSnapshot, ForkServerKey]]) -> dict[int, ForkServer]:
        """Go on with those of another image, by pid: they keep their workers, and get none, as their code is old."""
        servers = {each.pid: ForkServer(key, self._libraries, UNSEEN, each, self.timings) for each, key in saved}
        self._outdated.update(servers.values())
        return servers

    def pids(self) -> set[int]:
        """Fork servers that run, closing ones too: our own children."""
        return {server.pid for server in self._everyone()}

    async def close(self, patience_s: float) -> None:
        """Let all leave; kill what has not after ``patience_s`` seconds."""
        everyone = self._everyone()
        for server in everyone:
            server.close()
        for server in everyone:
            try:
                await asyncio.wait_for(server.gone.wait(), patience_s)
            except TimeoutError:
                server.kill()
                await server.gone.wait()
