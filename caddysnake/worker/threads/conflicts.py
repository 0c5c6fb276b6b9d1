"""Which modules an app has and which it asks for, found out without importing any: whether two can share a process.

``sys.modules`` is one for all threads of a process. So apps share one only where no name can mean two things: neither
has, nor asks for, a top-level module that the other has. Too much caution costs memory; too little would hand one app
the other's code.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from importlib.machinery import all_suffixes
from typing import NamedTuple

_FILES_MAX = 2000
_BYTES_MAX = 8 * 1024 * 1024
_FILE_MAX = 1024 * 1024
_ENTRIES_MAX = 100_000
_VENV = "pyvenv.cfg"
_SKIPPED = ("__pycache__", "node_modules", "site-packages", "dist-packages")
_STATEMENT = re.compile(rb"(?:^|[;:])[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import\b|import[ \t]+([^\n#;]+))", re.MULTILINE)
_CALL = re.compile(rb"(?:import_module|__import__|import_string|from_object|find_spec)\(\s*[rbf]?[\"']([\w.]+)")


class Survey(NamedTuple):
    """``has``: top-level names that can be imported from ``root``. ``asks``: those that its sources import.

    ``is_private``: nobody else may be in the same process, since it hides modules of the interpreter or of its
    libraries, or is too large to be looked through.
    """

    root: str
    has: frozenset[str]
    asks: frozenset[str]
    is_private: bool

    def collides(self, other: Survey) -> bool:
        """Whether a name could mean the code of either."""
        if self.is_private or other.is_private or _within(self.root, other.root) or _within(other.root, self.root):
            return True
        return not (self.has.isdisjoint(other.has | other.asks) and other.has.isdisjoint(self.asks))


class _TooLarge(Exception):
    pass


class _Budget:
    """How many names may still be read."""

    def __init__(self) -> None:
        self.left = _ENTRIES_MAX


def survey(root: str, taken: Iterable[str], files_max: int = _FILES_MAX) -> Survey:
    """Look through the working directory ``root``. ``taken``: names that mean something else already."""
    try:
        has = frozenset(names_in(root))
        asks = frozenset(_asked_for(root, files_max))
    except _TooLarge:
        return Survey(root, frozenset(), frozenset(), True)
    return Survey(root, has, asks - has, not has.isdisjoint(taken))


def names_in(folder: str) -> Iterator[str]:
    """Names that can be imported from ``folder``: modules, and folders that hold any."""
    suffixes = tuple(all_suffixes())
    budget = _Budget()
    for entry in _entries(folder, budget):
        stem = entry.name.partition(".")[0]
        if not stem.isidentifier() or stem in _SKIPPED:
            continue
        is_folder = entry.name == stem and _is_folder(entry)
        if entry.name.endswith(suffixes) or (is_folder and _holds_modules(entry.path, budget)):
            yield stem


def interpreter_names(path: Iterable[str]) -> frozenset[str]:
    """Top-level names that mean something to every app: the standard library's, and those of its libraries."""
    found = set(sys.stdlib_module_names) | set(sys.builtin_module_names)
    for folder in path:
        try:
            found.update(names_in(folder))
        except _TooLarge:
            continue
    return frozenset(found)


def _holds_modules(folder: str, budget: _Budget) -> bool:
    """Whether a package, namespace packages among them, can be in ``folder``: two levels are looked at."""
    if os.path.exists(os.path.join(folder, _VENV)):
        return False
    suffixes = tuple(all_suffixes())
    folders = []
    for entry in _entries(folder, budget):
        if entry.name.endswith(suffixes):
            return True
        if entry.name.isidentifier() and entry.name not in _SKIPPED and _is_folder(entry):
            folders.append(entry.path)
    return any(each.name.endswith(suffixes) for inner in folders for each in _entries(inner, budget))


def _asked_for(root: str, files_max: int) -> Iterator[str]:
    files = left = 0
    budget = _Budget()
    waiting = [root]
    seen: set[tuple[int, int]] = set()  # a link may lead in circles
    while waiting:
        folder = waiting.pop()
        for entry in _entries(folder, budget):
            if entry.name.startswith(".") or entry.name in _SKIPPED:
                continue
            if _is_folder(entry):
                if not os.path.exists(os.path.join(entry.path, _VENV)) and _is_new(entry, seen):
                    waiting.append(entry.path)
            elif entry.name.endswith(".py"):
                source = _source(entry.path)
                files += 1
                left += len(source)
                if files > files_max or left > _BYTES_MAX:
                    raise _TooLarge
                yield from _imports(source)


def _imports(source: bytes) -> Iterator[str]:
    for origin, plain in _STATEMENT.findall(source):
        for name in (origin, *plain.split(b",")):
            top = name.split(b" as ")[0].strip().partition(b".")[0].decode("utf-8", "ignore")
            if top.isidentifier():
                yield top
    for name in _CALL.findall(source):
        yield name.partition(b".")[0].decode("utf-8", "ignore")


def _source(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO would have us wait for ever
    except OSError:
        return b""
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return b""
        if status.st_size > _FILE_MAX:
            raise _TooLarge
        return file.read(_FILE_MAX)


def _entries(folder: str, budget: _Budget) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            for entry in found:
                budget.left -= 1
                if budget.left < 0:
                    raise _TooLarge
                yield entry
    except OSError:
        return


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_new(entry: os.DirEntry[str], seen: set[tuple[int, int]]) -> bool:
    try:
        status = entry.stat()
    except OSError:
        return False
    key = (status.st_dev, status.st_ino)
    if key in seen:
        return False
    seen.add(key)
    return True


def _within(inner: str, outer: str) -> bool:
    inner, outer = os.path.realpath(inner), os.path.realpath(outer)
    return inner == outer or inner.startswith(outer.rstrip(os.sep) + os.sep)
