"""What has happened to an app since the daemon runs, over all its workers: counts that only grow.

A worker counts on its page, which goes with it; what it had counted is entered here then. Dynamic apps come and go, so
what they enter is entered for their template, too.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

from ...channel import codes, vitals
from ...channel.codec import shorten
from ..system.state import CountersSnapshot

START_BOUNDS_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Upper bounds of the histogram of starts: from a fork with everything preloaded to a large app on a small machine."""

_TEXT_MAX = 8 * 1024


class Failed(NamedTuple):
    """Why a worker ended against our will. ``at``: ``time.time()``."""

    at: float
    code: str
    text: str


class Histogram:
    """Counts by upper bound, the last without one."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count ``value``, in the unit of the bounds; a bound counts what equals it."""
        self.counts[sum(value > bound for bound in self.bounds)] += 1
        self.total += value


class Counters:
    """Of a generation of an app, of an app, of a template: each enters what it counts in its ``parent``, too."""

    def __init__(self, parent: Counters | None = None) -> None:
        self.cells: list[int] = []
        """The sums of all cells (``vitals.CELL_*``) over workers that are gone; nothing when there were none."""
        self.cpu_s = 0.0
        """Processor time of workers that are gone."""
        self.restarts: Counter[str] = Counter()
        """Workers that were replaced, or tried again, by cause."""
        self.refusals: Counter[str] = Counter()
        """Requests that were answered in the place of the app, or cut, by code. Those that a worker itself answered in
        its app's place are in ``cells``.
        """
        self.relayed = 0
        """Of a generation: requests that ended with a worker, and that a relay repeats, or counts for the app."""
        self.starts = Histogram(START_BOUNDS_S)
        """Seconds from the fork to ready."""
        self.last_failure: Failed | None = None
        self.over_at: float | None = None
        """Since when that is over; None: it is not, as far as is known."""
        self.is_trial = False
        """Another generation serves: that this one does not start is no failure of the app."""
        self._parent = parent

    def restarted(self, cause: str) -> None:
        """A worker is replaced, or tried again, because of ``cause`` (``codes.CAUSES``)."""
        self.restarts[cause] += 1
        if self._parent is not None:
            self._parent.restarted(cause)

    def failed(self, code: str, text: str) -> None:
        """A worker ended against our will."""
        self._has_failed(Failed(time.time(), code, shorten(text, _TEXT_MAX)))

    def _has_failed(self, failure: Failed) -> None:
        self.last_failure, self.over_at = failure, None
        if self._parent is not None and not self.is_trial:
            self._parent._has_failed(failure)

    def recovered(self, is_whole: bool) -> None:
        """All workers of an app that there are to be are ready, if it ``is_whole``: its last failure is over."""
        failure = self.last_failure
        if not is_whole or failure is None or self.over_at is not None:
            return
        self.over_at = time.time()
        if self._parent is not None and self._parent.last_failure is failure:
            self._parent.recovered(is_whole)

    def refused(self, code: str, count: int = 1) -> None:
        """``count`` requests were answered with ``code`` in the place of the app, or cut for that reason."""
        if count:
            self.refusals[code] += count
            if self._parent is not None:
                self._parent.refused(code, count)

    def started(self, seconds: float) -> None:
        """A worker has become ready."""
        self.starts.observe(seconds)
        if self._parent is not None:
            self._parent.started(seconds)

    def counted(self, cells: Sequence[int], cpu_s: float) -> None:
        """A worker is gone that had counted ``cells`` and used ``cpu_s`` seconds."""
        self.cpu_s += cpu_s
        self.cells = list(map(vitals.plus, self.cells, cells)) if self.cells else list(cells)
        if self._parent is not None:
            self._parent.counted(cells, cpu_s)

    def snapshot(self) -> CountersSnapshot:
        """For another image of the daemon."""
        return CountersSnapshot(
            cells=self.cells,
            restarts=self.restarts,
            refusals=self.refusals,
            relayed=self.relayed,
            starts=self.starts.counts,
            starts_s=self.starts.total,
            cpu_s=self.cpu_s,
            last_failure=self.last_failure,
            over_at=self.over_at,
            is_trial=self.is_trial,
        )

    def restore(self, saved: CountersSnapshot) -> None:
        """Go on where ``saved`` says. What another version counted otherwise begins anew."""
        if saved.cells:
            known = list(map(vitals.plus, saved.cells))  # an older version may have let them grow without end
            self.cells = [*known, *[0] * vitals.CELLS][: vitals.CELLS]  # or have had fewer
        if len(saved.starts) == len(self.starts.counts):
            self.starts.counts, self.starts.total = saved.starts, saved.starts_s
        self.cpu_s, self.over_at, self.is_trial = saved.cpu_s, saved.over_at, saved.is_trial
        self.refusals, self.relayed = Counter(saved.refusals), saved.relayed
        for said, count in saved.restarts.items():
            self.restarts[codes.cause(said)] += count
        if saved.last_failure is not None:
            at, said, text = saved.last_failure
            self.last_failure = Failed(at, codes.failure(said), text)
