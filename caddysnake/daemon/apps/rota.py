"""Which of two builds gets a connection's next requests, and how many of them, so that the new one's share holds. Pure.

A connection stays with the new build for one request, and with the old until the next is due: so no more than the share
sees the new one, be it over one connection or a thousand.
"""

from __future__ import annotations

import math

TURNS_MAX = 1000
_MADE_UP_FOR = 4
"""What the new build has missed beyond this, while connections had not come back yet, it does not get at once."""


class Rota:
    """``share``: of the requests, for the new build."""

    def __init__(self, share: float) -> None:
        self.share = share
        self._given = 0.0
        """Requests that the new build got, or gets on what it was given."""
        self._seen = self._told = 0
        """``total`` when it last changed, and by how much: workers tell of many requests together."""

    def turns_of_new(self, total: int) -> int:
        """Return 1 when the next request is for the new build, 0 when it is for the old. ``total``: that have come."""
        if total != self._seen:
            self._told, self._seen = total - self._seen, total
        due = self.share * (total + 1)
        self._given = max(self._given, due - _MADE_UP_FOR - self.share * self._told)
        if self._given < due:
            self._given += 1
            return 1
        return 0

    def turns_of_old(self, total: int) -> int:
        """Return for how many requests a connection stays with the old build."""
        until_due = math.ceil((self._given + 1) / self.share) - total - 1
        usual = math.ceil((1 - self.share) / self.share)
        return min(max(1, min(until_due, usual)), TURNS_MAX)
