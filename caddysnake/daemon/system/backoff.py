"""How soon what has failed is tried again: exponential back-off with jitter, which a healthy spell resets. Pure."""

from __future__ import annotations

import random

FIRST_S = 0.1
FACTOR = 2.0
LONGEST_S = 30.0
HEALTHY_S = 10.0
"""What went well this long before it failed is no sign of anything broken."""
INTENSITY = 5
"""Failures in a row after which it counts as failed. It is still tried again, at the longest pause."""


class Backoff:
    """A memory of failures in a row."""

    def __init__(self, jitter: random.Random | None = None, first_s: float = FIRST_S) -> None:
        """``first_s``: the pause after the second failure, which each further one doubles."""
        self.failures = 0
        self._first_s = first_s
        self._jitter = jitter or random.Random()

    def pause_after(self, ready_for_s: float, has_served: bool = False) -> float:
        """Seconds to wait after what went well for ``ready_for_s`` seconds has failed; 0 the first time.

        One that ``has_served`` requests was of use, however short its life: others like it are worth having, only not
        more often than every ``FIRST_S`` seconds.
        """
        if ready_for_s >= HEALTHY_S:
            self.failures = 0
        elif has_served:
            self.failures = min(self.failures, 1)
        self.failures += 1
        if self.failures == 1:
            return 0.0
        # Thousands of failures in a row are a matter of hours, and no power of a float.
        pause = min(LONGEST_S, self._first_s * FACTOR ** min(self.failures - 2, 64))
        # Downwards only, so that the longest pause is a promise; apps that failed together do not retry together.
        return float(pause * (1 - 0.25 * self._jitter.random()))

    @property
    def exhausted(self) -> bool:
        """``INTENSITY`` failures in a row, or more, with no healthy spell between them."""
        return self.failures >= INTENSITY
