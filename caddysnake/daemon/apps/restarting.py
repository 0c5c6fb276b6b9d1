"""When a worker is replaced, and how soon one that failed is tried again. Pure.

It has served long enough by ``max_requests``, ``max_lifetime`` or ``max_memory``: each worker draws its own limits, so
that those that started together are not replaced together. After a crash: exponential back-off with jitter, which a
healthy spell resets.
"""

from __future__ import annotations

import random
from typing import NamedTuple

_LIFETIME_JITTER = 0.1
"""A lifetime is shortened by at most this part of it."""

SETTLED_S = 5.0
"""A worker that is too large sooner than this would be followed by another that is."""

FIRST_S = 0.1
FACTOR = 2.0
LONGEST_S = 30.0
HEALTHY_S = 10.0
"""A worker that was ready this long before it died is no sign of a broken app."""
INTENSITY = 5
"""Failures in a row after which the app counts as failed. It is still tried again, at the longest pause."""


class Limits(NamedTuple):
    """None: no limit. ``requests_jitter`` is added to ``requests`` at most."""

    requests: int | None = None
    requests_jitter: int = 0
    lifetime_s: float | None = None
    memory_bytes: int | None = None

    @property
    def is_any(self) -> bool:
        """Whether there is anything to look at."""
        return (self.requests, self.lifetime_s, self.memory_bytes) != (None, None, None)


class Reading(NamedTuple):
    """What is known of a worker: since when it is ready, what it did, what it occupies."""

    requests: int
    age_s: float
    memory_bytes: int


class RecycleLimit:
    """One worker's own limits."""

    def __init__(self, limits: Limits, draw: random.Random | None = None) -> None:
        draw = draw or random.Random()
        self._memory_bytes = limits.memory_bytes
        self._requests = None if limits.requests is None else limits.requests + draw.randint(0, limits.requests_jitter)
        shortened = 1 - _LIFETIME_JITTER * draw.random()
        self._lifetime_s = None if limits.lifetime_s is None else limits.lifetime_s * shortened

    def over(self, reading: Reading) -> str | None:
        """Which limit the worker has reached, by its name in a Caddyfile; None while it may go on."""
        if self._requests is not None and reading.requests >= self._requests:
            return "max_requests"
        if self._lifetime_s is not None and reading.age_s >= self._lifetime_s:
            return "max_lifetime"
        if self._memory_bytes is not None and reading.memory_bytes > self._memory_bytes and reading.age_s >= SETTLED_S:
            return "max_memory"
        return None


class Backoff:
    """One pool's memory of failures in a row."""

    def __init__(self, jitter: random.Random | None = None, first_s: float = FIRST_S) -> None:
        """``first_s``: the pause after the second failure, which each further one doubles."""
        self.failures = 0
        self._first_s = first_s
        self._jitter = jitter or random.Random()

    def pause_after(self, ready_for_s: float, has_served: bool = False) -> float:
        """Seconds to wait after a worker that was ready for ``ready_for_s`` seconds died; 0 the first time.

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
