"""A profile in the forms that people and programs read: a flame graph in one HTML file, speedscope's JSON, and
collapsed stacks, one a line. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any, Final, NamedTuple

from .. import __version__


class Frame(NamedTuple):
    """A function."""

    name: str
    file: str
    line: int
    """Where it begins."""

    def __str__(self) -> str:
        return f"{self.name} ({'/'.join(self.file.split('/')[-2:])}:{self.line})"


Key = tuple[str | Frame, ...]
"""What it is of, and frames, the outermost first."""
Stacks = dict[Key, tuple[int, int]]
"""Microseconds of wall, and of processor time."""
_WAYS: Final = (("Processor time", 1), ("Wall time", 0))


class Profile(NamedTuple):
    """Of ``workers`` workers together, over ``seconds``."""

    name: str
    seconds: float
    workers: int
    warnings: list[str]
    stacks: Stacks


def collapsed(profile: Profile, is_wall: bool = False) -> str:
    """As flamegraph.pl and its like read it: a stack a line, and its microseconds of processor time, or of wall."""
    lines = []
    for key, counts in sorted(profile.stacks.items(), key=lambda each: -each[1][not is_wall]):
        if counts[not is_wall]:
            names = (str(part).replace(";", ":").replace("\n", " ") for part in key)
            lines.append(f"{';'.join(names)} {counts[not is_wall]}\n")
    return "".join(lines)


def speedscope(profile: Profile) -> str:
    """For https://www.speedscope.app: a profile of processor time, and one of wall time."""
    frames: dict[str | Frame, int] = {}
    profiles = []
    for title, at in _WAYS:
        samples, weights = [], []
        for key, counts in profile.stacks.items():
            if counts[at]:
                samples.append([frames.setdefault(part, len(frames)) for part in key])
                weights.append(counts[at])
        profiles.append(
            {
                "type": "sampled", "name": title, "unit": "microseconds", "startValue": 0, "endValue": sum(weights),
                "samples": samples, "weights": weights,
            }
        )  # fmt: skip
    shared = [part._asdict() if isinstance(part, Frame) else {"name": part} for part in frames]
    return json.dumps(
        {
            "$schema": "https://www.speedscope.app/file-format-schema.json",
            "name": f"{profile.name}, {profile.seconds:g} s",
            "exporter": f"caddysnake@{__version__}",
            "activeProfileIndex": 0,
            "shared": {"frames": shared},
            "profiles": profiles,
        }
    )


class _Node:
    """A function, called from those above it."""

    __slots__ = ("below", "own", "total")

    def __init__(self) -> None:
        self.total = 0
        self.own = 0
        self.below: dict[str | Frame, _Node] = {}


def _tree(stacks: Stacks, at: int) -> _Node:
    root = _Node()
    for key, counts in stacks.items():
        if not counts[at]:
            continue
        root.total += counts[at]
        node = root
        for part in key:
            node = node.below.setdefault(part, _Node())
            node.total += counts[at]
        node.own += counts[at]
    return root


_SMALLEST = 0.001
"""Of the whole: what is below is not drawn."""
_HOTTEST = 25


def html(profile: Profile) -> str:
    """One file, for a browser: flame graphs with the names as text, and the functions that took most."""
    sections = []
    for title, at in _WAYS:
        tree = _tree(profile.stacks, at)
        name = "cpu" if at else "wall"
        took = f"{tree.total / 1e6:.2f} s of {title.lower()}"
        body = _hottest(profile.stacks, at, tree.total) + '<div class="graph">' + _drawn(tree, tree.total) + "</div>"
        if not tree.total:
            body = "<p>None.</p>"
        sections.append(f'<section id="{name}"><h2>{title}</h2><p>{took}</p>{body}</section>')
    count = f"{profile.workers} worker{'' if profile.workers == 1 else 's'}"
    about = f"{count}, {profile.seconds:g} s, caddysnake {__version__}"
    warnings = "".join(f"<p class=warning>{escape(each)}</p>" for each in profile.warnings)
    page = Path(__file__).with_name("live").joinpath("flames.html").read_text(encoding="utf-8")
    for mark, text in (("TITLE", escape(profile.name)), ("ABOUT", about + warnings), ("BODY", "".join(sections))):
        page = page.replace(f"<!--{mark}-->", text)
    return page


def _drawn(node: _Node, whole: int) -> str:
    parts = []
    for part, each in sorted(node.below.items(), key=lambda found: str(found[0])):
        if each.total < whole * _SMALLEST:
            continue
        name, where = (part.name, f"{part.file}:{part.line}") if isinstance(part, Frame) else (part, "")
        share = 100 * each.total / whole
        title = f"{name} {where} · {share:.1f} %, itself {100 * each.own / whole:.1f} %"
        parts.append(
            f'<div class="n" style="width:{100 * each.total / node.total:.3f}%">'
            f'<button title="{escape(title)}" style="--h:{_hue(part)}">{escape(name)}</button>'
            f'<div class="b">{_drawn(each, whole)}</div></div>'
        )
    return "".join(parts)


def _hue(part: str | Frame) -> int:
    """The same for functions of one file; warm, as flames are."""
    return sum(map(ord, part.file)) % 60 if isinstance(part, Frame) else 210


def _hottest(stacks: Stacks, at: int, whole: int) -> str:
    own: dict[str | Frame, int] = {}
    for key, counts in stacks.items():
        own[key[-1]] = own.get(key[-1], 0) + counts[at]
    rows = sorted(own.items(), key=lambda each: -each[1])[:_HOTTEST]
    cells = "".join(
        f"<tr><td>{100 * took / whole:.1f} %<td>{escape(part.name if isinstance(part, Frame) else part)}"
        f"<td>{escape(f'{part.file}:{part.line}') if isinstance(part, Frame) else ''}"
        for part, took in rows
        if took > 0
    )
    return f"<table><thead><tr><th>itself<th>function<th>where<tbody>{cells}</table>" if whole else ""


FORMS: Final[dict[str, Callable[[Profile], Any]]] = {
    "html": html,
    "json": speedscope,
    "txt": collapsed,
    "wall": lambda profile: collapsed(profile, is_wall=True),
}
"""By name; ``wall`` is ``txt`` of wall time."""
