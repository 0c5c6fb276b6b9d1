"""All files of an app, in the folders of its builds. To be read as the app's user: they are his.

What processes have left that ended is merged into one file, and the gauges of the living are forgotten, as their mode
says. That file names what it holds already: whoever is ended between writing it and removing those counts nothing
twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

from .files import Kind, kind_of, series
from .merging import Merged, Row

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
    identity: str
    """Another process may get the same number, and make a file of the same name."""


def collect(root: str, merged: Merged) -> None:
    """Add what is below ``root`` to ``merged``. Raises ``OSError`` when it cannot be read at all."""
    with contextlib.suppress(FileNotFoundError), contextlib.ExitStack() as held:
        root = _pinned(root, held)
        files = list(_files(root, held))
        kept, included = _kept(root)
        dead = Merged()
        for row in kept:
            dead.add(*row)
        ended = {each: None for each in files if not _is_alive(each.kind.pid)}
        budget = _BYTES_MAX
        for file in files:
            if file.identity in included or (file in ended and file.kind.is_live):
                continue
            data = _content(file.path, budget)
            budget -= len(data or b"")
            if data is None:
                merged.left_out += 1
            else:
                (dead if file in ended else merged).read(data, file.kind)
        if ended:
            _keep(root, dead, list(ended))
        merged.merge(dead)


def _pinned(folder: str, held: contextlib.ExitStack) -> str:
    """A name of ``folder`` that stays its own, whatever an app puts in its place; it is no link."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    held.callback(os.close, fd)
    return f"/proc/self/fd/{fd}"


def _files(root: str, held: contextlib.ExitStack) -> Iterator[_File]:
    count = 0
    with os.scandir(root) as builds:
        for number, build in enumerate(builds):
            if number >= _BUILDS_MAX or not build.is_dir(follow_symlinks=False):
                continue
            is_empty = True
            with contextlib.suppress(OSError), os.scandir(_pinned(build.path, held)) as files:
                for file in files:
                    is_empty = False
                    kind = kind_of(file.name)
                    if kind is not None and count < _FILES_MAX:
                        count += 1
                        yield _File(file.path, kind, f"{build.name}/{file.name}#{file.inode()}")
            if is_empty and time.time() - build.stat(follow_symlinks=False).st_mtime > _OLD_S:
                with contextlib.suppress(OSError):
                    os.rmdir(build.path)  # a worker to come makes it again


def _content(path: str, most: int) -> bytes | None:
    """Of a file, as far as it is used; None for what is none, or is too large."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            used = int.from_bytes(file.peek(4)[:4], sys.byteorder, signed=True) if size else 0
            return file.read(used) if 0 <= used <= min(size, most) else None
    except OSError:  # a folder, a link, nothing any more
        return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    return True


def _kept(root: str) -> tuple[list[Row], frozenset[str]]:
    try:
        fd = os.open(f"{root}/{KEPT}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            told = json.loads(file.read(_KEPT_MAX_BYTES))
        found = []
        for kind, mode, metric, name, labels, about, value, at in told["values"]:
            pid = int(dict(labels)["pid"]) if mode == "all" else 0
            made = series(json.dumps([metric, name, dict(labels), about]), Kind(str(kind), str(mode), False, pid))
            if made is not None:
                found.append((made[0], float(value), float(at), made[1]))
        return found, frozenset(map(str, told["files"]))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return [], frozenset()


def _keep(root: str, dead: Merged, ended: list[_File]) -> None:
    rows = dead.rows()
    forgotten = {row[0] for row in [each for each in rows if each[0].mode == "all"][:-_ENDED_MAX]}
    values = [(*of, about, value, at) for of, value, at, about in rows if of not in forgotten]
    with contextlib.suppress(OSError):
        path = f"{root}/.{KEPT}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="utf-8", errors="replace") as file:
            json.dump({"files": [each.identity for each in ended], "values": values}, file)
        os.rename(path, f"{root}/{KEPT}")
        for each in ended:
            with contextlib.suppress(OSError):
                os.unlink(each.path)
