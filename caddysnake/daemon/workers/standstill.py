"""Answering in the place of a process in which nothing runs, while nothing in it *can* run.

Whether a head has begun to leave is in the connection's state byte, but between looking at it and writing, the process
could come to life and write too. So it is stopped first (SIGSTOP), which makes both one step, and let go on afterwards.
"""

from __future__ import annotations

import asyncio
import os
import signal

_STOP_PATIENCE_S = 0.5
_LOOK_S = 0.002


class Frozen:
    """A process that stands still while one is inside; ``is_sure`` when it does so indeed."""

    def __init__(self, pid: int, pidfd: int) -> None:
        self._pid = pid
        self._pidfd = pidfd
        self.is_sure = False

    async def __aenter__(self) -> Frozen:
        if self._signal(signal.SIGSTOP):
            for _ in range(round(_STOP_PATIENCE_S / _LOOK_S)):
                self.is_sure = _is_stopped(self._pid)
                if self.is_sure:
                    break
                await asyncio.sleep(_LOOK_S)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> bool:
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except OSError:  # it is gone
            return False
        return True


def _is_stopped(pid: int) -> bool:
    """Every thread of it: those that wait in the kernel are stopped when they come back from there."""
    try:
        return all(_state(f"/proc/{pid}/task/{thread}/stat") in (b"T", b"t", b"Z") for thread in _threads(pid))
    except OSError:
        return False


def _threads(pid: int) -> list[str]:
    return os.listdir(f"/proc/{pid}/task")


def _state(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read().rpartition(b")")[2].split()[0]
