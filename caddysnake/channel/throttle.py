"""One line of the log for each thing that is wrong, not for each time that somebody runs into it. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

AGAIN_S = 60.0
"""How long nothing is said of a thing that has been told."""

LINES_MAX = 30
"""So many different things are told in that time; of the rest, the number."""


class Throttle:
    """Whether a thing is to be told now."""

    def __init__(self) -> None:
        self._told: OrderedDict[Hashable, float] = OrderedDict()  # oldest first
        self._untold = 0

    def __len__(self) -> int:
        return len(self._told)

    def is_due(self, what: Hashable, now: float) -> bool:
        """``what`` is wrong: tell it?"""
        while self._told and now - next(iter(self._told.values())) >= AGAIN_S:
            self._told.popitem(last=False)
        if what in self._told:
            return False
        if len(self._told) >= LINES_MAX:
            self._untold += 1
            return False
        self._told[what] = now
        return True

    def take_untold(self) -> int:
        """How many have not been told since this was last asked, because there were too many."""
        untold, self._untold = self._untold, 0
        return untold
