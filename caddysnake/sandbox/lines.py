"""From what a process has asked for to the lines of a ``sandbox`` block that would let it. Pure, but that a path may be
looked at.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from .denials import word
from .walls import Walls
from .watching import Wanted

_TOGETHER = 3
"""So many files of one folder are named by that."""
_KERNEL = ("/proc", "/sys", "/dev/pts", "/dev/ptmx", "/dev/tty")
"""Where nothing can be had by a line."""


def missing(wanted: Iterable[Wanted], walls: Walls) -> list[str]:
    """The lines, in the order of the reference."""
    found = set(wanted)
    paths = {how: dict.fromkeys(map(word, _paths(found, how, walls))) for how in ("read", "write")}
    lines = [f"{how} {path}" for how in paths for path in paths[how]]
    if walls.connect is not None:
        lines += _ports("connect", found, walls.connect)
    if walls.listen is not None:
        lines += _ports("listen", found, walls.listen)
    if not walls.has_unix and any(each.how == "unix" for each in found):
        lines.append("unix any")
    return lines


def _paths(found: set[Wanted], how: str, walls: Walls) -> list[str]:
    paths = {each.what for each in found if each.how == how and not _is_granted(each.what, how, walls)}
    paths = {path for path in paths if not any(_is_within(path, top) for top in _KERNEL)}
    if how == "read":  # what is written to can be read as well
        written = _paths(found, "write", walls)
        paths = {path for path in paths if not any(_is_within(path, other) for other in written)}
    folders: dict[str, set[str]] = {}
    for path in paths:
        if not os.path.isdir(path):
            folders.setdefault(os.path.dirname(path), set()).add(path)
    for folder, files in folders.items():
        if len(files) >= _TOGETHER and folder.count("/") > 1:
            paths = paths - files | {folder}
    return sorted(path for path in paths if not any(path != other and _is_within(path, other) for other in paths))


def _is_granted(path: str, how: str, walls: Walls) -> bool:
    allowed = {"read": ("read", "write", "own"), "write": ("write", "own")}[how]
    for grant in walls.grants:
        real = os.path.realpath(grant.path)
        if grant.how in allowed and _is_within(path, real):
            return True
        if grant.how == "use" and path == real:
            return True
        if grant.how == "share" and _is_within(path, real) and (path != real or how == "write"):  # a file made in it
            return True
    return False


def _ports(how: str, found: set[Wanted], known: Iterable[int]) -> list[str]:
    ports = {int(each.what) for each in found if each.how == how} - {0}
    return [] if ports <= {*known} else [f"{how} {' '.join(map(str, sorted({*ports, *known})))}"]


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
