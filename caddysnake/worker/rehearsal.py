"""A worker that is watched: what it would miss in a sandbox is told when it has ended (``sandbox audit``).

The process that was forked becomes the watcher, and runs nothing of the app; its child goes on as the worker. So the
watcher may look into it, which only parents may where the kernel is strict (Yama), and its number is the one that the
daemon knows.
"""

from __future__ import annotations

import array
import ctypes
import os
import select
import signal
import socket
import sys
from typing import Any

from ..channel.endpoint import Endpoint
from ..channel.records import say
from ..channel.vitals import STACKS_SIGNAL
from ..sandbox import lines, seccomp, watching
from ..sandbox.walls import Walls

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_WANTED_MAX = 20_000


def begin(app: str, sandbox: dict[str, Any], endpoint: Endpoint) -> None:
    """Return in a child that is watched; this process tells what ``sandbox`` lacks. Raises ``OSError``."""
    machine = seccomp.machine()
    if machine is None:
        raise OSError(f"the system calls of {os.uname().machine} are not known here")
    ours, theirs = socket.socketpair()
    libc = ctypes.CDLL(None, use_errno=True)
    pid = os.fork()
    if pid == 0:
        ours.close()
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # for its parent to look into
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        listener = watching.install(machine)
        theirs.sendmsg([b"l"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listener]))])
        os.close(listener)
        theirs.close()
        return
    theirs.close()
    for number in (STACKS_SIGNAL, signal.SIGPROF, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGTERM))
    endpoint.close()
    status = 1
    try:
        status = _watch(pid, ours, machine, app, Walls.of(sandbox))
    finally:
        sys.stdout.flush()
        os._exit(status)


def _watch(pid: int, ours: socket.socket, machine: str, app: str, walls: Walls) -> int:
    wanted: set[watching.Wanted] = set()
    _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
    ours.close()
    unseen = 0
    if descriptors:
        listener = watching.Listener(descriptors[0], machine)
        pidfd = os.pidfd_open(pid)
        poller = select.poll()
        poller.register(listener.fd, select.POLLIN)
        poller.register(pidfd, select.POLLIN)
        while True:
            events = dict(poller.poll())
            if events.get(listener.fd, 0) & select.POLLIN:
                found = listener.next()
                if len(wanted) < _WANTED_MAX:
                    wanted.update(found)
            elif pidfd in events or listener.fd in events:
                break
        unseen = listener.unseen
        if listener.wants_unix:
            wanted.add(watching.Wanted("unix", ""))
    _, status = os.waitpid(pid, 0)
    _tell(app, lines.missing(wanted, walls), len(wanted), unseen)
    return os.waitstatus_to_exitcode(status) & 0xFF


def _tell(app: str, missing: list[str], count: int, unseen: int) -> None:
    more: dict[str, Any] = {"app": app, "looked_at": count, **({"not_seen": unseen} if unseen else {})}
    if not missing:
        say("info", "a sandbox would have kept nothing from it: write `sandbox on`", **more)
        return
    block = "\n".join(("sandbox on {", *(f"\t{line}" for line in missing), "}"))
    say("info", "in a sandbox it would need these lines besides those that it has", block, **more)
