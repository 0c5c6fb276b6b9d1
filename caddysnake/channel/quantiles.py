"""From a histogram to the durations that people ask for. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def quantile(wanted: float, bounds: Sequence[float], counts: Sequence[int]) -> float | None:
    """Seconds below which ``wanted`` of the requests were answered, from a histogram; None without any.

    Between two bounds, in proportion, as Prometheus' ``histogram_quantile`` does; beyond the last, the last.
    """
    total = sum(counts)
    if not total:
        return None
    rank, below, lower = wanted * total, 0, 0.0
    for bound, count in zip(bounds, counts, strict=False):
        if count and below + count >= rank:
            return lower + (bound - lower) * (rank - below) / count
        below, lower = below + count, bound
    return bounds[-1]
