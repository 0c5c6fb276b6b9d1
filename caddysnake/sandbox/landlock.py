"""Landlock: what a thread, and all that it starts, may do with files, TCP ports and other processes (landlock(7)).

Rules are of inodes, as they are when a rule is made. Descriptors that are open already stay as they are.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterable

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_OPENAT2 = 437
"""The same numbers on every machine."""
_VERSION = 1
_PATH_BENEATH, _NET_PORT = 1, 2
_RESOLVE_NO_SYMLINKS, _RESOLVE_NO_MAGICLINKS = 4, 2

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_DIR, REMOVE_FILE = 1 << 4, 1 << 5
MAKE_CHAR, MAKE_DIR, MAKE_REG, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK, MAKE_SYM = (1 << bit for bit in range(6, 13))
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV

BIND_TCP, CONNECT_TCP = 1, 2
_SCOPES = 1 | 2
"""Abstract unix sockets, and signals."""

TRUNCATE_ABI, PORTS_ABI, SCOPES_ABI = 3, 4, 6
"""The first that know truncate(2), ports of TCP, and scopes."""
_REFER_ABI, _IOCTL_ABI = 2, 5

READ = READ_FILE | READ_DIR | EXECUTE
WRITE = (
    READ_FILE | READ_DIR | WRITE_FILE | TRUNCATE | REMOVE_DIR | REMOVE_FILE | REFER | IOCTL_DEV
    | MAKE_DIR | MAKE_REG | MAKE_SOCK | MAKE_FIFO
)  # fmt: skip
"""But for links: whoever reads there with rights of his own, as a web server does, would be led by them."""
USE = READ_FILE | WRITE_FILE | TRUNCATE
SHARE = USE | MAKE_REG | REMOVE_FILE
"""Files in a folder that is not listed: names have to be known."""

_libc = ctypes.CDLL(None, use_errno=True)


def abi() -> int:
    """Which Landlock this kernel offers; 0: none."""
    return max(_ask(), 0)


def why_not() -> str:
    """Why there is none."""
    number = -_ask()
    if number == errno.EOPNOTSUPP:
        return "this kernel has Landlock, and was booted without it: `landlock` is missing in its lsm= list"
    if number == errno.EPERM:
        return "this process may not use Landlock: a container's seccomp profile forbids it"
    return "this kernel has no Landlock (Linux 5.13 and later do, where it is built in), or a container forbids it"


def _ask() -> int:
    found = int(_libc.syscall(ctypes.c_long(_CREATE_RULESET), None, ctypes.c_size_t(0), ctypes.c_uint(_VERSION)))
    return found if found >= 0 else -ctypes.get_errno()


def handled(version: int) -> int:
    """All rights to files that a kernel of this version can withhold."""
    rights = (1 << 13) - 1
    for least, right in ((_REFER_ABI, REFER), (TRUNCATE_ABI, TRUNCATE), (_IOCTL_ABI, IOCTL_DEV)):
        rights |= right if version >= least else 0
    return rights


def restrict(
    files: Iterable[tuple[str, int, bool]] | None, connect: Iterable[int] | None, listen: Iterable[int] | None
) -> None:
    """Leave this thread, and all that it starts, these rights of those it has; it must have no new privileges.
    ``files``: paths with rights, and whether links are followed; a path that is missing gives none. ``connect``,
    ``listen``: ports of TCP. None: any. Raises ``OSError``; nothing is restricted then.
    """
    version = abi()
    if version == 0:
        raise OSError(errno.EOPNOTSUPP, why_not())
    rights = handled(version) if files is not None else 0
    ports = (0 if connect is None else CONNECT_TCP) | (0 if listen is None else BIND_TCP)
    attributes = [rights, ports if version >= PORTS_ABI else 0, _SCOPES if version >= SCOPES_ABI else 0]
    if not any(attributes):
        return
    known = 3 if version >= SCOPES_ABI else 2 if version >= PORTS_ABI else 1
    whole = struct.pack(f"{known}Q", *attributes[:known])
    ruleset = _call(_CREATE_RULESET, whole, ctypes.c_size_t(len(whole)), ctypes.c_uint(0))
    try:
        for path, wanted, follows in files or ():
            _allow(ruleset, path, wanted & rights, follows)
        if version >= PORTS_ABI:
            for allowed, right in ((connect, CONNECT_TCP), (listen, BIND_TCP)):
                for port in allowed or ():
                    _call(_ADD_RULE, ctypes.c_int(ruleset), _NET_PORT, struct.pack("2Q", right, port), ctypes.c_uint(0))
        _call(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint(0))
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int, follows: bool) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC) if follows else _open_plainly(path)
    except FileNotFoundError:
        return
    except (NotADirectoryError, PermissionError):
        if follows:
            return
        raise
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= _OF_FILES
        _call(_ADD_RULE, ctypes.c_int(ruleset), _PATH_BENEATH, struct.pack("=Qi", rights, fd), ctypes.c_uint(0))
    finally:
        os.close(fd)


def _open_plainly(path: str) -> int:
    """Without following a link anywhere on the way: somebody may have put one there by now (openat2(2))."""
    how = struct.pack("3Q", os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS)
    return _call(_OPENAT2, ctypes.c_int(-100), os.fsencode(path), how, ctypes.c_size_t(len(how)), path=path)


def _call(number: int, *arguments: object, path: str | None = None) -> int:
    found = int(_libc.syscall(ctypes.c_long(number), *arguments))
    if found < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)
    return found
