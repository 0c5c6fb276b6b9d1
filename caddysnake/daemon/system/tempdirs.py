"""Private folders of apps, in which their temporary files are, and whatever else is an app's alone.

They are removed by a thread, in turns, since there may be much in one, and nobody is to wait for that. What an app has
nested is moved up to the folder's first level and removed there: no depth costs a descriptor, a recursion or a long
path. No path leads through what the app could change, and no link is followed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import secrets
import stat
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence

from ... import files
from .log.fields import FieldLog

log = FieldLog("caddysnake.app")

_BASE = re.compile(r"caddysnake-(\d+)-(\d+)-\w+")
"""Of the daemon with that pid, in that namespace of pids."""
_GONE = "gone-"
"""How the names of those begin whose app is gone."""
_A_TURN = 256
"""So many entries are removed before it is another folder's turn."""
_LONGEST_S = 600.0
"""Somebody who outlived the app may go on making files."""
_SWEEPS = 5
_LOOK_S = 0.02

_base: str | None = None
_spared = -1  # what ``files.spare`` gave for it
_is_kept = False
_base_lock = threading.Lock()
"""While it may be empty: whoever removes it then must not meet whoever is about to use it."""


def base() -> str | None:
    """The folder of all of them, if there is one."""
    return _base


def kept_base() -> str:
    """The folder of all of them, which from now on stays until ``settle``, be there any or not. Raises ``OSError``."""
    global _is_kept
    with _base_lock:
        _is_kept = True
        return _base if _base is not None and os.path.isdir(_base) else _new_base()


def _new_base() -> str:
    global _base, _spared
    _remover.add(("(left by killed daemons)", _emptied_stale(tempfile.gettempdir())))
    _base = tempfile.mkdtemp(prefix=f"caddysnake-{os.getpid()}-{_namespace()}-")
    os.chmod(_base, 0o711)
    _spared = files.spare(_base, _spared)
    return _base


def restore(folder: str | None) -> None:
    """Another image of this daemon has made ``folder`` for all of them, and may not have removed all that is gone."""
    global _base, _spared
    _base = folder
    if folder is not None:
        with contextlib.suppress(OSError):
            _spared = files.spare(folder, _spared)
            gone = [f"{folder}/{name}" for name in os.listdir(folder) if name.startswith(_GONE)]
            _remover.add(*((each, emptied(each)) for each in gone))


def start_afresh(folder: str | None) -> None:
    """Go on in ``folder``, as ``restore`` does, whose apps are all gone."""
    names = os.listdir(folder) if folder is not None and os.path.isdir(folder) else []
    restore(folder)
    for name in names:
        if not name.startswith(_GONE):
            discard(f"{folder}/{name}")


def make(app: str, uid: int, gid: int, subfolders: Sequence[str] = ()) -> str:
    """A new folder, mode 0700, with ``subfolders``, for ``app``, which runs as ``uid``. Raises ``OSError``.

    It is in a folder of the daemon's that others may pass through and not write to: nobody can have been there before.
    With the first one, what daemons that were killed have left is removed.
    """
    with _base_lock:
        try:
            folder = tempfile.mkdtemp(prefix="app-", dir=_base or "/nonexistent")
        except FileNotFoundError:  # the first of all, or the first since the last was removed
            folder = tempfile.mkdtemp(prefix="app-", dir=_new_base())
    for name in subfolders:
        os.mkdir(f"{folder}/{name}", 0o700)
        os.chown(f"{folder}/{name}", uid, gid)
    os.chown(folder, uid, gid)  # last: from now on nothing in it is to be relied on
    log.debug("private folder made", app=app, folder=folder)
    return folder


def discard(folder: str) -> None:
    """The app of ``folder`` is gone: remove it, in a moment, with what the app left in it."""
    gone = os.path.join(os.path.dirname(folder), _GONE + secrets.token_hex(8))
    try:
        os.rename(folder, gone)
    except OSError as exc:
        if not isinstance(exc, FileNotFoundError):
            _tell(folder, exc)
        return
    _remover.add((gone, emptied(gone)))


async def settle(patience_s: float) -> None:
    """Wait until all that is gone is removed. What is left after ``patience_s`` seconds the next daemon removes."""
    deadline = time.monotonic() + patience_s
    while _remover.is_busy and time.monotonic() < deadline:  # noqa: ASYNC110  # a thread's, and soon over
        await asyncio.sleep(_LOOK_S)
    if _base is not None:
        with contextlib.suppress(OSError):
            os.rmdir(_base)
    if _remover.is_busy:
        log.warning("temporary folders are left for the next start to remove", folder=_base)


