"""Whose child a process is, asked so that its number cannot come to mean another one meanwhile.

``/proc`` may hide a process: that of another user, or one of ours, which are undumpable (proc(5), ``hidepid``, and
``ProtectProc=`` of systemd). On a pidfd the kernel tells a process's parent to anybody (PIDFD_GET_INFO, Linux 6.13), so
that is asked first.
"""

from __future__ import annotations

import array
import contextlib
import enum
import errno
import fcntl
import os
import select
import signal
import socket
import struct
import sys
from ipaddress import ip_address
from typing import Final

from ... import files

_PIDFD_GET_INFO: Final = 0xC040FF0B  # _IOWR(0xFF, 11, struct pidfd_info), of its first version
_INFO: Final = struct.Struct("2Q12I")  # mask, cgroup, pid, tgid, ppid, and ids that are not needed here
_INFO_PID: Final = 1
_SO_PEERPIDFD: Final = 77
"""Linux 6.5."""
_UCRED: Final = struct.Struct("3i")
_TRIES: Final = 10
OUT_OF: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_DEPTH_MAX: Final = 256

HIDDEN: Final = (
    "/proc hides it (hidepid, or ProtectProc= of a unit), and a kernel before Linux 6.13 tells it nowhere else: "
    "mount /proc without hidepid for this user (gid= names a group that sees all), or take ProtectProc= away"
)


class Unknown(OSError):
    """A process is there, and whose child it is cannot be learnt. The text says why."""


def stat_of(pid: int, thread: str = "") -> list[bytes]:
    """What the kernel says of ``pid``, or of one of its threads, behind its name (proc_pid_stat(5)): state, parent, …
    Raises ``OSError``.
    """
    with open(f"/proc/{pid}/task/{thread}/stat" if thread else f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()


def parent_on(pidfd: int, pid: int) -> int:
    """The pid of the parent of ``pid``, 0: in another namespace. Raises ``ProcessLookupError``, ``Unknown``."""
    answer = array.array("B", _INFO.pack(_INFO_PID, *[0] * 13))
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, answer, True)
        return int(_INFO.unpack(answer)[4])
    except ProcessLookupError:
        raise
    except OSError as exc:
        if exc.errno == errno.EREMOTE:
            raise Unknown(errno.EREMOTE, f"process {pid} is in another namespace of pids") from None
    return _parent_in_proc(pidfd, pid)


def _parent_in_proc(pidfd: int, pid: int) -> int:
    """What ``/proc`` says of ``pid``, if it still is what ``pidfd`` is of afterwards."""
    try:
        parent = int(stat_of(pid)[1])
    except (OSError, ValueError, IndexError):
        parent = -1
    if _is_reaped(pidfd):
        raise ProcessLookupError(errno.ESRCH, f"process {pid} is gone")
    if parent < 0:
        raise Unknown(errno.EPERM, f"process {pid} cannot be looked at: {HIDDEN}")
    return parent


def _is_reaped(pidfd: int) -> bool:
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except OSError as exc:
        return exc.errno == errno.ESRCH
    return False


