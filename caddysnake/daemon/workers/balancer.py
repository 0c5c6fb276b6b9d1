"""Which worker gets the next connection, and which has too many. Pure: numbers in, a choice out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

STUCK_MS = 50
"""A thread that has run one request this long is not about to be free; a busy but quick one is."""

_UNEVEN = 4
"""More than the mean by one in so many is too much."""


class Load(NamedTuple):
    """How busy a worker is, as read from its page and from what was given to it and not yet taken."""

    busy: int
    """Requests being answered, and connections on their way."""
    connections: int
    saturated: bool
    """Every thread is held by a long request."""


def choose(loads: Sequence[Load], turn: int) -> int | None:
    """The index of the least busy worker with room; None: there is none. Equals take turns by ``turn``."""
    best: int | None = None
    best_key: tuple[int, int] | None = None
    count = len(loads)
    for offset in range(count):
        index = (turn + offset) % count
        load = loads[index]
        if load.saturated:
            continue
        key = (load.busy, load.connections)
        if best_key is None or key < best_key:
            best, best_key = index, key
    return best


def excess(connections: Sequence[int]) -> list[int]:
    """How many connections each worker should give up to even out; a little unevenness is left alone."""
    if len(connections) < 2:
        return [0] * len(connections)
    mean = sum(connections) / len(connections)
    return [int(held - mean) if held - mean > max(1.0, mean / _UNEVEN) else 0 for held in connections]
