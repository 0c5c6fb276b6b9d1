"""Relay processes: started by the daemon itself, from its own interpreter; one stands by."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from typing import NamedTuple

from ...channel.settings import Settings
from ...installation import PACKAGE
from ..system import processes
from ..system.log.fields import FieldLog
from ..system.log.pipes import OutputPipes
from ..system.log.process import logger
from ..system.processes import InheritedChild, Process
from ..system.snapshots import OutputPipesSnapshot
from ..system.timings import TIMINGS
from ..workers.child.child import Launcher
from ..workers.child.launcher import ForkServerKey, SpawnError
from ..workers.threads.placement import Placement

log = FieldLog("caddysnake.relay")

KEY = ForkServerKey(sys.executable, "relay", (), (), ())


class _Spare(NamedTuple):
    """A relay process, with what it says before it is told where to write; ``control`` tells it its channel."""

    process: subprocess.Popen[bytes]
    early: OutputPipes | None
    control: socket.socket | None

    def take_over(self, channel: int) -> bool:
        """Be the relay on ``channel``; False when it is not there any more."""
        assert self.control is not None
        try:
            socket.send_fds(self.control, [b"."], [channel])
        except OSError:
            return False
        self.control.close()
        return self.process.poll() is None

    def end(self) -> None:
        """End it, and what there was for it. It does nothing, so this takes no time."""
        if self.control is not None:
            self.control.close()
        self.process.kill()
        self.process.wait()
        if self.early is not None:
            self.early.end()


def _started(options: dict[str, int], fd: int, control: socket.socket | None = None) -> _Spare:
    """A relay process with ``options``, which inherits ``fd``. Raises ``OSError``; ``control`` is closed then."""
    early = None
    try:
        # What it says before it is told where to write; it is to be heard, too, when it does not come so far.
        early = logger.outlets("relay", {"app": "relay"}, ("stdout", "stderr"))
        writers = early.writers if early is not None else [None, None]
        process = subprocess.Popen(  # as quick as a fork: nothing is waited for
            [sys.executable, "-m", f"{__package__.partition('.')[0]}.relay.main", json.dumps(options)],
            stdin=subprocess.DEVNULL,
            stdout=writers[0],
            stderr=writers[1],
            pass_fds=[fd],
            env={**os.environ, "PYTHONPATH": str(PACKAGE.parent), "PYTHONSAFEPATH": "1"},
            cwd="/",
            start_new_session=True,
        )
    except OSError:
        if control is not None:
            control.close()
        if early is not None:
            early.end()
        raise
    finally:
        if early is not None:
            early.handed()
    if early is not None:
        early.begin(process.pid)
    return _Spare(process, early, control)


class RelayStarter(Launcher):
    """Where relays come from: a ``Launcher`` whose children are the daemon's own."""

    timings = TIMINGS

    def __init__(self) -> None:
        self._processes: dict[int, Process] = {}
        self._early: dict[int, OutputPipes] = {}
        self._spare: _Spare | None = None

    @property
    def pid(self) -> int:
        """The daemon's."""
        return os.getpid()

    async def look(self, key: ForkServerKey, plot: object = None) -> None:
        """It runs nobody's code but ours."""

    def get(self, key: ForkServerKey) -> RelayStarter:
        """Itself: all relays come from one."""
        return self

    def seat(self, key: ForkServerKey, settings: Settings, is_private: bool) -> Placement:
        """Not to be called: a relay is never threads."""
        raise AssertionError("a relay is a process")

    def discard(self, key: ForkServerKey) -> None:
        """There is nothing to start afresh."""

    def pids(self) -> set[int]:
        """Relays that run: our own children."""
        pids = {process.pid for process in self._processes.values()}
        if self._spare is not None and self._spare.process.poll() is None:
            pids.add(self._spare.process.pid)
        return pids

    async def fork(self, worker: int, channel: int, grace_s: float) -> tuple[int, int]:
        """Start relay number ``worker`` on ``channel``, or the spare one: pid and pidfd. Raises ``SpawnError``."""
        spare, self._spare = self._spare, None
        if spare is None or not spare.take_over(channel):
            if spare is not None:
                spare.end()
            try:
                spare = _started({"channel": channel}, channel)
            except OSError as exc:
                raise SpawnError("resources", f"cannot start a relay: {exc.strerror}") from None
        if spare.early is not None:
            self._early[worker] = spare.early
        self._processes[worker] = spare.process
        return spare.process.pid, os.pidfd_open(spare.process.pid)

    def keep_spare(self) -> None:
        """To be called every second or so, where there are relays: have one stand by, so that the end of another, with
        the requests of many apps, is made up for at once.
        """
        if self._spare is not None and self._spare.process.poll() is not None:
            self.let_spare_go()
        if self._spare is None:
            try:
                ours, theirs = socket.socketpair()
                with theirs:
                    self._spare = _started({"control": theirs.fileno()}, theirs.fileno(), ours)
            except OSError as exc:
                log.warning("no relay stands by", error=exc.strerror)

    def let_spare_go(self) -> None:
        """End the one that stands by, if there is one."""
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.end()

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

    def snapshot(self) -> dict[int, int]:
        """The pids by the relays' numbers. None stands by any more: another image of the daemon starts its own."""
        self.let_spare_go()
        return {number: process.pid for number, process in self._processes.items()}

    def snapshot_pipes(self) -> dict[int, OutputPipesSnapshot]:
        """Where they write what they say early, by their numbers."""
        return {number: early.state() for number, early in self._early.items()}

    def restore(self, pids: dict[int, int], early: dict[int, OutputPipesSnapshot]) -> None:
        """Go on with those of another image of the daemon."""
        self._processes.update((number, InheritedChild(pid)) for number, pid in pids.items())
        for number, saved in early.items():
            outlets = logger.adopt_outlets(saved)
            if outlets is not None:
                self._early[number] = outlets
