"""Who may have how many of the daemon's descriptors, so that nobody takes what the others need.

Some are kept back for the admin API, for links and for starts. Half of the rest is promised to the listeners, an equal
part to each; the other half is for whoever comes first. A listener that has its share accepts no more: who connects
there waits in its backlog until one of its connections ends, and nobody else notices.

A connection that is relayed counts twice, as its request may need a link.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from typing import Protocol

_RESERVE_MAX = 1024
_UNLIMITED = 1 << 20
_DESCRIPTORS = "/proc/self/fd"
_COUNT_COST = 200
"""Counting one by one may take the 200th part of the time."""


class ShareHolder(Protocol):
    """A listener, as far as its share goes."""

    held: int
    """Its connections."""

    @property
    def weight(self) -> int:
        """Descriptors of each."""


def reserve(limit: int | None = None) -> int:
    """How many descriptors connections leave alone, of ``limit`` (default: of what this process may open)."""
    return min(_RESERVE_MAX, (_limit() if limit is None else limit) // 4)


def is_scarce(fd: int) -> bool:
    """Whether a descriptor just made is among the last: the kernel gives the lowest number that is free."""
    limit = _limit()
    return fd >= limit - reserve(limit) // 2


def _limit() -> int:
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _UNLIMITED if soft == resource.RLIM_INFINITY else soft


class Shares:
    """Of the listeners that ``enter`` and ``leave``. ``connections`` says how many there are, links among them."""

    def __init__(self, connections: Callable[[], int]) -> None:
        self._connections = connections
        self._limit = _limit()
        self._is_stale = False
        """Listeners have come or gone since all was counted."""
        self._base = 0
        """Descriptors that are no connections."""
        self._counted_until = 0.0
        self._holders: set[ShareHolder] = set()
        self._leavers: set[ShareHolder] = set()
        """They accept no more, and may still have connections."""
        self._part = 0
        """What is promised to each."""
        self._taken = 0
        self._promised = 0
        """What has been promised and is not taken."""

    def enter(self, holder: ShareHolder) -> None:
        """``holder`` accepts from now on."""
        self._holders.add(holder)
        self._is_stale = True

    def leave(self, holder: ShareHolder) -> None:
        """``holder`` accepts no more. What it has still counts."""
        self._holders.discard(holder)
        self._leavers.add(holder)
        self._is_stale = True

    def change(self, holder: ShareHolder, by: int) -> None:
        """``holder`` has one connection more, or less (``by`` 1 or -1)."""
        weight = holder.weight
        open_before = self._part - holder.held * weight
        holder.held += by
        self._taken += by * weight
        if holder in self._holders:
            self._promised += max(0, open_before - by * weight) - max(0, open_before)

    def has_room(self, holder: ShareHolder) -> bool:
        """Whether ``holder`` may accept one more."""
        if self._is_stale:
            self.sweep()
        weight = holder.weight
        left = self._part - holder.held * weight
        if left >= weight:
            return True
        free = self._limit - reserve(self._limit) - self._base - self._taken
        return free - (self._promised - max(0, left)) >= weight

    def sweep(self) -> None:
        """To be called every second or so: count all anew. A reload may have made one relayed, or direct."""
        self._is_stale = False
        self._count_others()
        self._leavers = {each for each in self._leavers if each.held}
        self._taken = sum(each.held * each.weight for each in (*self._holders, *self._leavers))
        rest = max(0, self._limit - reserve(self._limit) - self._base)
        self._part = rest // (2 * max(1, len(self._holders)))
        self._promised = sum(max(0, self._part - each.held * each.weight) for each in self._holders)

    def _count_others(self) -> None:
        now = time.monotonic()
        if now < self._counted_until:
            return
        try:
            count = os.stat(_DESCRIPTORS).st_size  # since Linux 6.2
            if not count:
                count = len(os.listdir(_DESCRIPTORS))
                self._counted_until = now + (time.monotonic() - now) * _COUNT_COST
        except OSError:
            return  # no descriptor is left to count them with
        self._base = max(0, count - self._connections())
