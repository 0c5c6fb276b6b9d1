"""What apps count, as text for Prometheus. Pure.

Of a name that two apps have for different things, the first one's stays; and no app's names may be read as another's,
nor a label as ours.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .files import number
from .merging import Sample

_SUFFIXES = {
    "counter": ("_total", "_created"),
    "gauge": (),
    "histogram": ("_bucket", "_count", "_sum", "_created"),
    "summary": ("_count", "_sum", "_created"),
}
_LABEL = "app"
_OURS = re.compile(rf"(?:exported_)*{_LABEL}\Z")
_IN_LABEL = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_IN_HELP = str.maketrans({"\\": r"\\", "\n": r"\n"})


class _Family(NamedTuple):
    kind: str
    about: str
    groups: dict[tuple[str, tuple[tuple[str, str], ...]], list[str]]
    """Lines that stand together: of one app, with the same labels but for the bucket's."""


def exposed(told: Mapping[str, Sequence[Sample]], is_open: bool) -> tuple[str, Counter[str], Counter[str]]:
    """The text of what each app has ``told``, in the form of OpenMetrics or Prometheus' own, without an end; how many
    characters are each app's, and how many samples of it are left out.
    """
    families: dict[str, _Family] = {}
    taken: set[str] = set()
    sizes: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    for app, samples in sorted(told.items()):
        for sample in sorted(samples, key=lambda each: (each.metric, each.type)):  # the same every time
            family = families.get(sample.metric)
            if family is None:
                names = {sample.metric + suffix for suffix in ("", *_SUFFIXES[sample.type])}
                if names.isdisjoint(taken):
                    taken |= names
                    family = families[sample.metric] = _Family(sample.type, sample.help, {})
            if family is None or family.kind != sample.type:
                left_out[app] += 1
                continue
            line = _line(app, sample)
            sizes[app] += len(line)
            rest = tuple(pair for pair in sample.labels if pair[0] != "le" or sample.type != "histogram")
            family.groups.setdefault((app, rest), []).append(line)
    return "".join(_text(name, family, is_open) for name, family in families.items()), sizes, left_out


def _line(app: str, sample: Sample) -> str:
    pairs: list[tuple[str, Any]] = [(_LABEL, app)]
    pairs += [(f"exported_{name}" if _OURS.match(name) else name, value) for name, value in sample.labels]
    labels = ",".join(f'{name}="{value.translate(_IN_LABEL)}"' for name, value in sorted(pairs))
    return f"{sample.name}{{{labels}}} {number(sample.value)}\n"


def _text(name: str, family: _Family, is_open: bool) -> str:
    shown = name if is_open or family.kind != "counter" else f"{name}_total"
    about = family.about.translate(_IN_LABEL if is_open else _IN_HELP)
    lines = "".join(line for group in family.groups.values() for line in group)
    return f"# HELP {shown} {about}\n# TYPE {shown} {family.kind}\n{lines}"
