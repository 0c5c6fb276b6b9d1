"""The folder of the sockets that nobody named: private, and the same at every start."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

from .. import files
from ..config.plan.admin import make_private
from ..config.plan.places import runtime_folder, service_folder


class RuntimeDirError(Exception):
    """There is no place for our own sockets."""


def private_folder(purpose: str, known: str = "") -> Path:
    """A folder of mode 0700 for ``purpose`` (the Caddyfile's path), made if need be; the one that is ``known``, if any.
    Raises ``RuntimeDirError``.

    The same each time, so that what a killed daemon left there is found and replaced, and a second daemon on the same
    file is told that it is the second.
    """
    digest = hashlib.sha256(purpose.encode()).hexdigest()[:12]
    base = service_folder(os.environ) or runtime_folder(os.environ)
    usual = f"{base}/caddysnake/{digest}" if base else f"{tempfile.gettempdir()}/caddysnake-{os.geteuid()}-{digest}"
    folder = Path(known or usual)
    try:
        make_private(str(folder.absolute()))
    except OSError as exc:
        hint = "remove it, or set XDG_RUNTIME_DIR"
        raise RuntimeDirError(f"cannot use {folder} for sockets: {exc.strerror}: {hint}") from None
    return folder


def remove_folder(folder: Path) -> None:
    """Remove a private folder, unless something is left in it that the next daemon goes on with."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def make_folder(path: str) -> None:
    """Make the default folder of blocks' sockets, which Caddy must be able to enter. Raises ``RuntimeDirError``."""
    try:
        os.close(files.open_folder(os.path.abspath(path), make=0o755))
    except OSError as exc:
        raise RuntimeDirError(
            f"cannot make {path} for the sockets of python blocks: {exc.strerror}; name another with --socket-dir"
        ) from None
