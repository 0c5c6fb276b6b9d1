"""The daemon replaces itself by the version that is installed now: rehearsed first, then executed in this process.

Nobody else notices: pid, listeners, workers and connections stay. While the next image loads, a fork of this one
(``standin``) serves. A version that cannot come up is refused in its rehearsal, and this one goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import AsyncIterator, Callable
from typing import NoReturn

from ... import files
from ..commands.release import releases
from ..supervisor.supervisor import Supervisor
from ..system.log.process import logger
from ..system.log.records import printable
from ..system.sealed import seal
from ..system.snapshots import build_all
from ..system.state import DaemonSnapshot
from .capture import capture
from .handover import ACCEPTED, HELD_BACK, REHEARSAL, replace_image
from .stand_in import StandIn

log = logging.getLogger("caddysnake.daemon")

_REHEARSAL_S = 60.0
_RELOAD_S = 60.0
_SETTLING_S = 10.0
"""What is starting or ending gets so long; what is not done then begins again in the next image."""
_LOOK_S = 0.005
_SHOWN_BYTES = 8 * 1024
_NOT_FOR_A_REHEARSAL = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class UpgradeRefused(Exception):
    """The daemon goes on as it is; the text says why."""


class Upgrade:
    """One at a time. ``state()`` makes one of everything but what ``serving`` runs."""

    def __init__(
        self, serving: Supervisor, state: Callable[[], DaemonSnapshot], is_stopping: Callable[[], bool]
    ) -> None:
        self._serving = serving
        self._state_of_rest = state
        self._is_stopping = is_stopping
        self._rehearsing: subprocess.Popen[bytes] | None = None

    def pids(self) -> set[int]:
        """The rehearsal, while there is one."""
        return set() if self._rehearsing is None else {self._rehearsing.pid}

    async def run(self) -> None:
        """Become the version that has been rehearsed. Does not return, unless it raises ``UpgradeRefused``."""
        begun = time.monotonic()
        async with _quiet(self._serving):
            if self._is_stopping():
                raise UpgradeRefused("it is stopping")
            # Nothing may give way from here on: what is in the state is so until the next image reads it.
            try:
                self._replace(begun)
            except OSError as exc:
                raise UpgradeRefused(f"cannot execute {sys.executable}: {exc}") from None

    def _state(self, begun_at: float | None = None) -> DaemonSnapshot:
        """As it is now. ``begun_at``: since when nothing is read any more; None: since now."""
        state = self._state_of_rest()
        capture(self._serving.running, state)
        state.upgrades += 1
        state.begun_at = time.monotonic() if begun_at is None else begun_at
        return state

    # -- the rehearsal ----------------------------------------------------------------------------------------

    async def rehearse(self) -> str:
        """The version that is installed, which could take over. Raises ``UpgradeRefused``."""
        await asyncio.to_thread(build_all)
        try:
            with files.closing(seal(self._state())) as state_fd:
                ours, theirs = os.pipe()
                with files.closing(ours):
                    said, shown = await asyncio.to_thread(self._perform, state_fd, ours, theirs)
        except OSError as exc:
            raise UpgradeRefused(f"no rehearsal: {exc}") from None
        if not said.startswith(ACCEPTED):
            raise UpgradeRefused(f"the version that is installed cannot take over:\n{printable(shown)}")
        return said.removeprefix(ACCEPTED).decode(errors="replace")

    def _perform(self, state_fd: int, ours: int, theirs: int) -> tuple[bytes, str]:
        """What it said into the pipe, and what into the log; in a thread. Raises ``OSError``."""
        environ = {name: value for name, value in os.environ.items() if name not in _NOT_FOR_A_REHEARSAL}
        with files.closing(theirs):
            self._rehearsing = process = subprocess.Popen(
                [sys.executable, *sys.orig_argv[1:]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[state_fd, theirs],
                env={**environ, REHEARSAL: f"{state_fd}:{theirs}"},
                start_new_session=True,
            )
        try:
            try:
                _, errors = process.communicate(timeout=_REHEARSAL_S)
                shown = errors[-_SHOWN_BYTES:].decode(errors="replace").strip()
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                return b"", f"its rehearsal did not end within {_REHEARSAL_S:g}s"
        finally:
            self._rehearsing = None
        said = os.read(ours, 256)
        return (said, shown) if process.returncode == 0 else (b"", shown or f"it ended with {process.returncode}")

    # -- the exchange -----------------------------------------------------------------------------------------

    def _replace(self, begun: float) -> None:
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        held = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
        try:
            stand_in = StandIn(theirs, self._serving.running, self._state)
            pid = _fork()
            if pid == 0:
                _run(stand_in, control)
            try:
                theirs.close()
                replace_image(self._state(begun), control, pid)
            except BaseException:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                self._serving.running.reconcile()
                raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
            control.close()
            theirs.close()


def _run(stand_in: StandIn, control: socket.socket) -> NoReturn:
    try:
        control.close()
        stand_in.run()
    finally:
        os._exit(1)


def _fork() -> int:
    with warnings.catch_warnings():
        # Threads that are there have nothing to do, and the fork needs none of what they hold.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


@contextlib.asynccontextmanager
async def _quiet(serving: Supervisor) -> AsyncIterator[None]:
    """Nothing changes, starts or ends, as far as that can be waited for. Raises ``UpgradeRefused``."""
    try:
        async with asyncio.timeout(_RELOAD_S):
            await serving.hold_changes()
    except TimeoutError:
        what = f"the release of {releases.under_way[0]}" if releases.under_way else "a reload"
        raise UpgradeRefused(f"{what} is under way, and has not ended within {_RELOAD_S:g} s") from None
    try:
        until = time.monotonic() + _SETTLING_S
        while not (serving.running.is_settled and logger.is_settled) and time.monotonic() < until:  # noqa: ASYNC110  # many things, none says so
            await asyncio.sleep(_LOOK_S)
        yield
    finally:
        serving.release_changes()
