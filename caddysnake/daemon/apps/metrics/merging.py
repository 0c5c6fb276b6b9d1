"""Values of many processes to one for each series, as prometheus-client's multiprocess mode has it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .files import Value

SERIES_MAX = 5000
"""Of one app, or template: what is beyond is left out, and told."""

Key = tuple[str, str, str, str, tuple[tuple[str, str], ...]]
"""Type, mode, metric, sample, labels."""


class Merged:
    """Series, so many at most."""

    def __init__(self, most: int = SERIES_MAX) -> None:
        self._most = most
        self._values: dict[Key, tuple[float, float]] = {}
        self._help: dict[str, str] = {}
        self.left_out = 0
        """Values that are not among them: no proper ones, or too many."""

    def add(self, value: Value | None) -> None:
        """One more."""
        if value is None:
            self.left_out += 1
            return
        key = value[:5]
        before = self._values.get(key)
        if before is None:
            if len(self._values) >= self._most:
                self.left_out += 1
                return
            self._help.setdefault(value.metric, value.help)
            self._values[key] = value.value, value.at
        else:
            self._values[key] = _combined(value.mode, before, (value.value, value.at))

    def values(self) -> list[Value]:
        """All of them, as ``add`` takes them."""
        return [Value(*key, self._help[key[2]], *found) for key, found in self._values.items()]

    def samples(self) -> list[list[Any]]:
        """Type, metric, help, sample, labels and value of each series, buckets of histograms added up."""
        found: list[list[Any]] = []
        buckets: dict[tuple[str, tuple[tuple[str, str], ...]], list[tuple[float, str, float]]] = {}
        for value in self.values():
            if value.type == "histogram" and value.name.endswith("_bucket"):
                rest = tuple(pair for pair in value.labels if pair[0] != "le")
                le = dict(value.labels)["le"]
                buckets.setdefault((value.metric, rest), []).append((float(le), le, value.value))
            else:
                found.append([value.type, value.metric, value.help, value.name, value.labels, value.value])
        for (metric, labels), counts in buckets.items():
            total = 0.0
            row = ["histogram", metric, self._help[metric]]
            for _, le, count in sorted(counts):
                total += count
                found.append([*row, f"{metric}_bucket", (*labels, ("le", le)), total])
            if counts and max(counts)[0] != float("inf"):
                found.append([*row, f"{metric}_bucket", (*labels, ("le", "+Inf")), total])
            found.append([*row, f"{metric}_count", labels, total])
        return found


def _combined(mode: str, one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    match mode:
        case "min":
            return min(one, other)
        case "max":
            return max(one, other)
        case "mostrecent" | "all":
            return max(one, other, key=lambda found: found[1])
    return one[0] + other[0], max(one[1], other[1])


def merged(values: Iterable[Value | None]) -> Merged:
    """All of ``values``."""
    found = Merged()
    for value in values:
        found.add(value)
    return found
