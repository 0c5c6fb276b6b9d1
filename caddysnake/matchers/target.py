"""Where a request goes: what the relay's router tells it."""

from __future__ import annotations

from typing import NamedTuple


class Target(NamedTuple):
    """The app a request is for. ``route`` and ``key`` name it to the daemon; equal ones are the same app."""

    route: int
    key: str = ""
    prefix: bytes = b""
    """What was taken off the path, percent-encoded: the app's SCRIPT_NAME or root_path. Empty: nothing was."""
    path: bytes = b""
    """What is left of the path, percent-encoded and beginning with a slash. Of no meaning without ``prefix``."""


ALIVE = Target(-1)
"""No app: a health check of apps that start when they are asked for. That there is an answer is all it asks."""
