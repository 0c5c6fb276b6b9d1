"""All files of an app, in the folders of its builds. To be read as the app's user: they are his.

What processes have left that ended is merged into one file, and the gauges of the living are forgotten, as their mode
says. That file names what it holds already: whoever is ended between writing it and removing those counts nothing
twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from collections.abc import Iterator
from typing import NamedTuple

from .files import Kind, Value, kind_of, read
from .merging import Merged

KEPT = "ended.json"
_FILES_MAX = 4000
_BYTES_MAX = 64 << 20
"""Of all files of an app that are read."""
_KEPT_MAX_BYTES = 16 << 20
_BUILDS_MAX = 200
_ENDED_MAX = 200
"""Of gauges that each process has for itself, those of so many that have ended are kept."""
_OLD_S = 60.0
"""A build's folder that is empty for so long is removed."""


class _File(NamedTuple):
    path: str
    kind: Kind


def collect(root: str, merged: Merged) -> None:
    """Add what is below ``root`` to ``merged``. Raises ``OSError`` when it cannot be read at all."""
    with contextlib.suppress(FileNotFoundError):
        files = list(_files(root))
        kept, included = _kept(root)
        dead = Merged()
        for value in kept:
            dead.add(value)
        ended = {each: None for each in files if not _is_alive(each.kind.pid)}
        budget = _BYTES_MAX
        for file in files:
            data = b"" if file.path in included else _content(f"{root}/{file.path}", budget)
            budget -= len(data)
            is_ended = file in ended
            if is_ended and file.kind.is_live:
                continue
            for found in read(data, file.kind):
                (dead if is_ended else merged).add(found)
        if ended and budget > 0:
            _keep(root, dead, [each.path for each in ended])
        for value in dead.values():
            merged.add(value)
        merged.left_out += dead.left_out


def _files(root: str) -> Iterator[_File]:
    count = 0
    with os.scandir(root) as builds:
        for number, build in enumerate(builds):
            if number >= _BUILDS_MAX or not build.is_dir(follow_symlinks=False):
                continue
            is_empty = True
            with contextlib.suppress(OSError), os.scandir(build.path) as files:
                for file in files:
                    is_empty = False
                    kind = kind_of(file.name)
                    if kind is not None and count < _FILES_MAX:
                        count += 1
                        yield _File(f"{build.name}/{file.name}", kind)
            if is_empty and time.time() - build.stat(follow_symlinks=False).st_mtime > _OLD_S:
                with contextlib.suppress(OSError):
                    os.rmdir(build.path)  # a worker to come makes it again


def _content(path: str, most: int) -> bytes:
    """Of a file that is one; nothing of what is none, or too large."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            return b""
        head = os.read(fd, 8)
        used = int.from_bytes(head[:4], "little", signed=True) if len(head) == 8 else 0
        if not 0 < used <= min(found.st_size, most):
            return b""
        with open(fd, "rb", closefd=False) as file:
            file.seek(0)
            return file.read(used)
    except OSError:
        return b""
    finally:
        os.close(fd)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    return True


def _kept(root: str) -> tuple[list[Value], frozenset[str]]:
    try:
        fd = os.open(f"{root}/{KEPT}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            told = json.loads(file.read(_KEPT_MAX_BYTES))
        values = [
            Value(kind, mode, metric, name, tuple((str(a), str(b)) for a, b in labels), about, float(value), float(at))
            for kind, mode, metric, name, labels, about, value, at in told["values"]
        ]
        return values, frozenset(map(str, told["files"]))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return [], frozenset()


def _keep(root: str, dead: Merged, files: list[str]) -> None:
    values = dead.values()
    forgotten = [each for each in values if each.mode == "all"][:-_ENDED_MAX]
    values = [each for each in values if each not in forgotten] if forgotten else values
    with contextlib.suppress(OSError):
        path = f"{root}/.{KEPT}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="utf-8", errors="replace") as file:
            json.dump({"files": files, "values": values}, file)
        os.rename(path, f"{root}/{KEPT}")
        for name in files:
            with contextlib.suppress(OSError):
                os.unlink(f"{root}/{name}")
