"""The file of a unix socket, and the lock file beside it: made, given away and removed without following a link.

The folder may be a tenant's, who may put anything into it at any moment. So it is taken by a descriptor (which
``files.open_folder`` finds without his links), and a name in it is used only where whatever it has become does no harm:

- a socket is bound where nobody else may write (in a folder made for it, if need be), gets mode and owner there, and is
  renamed to its path: whoever sees the path can connect to it;
- mode and owner are set by a descriptor of the socket's file;
- what is connected to, or locked, is looked at first, and is the very file that was looked at;
- what is removed is a name in that folder, which whoever may write there could remove as well.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import pwd
import secrets
import select
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from ... import files
from ..system import kinship
from .addresses import UnixAddress

BACKLOG = 1 << 20  # the kernel cuts it to net.core.somaxconn; a full backlog is an instant 502 behind Caddy
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_TRIES = 100


class ListenError(Exception):
    """A listener cannot be opened; the text says who holds it or what is missing, and what to do."""


Identity = tuple[int, int]
"""Device and inode."""


@contextlib.contextmanager
def _folder_of(path: str) -> Iterator[tuple[int, str]]:
    """A descriptor of the folder of ``path`` (absolute), and the name in it. Raises ``OSError``."""
    folder, name = os.path.split(path)
    with files.closing(files.open_folder(folder)) as handle:
        yield handle, name


def identity(path: str) -> Identity | None:
    """Of what is at ``path``, be it a link; None when there is nothing, or no way there."""
    try:
        with _folder_of(path) as (folder, name):
            return _identity(folder, name)
    except OSError:
        return None


def _identity(folder: int, name: str) -> Identity | None:
    try:
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return None
    return info.st_dev, info.st_ino


def bind(sock: socket.socket, path: str, mode: int | None, owner: str | None, group: str | None) -> None:
    """Bind ``sock`` to ``path``, in the place of what is there, and listen. Raises ``OSError``, ``ListenError``."""
    uid, gid = _ids(owner, group)
    with _folder_of(path) as (folder, name), _room(folder) as (inside, unique):
        _bind_inside(sock, inside, unique)
        try:
            give(inside, unique, mode, uid, gid)
            sock.listen(BACKLOG)
            os.rename(unique, name, src_dir_fd=inside, dst_dir_fd=folder)
        except BaseException:
            os.unlink(unique, dir_fd=inside)
            raise


def listen_at(path: str, mode: int | None, owner: str | None, group: str | None) -> socket.socket:
    """Return a socket that listens at ``path``, whose lock is ours. Raises ``ListenError``."""
    try:
        refuse_foreign(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            bind(sock, path, mode, owner, group)
        except BaseException:
            sock.close()
            raise
    except OSError as exc:
        raise ListenError(explain(path, exc)) from None
    return sock


@contextlib.contextmanager
def _room(folder: int) -> Iterator[tuple[int, str]]:
    """A new folder in ``folder`` that nobody else may enter, and its name; ``folder`` itself, and a name, where nobody
    else may write anyway: to make one takes longer than all the rest.

    No two sockets that are called by it have the same name for the kernel (see ``leads_to``), and nobody knows it
    before. Whoever owns ``folder`` may move it away at once; then another is made.
    """
    info = os.fstat(folder)
    if info.st_uid in (0, os.geteuid()) and not info.st_mode & 0o022:
        yield folder, f".{os.getpid()}.{secrets.token_hex(6)}"
        return
    for _ in range(_TRIES):
        name = f".{os.getpid()}.{secrets.token_hex(6)}"
        os.mkdir(name, 0o700, dir_fd=folder)
        inside = -1
        try:
            inside = _enter(folder, name)
            if inside >= 0:
                yield inside, name
                return
        finally:
            if inside >= 0:
                os.close(inside)
            with contextlib.suppress(OSError):  # moved, or replaced
                os.rmdir(name, dir_fd=folder)
    raise OSError(errno.EBUSY, "somebody else takes away what is made in its folder")


def _enter(folder: int, name: str) -> int:
    """A descriptor of the folder ``name``; -1 when it is not one that we have made."""
    try:
        inside = os.open(name, _LOOK | os.O_DIRECTORY, dir_fd=folder)
    except (FileNotFoundError, NotADirectoryError):
        return -1
    info = os.fstat(inside)
    if info.st_uid == os.geteuid() and not info.st_mode & 0o077:
        return inside
    os.close(inside)
    return -1


def _bind_inside(sock: socket.socket, folder: int, name: str) -> None:
    previous = os.umask(0o177)  # no more than the mode asked for, at any time
    try:
        # By the folder's descriptor: the path may be longer than a socket's may be.
        sock.bind(f"/proc/self/fd/{folder}/{name}")
    finally:
        os.umask(previous)


def give(folder: int, name: str, mode: int | None, uid: int, gid: int) -> None:
    """Set mode and owner (-1: as it is) of the socket ``name`` in ``folder``. Raises ``OSError``."""
    with files.closing(os.open(name, _LOOK, dir_fd=folder)) as handle:
        _give(handle, mode, uid, gid)


def _give(handle: int, mode: int | None, uid: int, gid: int) -> None:
    if not stat.S_ISSOCK(os.fstat(handle).st_mode):
        raise OSError(errno.EBUSY, "somebody else has put another file in the place of ours")
    this = f"/proc/self/fd/{handle}"  # the file itself, whatever its name leads to by now
    if uid != -1 or gid != -1:
        os.chown(this, uid, gid)
    os.chmod(this, mode if mode is not None else 0o666 & ~_umask())


def regive(
    path: str, sock: socket.socket, mode: int | None, owner: str | None, group: str | None
) -> UnixAddress | None:
    """Set mode and owner of the file at ``path`` if whoever connects to it is accepted from ``sock``: as what it was
    before; else None. Raises ``ListenError``.
    """
    uid, gid = _ids(owner, group)
    try:
        with _looked_at(path) as handle:
            if handle is None or not _leads_to(handle, sock):
                return None
            info = os.fstat(handle)
            _give(handle, mode, -1 if uid == info.st_uid else uid, -1 if gid == info.st_gid else gid)
    except OSError as exc:
        raise ListenError(explain(path, exc)) from None
    return UnixAddress(path, stat.S_IMODE(info.st_mode), str(info.st_uid), str(info.st_gid))


def leads_to(path: str, sock: socket.socket) -> bool:
    """Whoever connects to ``path`` is accepted from ``sock``. Raises ``OSError``."""
    with _looked_at(path) as handle:
        return handle is not None and _leads_to(handle, sock)


@contextlib.contextmanager
def _looked_at(path: str) -> Iterator[int | None]:
    """A descriptor of what is at ``path``, be it a link; None: there is nothing."""
    with _folder_of(path) as (folder, name):
        try:
            handle = os.open(name, _LOOK, dir_fd=folder)
        except FileNotFoundError:
            yield None
            return
        with files.closing(handle):
            yield handle


def _leads_to(handle: int, sock: socket.socket) -> bool:
    """It was bound under another name, and renamed, so its own name says nothing; but the other end is told the same
    one."""
    if not stat.S_ISSOCK(os.fstat(handle).st_mode):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(f"/proc/self/fd/{handle}")
        except BlockingIOError:  # a full queue: ours, if ours has anybody in it, and no link to another
            return bool(select.select([sock], [], [], 0)[0]) and os.fstat(handle).st_nlink == 1
        except OSError:
            return False
        return bool(probe.getpeername() == sock.getsockname())


def remove(path: str, known: Identity) -> None:
    """Unlink what is at ``path``, provided that it is ``known``."""
    with contextlib.suppress(OSError), _folder_of(path) as (folder, name):
        if _identity(folder, name) == known:
            os.unlink(name, dir_fd=folder)


def refuse_foreign(path: str) -> None:
    """Raise ``ListenError`` when ``path`` is no socket, or somebody listens on it; ``OSError``."""
    with _looked_at(path) as handle:
        if handle is None:
            return
        if not stat.S_ISSOCK(os.fstat(handle).st_mode):
            raise ListenError(f"{path} exists and is not a socket: remove it, or use another path")
        pid = _listener_of(path, handle)
    if pid is not None:
        who = f"process {pid} ({_command(pid)})" if pid else "another process"
        raise ListenError(f"socket {path} is in use by {who}: stop it, or use another path")


def _listener_of(path: str, handle: int) -> int | None:
    """The process that listens on the socket, 0 when that cannot be told; None: nobody."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(f"/proc/self/fd/{handle}")
        except (ConnectionRefusedError, FileNotFoundError):
            return None  # stale: its owner died
        except (BlockingIOError, TimeoutError):  # a full backlog
            raise ListenError(f"socket {path} is in use: stop who listens on it, or use another path") from None
        except OSError as exc:
            raise ListenError(f"socket {path} cannot be examined: {exc.strerror}") from None
        return kinship.peer_pid(probe)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "?"


