"""How much one process may say: a bucket that fills all the time. Pure: the clock is an argument."""

from __future__ import annotations


class Rate:
    """``per_second`` units a second, and ``burst`` at once after a quiet time."""

    __slots__ = ("_at", "_burst", "_left", "_per_second")

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._left = burst
        self._at = 0.0

    def left(self, now: float) -> float:
        """How many units may be spent at ``now`` (seconds, monotonic); none when not positive."""
        self._left = min(self._burst, self._left + (now - self._at) * self._per_second)
        self._at = now
        return self._left

    def spend(self, units: float) -> None:
        """It may go below zero by the last thing that was let through."""
        self._left -= units
