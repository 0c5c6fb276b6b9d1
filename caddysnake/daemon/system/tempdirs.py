"""Private temporary folders of apps that have a user of their own."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import stat
import tempfile

from . import kinship

log = logging.getLogger("caddysnake.app")

_BASE = re.compile(r"caddysnake-(\d+)-(\d+)-\w+")
"""Of the daemon with that pid, in that namespace of pids."""

_base: str | None = None


def base() -> str | None:
    """The folder of all of them, if there is one."""
    return _base


def resume(folder: str | None) -> None:
    """Another image of this daemon has made ``folder`` for all of them."""
    global _base
    _base = folder


def make(app: str, uid: int, gid: int) -> str:
    """A new folder, mode 0700, for the temporary files of ``app``, which runs as ``uid``. Raises ``OSError``.

    It is in a folder of the daemon's that others may pass through and not write to: nobody can have been there before.
    With the first one, what daemons that were killed have left is removed, in a thread.
    """
    global _base
    try:
        folder = tempfile.mkdtemp(prefix="app-", dir=_base or "/nonexistent")
    except FileNotFoundError:  # the first of all, or the first since the last was removed
        asyncio.get_running_loop().run_in_executor(None, _remove_stale, tempfile.gettempdir())
        _base = tempfile.mkdtemp(prefix=f"caddysnake-{os.getpid()}-{_namespace()}-")
        os.chmod(_base, 0o711)
        folder = tempfile.mkdtemp(prefix="app-", dir=_base)
    os.chown(folder, uid, gid)
    log.debug("temporary folder made", extra={"fields": {"app": app, "folder": folder}})
    return folder


def remove(folder: str) -> None:
    """Remove ``folder`` and what the app left in it; to be run in a thread, there may be much of it.

    Links in it are not followed, whatever the app does meanwhile.
    """
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass
    except (OSError, RecursionError) as exc:
        log.warning("temporary folder not removed", extra={"fields": {"folder": folder, "error": str(exc)}})
    if _base is not None:
        try:
            os.rmdir(_base)
        except OSError:
            pass  # others have theirs in it


def _namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


def _remove_stale(place: str) -> None:
    """Remove the folders of daemons that are no more. What another user has made there is not looked at."""
    for name in os.listdir(place):
        found = _BASE.fullmatch(name)
        if found is None or int(found[2]) != _namespace() or kinship.exists(int(found[1])):
            continue
        folder = f"{place}/{name}"
        try:
            info = os.lstat(folder)
            if stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid():
                shutil.rmtree(folder)
                log.info("temporary folders of a killed daemon removed", extra={"fields": {"folder": folder}})
        except (OSError, RecursionError) as exc:
            log.warning("temporary folder not removed", extra={"fields": {"folder": folder, "error": str(exc)}})
