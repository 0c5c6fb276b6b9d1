"""Who Caddy runs as: a process that is there tells it best, for it has the groups that it was started with."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path
from typing import NamedTuple

from .reach import Who

USERS = ("caddy", "www-data")
"""What packages of Caddy name its user."""


class Front(NamedTuple):
    """Caddy's user."""

    who: Who
    pid: int | None
    """The Caddy that this was read from; None when it is the user's entry in the user database."""
    is_guess: bool = False
    """Nobody has said so, and no Caddy runs: packages of Caddy call its user so."""

    def __str__(self) -> str:
        told = "no Caddy runs, its packages' user; --caddy-user says another" if self.is_guess else "Caddy's"
        return f"user {self.who.name} ({told})"


def find_front(name: str | None, proc: str = "/proc") -> Front | None:
    """The user that Caddy runs as: ``name``, or that of a Caddy that runs, or that of a package of Caddy.

    Raises:
        LookupError: there is no user ``name``.
    """
    running = [found for pid in _pids(proc) if (found := _process(proc, pid)) is not None]
    for found in running:
        if name is None or found.who.name == name or str(found.who.uid) == name:
            return found
    if name is not None:
        return Front(of_database(name), None)
    for candidate in USERS:
        try:
            return Front(of_database(candidate), None, is_guess=True)
        except LookupError:
            continue
    return None


def of_database(name: str) -> Who:
    """The user ``name`` (or number) with its groups. Raises ``LookupError``."""
    entry = pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
    return Who(entry.pw_name, entry.pw_uid, frozenset(os.getgrouplist(entry.pw_name, entry.pw_gid)))


def group_name(gid: int) -> str:
    """The name of a group, or its number where it has none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def user_name(uid: int) -> str:
    """The name of a user, or its number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _pids(proc: str) -> list[int]:
    return sorted(int(name) for name in os.listdir(proc) if name.isdigit())


def _process(proc: str, pid: int) -> Front | None:
    """The Caddy that is process ``pid``, if it is one and not the child of one of us."""
    try:
        if (Path(proc) / str(pid) / "comm").read_text().strip() != "caddy":
            return None
        lines = (Path(proc) / str(pid) / "status").read_text().splitlines()
    except OSError:
        return None
    fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    uid, gid = int(fields["Uid"].split()[1]), int(fields["Gid"].split()[1])
    gids = frozenset({gid, *map(int, fields.get("Groups", "").split())})
    return Front(Who(user_name(uid), uid, gids), pid)
