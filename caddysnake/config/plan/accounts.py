"""Who an app runs as: from the names in the file, or in a request, to numbers."""

from __future__ import annotations

import grp
import os
import pwd
from typing import Final, NamedTuple

from ...caddyfile.errors import Hinted
from ...files import closed_to

FIRST_ORDINARY_ID: Final = 1000
"""Users and groups below are the system's own (login.defs(5), UID_MIN)."""

_NOBODY: Final = 65534  # whoever has no number of their own here: NFS, user namespaces


class Account(NamedTuple):
    """A user, as a process has it."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    """Supplementary ones, sorted."""
    name: str
    """For people and ``USER``; the number where the user has no name."""
    home: str

    def closed_from(self, path: str) -> str | None:
        """The first on the way to *path* whose mode keeps it out, itself included; ``None``: nothing does."""
        return closed_to(path, self.uid, frozenset((self.gid, *self.groups)))


class AccountError(Hinted):
    """An app cannot be run as that user, or group."""


def resolve(
    user: str | None, group: str | None, *, user_by_request: bool = False, group_by_request: bool = False
) -> Account | None:
    """The account of *user* (a name or number) in *group*; ``None`` when that is who we are anyway.

    ``…_by_request``: a request had a say in the name, so it must be an ordinary one. What the operator wrote out may be
    any. Raises ``AccountError``: there is no such user or group, it is not an ordinary one, or only root could become
    it.
    """
    if user is None and group is None:
        return None
    account = _own() if user is None else _look_up(user)
    if group is not None:
        account = account._replace(gid=group_id(group))
    if user_by_request and not _is_ordinary(account.uid):
        raise AccountError(f"user {user} ({account.uid}) is not an ordinary one", "name system users in the file")
    if group_by_request and not _is_ordinary(account.gid):
        raise AccountError(f"group {group} ({account.gid}) is not an ordinary one", "name system groups in the file")
    if os.geteuid() != 0:
        if (account.uid, account.gid) != (os.geteuid(), os.getegid()):
            whom = f"user {user}" if user is not None else f"group {group}"
            raise AccountError(f"only root may run an app as {whom}", "start as root, or take it away")
        return None
    return account


def user_id(name: str) -> int:
    """The number of a user, by name or number. Raises ``AccountError``."""
    return _look_up(name).uid


def group_id(name: str) -> int:
    """The number of a group, by name or number. Raises ``AccountError``."""
    try:
        return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
    except (KeyError, ValueError):
        raise AccountError(f"there is no group {name}", "create it, or correct the name") from None


def _look_up(user: str) -> Account:
    try:
        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except (KeyError, ValueError, OverflowError):
        if user.isdecimal() and 0 <= int(user) < _LAST_ID:
            return Account(int(user), int(user), (), user, "/")  # as containers have it
        raise AccountError(f"there is no user {user}", "create it, or correct the name") from None
    groups = tuple(sorted(set(os.getgrouplist(entry.pw_name, entry.pw_gid)) - {entry.pw_gid}))
    return Account(entry.pw_uid, entry.pw_gid, groups, entry.pw_name, entry.pw_dir)


_LAST_ID: Final = 2**32 - 1  # means "leave it as it is"


def _own() -> Account:
    try:
        entry = pwd.getpwuid(os.geteuid())
        name, home = entry.pw_name, entry.pw_dir
    except KeyError:
        name, home = str(os.geteuid()), "/"
    return Account(os.geteuid(), os.getegid(), tuple(sorted(os.getgroups())), name, home)


def _is_ordinary(number: int) -> bool:
    return number >= FIRST_ORDINARY_ID and number != _NOBODY
