"""Who else could change what is about to be executed. Told from owners and modes, every folder on the way included.

A program that root executes is root's for as long as nobody else can replace it, or add to the folders that it reads
when it starts: ``bin/python``, the modules beside it, and the ``.pth`` files of its ``site-packages``.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
import sys

from .accounts import Account
from .search import installation

ROOT_HINT = "give the app a user of its own, or make these files root's, and writable for nobody else"

_LINKS_MAX = 40  # the kernel's own limit


def foreign_hand(python: str) -> str | None:
    """Why root must not execute the interpreter at *python*, ``None`` when it may.

    The interpreter that runs us is not looked at: whoever can change that one is root already.
    """
    if python == sys.executable:
        return None
    folder = os.path.dirname(python)
    root = os.path.dirname(folder)
    folders = [folder, os.path.dirname(os.path.realpath(python)), *installation(python).folders]
    if os.path.exists(os.path.join(root, "pyvenv.cfg")):
        folders += [root, os.path.join(root, "pyvenv.cfg")]
    for path in (python, *folders):
        found = changeable(path, is_folder=path in folders)
        if found is not None:
            return found
    return None


def changeable(path: str, *, is_folder: bool = False) -> str | None:
    """What on the way to *path* (absolute), or *path* itself, others than root may change, and who; else ``None``.

    *is_folder*: nobody may add anything to it either. In a sticky folder on the way, like ``/tmp``, they may.
    """
    parts = [part for part in path.split("/") if part][::-1]
    current = "/"
    links = 0
    while True:
        try:
            info = os.lstat(current)
        except OSError:
            return None  # not there: no danger, and somebody else's error
        if stat.S_ISLNK(info.st_mode):
            links += 1
            if links > _LINKS_MAX:
                return None
            if info.st_uid != 0:
                return f"{current} belongs to {_user(info.st_uid)}"
            target = os.readlink(current)
            parts += [part for part in target.split("/") if part][::-1]
            current = "/" if target.startswith("/") else os.path.dirname(current)
            continue
        why = _writers(info, may_be_sticky=bool(parts) or not is_folder)
        if why is not None:
            return f"{current} {why}"
        if not parts:
            return None
        part = parts.pop()
        current = os.path.dirname(current) if part == ".." else current if part == "." else os.path.join(current, part)


def _writers(info: os.stat_result, *, may_be_sticky: bool) -> str | None:
    if info.st_uid != 0:
        return f"belongs to {_user(info.st_uid)}"
    if may_be_sticky and stat.S_ISDIR(info.st_mode) and info.st_mode & stat.S_ISVTX:
        return None
    if info.st_mode & stat.S_IWOTH:
        return "may be written by everybody"
    if info.st_mode & stat.S_IWGRP and not _is_empty_group(info.st_gid):
        return f"may be written by group {_group(info.st_gid)}"
    return None


def _is_empty_group(gid: int) -> bool:
    """It has no members but root. Root's own, and Debian's ``staff`` for /usr/local."""
    if gid == 0:
        return True
    try:
        members = set(grp.getgrgid(gid).gr_mem)
    except KeyError:
        return False
    return members <= {"root"} and all(entry.pw_uid == 0 or entry.pw_gid != gid for entry in pwd.getpwall())


def misleads(path: str, descriptor: int, account: Account | None) -> str | None:
    """Why what root opened at *path* must not be handed to an app of *account*; ``None`` when it may.

    It is that user's own, or it may read it anyway, or nobody but root could have chosen where *path* leads. Else a
    link might have made root read what the user may not.
    """
    if account is None or account.uid == 0 or os.fstat(descriptor).st_uid == account.uid:
        return None
    real = os.readlink(f"/proc/self/fd/{descriptor}")
    if closed_to(real, account.uid, frozenset((account.gid, *account.groups))) is None:
        return None
    found = changeable(path)
    return None if found is None else f"may not be read by user {account.name}, and could lead anywhere: {found}"


def closed_to(path: str, uid: int, gids: frozenset[int]) -> str | None:
    """The first folder on the way to *path*, or *path* itself, whose mode keeps a user out; ``None`` if none does.

    Access control lists are not looked at: this is for explaining a failure, not for predicting one.
    """
    way = []
    for each in (path, os.path.realpath(path)):
        way += [each[:end] or "/" for end, letter in enumerate(each) if letter == "/"] + [each]
    for each in way:
        try:
            info = os.stat(each)
        except OSError:
            return None
        wanted = stat.S_IXOTH if stat.S_ISDIR(info.st_mode) else stat.S_IROTH
        shift = 6 if info.st_uid == uid else 3 if info.st_gid in gids else 0
        if uid != 0 and not info.st_mode & (wanted << shift):
            return each
    return None


def _user(uid: int) -> str:
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
