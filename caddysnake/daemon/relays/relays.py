"""Relay processes: started by the daemon itself, from its own interpreter, and kept up as an app's workers are."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys

from ...channel.messages import Need, Unneed
from ...channel.settings import Settings
from ...installation import PACKAGE
from ..apps.app import App
from ..apps.pool import PoolSpec
from ..sockets.connections import Connection, Connections
from ..system import processes
from ..system.log.process import Outlets, adopt_outlets, outlets
from ..system.processes import Child, Process
from ..system.state import CarriedOutlets
from ..workers.child.launcher import Forker, Seat, SpawnerKey, SpawnError
from ..workers.worker import Worker
from .link_broker import Desk

KEY = SpawnerKey(sys.executable, "relay", (), (), ())


class RelayStarter(Forker):
    """Where relays come from: a ``Forker`` whose children are the daemon's own."""

    def __init__(self) -> None:
        self._processes: dict[int, Process] = {}
        self._early: dict[int, Outlets] = {}

    @property
    def pid(self) -> int:
        """The daemon's."""
        return os.getpid()

    async def look(self, key: SpawnerKey) -> None:
        """It runs nobody's code but ours."""

    def get(self, key: SpawnerKey) -> RelayStarter:
        """Itself: all relays come from one."""
        return self

    def seat(self, key: SpawnerKey, settings: Settings, is_private: bool) -> Seat:
        """Not to be called: a relay is never threads."""
        raise AssertionError("a relay is a process")

    def discard(self, key: SpawnerKey) -> None:
        """There is nothing to start afresh."""

    def pids(self) -> set[int]:
        """Relays that run: our own children."""
        return {process.pid for process in self._processes.values()}

    async def fork(self, worker: int, channel: int, grace_s: float) -> tuple[int, int]:
        """Start relay number ``worker`` on ``channel``: its pid and pidfd. Raises ``SpawnError``."""
        options = json.dumps({"channel": channel, "grace_s": grace_s})
        try:
            # What it says before it is told where to write; it is to be heard, too, when it does not come so far.
            early = outlets("relay", {"app": "relay"}, ("stdout", "stderr"))
        except OSError as exc:
            raise SpawnError("resources", f"cannot start a relay: {exc.strerror}") from None
        writers = early.writers if early is not None else [None, None]
        try:
            process = subprocess.Popen(  # noqa: ASYNC220  # as quick as a fork: nothing is waited for
                [sys.executable, "-m", f"{__package__.partition('.')[0]}.relay.main", options],
                stdin=subprocess.DEVNULL,
                stdout=writers[0],
                stderr=writers[1],
                pass_fds=[channel],
                env={**os.environ, "PYTHONPATH": str(PACKAGE.parent), "PYTHONSAFEPATH": "1"},
                cwd="/",
                start_new_session=True,
            )
        except OSError as exc:
            if early is not None:
                early.end()
            raise SpawnError("resources", f"cannot start a relay: {exc.strerror}") from None
        finally:
            if early is not None:
                early.handed()
        if early is not None:
            early.begin(process.pid)
            self._early[worker] = early
        self._processes[worker] = process
        return process.pid, os.pidfd_open(process.pid)

    async def reap(self, worker: int, gone: int) -> int | None:
        """The wait status of a relay, or of another child of ours, that has ended."""
        process = self._processes.pop(worker, None)
        if process is None:
            return processes.reap(gone)
        early = self._early.pop(worker, None)
        if early is not None:
            early.end()
        code = await asyncio.to_thread(process.wait)
        return -code if code < 0 else code << 8


    def carry(self) -> dict[int, int]:
        """The pids by the relays' numbers."""
        return {number: process.pid for number, process in self._processes.items()}

    def carry_outlets(self) -> dict[int, CarriedOutlets]:
        """Where they write what they say early, by their numbers."""
        return {number: early.state() for number, early in self._early.items()}

    def resume(self, pids: dict[int, int], early: dict[int, CarriedOutlets]) -> None:
        """Go on with those of another image of the daemon."""
        self._processes.update((number, Child(pid)) for number, pid in pids.items())
        for number, carried in early.items():
            outlets = adopt_outlets(carried)
            if outlets is not None:
                self._early[number] = outlets


class Relays(App):
    """The relays as an app of their own: connections of listeners that need one are placed here.

    Each generation has the desk that knows what its routing tables call the apps.
    """

    def __init__(self, spec: PoolSpec, starter: RelayStarter, connections: Connections, desk: Desk) -> None:
        super().__init__(spec, starter, connections)
        self._desks = {self.pool.generation: desk}

    @property
    def is_ours(self) -> bool:
        """True: a relay runs our code alone."""
        return True

    def set_desk(self, desk: Desk) -> None:
        """``desk`` answers the generation that is prepared, or else the present one."""
        newest = self._coming or self.pool
        self._desks[newest.generation] = desk
        living = {pool.generation for pool in self.pools()}
        for generation in [generation for generation in self._desks if generation not in living]:
            del self._desks[generation]

    def asked(self, worker: Worker, message: Need | Unneed) -> None:
        """Hand ``message`` to the desk of the worker's generation. One that is neither living nor leaving is
        not heard.
        """
        for pool in self.pools():
            if pool.workers.get(worker.settings.worker_index) is worker or worker in pool.leaving:
                self._desks[pool.generation].asked(worker, message)
                return

    def desks(self) -> dict[int, Desk]:
        """The desks of living generations, by generation."""
        return dict(self._desks)

    def resume_desks(self, desks: dict[int, Desk]) -> None:
        """Go on with those of another image of the daemon."""
        self._desks = desks

    def sweep(self) -> None:
        """To be called every second or so."""
        for desk in self._desks.values():
            desk.sweep()

    def borrow(self, connection: Connection) -> bool:
        """Take a connection of an app that is not up; False when no relay can take it now."""
        if not self.pool.ready:
            return False
        relay = min(self.pool.ready, key=lambda each: each.load().busy)
        if not relay.give(connection, borrowed=True):
            return False
        self._connections.watch(connection)
        return True

    def returned(self, connection: Connection, worker: Worker) -> None:
        """See ``App.returned``; what was borrowed is its app's own again."""
        if connection.app is not self:
            # Borrowed: the app's own again. Whether it has a worker by now matters when the next request comes.
            self._connections.park(connection)
        else:
            super().returned(connection, worker)

    def orphaned(self, connection: Connection, state: int) -> None:
        """See ``App.orphaned``; what was borrowed is its app's to see to."""
        if isinstance(connection.app, App) and connection.app is not self:
            connection.app.orphaned(connection, state)
        else:
            super().orphaned(connection, state)
