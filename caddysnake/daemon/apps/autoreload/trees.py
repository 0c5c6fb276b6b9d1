"""What a watched folder holds. Somebody else may fill it as he likes, so a look at it has bounds.

Names are those of the file system, as Python has them: what is not UTF-8 in one is a surrogate (PEP 383).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import NamedTuple

from .... import files

SKIPPED = frozenset({"__pycache__", "node_modules"})
FOLDERS_MAX = 10_000
"""Folders that one root may have: the kernel's supply of watches is for all of them."""
FILES_MAX = 20_000
"""Files of one root that matter: their names are kept."""
ENTRIES_MAX = 200_000
"""Names of any kind that are read in one look."""
DEPTH_MAX = 100
_A_TURN = 2_000
"""So many names are read before other threads get their turn."""


class TooMuch(Exception):
    """A root holds more than is looked at, or is not to be looked at. The text says why."""


class Root(NamedTuple):
    """A folder as it was named, and which files in it matter besides ``*.py``."""

    folder: str
    patterns: tuple[str, ...] = ()

    def wants(self, path: str) -> bool:
        """Whether the file ``path``, relative to the folder, matters. A pattern with a slash is for all of the path."""
        name = os.path.basename(path)
        if name.endswith(".py") and not name.startswith("."):
            return True
        return any(fnmatchcase(path if "/" in pattern else name, pattern) for pattern in self.patterns)


class WatchedTree(NamedTuple):
    """What a root held when it was looked at. Paths are absolute and resolved."""

    resolved: str
    identity: tuple[int, int] | None
    """Device and inode of the root; None when it is not there."""
    folders: frozenset[str]
    files: set[str]
    """Those that matter."""


def walk(root: Root) -> WatchedTree:
    """Look at all of ``root``, but for what cannot be read or is not UTF-8. Raises ``TooMuch``."""
    resolved = os.path.realpath(root.folder)
    identity = identify(resolved)
    folders: set[str] = set()
    matter: set[str] = set()
    waiting = [] if identity is None else [("", 0)]
    if identity is not None:
        _refuse_stranger(root.folder)
    read = 0
    while waiting:
        prefix, depth = waiting.pop()
        folder = os.path.join(resolved, prefix) if prefix else resolved
        below: list[tuple[str, int]] = []
        found: list[str] = []
        is_environment = False
        try:
            for entry in _entries(folder):
                read += 1
                if read > ENTRIES_MAX:
                    raise TooMuch(f"there are more than {ENTRIES_MAX:,} names in it")
                if read % _A_TURN == 0:
                    time.sleep(0.001)
                name, path = entry.name, f"{prefix}/{entry.name}" if prefix else entry.name
                if _is_folder(entry):
                    if not is_skipped(name) and is_text(name):
                        below.append((path, depth + 1))
                elif name == "pyvenv.cfg" and prefix:
                    is_environment = True
                    break
                elif root.wants(path):
                    found.append(os.path.join(folder, name))
        except OSError:
            continue  # gone, not to be read, or a link by now
        if is_environment:
            continue
        folders.add(folder)
        matter.update(found)
        waiting += below
        if depth >= DEPTH_MAX and below:
            raise TooMuch(f"folders are nested more than {DEPTH_MAX} deep in it")
        if len(folders) + len(waiting) > FOLDERS_MAX:
            raise TooMuch(f"there are more than {FOLDERS_MAX:,} folders in it")
        if len(matter) > FILES_MAX:
            raise TooMuch(f"there are more than {FILES_MAX:,} files to watch in it")
    return WatchedTree(resolved, identity, frozenset(folders), matter)


def _refuse_stranger(folder: str) -> None:
    """Raise ``TooMuch`` when a tenant's link would have root look where he may not."""
    try:
        place = os.open(folder, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        why = files.led_astray(folder, place)
    finally:
        os.close(place)
    if why is not None:
        raise TooMuch(f"it {why}")


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    """What is in a folder whose resolved path this is. Raises ``OSError``, also when a link has come on the way."""
    place = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.readlink(f"/proc/self/fd/{place}") != folder:
            raise NotADirectoryError(folder)
        with os.scandir(f"/proc/self/fd/{place}") as entries:
            yield from entries
    finally:
        os.close(place)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def is_text(name: str) -> bool:
    """Whether ``name`` is UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_skipped(name: str) -> bool:
    """Whether folders of this name hold no code of the app's."""
    return name.startswith(".") or name in SKIPPED


def identify(path: str) -> tuple[int, int] | None:
    """Device and inode number of ``path``, which a folder that replaces it has others of; None: it is not there."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
