"""The private folder of an app: 0700, its user's, made when it is first needed, kept over reloads and upgrades.

In it are its temporary files (``TMPDIR``), and whatever else is this app's alone. From the moment that it is made it is
the app's: what somebody puts into it later has to be put there by a process that runs as the app does.
"""

from __future__ import annotations

import os
import threading

from ...config.plan.accounts import Account
from ..system import tempdirs
from .metrics.asking import FOLDER

TEMPORARY = "tmp"
"""Its subfolder for temporary files."""


class PrivateFolder:
    """Of ``app``. Its path is short enough for a unix socket, where the machine's own temporary folder is."""

    def __init__(self, app: str) -> None:
        self._app = app
        self._path: str | None = None
        self._uid = -1
        self._lock = threading.Lock()
        """Commands ask for it in a thread, while workers are started."""

    def path(self, account: Account | None) -> str:
        """Return the folder, made if need be for who runs as ``account`` (None: as the daemon). Raises ``OSError``."""
        uid, gid = (os.geteuid(), os.getegid()) if account is None else (account.uid, account.gid)
        with self._lock:
            if self._path is not None and self._uid != uid:  # it has had no worker yet, and is another user's by now
                self.end()
            if self._path is None:
                self._path, self._uid = tempdirs.make(self._app, uid, gid, (TEMPORARY, FOLDER)), uid
            return self._path

    @property
    def existing(self) -> str | None:
        """It, if it was made."""
        return self._path

    def temporary(self, account: Account | None) -> str:
        """Return the folder in it for temporary files. Raises ``OSError``."""
        return f"{self.path(account)}/{TEMPORARY}"

    def metrics(self, account: Account | None, build: str) -> str:
        """Return the folder in it where the workers of ``build`` count; they make it. Raises ``OSError``."""
        return f"{self.path(account)}/{FOLDER}/{build}"

    def end(self) -> None:
        """Nothing of the app is left: remove it, with what is in it."""
        if self._path is not None:
            path, self._path = self._path, None
            tempdirs.discard(path)

    def snapshot(self) -> tuple[str, int] | None:
        """Return what ``restore`` needs in another image of the daemon."""
        return None if self._path is None else (self._path, self._uid)

    @classmethod
    def restored(cls, app: str, saved: tuple[str, int] | None) -> PrivateFolder | None:
        """Return what ``snapshot`` told of, if there was any."""
        folder = cls(app)
        folder.restore(saved)
        return folder if folder.existing else None

    def restore(self, saved: tuple[str, int] | None) -> None:
        """Go on where ``saved`` says."""
        if saved is not None:
            self._path, self._uid = saved
