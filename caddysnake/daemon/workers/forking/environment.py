"""What an interpreter is started with, and what an app misses. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from ....config.language.values import InvalidValue, positive_duration

SLOW_START_NAME = "CADDYSNAKE_START_TIMEOUT_WARN_AFTER"
"""As users of the Go plugin know it. It changes a log line only, so it is no directive."""

_BASE = ("PATH", "HOME", "LANG", "LC_*", "TZ", "TMPDIR")
_FOR_INTERPRETER = ("PYTHON*", "MALLOC_*")
# The first is applied in the worker, the second is for terminals.
_NOT_FOR_INTERPRETER = ("PYTHONPATH", "PYTHONSTARTUP")


def for_interpreter(app: Mapping[str, str]) -> dict[str, str]:
    """What of an app's environment its spawner is started with: what an interpreter only reads when it starts.

    Part of what decides whether two apps may share a spawner; holds nothing secret.
    """
    return {
        name: value
        for name, value in app.items()
        if _any(name, _BASE) or (_any(name, _FOR_INTERPRETER) and name not in _NOT_FOR_INTERPRETER)
    }


def not_passed(daemon: Mapping[str, str], app: Mapping[str, str], text: str) -> list[str]:
    """Names in the daemon's environment, but not in the app's, that ``text`` (a traceback) mentions in quotes."""
    return [name for name in daemon if name not in app and (f"'{name}'" in text or f'"{name}"' in text)]


def slow_start_s(daemon: Mapping[str, str], default: float) -> float:
    """After how long a start that still goes on is told: what the daemon's environment says, if that is a duration."""
    try:
        return positive_duration(daemon[SLOW_START_NAME])
    except (KeyError, InvalidValue):
        return default


def _any(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
