"""Values of many processes to one for each series, as prometheus-client's multiprocess mode has it. Pure."""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

from .files import Kind, Series, entries, is_value, number, series

SERIES_MAX = 5000
"""Of one app, or template: what is beyond is left out, and told."""
ROOM_CHARACTERS = 2 << 20
"""For their names and labels."""
ENTRIES_MAX = 300_000
"""So many are looked at, in all files: those of 60 workers with as many series as there may be."""


Row = tuple[Series, float, float, str]
"""A series, its value and the time of it, and the help of its metric."""


class Sample(NamedTuple):
    """One line of what is told."""

    type: str
    metric: str
    help: str
    name: str
    labels: tuple[tuple[str, str], ...]
    value: float


class Merged:
    """Series, so many at most."""

    def __init__(self) -> None:
        self._room = ROOM_CHARACTERS
        self._to_look_at = ENTRIES_MAX
        self._values: dict[Series, tuple[float, float]] = {}
        self._helps: dict[str, str] = {}
        self._known: dict[Kind, dict[bytes, Series | None]] = {}
        """What keys name: there is one of each in each worker's files."""
        self.left_out = 0
        """Values that are not among them: no proper ones, or too many."""

    def read(self, data: bytes, kind: Kind) -> None:
        """All that is in a file of ``kind``."""
        shared = kind._replace(is_live=False, pid=kind.pid if kind.mode == "all" else 0)
        known = self._known.setdefault(shared, {})
        for key, value, at in islice(entries(data), self._to_look_at + 1):
            self._to_look_at -= 1
            of = known.get(key)
            if of is None and not self._is_full and key not in known:  # of a flood none is looked at
                found = series(key, kind)
                if found is not None:
                    of, about = found
                    self._helps.setdefault(of.metric, about)
                known[key] = of
            if of is None:
                self.left_out += 1
            else:
                self.add(of, value, at)

    @property
    def _is_full(self) -> bool:
        return len(self._values) >= SERIES_MAX or self._room <= 0

    def add(self, of: Series, value: float, at: float, about: str | None = None) -> None:
        """One more. ``about``: the help of its metric, unless that is known."""
        before = self._values.get(of)
        if not is_value(of, value) or (before is None and self._is_full):
            self.left_out += 1
            return
        if before is None:
            self._room -= len(of.name) + sum(len(name) + len(said) for name, said in of.labels)
        if about is not None:
            self._helps.setdefault(of.metric, about)
        self._values[of] = (value, at) if before is None else _combined(of.mode, before, (value, at))

    def merge(self, other: Merged) -> None:
        """All of ``other`` too."""
        self.left_out += other.left_out
        for row in other.rows():
            self.add(*row)

    def rows(self) -> list[Row]:
        """All of them, as ``add`` takes them."""
        return [(of, value, at, self._helps.get(of.metric, "")) for of, (value, at) in self._values.items()]

    def samples(self) -> list[Sample]:
        """A sample of each series, buckets of histograms added up. A histogram without a sum is none."""
        found: dict[tuple[str, tuple[tuple[str, str], ...]], Sample] = {}
        buckets: dict[tuple[str, tuple[tuple[str, str], ...]], list[tuple[float, float]]] = {}

        def tell(kind: str, metric: str, name: str, labels: tuple[tuple[str, str], ...], value: float) -> None:
            found.setdefault((name, labels), Sample(kind, metric, self._helps.get(metric, ""), name, labels, value))

        for of, (value, _) in self._values.items():
            if of.type == "histogram" and of.name.endswith("_bucket"):
                rest = tuple(pair for pair in of.labels if pair[0] != "le")
                buckets.setdefault((of.metric, rest), []).append((float(dict(of.labels)["le"]), value))
            else:
                tell(of.type, of.metric, of.name, of.labels, value)
        for (metric, labels), counts in buckets.items():
            total = 0.0
            if (f"{metric}_sum", labels) not in found:
                self.left_out += len(counts)
                continue
            if max(counts)[0] != float("inf"):
                counts.append((float("inf"), 0.0))
            for le, count in sorted(counts):
                total += count
                tell("histogram", metric, f"{metric}_bucket", (*labels, ("le", number(le))), total)
            tell("histogram", metric, f"{metric}_count", labels, total)
        return list(found.values())


def _combined(mode: str, one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    match mode:
        case "min":
            return min(one, other)
        case "max":
            return max(one, other)
        case "mostrecent" | "all":
            return max(one, other, key=lambda found: found[1])
    return one[0] + other[0], max(one[1], other[1])
