"""What is found: how bad it is, in one sentence, and the command that fixes it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple


class Level(Enum):
    """How bad it is."""

    GOOD = "good"
    DOUBT = "doubt"  # it works, but not as well as it could, or it cannot be told
    BAD = "bad"  # something does not work


class Finding(NamedTuple):
    """One of the doctor's sentences."""

    level: Level
    topic: str
    text: str
    fix: str = ""
    """A command for a shell, or a line for a file; empty where there is nothing to fix."""


class Silence(Enum):
    """Why a daemon says nothing of itself."""

    UNKNOWN = ""
    ABSENT = "absent"  # none runs, as far as can be seen
    HANGS = "hangs"
    STOPPED = "stopped"  # by a signal
    DENIED = "denied"  # to this user


class Topic(str):
    """What something is found about."""

    __slots__ = ()

    def good(self, text: str) -> Finding:
        """It is well."""
        return Finding(Level.GOOD, self, text)

    def doubt(self, text: str, fix: str = "") -> Finding:
        """See ``Level``."""
        return Finding(Level.DOUBT, self, text, fix)

    def bad(self, text: str, fix: str = "") -> Finding:
        """See ``Level``."""
        return Finding(Level.BAD, self, text, fix)


_LONG_S = 10.0


def stuck(app: Mapping[str, Any]) -> tuple[str, int] | None:
    """What to say of the worker of ``app`` that has been blocked for longest, and its pid; None: none is."""
    blocked = {each["pid"]: each.get("blocked_s") or 0.0 for each in app["workers"]}
    pid = max(blocked, key=blocked.__getitem__, default=0)
    if blocked.get(pid, 0.0) < _LONG_S:
        return None
    what = "its event loop is blocked, or all of its threads are, or it is stopped as a whole"
    return f"worker {pid} has taken no request for {blocked[pid]:.0f} s: {what}", pid
