"""Where relative paths begin, and which folder a user has for sockets: answered once, for the daemon and for every
command that looks for it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping


def start_folder(environ: Mapping[str, str]) -> str:
    """The folder this process stands in, by the name under which it was entered: ``$PWD``, as a shell keeps it, where
    that leads here (POSIX, ``pwd -L``); else by its own.

    So who was started in ``/srv/current`` reads ``/srv/current/Caddyfile`` again when that link leads elsewhere. Raises
    ``OSError``: it has been removed.
    """
    own = os.getcwd()
    said = environ.get("PWD", "")
    try:
        is_here = os.path.isabs(said) and said == os.path.normpath(said) and os.path.samefile(said, ".")
    except (OSError, ValueError):
        is_here = False
    return said if is_here else own


def absolute(path: str, base: str) -> str:
    """*path*, which begins at *base* when it is relative. Links are not followed, but for the sake of ``..``, which is
    about the folder that a link leads to.
    """
    whole = os.path.join(base, path)
    return os.path.realpath(whole) if ".." in whole.split("/") else os.path.normpath(whole)


def is_same(one: str, other: str) -> bool:
    """Whether two absolute paths mean one file or folder, by whatever names; also one that has been removed."""
    try:
        if os.path.samefile(one, other):
            return True
    except (OSError, ValueError):
        pass
    return os.path.realpath(one) == os.path.realpath(other)


def runtime_folder(environ: Mapping[str, str]) -> str | None:
    """Where this user's sockets are to be: ``$XDG_RUNTIME_DIR``, if that is this user's (XDG Base Directory
    Specification: it must be): ``su`` and ``sudo -E`` leave another's behind. ``None``: there is none.
    """
    folder = environ.get("XDG_RUNTIME_DIR", "")
    return folder if folder and _is_ours(folder) else None


def default_socket_dir() -> str:
    """The folder of our own sockets: ``/run/caddysnake`` for root, else one in the user's runtime directory."""
    if os.geteuid() == 0:
        return "/run/caddysnake"
    runtime = runtime_folder(os.environ)
    return f"{runtime}/caddysnake" if runtime else f"/tmp/caddysnake-{os.geteuid()}"


def service_folder(environ: Mapping[str, str]) -> str | None:
    """The folder that systemd has made for this service: the first in ``$RUNTIME_DIRECTORY``, if it may be used."""
    folder = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return folder if folder and os.access(folder, os.W_OK | os.X_OK) else None


def disregarded(environ: Mapping[str, str]) -> str | None:
    """What to tell of an ``$XDG_RUNTIME_DIR`` that is not used; ``None`` when there is nothing to tell."""
    folder = environ.get("XDG_RUNTIME_DIR")
    if not folder or _is_ours(folder):
        return None
    return f"XDG_RUNTIME_DIR={folder} is not a folder of this user's, and is not used"


def _is_ours(folder: str) -> bool:
    try:
        owner = os.stat(folder).st_uid
    except (OSError, ValueError):
        return False
    return os.path.isdir(folder) and owner == os.geteuid() and os.access(folder, os.W_OK | os.X_OK)
