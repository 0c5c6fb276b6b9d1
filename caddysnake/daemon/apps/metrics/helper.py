"""The process that reads what apps count: ``python -m caddysnake.daemon.apps.metrics.helper``, jobs on standard input.

A job is a label with folders, each with its user. Children read, a few users' each, as one user after the other. One
that takes too long, or says too much, is ended, and its users are read by a child each: who has caused that is left
out, and nobody else. It merges what is of one label and writes one JSON object of all.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import resource
import select
import signal
import sys
import time
from typing import Any

from .files import Value
from .folder import collect
from .merging import Merged

CHILD_S = 5.0
_CPU_S = 10
_MEMORY_BYTES = 512 << 20
_SAID_MAX = 32 << 20
_AT_ONCE = 8
_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_DUMPABLE = 4
_libc = ctypes.CDLL(None)

_USERS_A_CHILD = 25
Folder = tuple[str, str]
"""Its label, and its path."""
User = tuple[int, int, tuple[int, ...]] | None
"""Numbers of user, group and further groups; None: as we are."""
Batch = list[tuple[User, list[Folder]]]


def main() -> None:
    """Read jobs, write what they come to."""
    jobs = json.load(sys.stdin)
    merged: dict[str, Merged] = {job["label"]: Merged() for job in jobs}
    users: dict[User, list[Folder]] = {}
    for job in jobs:
        for path, user in job["folders"]:
            key = None if user is None else (user[0], user[1], tuple(user[2]))
            users.setdefault(key, []).append((job["label"], path))
    gc.disable()
    gc.freeze()  # else each child copies what it looks at
    all_users = list(users.items())
    waiting = [all_users[at : at + _USERS_A_CHILD] for at in range(0, len(all_users), _USERS_A_CHILD)]
    running: dict[int, tuple[int, float, bytearray, Batch]] = {}
    while waiting or running:
        while waiting and len(running) < _AT_ONCE:
            batch = waiting.pop()
            fd, pid = _fork(batch)
            running[fd] = pid, time.monotonic() + CHILD_S, bytearray(), batch
        until = min(deadline for _, deadline, _, _ in running.values())
        ready = select.select(list(running), [], [], max(0.0, until - time.monotonic()))[0]
        now = time.monotonic()
        for fd in list(running):
            pid, deadline, data, batch = running[fd]
            piece = os.read(fd, 1 << 18) if fd in ready else None
            data += piece or b""
            is_late = now >= deadline or len(data) > _SAID_MAX
            if piece == b"" or is_late:
                del running[fd]
                os.close(fd)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                if not (is_late or not data) or len(batch) == 1:
                    _take_in(b"" if is_late else bytes(data), batch, merged)
                else:
                    waiting += [[each] for each in batch]
    told = {label: {"samples": each.samples(), "left_out": each.left_out} for label, each in merged.items()}
    json.dump(told, sys.stdout)


def _take_in(data: bytes, batch: Batch, merged: dict[str, Merged]) -> None:
    try:
        told: Any = json.loads(data)
        for label, (values, left_out) in told.items():
            merged[label].left_out += left_out
            for kind, mode, metric, name, labels, about, value, at in values:
                pairs = tuple((str(a), str(b)) for a, b in labels)
                merged[label].add(Value(kind, mode, metric, name, pairs, about, float(value), float(at)))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        for label, _ in (folder for _, folders in batch for folder in folders):
            merged[label].left_out += 1


def _fork(batch: Batch) -> tuple[int, int]:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return reading, pid
    status = 1
    try:
        os.close(reading)
        _limit()
        told: dict[str, Merged] = {}
        for user, folders in batch:
            _become(user, for_good=len(batch) == 1)
            for label, path in folders:
                found = Merged()
                with contextlib.suppress(OSError):
                    collect(path, found)
                into = told.setdefault(label, Merged())
                into.left_out += found.left_out
                for value in found.values():
                    into.add(value)
        with open(writing, "w") as file:
            json.dump({label: (each.values(), each.left_out) for label, each in told.items()}, file)
        status = 0
    finally:
        os._exit(status)


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _become(user: User, for_good: bool) -> None:
    """Be ``user`` for the file system; ``for_good``: in every way."""
    if os.geteuid() != os.getuid():
        os.seteuid(os.getuid())
        os.setegid(os.getgid())
    if user is None:
        return
    uid, gid, groups = user
    os.setgroups(groups)
    if for_good:
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    else:
        os.setegid(gid)
        os.seteuid(uid)


if __name__ == "__main__":
    main()
