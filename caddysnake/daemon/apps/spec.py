"""What a pool runs, and what makes it the same app."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

UNKNOWN = "(unknown)"
"""Of an app that cannot be started as things are, and has had no worker: who it would run as may not be known."""


class Identity(NamedTuple):
    """``code``: what is run, and where. ``user``: as whom."""

    code: Hashable
    user: Hashable
