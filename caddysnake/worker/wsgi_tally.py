"""What one thread counts, and when the page learns of it."""

from __future__ import annotations

import time

from ..channel.vitals import (
    CELL_BYTES_IN,
    CELL_BYTES_OUT,
    CELL_CLASS_1XX,
    CELL_ERRORS,
    CELL_LATENCY,
    CELL_LATENCY_SUM_US,
    CELL_REQUESTS,
    CELL_STARTED,
    LATENCY_BOUNDS_S,
    latency_cell,
)

_CLASS_2XX = CELL_CLASS_1XX + 1
_SHORTEST_NS = int(LATENCY_BOUNDS_S[0] * 1e9)


class Tally:
    """The counters of one thread, in its own block of the page.

    That a request runs is written at once: a hang is seen by it. What every short request adds is collected, and
    written before the thread waits for work again. Until then the end of one request is the beginning of the next, for
    a look at the clock costs as much as all the counting.
    """

    __slots__ = ("_bytes_out", "_cells", "_good", "_latency_ns", "_now_ns", "_requests", "_short")

    def __init__(self, cells: memoryview) -> None:
        self._cells = cells
        self._requests = cells[CELL_REQUESTS]
        self._bytes_out = cells[CELL_BYTES_OUT]
        self._good = cells[_CLASS_2XX]
        self._short = cells[CELL_LATENCY]
        self._latency_ns = cells[CELL_LATENCY_SUM_US] * 1000
        self._now_ns = 0  # when the last request ended; 0 when the thread has waited since

    def begin(self) -> int:
        """A request begins; the time, for ``end``."""
        now_ns = self._now_ns or time.monotonic_ns()
        self._cells[CELL_STARTED] = now_ns // 1_000_000
        return now_ns

    def receive(self, size: int) -> None:
        self._cells[CELL_BYTES_IN] += size

    def fail(self) -> None:
        """The app ended it with an exception."""
        self._cells[CELL_ERRORS] += 1

    def end(self, start_ns: int, status: int, sent_bytes: int) -> None:
        """It is over; ``status`` is what was answered, 0 when nothing was."""
        self._now_ns = now_ns = time.monotonic_ns()
        took_ns = now_ns - start_ns
        self._requests += 1
        self._bytes_out += sent_bytes
        self._latency_ns += took_ns
        if 200 <= status < 300:
            self._good += 1
        elif status:
            self._cells[CELL_CLASS_1XX - 1 + min(status // 100, 5)] += 1
        if took_ns <= _SHORTEST_NS:
            self._short += 1
        else:
            self._cells[latency_cell(took_ns / 1e9)] += 1
            self.write()

    def write(self) -> None:
        """Let the page know; no request runs."""
        self._now_ns = 0
        cells = self._cells
        cells[CELL_STARTED] = 0
        cells[CELL_REQUESTS] = self._requests
        cells[CELL_BYTES_OUT] = self._bytes_out
        cells[_CLASS_2XX] = self._good
        cells[CELL_LATENCY] = self._short
        cells[CELL_LATENCY_SUM_US] = self._latency_ns // 1000