class _Remover:
    """A thread, while there is something to remove."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._folders: deque[tuple[str, Iterator[None]]] = deque()
        self._is_running = False

    @property
    def is_busy(self) -> bool:
        """There is something that is to be removed."""
        return self._is_running

    def add(self, *folders: tuple[str, Iterator[None]]) -> None:
        """Remove these, too: each with what does so, a step at a time."""
        with self._lock:
            self._folders.extend(folders)
            if self._folders and not self._is_running:
                self._is_running = True
                threading.Thread(target=self._run, name="removes temporary folders", daemon=True).start()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._folders:
                    self._is_running = False
                    return
                folder, work = self._folders.popleft()
            try:
                for _ in itertools.islice(work, _A_TURN):
                    pass
                more = next(work, self) is not self
            except Exception as exc:  # whatever a tenant has made there: the others' are removed
                _tell(folder, exc)
                continue
            with self._lock:
                if more:
                    self._folders.append((folder, work))
            if not more and _base is not None and not _is_kept:
                with _base_lock, contextlib.suppress(OSError):
                    os.rmdir(_base)  # unless others have theirs in it


_remover = _Remover()


def emptied(folder: str) -> Iterator[None]:
    """Remove ``folder``, one entry a step. Raises ``OSError``: something stays."""
    deadline = time.monotonic() + _LONGEST_S
    try:
        top = _open(folder)
    except FileNotFoundError:
        return
    with files.closing(top):
        if os.geteuid() == 0:
            os.fchown(top, 0, 0)  # who lives on has no way in any more, unless he is inside
        os.fchmod(top, 0o700)
        for _ in range(_SWEEPS):
            for _ in _swept(top):
                if time.monotonic() > deadline:
                    raise TimeoutError("somebody goes on making files in it")
                yield
            try:
                os.rmdir(folder)
            except OSError:
                continue
            return
        os.rmdir(folder)


def _swept(top: int) -> Iterator[None]:
    """Remove what is in the directory ``top``, however deep."""
    mark = secrets.token_hex(8)
    done = moved = 0
    names = _names(top)
    while True:
        # What was moved up goes first: a chain of folders is never more than one of them.
        if done < moved:
            name, done = f"{mark}-{done}", done + 1
        elif (found := next(names, None)) is not None:
            name = found
        else:
            return
        if not _unlinked(name, top):
            is_no_folder = contextlib.suppress(FileNotFoundError, NotADirectoryError)  # any more
            with is_no_folder, files.closing(_open(name, top)) as directory:
                for inner in _names(directory):
                    if not _unlinked(inner, directory):
                        _move_up(inner, directory, f"{mark}-{moved}", top)
                        moved += 1
                    yield
            with contextlib.suppress(OSError):
                os.rmdir(name, dir_fd=top)  # or the next sweep does
        yield


def _names(directory: int) -> Iterator[str]:
    with os.scandir(directory) as entries:
        for entry in entries:
            yield entry.name


def _unlinked(name: str, directory: int) -> bool:
    """It is no directory, and is no more. Raises ``OSError``."""
    try:
        os.unlink(name, dir_fd=directory)
    except (IsADirectoryError, FileNotFoundError) as exc:
        return isinstance(exc, FileNotFoundError)
    except PermissionError:
        # So it says of directories, too (POSIX).
        if not stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            raise
        return False
    return True


def _move_up(name: str, directory: int, new: str, top: int) -> None:
    try:
        os.rename(name, new, src_dir_fd=directory, dst_dir_fd=top)
    except PermissionError:
        os.close(_open(name, directory))  # its mode lets us now
        os.rename(name, new, src_dir_fd=directory, dst_dir_fd=top)


def _open(name: str, directory: int | None = None) -> int:
    """A descriptor of that directory, which we may read and change whatever its mode was. Raises ``OSError``."""
    handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    with files.closing(handle):
        if os.fstat(handle).st_mode & stat.S_IRWXU != stat.S_IRWXU:
            os.chmod(f"/proc/self/fd/{handle}", 0o700)
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=handle)


def _tell(folder: str, exc: Exception) -> None:
    log.warning("temporary folder not removed", folder=folder, error=str(exc))


def _namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


def _emptied_stale(place: str) -> Iterator[None]:
    """Remove the folders of daemons that are no more. What another user has made there is not looked at."""
    with os.scandir(place) as entries:
        for entry in entries:
            yield
            found = _BASE.fullmatch(entry.name)
            if found is None or int(found[2]) != _namespace() or os.path.exists(f"/proc/{found[1]}"):
                continue
            try:
                info = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid():
                    yield from emptied(entry.path)
                    log.info("temporary folders of a killed daemon removed", folder=entry.path)
            except OSError as exc:
                _tell(entry.path, exc)
