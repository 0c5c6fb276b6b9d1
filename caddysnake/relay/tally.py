"""What one relay counts, and how it gets onto its vital-signs page, in the same cells as a worker's counts."""

from __future__ import annotations

from ..channel.vitals import (
    CELL_BYTES_IN,
    CELL_BYTES_OUT,
    CELL_CLASS_1XX,
    CELL_ERRORS,
    CELL_LATENCY,
    CELL_LATENCY_SUM_US,
    CELL_REQUESTS,
    LATENCY_BOUNDS_S,
    latency_cell,
)

_FASTEST_S = LATENCY_BOUNDS_S[0]


class Tally:
    """Counts since the relay started. Bytes are those of heads and framing too: nothing is taken apart to count it."""

    __slots__ = ("_classes", "_latencies", "_seconds", "bytes_in", "bytes_out", "errors")

    def __init__(self) -> None:
        self.bytes_in = 0
        self.bytes_out = 0
        self.errors = 0
        """Requests that no worker answered, or not to the end."""
        self._seconds = 0.0
        self._classes = [0] * 10
        self._latencies = [0] * (len(LATENCY_BOUNDS_S) + 1)

    def finished(self, status: int, seconds: float) -> None:
        """A request was answered."""
        self._classes[status // 100] += 1
        self._seconds += seconds
        self._latencies[0 if seconds <= _FASTEST_S else latency_cell(seconds) - CELL_LATENCY] += 1

    def publish(self, cells: memoryview) -> None:
        """Write everything into a thread block of the page."""
        cells[CELL_REQUESTS] = sum(self._classes)
        cells[CELL_BYTES_IN] = self.bytes_in
        cells[CELL_BYTES_OUT] = self.bytes_out
        cells[CELL_ERRORS] = self.errors
        for digit in range(1, 6):
            cells[CELL_CLASS_1XX + digit - 1] = self._classes[digit]
        for at, count in enumerate(self._latencies):
            cells[CELL_LATENCY + at] = count
        cells[CELL_LATENCY_SUM_US] = int(self._seconds * 1_000_000)
