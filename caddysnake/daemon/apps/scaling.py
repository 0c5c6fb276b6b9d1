"""How many workers an app should have, between the least and the most that its block allows. Pure: figures in, a
number and its reason out.

Up at once to what is asked for, when that lasts for a moment; down by one after a quiet time, in which one fewer would
have been enough all along. Who had to grow again soon after shrinking waits longer before it shrinks again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

LOOK_S, LOOK_CLOSELY_S = 0.05, 0.02
"""How often an app is looked at that has connections, and one that something waits for."""
_BUSY = 0.7
"""So much of a core an event loop uses that is not about to be free."""
_PATIENCE_MAX = 8.0
"""By so much the quiet time grows at most."""


class Bounds(NamedTuple):
    """What the block says."""

    least: int
    most: int
    down_after_s: float = 60.0
    asked_for: int | None = None
    """A number that somebody set; None: as many as it takes."""


class Observation(NamedTuple):
    """An app at one moment."""

    workers: int
    """That there are to be, those on their way among them."""
    ready: int
    busy: int
    """Requests being answered, and connections on their way to a worker."""
    waiting: int
    """Requests that have come and that no worker has begun to read, at two looks in a row."""
    threads: int
    """Requests that one worker runs at a time; 0: an event loop."""
    cores: float | None = 0.0
    """What its workers have used of the processors, or waited for, during the last second; None: not known yet."""
    cores_now: float = 0.0
    """The same, since the last look."""


class Decision(NamedTuple):
    """``workers`` there should be, because of ``reason``."""

    workers: int
    reason: str


class Scaler:
    """Of one app; remembers what it has seen."""

    def __init__(self) -> None:
        self._last_wanted = 0
        self._quiet_since: float | None = None
        self._shrunk_at: float | None = None
        self._patience = 1.0

    def look(self, now: float, bounds: Bounds, sight: Observation, room: Callable[[], int]) -> Decision | None:
        """Return how many there should be instead, or None. ``room()``: for how many more there is memory."""
        if bounds.asked_for is not None:
            return None if sight.workers == bounds.asked_for else Decision(bounds.asked_for, "asked for")
        if not bounds.least <= sight.workers <= bounds.most:
            return Decision(min(max(sight.workers, bounds.least), bounds.most), "as the file says")
        wanted, self._last_wanted = min(_wanted(sight), self._last_wanted), _wanted(sight)
        if _enough(sight) >= sight.workers or self._quiet_since is None:
            self._quiet_since = now
        if wanted > sight.workers and sight.workers < bounds.most:
            return self._up(now, bounds, sight, min(wanted, bounds.most), room())
        if sight.workers > bounds.least and now - self._quiet_since >= bounds.down_after_s * self._patience:
            self._quiet_since = self._shrunk_at = now
            return Decision(sight.workers - 1, f"quiet for {bounds.down_after_s * self._patience:g}s")
        return None

    def _up(self, now: float, bounds: Bounds, sight: Observation, wanted: int, room: int) -> Decision | None:
        target = min(wanted, sight.workers + room)
        if target <= sight.workers:
            return None
        if self._shrunk_at is not None:
            regretted = now - self._shrunk_at < bounds.down_after_s * self._patience * 2
            self._patience = min(self._patience * 2, _PATIENCE_MAX) if regretted else 1.0
            self._shrunk_at = None
        self._quiet_since = now
        what = f"{sight.waiting} waited" if sight.waiting else "all were busy"
        return Decision(target, what + (", memory for no more" if target < wanted else ""))


def _wanted(sight: Observation) -> int:
    """For what is asked of it just now."""
    if sight.threads:
        return (sight.busy + sight.waiting) // sight.threads + 1
    computes = sight.cores_now >= _BUSY * max(1, sight.ready) and sight.busy > sight.ready
    if sight.waiting < max(1, sight.ready) and not computes:
        return sight.workers
    return sight.workers + max(1, min(sight.workers, sight.waiting + sight.busy - sight.ready))


def _enough(sight: Observation) -> int:
    """With so many, one fewer than which would be too few, what is asked just now could be answered well."""
    if sight.threads:
        return (sight.busy + sight.waiting) // sight.threads + 1
    return sight.workers if sight.waiting or sight.cores is None else math.floor(sight.cores / _BUSY) + 1
