"""Which worker gets the next connection. Pure: numbers in, a choice out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

STUCK_MS = 50
"""A thread that has run one request this long is not about to be free; a busy but quick one is."""


class Load(NamedTuple):
    """How busy a worker is, as read from its page and from what was given to it and not yet taken."""

    busy: int
    """Requests being answered, and connections on their way."""
    connections: int
    saturated: bool
    """Every thread is held by a long request."""


def choose(loads: Sequence[Load], turn: int) -> int | None:
    """The index of the least busy worker that is not saturated; None when all are.

    Equals take turns: ``turn`` is any growing number.
    """
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
