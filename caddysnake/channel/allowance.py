"""How many messages a peer may send: a bucket of tokens, refilled all the time. Pure: the clock is an argument."""

from __future__ import annotations


class TokenBucket:
    """``per_second`` messages a second, and as many at once after a quiet second.

    ``overdraft``: how many more a burst may hold, to be made good before anything else is said.
    """

    def __init__(self, per_second: int, overdraft: int = 0) -> None:
        self._per_second = float(per_second)
        self._overdraft = float(overdraft)
        self._left = float(per_second)
        self._at = 0.0

    def spend(self, now: float) -> bool:
        """Take one message at ``now`` (seconds, monotonic); False when it is one too many."""
        self._left = min(self._per_second, self._left + (now - self._at) * self._per_second)
        self._at = now
        self._left -= 1.0
        return self._left >= -self._overdraft
