"""Private temporary folders of apps that have a user of their own."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile

log = logging.getLogger("caddysnake.app")

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
    """
    global _base
    try:
        folder = tempfile.mkdtemp(prefix="app-", dir=_base or "/nonexistent")
    except FileNotFoundError:  # the first of all, or the first since the last was removed
        _base = tempfile.mkdtemp(prefix="caddysnake-")
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
