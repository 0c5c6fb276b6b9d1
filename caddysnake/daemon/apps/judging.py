"""Whether a new build of an app is better kept or returned, by what it and the old one did side by side. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left
from enum import Enum
from itertools import pairwise
from typing import NamedTuple

from ...channel import vitals
from ...channel.vitals import LATENCY_BOUNDS_S
from ...config.language.models import Canary

_QUANTILE = 0.95
_CHANCE, _ERRORS = 0.001, 3.1
"""A p95 counts as exceeded when chance alone has it so more rarely than this: it is looked at again and again. A mean,
by so many of its standard errors, which is as rare.
"""
_LEAST_S = 0.001
"""Nobody is returned for less time a request than this."""
_LATE_S, _LATE_LEAST_S = 10.0, 2.0
"""So long a request may wait for its answer when nothing is known of the old build, and in any case."""
_CRASHES = 2
_EDGES = (0.0, *LATENCY_BOUNDS_S, 2 * LATENCY_BOUNDS_S[-1])
"""Of the buckets that requests are counted in; nothing is known of the last."""


def first_few(canary: Canary, workers: int) -> int:
    """Return how many of the ``workers`` that there are to be are started to be tried."""
    return min(canary.workers or max(1, math.ceil(canary.share * workers)), workers)


def chosen(line: Canary | None, asked: bool | None) -> Canary | None:
    """Return how a new build is tried: as the app's ``line`` says, unless it was ``asked`` for, or was not to be."""
    return None if asked is False else line or (Canary() if asked else None)


class Figures(NamedTuple):
    """What a build did in the time in which it was watched."""

    requests: int = 0
    """Completed."""
    server_errors: int = 0
    """Answers of the class 5xx."""
    lost: int = 0
    """Requests that were cut by the end of a worker."""
    crashes: int = 0
    """Workers that ended against our will."""
    latency_s: float = 0.0
    """Of all requests together."""
    latencies: tuple[int, ...] = (0,) * (len(LATENCY_BOUNDS_S) + 1)
    """Requests by duration: up to each of ``LATENCY_BOUNDS_S``, and above the last."""

    @property
    def total(self) -> int:
        """Requests, lost ones among them."""
        return self.requests + self.lost

    @property
    def errors(self) -> int:
        """Requests that went wrong on our side."""
        return self.server_errors + self.lost

    @property
    def error_share(self) -> float:
        """Of its requests, those that went wrong."""
        return self.errors / self.total if self.total else 0.0

    @property
    def mean_s(self) -> float:
        """How long a request took on the average."""
        return self.latency_s / self.requests if self.requests else 0.0

    @property
    def mean_error_s(self) -> float:
        """The standard error of ``mean_s``, as far as bounds tell."""
        middles = [(lower + upper) / 2 for lower, upper in pairwise(_EDGES)]
        squares = sum(count * (each - self.mean_s) ** 2 for count, each in zip(self.latencies, middles, strict=True))
        return math.sqrt(squares) / self.requests if self.requests else 0.0

    @property
    def p95_s(self) -> float | None:
        """Within which 95 of 100 requests were answered; None without any. Between two bounds, in proportion."""
        rank, below, lower = _QUANTILE * sum(self.latencies), 0, 0.0
        for bound, count in zip(LATENCY_BOUNDS_S, self.latencies, strict=False):
            if count and below + count >= rank:
                return lower + (bound - lower) * (rank - below) / count
            below, lower = below + count, bound
        return LATENCY_BOUNDS_S[-1] if rank else None

    def since(self, base: Figures) -> Figures:
        """What has come since ``base``."""
        return Figures(
            max(0, self.requests - base.requests),
            max(0, self.server_errors - base.server_errors),
            max(0, self.lost - base.lost),
            max(0, self.crashes - base.crashes),
            max(0.0, self.latency_s - base.latency_s),
            tuple(max(0, now - then) for now, then in zip(self.latencies, base.latencies, strict=True)),
        )

    def __str__(self) -> str:
        p95 = "-" if self.p95_s is None else f"{self.p95_s * 1000:.0f} ms"
        crashes = f", {self.crashes} workers crashed" if self.crashes else ""
        return f"{self.total} requests, {self.errors} errors ({self.error_share:.1%}), p95 {p95}{crashes}"


