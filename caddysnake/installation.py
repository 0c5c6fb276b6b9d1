"""Where caddysnake itself is installed, and where guests find its libraries."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
"""The package's folder. Its parent is what a child's ``PYTHONPATH`` must hold to import ``caddysnake``."""


def runtime_folder(environ: Mapping[str, str]) -> Path:
    """Where ``caddysnake runtime install`` puts libraries for interpreters that are not the daemon's."""
    state = environ.get("CADDYSNAKE_RUNTIME_DIR")
    if state:
        return Path(state)
    data = environ.get("XDG_DATA_HOME") or str(Path(environ.get("HOME") or "/var/lib") / ".local" / "share")
    return Path(data) / "caddysnake" / "runtime"


def library_folders(environ: Mapping[str, str]) -> list[str]:
    """Folders a guest searches for our libraries: the daemon's own, then the runtime folder."""
    found = importlib.util.find_spec("httptools")
    own = [str(Path(found.origin).resolve().parent.parent)] if found is not None and found.origin else []
    return [*own, str(runtime_folder(environ))]
