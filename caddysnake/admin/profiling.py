"""A profile of workers that run: ordered, read from a pipe each, and put together. What a worker says is believed in
nothing: it may say anything, too much, or nothing at all.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import orjson

from ..channel.vitals import LARGEST
from ..daemon.apps.app import App
from ..daemon.main import Daemon
from ..daemon.system.log.records import printable
from ..daemon.tenants.lookup import DynamicApp, find
from ..daemon.workers.worker import Worker
from .errors import ApiError
from .flames import Frame, Key, Profile, Stacks
from .journal import open_pipe
from .survey import known_apps, workers_of

SECONDS_MAX = 300.0
_BYTES_MAX = 8 << 20
"""Of what one worker says."""
_SIZE_MAX = 16
"""Of the line before it, which says how much that is."""
_NONE = "what it says is no profile"
_LOOK_S = 0.5
_LATE_S = 5.0
"""How long after its time a worker may take to write what it has seen."""
_TEXT_MAX, _DEPTH_MAX = 400, 256
_WHOLE = 0.8
"""Of the time that was asked for: a worker that has looked for less has left."""

_under_way: set[Worker] = set()


class _NoProfile(Exception):
    """What a worker has said is none. The text says why."""


class _Subject(NamedTuple):
    """A worker to be looked at."""

    app: str
    worker: Worker

    def __str__(self) -> str:
        return f"worker {self.worker.settings.worker_index + 1} of {self.app}, pid {self.worker.pid}"


Subjects = tuple[str, list[_Subject]]
"""A name, and workers that are looked at together."""


def of_app(daemon: Daemon, key: str) -> Subjects:
    """All workers of an app; a tenant may be called by its host. Raises ``ApiError``."""
    by_host = [each.app.name for each in known_apps(daemon) if each.app.name.partition(" ")[0] == key]
    if len(by_host) == 1:
        key = by_host[0]
    found = find(daemon.running.apps, daemon.running.templates, key)
    if isinstance(found, DynamicApp):
        found = next(each.app for each in known_apps(daemon) if each.app.name == key)
    return key, _subjects([found])


def of_process(daemon: Daemon, pid: int) -> Subjects:
    """The workers in one process, which is one unless it is a thread host's. Raises ``ApiError``."""
    subjects = [each for each in _subjects(known.app for known in known_apps(daemon)) if each.worker.pid == pid]
    if not subjects:
        raise ApiError("no-such-worker", f"no worker of an app has the pid {pid}", "GET /workers lists them")
    return f"pid {pid}", subjects


def _subjects(apps: Iterable[App]) -> list[_Subject]:
    return [_Subject(app.name, worker) for app in apps for _, worker in workers_of(app) if worker.state.is_serving]


async def look(at: Subjects, seconds: float, is_wanted: Callable[[], bool]) -> Profile:
    """A profile, unless it is not wanted any more before it is done. Raises ``ApiError``."""
    name, subjects = at
    if not subjects:
        raise ApiError("profile", f"no worker of {name} serves just now", "`caddysnake status` says how it is")
    if any(each.worker in _under_way for each in subjects):
        raise ApiError("busy", f"{name} is being profiled already")
    workers = {each.worker for each in subjects}
    _under_way.update(workers)
    hearing = asyncio.gather(*(_hear(each, seconds) for each in subjects))
    try:
        while not hearing.done() and is_wanted():
            await asyncio.wait([hearing], timeout=_LOOK_S)
        if not hearing.done():
            raise ApiError("profile", f"nobody waits for the profile of {name}")
        heard = hearing.result()
    finally:
        hearing.cancel()
        _under_way.difference_update(workers)
    stacks: Stacks = {}
    warnings, count = [], 0
    is_mixed = len({each.app for each in subjects}) > 1
    for subject, said in zip(subjects, heard, strict=True):
        try:
            if isinstance(said, str):
                raise _NoProfile(said)
            looked_s = await asyncio.to_thread(_take_in, said, f"{subject.app}: " if is_mixed else "", stacks)
            count += 1
            if looked_s < seconds * _WHOLE:
                warnings.append(f"{subject}: it was replaced, or left, after {looked_s:.1f} s; those are in it")
        except _NoProfile as exc:
            warnings.append(f"{subject}: {exc}")
    if not count:
        raise ApiError("profile", "no profile: " + "; ".join(warnings), "the log may say more")
    return Profile(name, seconds, count, warnings, stacks)


async def _hear(subject: _Subject, seconds: float) -> bytes | str:
    """What a worker says, or why it says nothing."""
    worker = subject.worker
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        is_asked = worker.process.profile(seconds, writing)
    finally:
        os.close(writing)
    if not is_asked:
        os.close(reading)
        return "it runs the code of an older version, or is leaving; `caddysnake reload` gives it new workers"
    try:
        said = await asyncio.wait_for(_read(reading), seconds + _LATE_S)
    except TimeoutError:
        worker.write_stacks()
        return "nothing of Python runs in it (a call of C keeps the GIL?); its stacks are in the log"
    return said or "it ended before it was done, or answers another profile"


async def _read(fd: int) -> bytes | str:
    """What it says, once that is whole; nothing when it is closed before. A child of an app's may keep it open."""
    stream, transport = await open_pipe(fd, limit=_SIZE_MAX)
    try:
        size = (await stream.readuntil(b"\n"))[:-1]
        if not size.isdigit() or int(size) > _BYTES_MAX:
            return _NONE
        return await stream.readexactly(int(size))
    except asyncio.IncompleteReadError:
        return ""
    except asyncio.LimitOverrunError:
        return _NONE
    finally:
        transport.close()


def _take_in(said: bytes, of: str, stacks: Stacks) -> float:
    """Add what a worker has said to ``stacks``; for how many seconds it has looked. Raises ``_NoProfile``."""
    try:
        told: Any = orjson.loads(said)
        frames = [Frame(_text(name), _text(file), _number(line)) for name, file, line in told["frames"]]
        for name, numbers, wall_us, cpu_us in told["stacks"]:
            key: Key = (of + _text(name), *(frames[_number(number)] for number in numbers[:_DEPTH_MAX]))
            wall, cpu = stacks.get(key, (0, 0))
            stacks[key] = (min(wall + _number(wall_us), LARGEST), min(cpu + _number(cpu_us), LARGEST))
        return float(told["seconds"])
    except (ValueError, TypeError, KeyError, IndexError):
        raise _NoProfile(_NONE) from None


def _text(found: Any) -> str:
    if not isinstance(found, str):
        raise TypeError
    return printable(found[:_TEXT_MAX])


def _number(found: Any) -> int:
    if not isinstance(found, int) or not 0 <= found <= LARGEST:
        raise ValueError
    return found
