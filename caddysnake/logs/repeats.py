"""The same thing over and over: told a few times, then counted. Pure: the clock is an argument."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

SHOWN = 10
"""So often a thing is told in ``WINDOW_S`` seconds. What happens once a second is told each time."""

WINDOW_S = 10.0
_THINGS_MAX = 64


@dataclass(slots=True)
class _Thing:
    since: float
    times: int = 1


class Repeats:
    """What has been told of late. ``things_max`` 1: only what comes several times in a row counts as the same."""

    def __init__(self, things_max: int = _THINGS_MAX) -> None:
        self._things: OrderedDict[Hashable, _Thing] = OrderedDict()  # oldest window first
        self._things_max = things_max

    def __bool__(self) -> bool:
        """Something is being counted."""
        return bool(self._things)

    def see(self, what: Hashable, now: float) -> bool:
        """``what`` happens at ``now``: tell it?  Ask ``ended`` first: it may close a window."""
        thing = self._things.get(what)
        if thing is None:
            self._things[what] = _Thing(now)
            return True
        thing.times += 1
        return thing.times <= SHOWN

    def ended(self, now: float, coming: Hashable = None) -> list[tuple[Any, int]]:
        """What is not counted any longer, and how often each has not been told. ``coming`` is about to be seen."""
        things = self._things
        over: list[tuple[Any, int]] = []
        while things:
            what, thing = next(iter(things.items()))
            makes_room = coming is not None and coming not in things and len(things) >= self._things_max
            if now - thing.since < WINDOW_S and not makes_room:
                break
            del things[what]
            if thing.times > SHOWN:
                over.append((what, thing.times - SHOWN))
        return over
