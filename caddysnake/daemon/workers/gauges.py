"""What a worker's page says of it: how busy it is, whether it moves, what it has done. Believed in nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from ...channel import vitals
from ..sockets.connections import Connection
from .balancer import STUCK_MS, Load
from .child.equipment import new_page
from .hanging import Pulse
from .slots import UNTAKEN_LIMIT, SlotTable

_BLOCKED_MS = 2_000
_CELL_5XX = vitals.CELL_CLASS_1XX + 4


def now_ms() -> int:
    """Return monotonic milliseconds, which a page counts in."""
    return time.monotonic_ns() // 1_000_000


class Gauges:
    """Over the page of one worker, which they own."""

    def __init__(self, threads: int, slots: int, page_fd: int | None = None) -> None:
        """``threads``: those that tell one by one; 0 for an event loop. The block behind theirs is for WebSockets.
        ``slots``: how many it may use.

        ``page_fd``: its page, if it has one already. Raises ``OSError``.
        """
        self._threads = threads
        self.page, self.fd = new_page() if page_fd is None else (vitals.Page(page_fd), page_fd)
        self.slots = SlotTable(self.page.slots, slots)
        self.last_cells = [0] * vitals.CELLS
        """What ``cells`` said last."""
        self.is_over = False
        """The page is closed, and ``last_cells`` is final."""
        self.answered_for = 0
        """Requests that it had read, and that were answered in its place."""
        self._at_the_end = 0
        """How many requests it was at when the page was closed."""

    def load(self) -> Load:
        """Return how busy it is; what it took but has not looked at counts as busy."""
        untaken = self.slots.untaken
        now = now_ms()
        busy = self.page.word(vitals.WORD_ACTIVE) + untaken
        stuck = 0
        for started in self._started():
            if started:
                busy += 1
                stuck += now - started > STUCK_MS
        saturated = untaken >= UNTAKEN_LIMIT or 0 < self._threads <= stuck
        return Load(vitals.plus(busy), self.slots.connections, saturated)

    def _started(self) -> list[int]:
        return [self.page.thread_word(index, vitals.CELL_STARTED) for index in range(self._threads)]

    @property
    def active(self) -> int:
        """Requests that an event loop is at."""
        return self.page.word(vitals.WORD_ACTIVE)

    @property
    def websockets(self) -> int:
        """How many WebSockets are open."""
        return 0 if self.is_over else self.page.word(vitals.WORD_WEBSOCKETS)

    def completed(self) -> int:
        """Return how many requests it has completed."""
        return self.page.total(vitals.CELL_REQUESTS, self._threads + 1)

    def requests(self) -> int:
        """Return how many requests it has completed, and is at."""
        return vitals.plus(self.completed(), self.load().busy)

    def cells(self) -> list[int]:
        """Return the sums of all cells over its threads (``vitals.CELL_*``); none is ever less than it was."""
        if self.is_over:
            return self.last_cells
        sums, late = self.page.cells(0), self.page.word(vitals.WORD_LATE)
        if self._threads:
            sums = list(map(vitals.plus, *map(self.page.cells, range(self._threads + 1))))
            for cell in (vitals.CELL_REQUESTS, _CELL_5XX):
                sums[cell] = vitals.plus(sums[cell], late)
        sums += [late, self.page.word(vitals.WORD_FULL)]
        self.last_cells = list(map(max, sums, self.last_cells))
        return self.last_cells

    def oldest_ms(self) -> int | None:
        """Return for how long the oldest request of its threads has run, in milliseconds; None: no thread runs one."""
        oldest = min(filter(None, self._started()), default=None)
        return None if oldest is None else max(0, now_ms() - oldest)

    def still_ms(self) -> int:
        """Return for how long it has been blocked, in milliseconds."""
        return now_ms() - self.page.word(vitals.WORD_TICK)

    def blocked_ms(self) -> int | None:
        """Return for how long it could begin no request, if that is long: each thread is at one, or its event loop,
        which turns every second, stands still, or it takes no connection (it is stopped, or C code holds the GIL); else
        None.
        """
        begun = list(self._started()) if self._threads else [self.page.word(vitals.WORD_TICK)]
        blocked = max(now_ms() - max(begun) if all(begun) else 0, int(self.slots.still_s * 1000))
        return blocked if blocked > _BLOCKED_MS else None

    def pulse(self) -> Pulse:
        """Return what tells whether it moves."""
        word = self.page.word
        active, overdue = word(vitals.WORD_ACTIVE), word(vitals.WORD_OVERDUE)
        return Pulse(word(vitals.WORD_TICK), not self._threads, active, self._started(), overdue)

    def cut(self, orphans: Sequence[tuple[Connection, int]]) -> tuple[int, int]:
        """Return how many requests ended with it, which is gone, as far as nobody else says so, and of how many a relay
        does: those that had no answer yet. WebSockets are none. ``orphans``: what it held, each with the state of its
        slot.
        """
        begun = sum(state == vitals.SLOT_HEAD_SENT for _, state in orphans)
        read = [connection.bound is not None for connection, state in orphans if state == vitals.SLOT_READING]
        own = min(begun + (0 if self.answered_for else sum(read)), self._at_the_end)
        return own, 0 if self.answered_for else min(len(read) - sum(read), self._at_the_end - own)

    def close(self) -> None:
        """Look at the page a last time, and close it."""
        self.cells()
        self._at_the_end = self.page.word(vitals.WORD_ACTIVE) + sum(map(bool, self._started()))
        self.is_over = True
        self.page.close()
        os.close(self.fd)
