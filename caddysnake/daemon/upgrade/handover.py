"""How a state comes from one image of the daemon to the next: environment variables that name descriptors.

A rehearsal is told the same, and only whether it could be taken over is asked of it.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterable, MutableMapping
from typing import Final

from ... import __version__, files
from ..system.log.fields import FieldLog
from ..system.sealed import seal, unseal
from ..system.state import DaemonSnapshot, StateError
from .stand_in import take_over

log = FieldLog("caddysnake.daemon")

STATE: Final = "CADDYSNAKE_STATE"
"""The descriptor of the state, then of the stand-in's channel, then the stand-in's pid; 0 when there is none."""
REHEARSAL: Final = "CADDYSNAKE_REHEARSAL"
"""The descriptor of the state, then of a pipe that wants to hear that it could be taken over."""

ACCEPTED: Final = b"accepted "
HELD_BACK: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2})
"""Signals that wait until the next image has its handlers: what they do by default is to end the process."""


class Inheritance:
    """What this process was left. ``state`` is as of the moment in which the last image ended."""

    def __init__(self, state: DaemonSnapshot, standin: socket.socket | None, standin_pid: int) -> None:
        self.state = state
        self._standin = standin
        self._standin_pid = standin_pid
        set_inheritable(state.descriptors(), False)

    def settle(self) -> DaemonSnapshot:
        """The state as it is now, after the stand-in; it is ended."""
        if self._standin is None:
            return self.state
        standin, self._standin = self._standin, None
        try:
            return take_over(standin, self.state)
        except StateError as exc:
            # What it has handed out since is with the workers, and lost to nobody but us.
            log.error("going on with what was known before", error=str(exc))
            return self.state
        finally:
            self._end(standin)

    def abandon(self) -> None:
        """Start afresh in one more image, with the listeners alone. Does not return. Raises ``OSError``."""
        if self._standin is not None:
            self._end(self._standin)
        source, listeners = self.state.source, self.state.listeners
        left = DaemonSnapshot(release=__version__, is_afresh=True, source=source, listeners=listeners)
        left.attended, left.started_at = self.state.attended, self.state.started_at
        if self.state.caddy is not None:  # its output is read to its end by the log process that does so now
            left.caddy = self.state.caddy.model_copy(update={"outlets": None})
        left.cgroup, left.scratch = self.state.cgroup, self.state.scratch
        replace_image(left, None, 0)

    def _end(self, standin: socket.socket) -> None:
        standin.close()
        # Our child, and not reaped: its number is its own.
        os.kill(self._standin_pid, signal.SIGKILL)
        os.waitpid(self._standin_pid, 0)


class Rehearsal:
    """Somebody asks whether this version could take over from it."""

    def __init__(self, state: DaemonSnapshot, answer: int) -> None:
        self.state = state
        self._answer = answer

    def accept(self) -> None:
        """Answer that it could. Raises ``OSError`` when nobody waits for it any more."""
        os.write(self._answer, ACCEPTED + __version__.encode())


def inherited(environ: MutableMapping[str, str]) -> Inheritance | Rehearsal | None:
    """What this process was left, if it was; it is told once. Raises ``StateError``."""
    rehearsal, told = environ.pop(REHEARSAL, ""), environ.pop(STATE, "")
    if rehearsal:
        state_fd, answer = _numbers(rehearsal, 2)
        return Rehearsal(unseal(state_fd), answer)
    if not told:
        return None
    state_fd, standin, pid = _numbers(told, 3)
    with files.closing(state_fd):
        state = unseal(state_fd)
    return Inheritance(state, socket.socket(fileno=standin) if pid else None, pid)


def _numbers(told: str, count: int) -> list[int]:
    try:
        numbers = [int(part) for part in told.split(":")]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise StateError(f"{told!r} names no descriptors")
    return numbers


def replace_image(state: DaemonSnapshot, standin: socket.socket | None, standin_pid: int) -> None:
    """Execute this program's command line once more, in this process. Raises ``OSError``; nothing has changed then."""
    import sys

    fd = seal(state)
    kept = {*state.descriptors(), fd, *([standin.fileno()] if standin is not None else [])}
    environ = {**os.environ, STATE: f"{fd}:{standin.fileno() if standin is not None else 0}:{standin_pid}"}
    held = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    try:
        set_inheritable(kept, True)
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)
    except BaseException:
        set_inheritable(kept, False)
        os.close(fd)
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        raise


def let_signals_in() -> None:
    """What was held back while there were no handlers comes now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)


def set_inheritable(descriptors: Iterable[int], wanted: bool) -> None:
    """Whether a program that this process executes has these."""
    for fd in descriptors:
        os.set_inheritable(fd, wanted)
