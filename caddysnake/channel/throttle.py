"""How much is said: a bucket of tokens for any amount, and each thing once a minute. Pure: the clock is an argument."""

from __future__ import annotations

import traceback
from collections import OrderedDict
from collections.abc import Hashable

AGAIN_S = 60.0
"""How long nothing is said of a thing that has been told."""

MISHAP = "an error inside caddysnake: a connection is ended"
"""What is said of an error of our own."""

LINES_MAX = 30
"""So many different things are told in that time; of the rest, the number."""


class TokenBucket:
    """``per_second`` units, and ``burst`` at once, or as many; ``overdraft`` more, to be made good."""

    __slots__ = ("_at", "_burst", "_left", "_overdraft", "_per_second")

    def __init__(self, per_second: float, overdraft: float = 0.0, burst: float | None = None) -> None:
        self._per_second = float(per_second)
        self._burst = self._per_second if burst is None else float(burst)
        self._overdraft = overdraft
        self._left = self._burst
        self._at = 0.0

    def left(self, now: float) -> float:
        """Return how many units may be spent at ``now`` (seconds, monotonic); none when not positive."""
        self._left = min(self._burst, self._left + (now - self._at) * self._per_second)
        self._at = now
        return self._left

    def charge(self, units: float) -> None:
        """Take ``units``, be they there or not: what was let through may have been larger than what was left."""
        self._left -= units

    def spend(self, now: float) -> bool:
        """Take one unit at ``now``; False when it is one too many."""
        self._left = self.left(now) - 1.0
        return self._left >= -self._overdraft


def raised_at(exc: Exception) -> str:
    """The line that raised ``exc``: for ``Throttle.is_due``."""
    return repr((type(exc), traceback.extract_tb(exc.__traceback__, -1)))


class Throttle:
    """Whether a thing is to be told now. ``things_max``: strangers may think of any number of things."""

    def __init__(self, things_max: int = LINES_MAX) -> None:
        self._told: OrderedDict[Hashable, float] = OrderedDict()  # oldest first
        self._things_max = things_max
        self._untold = 0

    def __len__(self) -> int:
        return len(self._told)

    def is_due(self, what: Hashable, now: float) -> bool:
        """Ask whether to tell ``what``, which is wrong at ``now``; yes counts as told."""
        while self._told and now - next(iter(self._told.values())) >= AGAIN_S:
            self._told.popitem(last=False)
        if what in self._told:
            return False
        if len(self._told) >= self._things_max:
            self._untold += 1
            return False
        self._told[what] = now
        return True

    def take_untold(self) -> int:
        """Return how many have not been told since this was last asked, because there were too many."""
        untold, self._untold = self._untold, 0
        return untold
