"""When a worker is replaced: it has served long enough by ``max_requests``, ``max_lifetime`` or ``max_memory``. Pure.

Each worker draws its own limits, so that those that started together are not replaced together.
"""

from __future__ import annotations

import random
from typing import NamedTuple

_LIFETIME_JITTER = 0.1
"""A lifetime is shortened by at most this part of it."""

SETTLED_S = 5.0
"""A worker that is too large sooner than this would be followed by another that is."""


class RestartLimits(NamedTuple):
    """None: no limit. ``requests_jitter`` is added to ``requests`` at most."""

    requests: int | None = None
    requests_jitter: int = 0
    lifetime_s: float | None = None
    memory_bytes: int | None = None

    @property
    def is_any(self) -> bool:
        """Whether there is anything to look at."""
        return (self.requests, self.lifetime_s, self.memory_bytes) != (None, None, None)


class WorkerReading(NamedTuple):
    """What is known of a worker: since when it is ready, what it did, what it occupies."""

    requests: int
    age_s: float
    memory_bytes: int


class RecycleLimit:
    """One worker's own limits."""

    def __init__(self, limits: RestartLimits, draw: random.Random | None = None) -> None:
        draw = draw or random.Random()
        self._memory_bytes = limits.memory_bytes
        self._requests = None if limits.requests is None else limits.requests + draw.randint(0, limits.requests_jitter)
        shortened = 1 - _LIFETIME_JITTER * draw.random()
        self._lifetime_s = None if limits.lifetime_s is None else limits.lifetime_s * shortened

    def over(self, reading: WorkerReading) -> str | None:
        """Which limit the worker has reached, by its name in a Caddyfile; None while it may go on."""
        if self._requests is not None and reading.requests >= self._requests:
            return "max_requests"
        if self._lifetime_s is not None and reading.age_s >= self._lifetime_s:
            return "max_lifetime"
        if self._memory_bytes is not None and reading.memory_bytes > self._memory_bytes and reading.age_s >= SETTLED_S:
            return "max_memory"
        return None