# The lock


def lock_path(path: str) -> int:
    """The descriptor of the lock of a socket's path: who has it may replace what lies there. Raises ``ListenError``."""
    try:
        with _folder_of(path) as (folder, name):
            for _ in range(_TRIES):
                lock = _lock(folder, f"{name}.lock", path)
                if lock is not None:
                    return lock
    except OSError as exc:
        raise ListenError(explain(path, exc)) from None
    raise ListenError(f"cannot listen on socket {path}: its lock file comes and goes: see who removes it")


def _lock(folder: int, name: str, path: str) -> int | None:
    """None: it was somebody's, who has removed it meanwhile, and the next may have another file of that name."""
    fd = _open_lock(folder, name, path)
    if fd is None:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
        os.close(fd)
        raise ListenError(
            f"socket {path} is held by another caddysnake" + (f" (process {holder})" if holder.isdecimal() else "")
            + ": stop it, or use another path"
        ) from None
    info = os.fstat(fd)
    if _identity(folder, name) == (info.st_dev, info.st_ino):
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        return fd
    os.close(fd)
    return None


def _open_lock(folder: int, name: str, path: str) -> int | None:
    """The lock file, made if need be. One that is there is opened and written to only if it is nothing else as well."""
    try:
        made = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, made, 0o600, dir_fd=folder)
    except FileExistsError:
        pass
    try:
        handle = os.open(name, _LOOK, dir_fd=folder)
    except FileNotFoundError:
        return None
    with files.closing(handle):
        info = os.fstat(handle)
        if info.st_nlink == 0:
            return None
        if not stat.S_ISREG(info.st_mode) or info.st_nlink != 1:
            raise ListenError(f"cannot listen on socket {path}: {path}.lock is no plain file: remove it")
        return os.open(f"/proc/self/fd/{handle}", os.O_RDWR | os.O_CLOEXEC)


