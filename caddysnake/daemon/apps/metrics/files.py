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
_SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum"), "summary": ("_count", "_sum")}
_RESERVED = ("caddysnake_", "process_", "python_")
_KEY_MAX = 3000
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


class Series(NamedTuple):
    """What a key names."""

    type: str
    mode: str
    metric: str
    name: str
    """Of the sample: the metric's, and a suffix."""
    labels: tuple[tuple[str, str], ...]


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


def entries(data: bytes) -> Iterator[tuple[bytes, float, float]]:
    """Key, value and time of every entry of ``data``. What is behind one that is cut is left out."""
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
        yield data[at + 4 : at + 4 + length], value, moment
        at = end + 16


def series(key: bytes | str, kind: Kind) -> tuple[Series, str] | None:
    """What ``key`` in a file of ``kind`` names, and its help; None for what is none, or not the app's to use."""
    if len(key) > _KEY_MAX:
        return None
    try:
        metric, name, labels, about = json.loads(key)
        is_good = (
            isinstance(labels, dict)
            and _METRIC.match(metric) is not None
            and not metric.startswith(_RESERVED)
            and len(labels) <= _LABELS_MAX
            and all(_LABEL.match(each) and not each.startswith("__") for each in labels)
            and name.removeprefix(metric) in _SUFFIXES[kind.type]
            and (kind.type != "histogram" or name.endswith("_bucket") == ("le" in labels))
            and (kind.type != "summary" or "quantile" not in labels)
        )
        if not is_good:
            return None
        said = {each: _clean(str(value)) for each, value in labels.items()}
        if kind.type == "histogram" and "le" in said:
            said["le"] = number(_bound(said["le"]))
        if kind.mode == "all":
            said["pid"] = str(kind.pid)
        return Series(kind.type, kind.mode, metric, name, tuple(sorted(said.items()))), _clean(str(about))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def is_value(of: Series, value: float) -> bool:
    """Whether ``of`` may have that value: what is counted is finite, and not less than nothing."""
    if of.type == "gauge":
        return True
    is_sum, is_whole = of.name.endswith("_sum"), of.type != "counter"
    return math.isfinite(value) and (is_sum or (value >= 0 and (not is_whole or value.is_integer())))


def _clean(text: str) -> str:
    """``text`` without what has no form in UTF-8."""
    return text.encode("utf-8", "replace").decode()


def _bound(text: str) -> float:
    """Of a bucket. Raises ``ValueError``."""
    found = float(text)
    if math.isnan(found):
        raise ValueError(text)
    return found


def number(value: float) -> str:
    """``value`` as Prometheus writes it, to the letter: the bound of a bucket is a label."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("+Inf" if value > 0 else "-Inf")
    text = repr(value)
    dot = text.find(".")
    if value > 0 and dot > 6 and "e" not in text:  # Go takes to exponents sooner
        digits = f"{text[0]}.{text[1:dot]}{text[dot + 1 :]}".rstrip("0.")
        return f"{digits}e+{dot - 1:02}"
    return text
