"""Files in places where somebody else may write: what they are is known before they are opened, and nothing is changed
through a link of his.

For root a name below another's folder is his to choose: it may lead, from one moment to the next, to a FIFO that holds
whoever opens it, to a device, or to what he may not read himself. So what a name leads to is taken first with a
descriptor for which nothing is opened (``O_PATH``, open(2)); its kind and owner are looked at; and only then is that
same file opened, through ``/proc/self/fd``, or changed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import pwd
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

LINKS_MAX = 40
"""The kernel's own limit (path_resolution(7))."""
_LOOK = os.O_PATH | os.O_CLOEXEC


class Unfit(OSError):
    """What is there is not opened: it is no regular file, or not for who could have chosen it. ``strerror`` says which,
    as the rest of a sentence about the file.
    """


class Hand(NamedTuple):
    """Somebody other than root who decides where a path leads."""

    place: str
    why: str
    uid: int
    """-1: several."""

    def __str__(self) -> str:
        return f"{self.place} {self.why}"


@contextlib.contextmanager
def closing(descriptor: int) -> Iterator[int]:
    """Close ``descriptor`` afterwards."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_regular(path: str | os.PathLike[str], refuse: Callable[[int], str | None] | None = None) -> int:
    """Open the regular file at ``path``; its descriptor, the caller's. Links are followed, as long as root would not be
    led by them to what others may not read. ``refuse``: why the file of a descriptor (``O_PATH``) must not be opened,
    instead of ``led_astray``. Raises ``Unfit``: another kind, or refused; ``OSError``.
    """
    with closing(os.open(path, _LOOK)) as place:
        if not stat.S_ISREG(os.fstat(place).st_mode):
            raise Unfit(errno.EINVAL, "is not a regular file", os.fspath(path))
        why = led_astray(os.fspath(path), place) if refuse is None else refuse(place)
        if why is not None:
            raise Unfit(errno.EPERM, why, os.fspath(path))
        return os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def read(path: str | os.PathLike[str], most: int, refuse: Callable[[int], str | None] | None = None) -> bytes:
    """At most ``most`` bytes of the beginning of a regular file. Raises as ``open_regular`` does."""
    descriptor = open_regular(path, refuse)
    with open(descriptor, "rb") as file:
        return file.read(most)


def led_astray(path: str, descriptor: int) -> str | None:
    """Why root must not open what ``path`` led to, ``descriptor``; None when it may, or we are not root.

    It may where nobody else chose the way; what belongs to whoever did; and what he may read.
    """
    if os.geteuid() != 0:
        return None
    hand = first_hand(os.path.abspath(path))
    if hand is None or os.fstat(descriptor).st_uid == hand.uid:
        return None
    if (real := name_of(descriptor)) is None:
        return f"leads to what has no name: {hand}"
    if (closed := closed_to(real, hand.uid, groups_of(hand.uid))) is None:
        return None
    return f"leads to what not everybody may read ({closed}), and could lead anywhere: {hand}"


def groups_of(uid: int) -> frozenset[int]:
    """All groups of a user, by the user database."""
    try:
        entry = pwd.getpwuid(uid)
    except (KeyError, OverflowError):
        return frozenset()
    return frozenset(os.getgrouplist(entry.pw_name, entry.pw_gid))


def name_of(descriptor: int) -> str | None:
    """The path of an open file, resolved; None when it has none any more, or never had (a memfd, a socket)."""
    real = os.readlink(f"/proc/self/fd/{descriptor}")
    try:
        found = os.stat(real, follow_symlinks=False)
    except (OSError, ValueError):
        return None
    return real if os.path.samestat(found, os.fstat(descriptor)) else None


def open_folder(path: str, make: int | None = None) -> int:
    """A descriptor (``O_PATH``, the caller's) of the folder ``path`` (absolute). For root, only links are followed that
    nobody else can have put there, or, in a sticky folder such as ``/tmp``, taken away; for others, not a stranger's in
    a folder that is everybody's. ``make``: the mode of folders that are missing, which are made then. Raises
    ``OSError``; ``ELOOP`` names the link that is not followed.
    """
    parts = _parts(path)
    links = 0
    current, shown = os.open("/", _LOOK | os.O_DIRECTORY), "/"
    try:
        while parts:
            part = parts.pop()
            here = os.path.join(shown, part)
            try:
                below = os.open(part, _LOOK | os.O_NOFOLLOW, dir_fd=current)
            except FileNotFoundError:
                if make is None:
                    raise
                with contextlib.suppress(FileExistsError):  # somebody was faster
                    os.mkdir(part, make, dir_fd=current)
                below = os.open(part, _LOOK | os.O_NOFOLLOW, dir_fd=current)
            try:
                info = os.fstat(below)
                if stat.S_ISLNK(info.st_mode):
                    links += 1
                    if links > LINKS_MAX:
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                    _refuse_link(os.fstat(current), info, here)
                    target = os.readlink("", dir_fd=below)
                    parts += _parts(target)
                    if target.startswith("/"):
                        os.close(current)
                        current, shown = -1, "/"
                        current = os.open("/", _LOOK | os.O_DIRECTORY)
                    continue
                if not stat.S_ISDIR(info.st_mode):
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), here)
                current, below, shown = below, current, here
            finally:
                os.close(below)
    except BaseException:
        if current >= 0:
            os.close(current)
        raise
    return current


def spare(folder: str, former: int = -1) -> int:
    """A descriptor of ``folder``, the caller's, with a lock: as long as it is open, systemd-tmpfiles(8) removes nothing
    in there, however old it is (tmpfiles.d(5)). ``former``: of another folder, to be closed. Raises ``OSError``.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    if former >= 0:
        os.close(former)
    with contextlib.suppress(BlockingIOError):  # it is at work there
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return handle


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")][::-1]


def _refuse_link(folder: os.stat_result, link: os.stat_result, name: str) -> None:
    own = os.geteuid()
    if own != 0:  # as the kernel has it where it protects links (proc_sys_fs(5), protected_symlinks)
        if folder.st_mode & stat.S_IWOTH and link.st_uid not in (0, own):
            text = f"the link {name}, in a folder where everybody may write, belongs to user {user_name(link.st_uid)}"
            raise OSError(errno.ELOOP, text, name)
        return
    why = writers(folder, may_be_sticky=True)
    if why is None and link.st_uid != 0:
        why = f"belongs to user {user_name(link.st_uid)}"
        raise OSError(errno.ELOOP, f"root does not follow the link {name}, which {why}: name the folder itself", name)
    if why is not None:
        text = f"root does not follow the link {name}, whose folder {why}: name the folder it leads to"
        raise OSError(errno.ELOOP, text, name)


def names(folder: str, most: int) -> tuple[list[str], bool]:
    """Names in ``folder``, sorted, ``most`` at most, and whether those are all. Raises ``OSError``, ``Unfit``."""
    found: list[str] = []
    with closing(os.open(folder, _LOOK | os.O_DIRECTORY)) as place:
        if (why := led_astray(folder, place)) is not None:
            raise Unfit(errno.EPERM, why, folder)
        with os.scandir(f"/proc/self/fd/{place}") as entries:
            for entry in entries:
                if len(found) >= most:
                    return sorted(found), False
                found.append(entry.name)
    return sorted(found), True


# Who may write where


def first_hand(path: str, *, is_folder: bool = False) -> Hand | None:
    """Who other than root may change *path* (absolute), or what is on the way to it, and where; else ``None``.

    *is_folder*: nobody may add anything to it either. In a sticky folder on the way, like ``/tmp``, they may.
    """
    for place, info, is_last in _way(path):
        if not stat.S_ISLNK(info.st_mode):
            why = writers(info, may_be_sticky=not (is_last and is_folder))
        else:
            why = None if info.st_uid == 0 else f"belongs to user {user_name(info.st_uid)}"
        if why is not None:
            return Hand(place, why, info.st_uid or -1)
    return None


def _way(path: str) -> Iterator[tuple[str, os.stat_result, bool]]:
    """What is on the way to *path* (absolute), links followed, as far as it is there; and whether it is the last."""
    parts, current, links = _parts(path), "/", 0
    while links <= LINKS_MAX:
        try:
            info = os.lstat(current)
            target = os.readlink(current) if stat.S_ISLNK(info.st_mode) else None
        except OSError:
            return  # not there: no danger, and somebody else's error
        yield current, info, not parts
        if target is not None:
            links += 1
            parts += _parts(target)
            current = "/" if target.startswith("/") else os.path.dirname(current)
        elif parts:
            part = parts.pop()
            current = os.path.dirname(current) if part == ".." else os.path.join(current, part)
        else:
            return


def writers(info: os.stat_result, *, may_be_sticky: bool) -> str | None:
    """Who other than root may write to the file of *info*; ``None`` when nobody may."""
    if info.st_uid != 0:
        return f"belongs to user {user_name(info.st_uid)}"
    if may_be_sticky and stat.S_ISDIR(info.st_mode) and info.st_mode & stat.S_ISVTX:
        return None
    if info.st_mode & stat.S_IWOTH:
        return "may be written by everybody"
    if info.st_mode & stat.S_IWGRP and not _is_empty_group(info.st_gid):
        return f"may be written by group {group_name(info.st_gid)}"
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


def is_within(path: str, folder: str) -> bool:
    """*path* is *folder*, or below it; by their names alone."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def links_on(path: str) -> Iterator[str]:
    """The folders, resolved, in which there are links on the way to *path* (absolute)."""
    for place, info, _ in _way(path):
        if stat.S_ISLNK(info.st_mode):
            yield os.path.dirname(place)


def closed_to(path: str, uid: int, gids: frozenset[int]) -> str | None:
    """The first on the way to *path* whose mode keeps a user out, itself included; None. No access lists."""
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


def user_name(uid: int) -> str:
    """The name of a user, or its number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    """The name of a group, or its number where it has none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
