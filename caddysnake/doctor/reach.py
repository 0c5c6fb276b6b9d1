"""Users, and whether one can get to a path: owners and modes of everything on the way (path_resolution(7)).

Access control lists and security modules are not looked at; ``has_list`` says where there is a list.
"""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path
from typing import NamedTuple

from ..files import group_name, user_name


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


def of_process(pid: int, proc: str = "/proc") -> tuple[Who, int] | None:
    """Who process ``pid`` is, and the group of what it makes; None: it is not there."""
    try:
        lines = (Path(proc) / str(pid) / "status").read_text().splitlines()
    except OSError:
        return None
    fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    uid, gid = int(fields["Uid"].split()[1]), int(fields["Gid"].split()[1])
    return Who(user_name(uid), uid, frozenset({gid, *map(int, fields.get("Groups", "").split())})), gid


def of_database(name: str) -> Who:
    """The user ``name`` (or number) with its groups. Raises ``LookupError``."""
    entry = pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
    return Who(entry.pw_name, entry.pw_uid, frozenset(os.getgrouplist(entry.pw_name, entry.pw_gid)))


def group_of(who: Who) -> str:
    """The group that stands for ``who``: of the user's own name, if it is in one."""
    groups = [group_name(gid) for gid in sorted(who.gids)]
    return who.name if who.name in groups else groups[0]


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
