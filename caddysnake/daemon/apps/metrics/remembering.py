"""What was told of a template's apps, which come and go with their files: no counter goes back. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .merging import SERIES_MAX, Sample

Memory = dict[str, list[Any]]
"""By series: what it came to last, what is added to it, and the sample."""


def kept_up(samples: Sequence[Sample], memory: Memory) -> list[Sample]:
    """``samples``, and what is no longer among them, with what is missing since the last time added."""
    found: list[Sample] = []
    missing = dict(memory)
    for sample in samples:
        if sample.type == "gauge":
            found.append(sample)
            continue
        key = repr((sample.name, sample.labels))
        missing.pop(key, None)
        last, added, _ = memory.get(key, (0.0, 0.0, None))
        added += max(0.0, last - sample.value)
        if key in memory or len(memory) < SERIES_MAX:
            memory[key] = [sample.value, added, sample]
        found.append(sample._replace(value=sample.value + added))
    for key, (last, added, row) in missing.items():
        kind, metric, about, name, labels, _ = row
        memory[key] = [0.0, last + added, row]
        found.append(Sample(kind, metric, about, name, tuple((a, b) for a, b in labels), last + added))
    return found
