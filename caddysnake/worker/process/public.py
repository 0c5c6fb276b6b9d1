"""What apps may import of ours: ``caddysnake``, which is not the package of the daemon, but a module of its own."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_NAME = "caddysnake"
_FILE = os.path.join(os.path.dirname(__file__), "..", "..", "public", "caddysnake.py")


class _Finder:
    """Stands ahead of the path, and of a package of that name in the app's environment: the Go plugin's. What the app's
    own folder has of that name is the app's.
    """

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != _NAME:
            return None
        own = os.path.join(sys.path[0] if sys.path else "", _NAME)
        if os.path.isdir(own) or os.path.exists(f"{own}.py"):
            return None
        return importlib.util.spec_from_file_location(name, os.path.realpath(_FILE))


def offer() -> None:
    """Let the app find it."""
    finder: Any = _Finder
    if finder not in sys.meta_path:
        sys.meta_path.insert(0, finder)
