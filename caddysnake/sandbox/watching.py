"""What a process asks of files and networks, told by the kernel to another that lets all of it pass
(seccomp_unotify(2)).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple

from . import seccomp
from .syscalls import MACHINES

_RECEIVE, _SEND = 0xC0502100, 0xC0182101
"""SECCOMP_IOCTL_NOTIF_RECV and _SEND: _IOWR('!', 0, 80 bytes), _IOWR('!', 1, 24 bytes)."""
_NOTIFICATION: Final = struct.Struct("=QII iIQ 6Q")
_CONTINUE: Final = 1
_PIDFD_GETFD: Final = 438
_PATH_MAX: Final = 4096
_AT_FDCWD: Final = -100
_O_PATH: Final = 0o10000000
_NSCD: Final = b"/var/run/nscd/socket\0"
"""Which glibc tries for names of users and hosts, and does well without."""
_AT_SYMLINK_NOFOLLOW: Final = 0x100
_STATX_BTIME: Final = 0x800
_BUILD_S: Final = 60
_CACHE: Final = "/__pycache__/"


class Place(NamedTuple):
    """Which arguments name a file: ``folder`` is a descriptor, -1 where there is none."""

    path: int
    folder: int = -1


class Watched(NamedTuple):
    """A system call. ``how``: ``open`` (``flags`` says for what), ``read``, ``write`` (the file), ``change`` (its
    folder), ``make``, ``remove`` (likewise, where it is missing, or there), ``connect``, ``bind`` or ``socket``.
    """

    numbers: tuple[int, int]
    how: str
    places: tuple[Place, ...] = ()
    flags: int = -1


WATCHED: Final[dict[str, Watched]] = {
    "open": Watched((2, -1), "open", (Place(0),), 1),
    "openat": Watched((257, 56), "open", (Place(1, 0),), 2),
    "openat2": Watched((437, 437), "openat2", (Place(1, 0),), 2),
    "creat": Watched((85, -1), "change", (Place(0),)),
    "execve": Watched((59, 221), "read", (Place(0),)),
    "execveat": Watched((322, 281), "read", (Place(1, 0),)),
    "truncate": Watched((76, 45), "write", (Place(0),)),
    "unlink": Watched((87, -1), "remove", (Place(0),)),
    "unlinkat": Watched((263, 35), "remove", (Place(1, 0),)),
    "rmdir": Watched((84, -1), "remove", (Place(0),)),
    "mkdir": Watched((83, -1), "make", (Place(0),)),
    "mkdirat": Watched((258, 34), "make", (Place(1, 0),)),
    "rename": Watched((82, -1), "change", (Place(0), Place(1))),
    "renameat": Watched((264, 38), "change", (Place(1, 0), Place(3, 2))),
    "renameat2": Watched((316, 276), "change", (Place(1, 0), Place(3, 2))),
    "symlink": Watched((88, -1), "make", (Place(1),)),
    "symlinkat": Watched((266, 36), "make", (Place(2, 1),)),
    "link": Watched((86, -1), "make", (Place(1),)),
    "linkat": Watched((265, 37), "make", (Place(3, 2),)),
    "connect": Watched((42, 203), "connect"),
    "bind": Watched((49, 200), "bind"),
    "socket": Watched((41, 198), "socket"),
}


class Wanted(NamedTuple):
    """What was asked for: ``read`` or ``write`` a path, ``connect`` or ``listen`` to a port of TCP, ``unix``."""

    how: str
    what: str


def install(machine: str) -> int:
    """Have the kernel tell of this process, and all that it starts; the descriptor to listen on. Raises ``OSError``."""
    numbers = [each.numbers[MACHINES.index(machine)] for each in WATCHED.values()]
    return seccomp.install(seccomp.telling([n for n in numbers if n >= 0], machine), machine, tells=True)


class Listener:
    """Reads what the kernel tells of a dumpable child. ``unseen`` counts what could not be looked at."""

    def __init__(self, fd: int, machine: str) -> None:
        self.fd = fd
        self.unseen = 0
        self._unix: Counter[int] = Counter()
        """Unix sockets, by who has made them."""
        place = MACHINES.index(machine)
        self._calls = {each.numbers[place]: each for each in WATCHED.values() if each.numbers[place] >= 0}

    def next(self) -> list[Wanted]:
        """Hear of one call, let it pass, and return what it asks for. Raises ``OSError``: nobody is left."""
        buffer = bytearray(_NOTIFICATION.size)
        try:
            fcntl.ioctl(self.fd, _RECEIVE, buffer, True)
        except OSError as exc:
            if exc.errno in (errno.EINTR, errno.ENOENT):  # who asked is gone
                return []
            raise
        number, pid, _, call, _, _, *arguments = _NOTIFICATION.unpack(buffer)
        found: list[Wanted] = []
        try:
            found = list(self._looked_at(pid, self._calls[call], arguments))
        except (OSError, KeyError, ValueError):
            self.unseen += 1
        try:
            fcntl.ioctl(self.fd, _SEND, struct.pack("=QqiI", number, 0, 0, _CONTINUE))
        except OSError as exc:
            if exc.errno != errno.ENOENT:
                raise
        return found

    @property
    def wants_unix(self) -> bool:
        """It has made unix sockets itself, not the C library for it."""
        return any(count > 0 for count in self._unix.values())

    def _looked_at(self, pid: int, call: Watched, arguments: list[int]) -> Iterator[Wanted]:
        if call.how == "socket":
            self._unix[pid] += arguments[0] & 0xFFFFFFFF == socket.AF_UNIX
        elif call.how in ("connect", "bind"):
            yield from self._addressed(pid, call.how, arguments)
        else:
            for place in call.places:
                path = self._path(pid, place, arguments)
                if path is not None:
                    yield from _of_file(path, call.how, self._flags(pid, call, arguments))

    def _flags(self, pid: int, call: Watched, arguments: list[int]) -> int:
        if call.flags < 0:
            return 0
        if call.how == "openat2":
            return int.from_bytes(_memory(pid, arguments[call.flags], 8), "little")
        return arguments[call.flags] & 0xFFFFFFFF

    def _path(self, pid: int, place: Place, arguments: list[int]) -> str | None:
        """Absolute, links followed but for the last; None for one without a name."""
        name = os.fsdecode(_text(pid, arguments[place.path]))
        if not name:
            return None
        if name.startswith("/"):
            base = "/"
        elif place.folder < 0 or ctypes.c_int(arguments[place.folder] & 0xFFFFFFFF).value == _AT_FDCWD:
            base = os.readlink(f"/proc/{pid}/cwd")
        else:
            base = os.readlink(f"/proc/{pid}/fd/{arguments[place.folder] & 0xFFFFFFFF}")
        if name.startswith("/proc/self"):
            name = f"/proc/{pid}" + name[len("/proc/self") :]
        return os.path.normpath(os.path.join(base, name))

    def _addressed(self, pid: int, how: str, arguments: list[int]) -> Iterator[Wanted]:
        raw = _memory(pid, arguments[1], min(arguments[2] & 0xFFFFFFFF, 128))
        family = int.from_bytes(raw[:2], "little")
        if family == socket.AF_UNIX:
            self._unix[pid] -= how == "connect" and raw[2:].startswith(_NSCD)
        elif family in (socket.AF_INET, socket.AF_INET6) and _is_stream(pid, arguments[0] & 0xFFFFFFFF):
            yield Wanted("connect" if how == "connect" else "listen", str(int.from_bytes(raw[2:4], "big")))


def _of_file(path: str, how: str, flags: int) -> Iterator[Wanted]:
    if how in ("open", "openat2"):
        if flags & _O_PATH:
            return
        if flags & os.O_CREAT and not _was_there(path):
            how = "change"
        elif flags & (os.O_WRONLY | os.O_RDWR | os.O_TRUNC):
            how = "write"
        else:
            how = "read"
    if how != "read" and _CACHE in f"{path}/":
        return  # Python does without
    if (how == "make" and _was_there(path)) or (how == "remove" and not os.path.lexists(path)):
        return  # the error is the same in a sandbox
    if how in ("change", "make", "remove"):
        how, path = "write", os.path.dirname(path)
    # What is missing, or closed to it, is so in a sandbox, too.
    if os.access(path, os.R_OK if how == "read" else os.W_OK):
        yield Wanted(how, os.path.realpath(path))


def _was_there(path: str) -> bool:
    """And not only since another worker of the same build has made it (statx(2): when it was made)."""
    buffer = ctypes.create_string_buffer(256)
    if ctypes.CDLL(None).statx(_AT_FDCWD, os.fsencode(path), _AT_SYMLINK_NOFOLLOW, _STATX_BTIME, buffer) != 0:
        return False
    mask, made_at = struct.unpack_from("=I76xq", buffer)
    return not mask & _STATX_BTIME or made_at < time.time() - _BUILD_S


def _memory(pid: int, address: int, size: int) -> bytes:
    fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(fd, size, address)
    finally:
        os.close(fd)


def _text(pid: int, address: int) -> bytes:
    """Up to its end; a page at a time, as the next may not be there."""
    found = b""
    while len(found) < _PATH_MAX:
        piece = _memory(pid, address + len(found), 256 - (address + len(found)) % 256)
        end = piece.find(b"\0")
        if end >= 0:
            return found + piece[:end]
        found += piece
    raise ValueError("a name that does not end")


def _is_stream(pid: int, fd: int) -> bool:
    """The other process's socket ``fd`` is of TCP."""
    with open(f"/proc/{pid}/status", "rb") as file:
        leader = next(int(line.split()[1]) for line in file if line.startswith(b"Tgid:"))
    pidfd = os.pidfd_open(leader)
    try:
        ours = ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(_PIDFD_GETFD), pidfd, fd, 0)
    finally:
        os.close(pidfd)
    if ours < 0:
        raise OSError(ctypes.get_errno(), "pidfd_getfd")
    with socket.socket(fileno=ours) as sock:
        return sock.type == socket.SOCK_STREAM
