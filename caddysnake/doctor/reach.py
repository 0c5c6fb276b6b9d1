"""Whether a user can get to a path: owners and modes of everything on the way (path_resolution(7)).

Access control lists and security modules are not looked at; ``has_list`` says where there is a list.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple


class Who(NamedTuple):
    """A user as processes have it: every group counts."""

    name: str
    uid: int
    gids: frozenset[int]


class Obstacle(NamedTuple):
    """Where the way ends."""

    path: str
    info: os.stat_result | None
    """None: it is not there."""


def may(who: Who, info: os.stat_result, bit: int) -> bool:
    """``who`` may do what ``bit`` (4 read, 2 write, 1 execute or enter) stands for with the file of ``info``."""
    if who.uid == 0:
        return True
    if who.uid == info.st_uid:
        return bool(info.st_mode & bit << 6)
    if info.st_gid in who.gids:
        return bool(info.st_mode & bit << 3)
    return bool(info.st_mode & bit)


def entering(who: Who, folder: str) -> Obstacle | None:
    """The first folder on the way to, and with, ``folder`` (absolute) that ``who`` cannot enter."""
    real = os.path.realpath(folder)
    current = "/"
    for part in ("", *(part for part in real.split("/") if part)):
        current = os.path.join(current, part)
        try:
            info = os.stat(current)
        except OSError:
            return Obstacle(current, None)
        if not stat.S_ISDIR(info.st_mode) or not may(who, info, 1):
            return Obstacle(current, info)
    return None


def has_list(path: str) -> bool:
    """``path`` has an access control list, so its mode does not tell everything."""
    try:
        return "system.posix_acl_access" in os.listxattr(path)
    except OSError:
        return False
