"""One file of prometheus-client's multiprocess mode (its ``mmap_dict``), read without it: an app may have any version
of that, or have written anything.

A file begins with a 4 byte int, how much of it is used, and 4 bytes of padding. Then entries: the length of a key, the
key (JSON: metric, sample, labels, help) padded with spaces so that what follows is aligned to 8 bytes, and two doubles:
the value, and the time of it.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

_INT = struct.Struct("=i")
_DOUBLES = struct.Struct("=dd")
_METRIC = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")
_SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_sum"),
    "summary": ("_count", "_sum"),
}
_TEXT_MAX = 1000
_LABELS_MAX = 20
_FILE = re.compile(r"(?:(counter|histogram|summary)|gauge_([a-z]+))_(\d{1,10})\.db\Z")
MODES = frozenset(("all", "max", "min", "sum", "mostrecent"))
"""Of gauges; with ``live`` in front they are of processes that live."""


class Kind(NamedTuple):
    """What a file holds, as its name says."""

    type: str
    mode: str
    """Of gauges, without ``live``; else empty."""
    is_live: bool
    """Values of processes that have ended do not count."""
    pid: int


class Value(NamedTuple):
    """One entry."""

    type: str
    mode: str
    metric: str
    name: str
    """Of the sample: the metric's, and a suffix."""
    labels: tuple[tuple[str, str], ...]
    help: str
    value: float
    at: float


def kind_of(name: str) -> Kind | None:
    """What the file ``name`` holds; None for any other file."""
    match = _FILE.match(name)
    if match is None:
        return None
    kind, mode, pid = match.groups()
    if kind is not None:
        return Kind(kind, "", False, int(pid))
    is_live = mode.startswith("live")
    bare = mode.removeprefix("live")
    return Kind("gauge", bare, is_live, int(pid)) if bare in MODES else None


def read(data: bytes, kind: Kind) -> Iterator[Value | None]:
    """Every entry of ``data``; None for one that is no proper one. What is behind one that is cut is left out."""
    if len(data) < 8:
        return
    used = min(_INT.unpack_from(data)[0], len(data))
    at = 8
    while at + 4 <= used:
        (length,) = _INT.unpack_from(data, at)
        end = at + 4 + length + (8 - (length + 4) % 8)
        if length <= 0 or end + 16 > used:
            return
        value, moment = _DOUBLES.unpack_from(data, end)
        yield _value(data[at + 4 : at + 4 + length], kind, value, moment)
        at = end + 16


def _value(key: bytes, kind: Kind, value: float, moment: float) -> Value | None:
    try:
        metric, name, labels, about = json.loads(key)
        is_good = (
            isinstance(labels, dict)
            and _METRIC.match(metric) is not None
            and len(name) <= _TEXT_MAX
            and len(labels) <= _LABELS_MAX
            and all(_LABEL.match(each) and not each.startswith("__") for each in labels)
            and name.removeprefix(metric) in _SUFFIXES[kind.type]
            and (name.endswith("_bucket") == ("le" in labels) or kind.type != "histogram")
            and (kind.type == "gauge" or (math.isfinite(value) and value >= 0) or name.endswith("_sum"))
            and (kind.type == "gauge" or math.isfinite(value))
        )
        if not is_good:
            return None
        if "le" in labels and kind.type == "histogram":
            float(labels["le"])
        pairs = tuple(sorted((each, str(said)[:_TEXT_MAX]) for each, said in labels.items()))
        if kind.mode == "all":
            pairs = (*pairs, ("pid", str(kind.pid)))
        return Value(kind.type, kind.mode, metric, name, pairs, str(about)[:_TEXT_MAX], value, moment)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
