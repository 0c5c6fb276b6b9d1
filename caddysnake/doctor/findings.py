"""What is found: how bad it is, in one sentence, and the command that fixes it."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


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
