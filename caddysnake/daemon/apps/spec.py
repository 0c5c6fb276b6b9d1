"""What a pool runs, and what makes it the same app."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple


class Identity(NamedTuple):
    """``code``: what is run, and where. ``user``: as whom."""

    code: Hashable
    user: Hashable
