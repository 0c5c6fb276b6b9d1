"""The process that reads what apps count: ``python -m caddysnake.daemon.apps.metrics.helper``. On standard input a line
of JSON, what is asked, and behind it what it was to remember of the last time; on standard output the same: a line of
JSON, the text for Prometheus, and what is to be remembered.

A job is a label with folders, each with its user. Children read, a few folders each, as one user after the other. One
that takes too long, or says too much, is ended, and its folders are read by a child each: who has caused that is left
out, and nobody else; so is what has not been read in time.
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
from collections import Counter
from typing import Any

from .exposition import exposed
from .files import Series
from .folder import collect
from .merging import Merged
from .remembering import kept_up

CHILD_S = 2.5
ALL_S = 7.0
"""Prometheus waits for 10 s, unless it is told otherwise."""
_CPU_S = 10
_MEMORY_BYTES = 512 << 20
_SAID_MAX = 32 << 20
_TEXT_MAX = 32 << 20
"""Characters; whoever has most of them is left out first."""
_AT_ONCE = 8
_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_DUMPABLE = 4
_libc = ctypes.CDLL(None)

_FOLDERS_A_CHILD = 25
User = tuple[int, int, tuple[int, ...]] | None
"""Numbers of user, group and further groups; None: as we are."""
Batch = list[tuple[User, str, str]]
"""Folders: whose each is, its label, and its path."""


def main() -> None:
    """Read what is asked, write what it comes to."""
    asked: dict[str, Any] = json.loads(sys.stdin.readline())
    remembered: dict[str, Any] = json.loads(sys.stdin.read() or "{}")
    merged = _collected(asked["jobs"])
    told = {label: each.samples() for label, each in merged.items()}
    memories = {label: remembered.get(label, {}) for label in asked["renewed"]}
    for label, memory in memories.items():
        told[label] = kept_up(told.get(label, []), memory)
    left_out = Counter({label: each.left_out for label, each in merged.items()})
    text, sizes, refused = exposed(told, asked["is_open"])
    while len(text) > _TEXT_MAX:
        ((largest, _),) = sizes.most_common(1)
        left_out[largest] += len(told.pop(largest))
        text, sizes, refused = exposed(told, asked["is_open"])
    body = text.encode("utf-8", "replace")
    left_out.update(refused)
    head = {"text": len(body), "left_out": left_out}
    sys.stdout.buffer.write(json.dumps(head).encode() + b"\n" + body)
    sys.stdout.buffer.write(json.dumps({label: memory for label, memory in memories.items() if memory}).encode())
    sys.stdout.buffer.flush()


def _collected(jobs: list[dict[str, Any]]) -> dict[str, Merged]:
    merged: dict[str, Merged] = {job["label"]: Merged() for job in jobs}
    folders = [(user and tuple(user), job["label"], path) for job in jobs for path, user in job["folders"]]
    folders.sort(key=lambda folder: folder[0] or ())
    gc.disable()
    gc.freeze()  # else each child copies what it looks at
    waiting: list[Batch] = [folders[at : at + _FOLDERS_A_CHILD] for at in range(0, len(folders), _FOLDERS_A_CHILD)]
    running: dict[int, tuple[int, float, bytearray, Batch]] = {}
    over_at = time.monotonic() + ALL_S
    while waiting or running:
        while waiting and len(running) < _AT_ONCE:
            batch = waiting.pop(0)
            if time.monotonic() >= over_at:
                _take_in(b"", batch, merged)
                continue
            fd, pid = _fork(batch)
            running[fd] = pid, min(over_at, time.monotonic() + CHILD_S), bytearray(), batch
        until = min((deadline for _, deadline, _, _ in running.values()), default=0.0)
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
    return merged


def _take_in(data: bytes, batch: Batch, merged: dict[str, Merged]) -> None:
    try:
        for label, (rows, left_out) in json.loads(data).items():
            merged[label].left_out += left_out
            for (kind, mode, metric, name, labels), value, at, about in rows:
                of = Series(kind, mode, metric, name, tuple((str(a), str(b)) for a, b in labels))
                merged[label].add(of, float(value), float(at), about)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        for _, label, _ in batch:
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
        for user, label, path in batch:
            _become(user, for_good=len(batch) == 1)
            found = Merged()
            with contextlib.suppress(OSError):
                collect(path, found)
            told.setdefault(label, Merged()).merge(found)
        with open(writing, "w") as file:
            json.dump({label: (each.rows(), each.left_out) for label, each in told.items()}, file)
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
