"""What a command leaves behind when it has ended: processes of its session, and those that have left it.

Those of its session are ended. What has left it (a daemon, in the old sense of the word) is found, where there is no
cgroup, by a mark in its environment: this process inherits it, being the subreaper of all that it starts.
Nothing here is for the loop.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from ..system import kinship

MARK = "CADDYSNAKE_EXECUTION"
"""The variable that has a word of its own in each execution."""


def end_session(leader: int) -> None:
    """SIGKILL to every process of the session of ``leader``, whose number must not be free yet."""
    for pid, fields in _processes():
        if fields[3] == str(leader).encode() and pid != leader:
            with contextlib.suppress(OSError):
                pidfd = os.pidfd_open(pid)
                try:
                    if os.getsid(pid) == leader:
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                finally:
                    os.close(pidfd)


def marked(word: str, known: set[int]) -> dict[int, str]:
    """Return children of this process that have inherited the mark ``word``: their pids and names."""
    found = {}
    wanted, ours = f"{MARK}={word}".encode(), str(os.getpid()).encode()
    for pid, fields in _processes():
        if fields[1] == ours and pid not in known:
            with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
                if wanted in file.read().split(b"\0"):
                    found[pid] = Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    return found


def _processes() -> Iterator[tuple[int, list[bytes]]]:
    """Every process with what its ``stat`` says behind its name (proc(5)): state, parent, group, session …"""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                yield int(entry), kinship.stat_of(int(entry))
