"""What one thread counts, and when the page learns of it."""

from __future__ import annotations

import time

from ...channel.vitals import (
    CELL_BYTES_IN,
    CELL_BYTES_OUT,
    CELL_CLASS_1XX,
    CELL_ERRORS,
    CELL_LATENCY,
    CELL_LATENCY_SUM_US,
    CELL_QUEUE,
    CELL_QUEUE_SUM_US,
    CELL_REQUESTS,
    CELL_STARTED,
    LATENCY_BOUNDS_S,
    latency_cell,
    queue_cell,
)

_CLASS_2XX = CELL_CLASS_1XX + 1
_SHORTEST_S = LATENCY_BOUNDS_S[0]
_RESOLUTION_S = 0.001  # of the beginning on the page


class Counters:
    """The counters of one thread, in its own block of the page.

    That a request runs is written at once: a hang is seen by it. What every short request adds is collected, and
    written before the thread waits for work again. Until then the end of one request is the beginning of the next, for
    a look at the clock costs as much as all the counting.
    """

    __slots__ = (
        "_bytes_out", "_cells", "_good", "_latency_s", "_requests", "_short", "_slow_starts", "_told", "now", "waited_s"
    )  # fmt: skip

    def __init__(self, cells: memoryview) -> None:
        self._cells = cells
        self._requests = cells[CELL_REQUESTS]
        self._bytes_out = cells[CELL_BYTES_OUT]
        self._good = cells[_CLASS_2XX]
        self._short = cells[CELL_LATENCY]
        self._latency_s = cells[CELL_LATENCY_SUM_US] / 1e6
        self.waited_s = cells[CELL_QUEUE_SUM_US] / 1e6
        """Seconds that requests waited before the app was called."""
        self._slow_starts = 0  # of those that waited for longer than the first bound
        self.now = 0.0
        """When the last request ended, or this thread was told of one; 0 when it has waited since."""
        self._told = 0.0  # the beginning that the page shows

    def begin(self) -> float:
        """A request begins; the time, for ``end``."""
        now = self.now or time.monotonic()
        if now - self._told > _RESOLUTION_S:
            self._told = now
            self._cells[CELL_STARTED] = int(now * 1000)
        return now

    def waited(self, seconds: float) -> None:
        """The request had waited for longer than the first bound."""
        self._slow_starts += 1
        self._cells[queue_cell(seconds)] += 1

    def receive(self, size: int) -> None:
        """``size`` bytes of content were read; on the page at once."""
        self._cells[CELL_BYTES_IN] += size

    def fail(self) -> None:
        """The app ended it with an exception."""
        self._cells[CELL_ERRORS] += 1

    def end(self, start: float, status: int, sent_bytes: int) -> None:
        """It is over; ``status`` is what was answered, 0 when nothing was."""
        self.now = now = time.monotonic()
        took_s = now - start
        self._requests += 1
        self._bytes_out += sent_bytes
        self._latency_s += took_s
        if 200 <= status < 300:
            self._good += 1
        elif status:
            self._cells[CELL_CLASS_1XX - 1 + min(status // 100, 5)] += 1
        if took_s <= _SHORTEST_S:
            self._short += 1
        else:
            self._cells[latency_cell(took_s)] += 1
            self.write()

    def pass_over(self) -> None:
        """It is over, and the controller has counted it."""
        self.now = time.monotonic()

    def write(self) -> None:
        """Let the page know; no request runs."""
        self.now = self._told = 0.0
        cells = self._cells
        cells[CELL_STARTED] = 0
        cells[CELL_REQUESTS] = self._requests
        cells[CELL_BYTES_OUT] = self._bytes_out
        cells[_CLASS_2XX] = self._good
        cells[CELL_LATENCY] = self._short
        cells[CELL_LATENCY_SUM_US] = int(self._latency_s * 1e6)
        cells[CELL_QUEUE] = self._requests - self._slow_starts
        cells[CELL_QUEUE_SUM_US] = int(self.waited_s * 1e6)