def figures_of(cells: list[int], lost: int, crashes: int) -> Figures:
    """What the sums of the ``cells`` of a build's workers say."""
    if not cells:
        return Figures(lost=lost, crashes=crashes)
    latency = cells[vitals.CELL_LATENCY : vitals.CELL_LATENCY + len(LATENCY_BOUNDS_S) + 1]
    return Figures(
        cells[vitals.CELL_REQUESTS],
        cells[vitals.CELL_CLASS_1XX + 4],
        lost,
        crashes,
        cells[vitals.CELL_LATENCY_SUM_US] / 1e6,
        tuple(latency),
    )


class Ruling(Enum):
    """What becomes of a build that was tried."""

    PROMOTE = "promoted"
    RETURN = "returned"


class Judgement(NamedTuple):
    """``why`` is for people."""

    ruling: Ruling
    why: str


def late_s(canary: Canary, old: Figures) -> float:
    """Return after how long a request that has no answer is later than the old build's p95 allows."""
    before = old.p95_s if old.requests >= canary.min_requests else None
    return _LATE_S if before is None else max(_LATE_LEAST_S, _bounds(before)[1] * canary.max_slowdown)


def judge(canary: Canary, elapsed_s: float, new: Figures, old: Figures, unanswered: int = 0) -> Judgement | None:
    """Return what is known by now; None: go on. ``unanswered``: requests waiting for longer than ``late_s``."""
    if unanswered:
        usual = _beyond(old.latencies, late_s(canary, old)) / old.requests if old.requests else 0.0
        if _by_chance(new.total + unanswered, unanswered, max(canary.max_errors, usual)) <= _CHANCE:
            return Judgement(Ruling.RETURN, f"{unanswered} of its requests got no answer")
    if new.crashes >= _CRASHES and new.crashes > old.crashes:
        return Judgement(Ruling.RETURN, f"{new.crashes} of its workers crashed")
    if new.total >= canary.min_requests:
        if new.error_share > canary.max_errors and new.error_share > old.error_share:
            what = f"{new.error_share:.1%} of its requests failed, of the old build's {old.error_share:.1%}"
            return Judgement(Ruling.RETURN, what)
        slower = _slower(canary, new, old)
        if slower is not None:
            return Judgement(Ruling.RETURN, slower)
    if elapsed_s < canary.for_s:
        return None
    if new.total < canary.min_requests:
        few = f"only {new.total} of {canary.min_requests} requests came in {canary.for_s:g}s"
        return Judgement(Ruling.PROMOTE, f"{few}: its warm-up has decided")
    return Judgement(Ruling.PROMOTE, f"no worse in {canary.for_s:g}s")


def _slower(canary: Canary, new: Figures, old: Figures) -> str | None:
    before, after = old.p95_s, new.p95_s
    if old.requests < canary.min_requests or before is None or after is None:
        return None
    least, most = _bounds(after)
    if most <= _bounds(before)[0] * canary.max_slowdown:
        return None
    what, beyond = "p95", _beyond(new.latencies, before * canary.max_slowdown)
    is_sure = least >= _bounds(before)[1] * canary.max_slowdown and _by_chance(sum(new.latencies), beyond) <= _CHANCE
    if not is_sure:  # the bounds are too far apart to tell, or the requests too few: the means may
        what, before, after = "mean", old.mean_s, new.mean_s
        error = math.hypot(new.mean_error_s, old.mean_error_s * canary.max_slowdown)
        is_sure = after - before * canary.max_slowdown > _ERRORS * error
    if not is_sure or after - before < _LEAST_S:
        return None
    times = after / before if before else float("inf")
    return f"its {what} is {times:.1f} times the old build's ({after * 1000:.1f} ms, {before * 1000:.1f} ms)"


def _bounds(seconds: float) -> tuple[float, float]:
    """Of the bucket that it lies in."""
    place = bisect_left(LATENCY_BOUNDS_S, seconds)
    return _EDGES[place], _EDGES[place + 1]


def _beyond(latencies: tuple[int, ...], seconds: float) -> int:
    """How many took longer, as far as bounds tell: of the bucket that ``seconds`` lies in, in proportion."""
    place = bisect_left(LATENCY_BOUNDS_S, seconds)
    lower, upper = _bounds(seconds)
    return sum(latencies[place + 1 :]) + int(latencies[place] * max(0.0, upper - seconds) / (upper - lower))


def _by_chance(total: int, beyond: int, rest: float = 1 - _QUANTILE) -> float:
    """How likely it is for ``beyond`` or more of ``total`` requests, when it is ``rest`` for each."""
    if total > 1000:  # by then the share speaks for itself
        return 0.0 if beyond / total > rest * 1.3 else 1.0
    return sum(math.comb(total, k) * rest**k * (1 - rest) ** (total - k) for k in range(beyond, total + 1))