def has_ended(pidfd: int) -> bool:
    """Every thread of the process has ended, be it reaped or not."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(0))


def exists(pid: int) -> bool:
    """There is a process ``pid``, perhaps one that ``/proc`` hides, or that has ended and is not reaped."""
    try:
        os.kill(pid, 0)
    except OSError as exc:
        return exc.errno != errno.ESRCH
    return True


def descends_from(pidfd: int, pid: int, ancestor: int) -> bool:
    """Whether ``pid``, which ``pidfd`` is of, is ``ancestor`` or was started by it, by any number of steps.

    Each step is pinned by a pidfd before it is believed: a parent that ends leaves its children to the next subreaper,
    which a second look at the child shows. Raises ``ProcessLookupError``, ``Unknown``, ``OSError``.
    """
    held, child = os.dup(pidfd), pid
    try:
        for _ in range(_DEPTH_MAX):
            if child == ancestor:
                return True
            parent, above = _pinned_parent(held, child)
            if above < 0:
                return False
            os.close(held)
            held, child = above, parent
    finally:
        os.close(held)
    raise Unknown(errno.ELOOP, f"process {pid} has too many ancestors")


def _pinned_parent(pidfd: int, pid: int) -> tuple[int, int]:
    """The parent of ``pid`` and a pidfd of it; -1 where there is none: it is outside of this namespace of pids."""
    for _ in range(_TRIES):
        parent = parent_on(pidfd, pid)
        if parent <= 0:
            return 0, -1
        try:
            above = os.pidfd_open(parent)
        except ProcessLookupError:
            continue
        try:
            if parent_on(pidfd, pid) == parent:
                return parent, above
        except BaseException:
            os.close(above)
            raise
        os.close(above)
    raise Unknown(errno.EAGAIN, f"process {pid} gets other parents all the time")


def is_ours(pid: int) -> bool:
    """``pid`` is this process, or what it has started. What is gone, or cannot be looked at, is not."""
    try:
        with files.closing(os.pidfd_open(pid)) as pidfd:
            return descends_from(pidfd, pid, os.getpid())
    except OSError:
        return False


class PeerKind(enum.Enum):
    """Where the process at the other end of a connection comes from."""

    OUTSIDE = "outside"
    """Neither this process nor anything that it was at the start of has started it."""
    OURS = "ours"
    """This process has, or what it has started."""
    ENDED = "ended"
    """It is gone: whoever has the connection now is not who made it."""
    UNKNOWN = "unknown"


def peer_uid(sock: socket.socket) -> int:
    """The user at the other end of an accepted unix connection (unix(7), SO_PEERCRED)."""
    uid: int = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))[1]
    return uid


def peer_pid(sock: socket.socket) -> int:
    """The process at the other end of an accepted unix connection, as it was when it connected."""
    pid: int = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))[0]
    return pid


def peer_of(sock: socket.socket) -> PeerKind:
    """Who has made the unix connection ``sock``, just accepted, seen from this process, which must be the subreaper of
    what it starts: then nothing leaves its descent by forking twice (prctl(2), PR_SET_CHILD_SUBREAPER).

    The kernel gives a pidfd of who called connect(2) since Linux 6.5. Before, there is its number alone, and who has
    ended before this is called may have left that to another.
    Raises ``OSError`` when there is nothing left to look with.
    """
    pid = peer_pid(sock)
    # No app's code runs here; and 0 is of a namespace of pids around ours: what we start is never there.
    if pid in (os.getpid(), 0):
        return PeerKind.OUTSIDE
    try:
        pidfd = _pidfd_of(sock, pid)
    except OSError as exc:
        return _unseen(exc)
    return _origin(pidfd, pid)


def _unseen(exc: OSError) -> PeerKind:
    """What is known of who cannot be looked at for ``exc``; raises that if it says nothing of them."""
    if exc.errno in OUT_OF:
        raise exc
    return PeerKind.ENDED if isinstance(exc, ProcessLookupError) else PeerKind.UNKNOWN


def _origin(pidfd: int, pid: int) -> PeerKind:
    """Where ``pid`` comes from, which ``pidfd`` is of: that is closed. Raises ``OSError``, as ``peer_of``."""
    try:
        with files.closing(pidfd):
            if has_ended(pidfd):
                return PeerKind.ENDED
            return PeerKind.OURS if descends_from(pidfd, pid, os.getpid()) else PeerKind.OUTSIDE
    except OSError as exc:
        return _unseen(exc)


def _pidfd_of(sock: socket.socket, pid: int) -> int:
    """Raises ``ProcessLookupError`` when the process that connected is gone, ``OSError``."""
    try:
        return sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError as exc:
        if exc.errno in (errno.ESRCH, errno.EINVAL):
            raise ProcessLookupError(errno.ESRCH, f"process {pid} is gone") from None
        if exc.errno != errno.ENOPROTOOPT:
            raise
    return os.pidfd_open(pid)


def tcp_end(sock: socket.socket) -> tuple[int, int] | None:
    """User and inode (0: closed) of the other end of ``sock``; None: on another machine. Blocks (proc(5))."""
    far, near = sock.getpeername(), sock.getsockname()
    theirs, ours = _listed(*far[:2]), _listed(*near[:2])
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError), open(f"/proc/net/{name}", encoding="ascii") as file:
            for fields in map(str.split, file):
                if fields[1] in theirs and fields[2] in ours:
                    return int(fields[7]), int(fields[9])
    return (-1, 0) if _is_of_this_machine(sock.family, far[0]) else None


def _listed(host: str, port: int) -> set[str]:
    """How it is listed, IPv4 in both lists: ``0100007F:0016``, words of four bytes in the order of this machine."""
    address = ip_address(host)
    raw = getattr(address, "ipv4_mapped", None) or address
    ways = [raw.packed, bytes(10) + b"\xff\xff" + raw.packed]
    words = [[int.from_bytes(way[at : at + 4], sys.byteorder) for at in range(0, len(way), 4)] for way in ways]
    return {f"{''.join(f'{word:08X}' for word in each)}:{port:04X}" for each in words}


def _is_of_this_machine(family: int, host: str) -> bool:
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((host, 0))
        except OSError:
            return False
    return True


def holder_of(inode: int) -> PeerKind:
    """Where the process comes from that has the socket ``inode`` open. Blocks: all that can be looked at is. Raises
    ``OSError``, as ``peer_of``.

    Nobody sees what an app has open, as it is undumpable: so who cannot be found is not believed.
    """
    if inode == 0:
        return PeerKind.ENDED
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        if _holds(pid, inode):
            try:
                found = _origin(os.pidfd_open(pid), pid)
            except ProcessLookupError:
                return PeerKind.ENDED
            return found if _holds(pid, inode) else PeerKind.ENDED
    return PeerKind.UNKNOWN


def _holds(pid: int, inode: int) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        return any(os.readlink(f"{folder}/{fd}") == f"socket:[{inode}]" for fd in os.listdir(folder))
    except OSError as exc:
        _unseen(exc)
        return False
