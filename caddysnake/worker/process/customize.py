"""What an interpreter does by itself when it starts with the app's environment: a fork server was started without it.

``PYTHONPATH`` with a ``sitecustomize`` is how ``opentelemetry-instrument``, ``ddtrace-run`` and ``newrelic-admin`` get
into a program (site(7)), and coverage measures whatever has ``COVERAGE_PROCESS_START``.
"""

from __future__ import annotations

import importlib
import site
import sys
import traceback
from importlib.machinery import PathFinder

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