def unlock_path(path: str, lock: int, leave_file: bool = False) -> None:
    """Close what ``lock_path`` gave, and remove the file while nobody else can have it."""
    if not leave_file:
        info = os.fstat(lock)
        remove(f"{path}.lock", (info.st_dev, info.st_ino))
    os.close(lock)


def is_locked_by(path: str, lock: int) -> bool:
    """Whether ``lock``, which ``lock_path`` gave, is still the file that others look at."""
    info = os.fstat(lock)
    return identity(f"{path}.lock") == (info.st_dev, info.st_ino)


# Who, and why not


def _umask() -> int:
    previous = os.umask(0o177)
    os.umask(previous)
    return previous


def _ids(owner: str | None, group: str | None) -> tuple[int, int]:
    """The numbers of user and group; -1: as it is. Raises ``ListenError``."""
    uid = _number("user", owner, lambda name: pwd.getpwnam(name).pw_uid)
    return uid, _number("group", group, lambda name: grp.getgrnam(name).gr_gid)


def _number(kind: str, name: str | None, find: Callable[[str], int]) -> int:
    if name is None:
        return -1
    try:
        return int(name) if name.isdigit() else find(name)
    except KeyError:
        raise ListenError(f"no such {kind}: {name}") from None


def explain(path: str, exc: OSError) -> str:
    """Why there can be no socket at ``path``, and what to do."""
    folder = os.path.dirname(path)
    hints = {
        errno.ENOENT: f": create its directory ({folder}) first",
        errno.EACCES: f": this user may not write to {folder}",
        errno.EROFS: f": {folder} is on a read-only file system",
        errno.ENOTDIR: f": {folder} is not a directory",
        errno.EPERM: ": only root may give a socket to another owner",
    }
    return f"cannot listen on socket {path}: {exc.strerror}{hints.get(exc.errno or 0, '')}"
