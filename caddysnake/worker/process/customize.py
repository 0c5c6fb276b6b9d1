"""What an interpreter does by itself when it starts with the app's environment: a fork server was started without it.

``PYTHONPATH`` with a ``sitecustomize`` is how ``opentelemetry-instrument``, ``ddtrace-run`` and ``newrelic-admin`` get
into a program (site(7)), and coverage measures whatever has ``COVERAGE_PROCESS_START``.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import site
import sys
import traceback
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from ...channel.settings import Settings

_MODULES = ("sitecustomize", "usercustomize")


def customize(settings: Settings, entries: list[str]) -> None:
    """Import what ``entries``, those of ``PYTHONPATH``, have for that; as in site.py a failure is told, no more."""
    for name in named(entries):
        sys.modules.pop(name, None)  # the system's own: it would not have been the first on the path
        _do(f"import {name}", lambda name=name: importlib.import_module(name))
    if "COVERAGE_PROCESS_START" in settings.environ and PathFinder.find_spec("coverage") is not None:
        _do("coverage", _measure)


def named(entries: list[str]) -> list[str]:
    """Which of these modules ``entries`` have."""
    names = _MODULES if site.ENABLE_USER_SITE else _MODULES[:1]
    return [name for name in names if entries and PathFinder.find_spec(name, entries) is not None]


def _measure() -> None:
    coverage = importlib.import_module("coverage")
    coverage.process_startup()


def _do(what: str, action: object) -> None:
    try:
        action()  # type: ignore[operator]
    except Exception:
        print(f"Error in {what}:\n{traceback.format_exc()}", file=sys.stderr)


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
