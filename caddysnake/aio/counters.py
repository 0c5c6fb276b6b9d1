"""What one event loop's server counts, a worker's or a relay's, and how it gets onto the vital-signs page.

Counting is plain arithmetic on Python numbers; the page is brought up to date now and then, since one store into shared
memory costs as much as counting a whole request.
"""

from __future__ import annotations

from ..channel.vitals import (
    CELL_BYTES_IN,
    CELL_BYTES_OUT,
    CELL_CLASS_1XX,
    CELL_ERRORS,
    CELL_LATENCY,
    CELL_LATENCY_SUM_US,
    CELL_QUEUE,
    CELL_QUEUE_SUM_US,
    CELL_REQUESTS,
    LATENCY_BOUNDS_S,
    QUEUE_BOUNDS_S,
    latency_cell,
    queue_cell,
)

PUBLISH_S = 0.05
"""How old what the page says may be."""

_FASTEST_S = LATENCY_BOUNDS_S[0]


class Counters:
    """Counts since the process started. A relay's bytes are those of heads and framing too: it takes nothing apart to
    count it."""

    __slots__ = ("bytes_in", "bytes_out", "classes", "errors", "latencies", "queues", "seconds", "waited_s")

    def __init__(self) -> None:
        self.bytes_in = 0
        self.bytes_out = 0
        self.errors = 0
        """Requests that failed: the app raised, or no worker answered, or not to the end."""
        self.seconds = 0.0
        self.classes = [0] * 10
        """Responses by the first digit of their status."""
        self.latencies = [0] * (len(LATENCY_BOUNDS_S) + 1)
        self.queues = [0] * (len(QUEUE_BOUNDS_S) + 1)
        """Of those that have waited for longer than the first bound, which all others have not."""
        self.waited_s = 0.0

    def finished(self, status: int, seconds: float) -> None:
        """A request was answered."""
        self.classes[status // 100] += 1
        self.seconds += seconds
        if seconds <= _FASTEST_S:
            self.latencies[0] += 1
        else:
            self.latencies[latency_cell(seconds) - CELL_LATENCY] += 1

    def waited(self, seconds: float) -> None:
        """A request that was answered had waited for longer than the first bound before the app was called."""
        self.queues[queue_cell(seconds) - CELL_QUEUE] += 1

    def cut(self) -> None:
        """An answer that had begun was cut, or a WebSocket, because the app raised, or its time was over."""
        self.classes[5] += 1

    def publish(self, cells: memoryview) -> None:
        """Write everything into a thread block of the page."""
        classes = self.classes
        cells[CELL_REQUESTS] = sum(classes)
        cells[CELL_BYTES_IN] = self.bytes_in
        cells[CELL_BYTES_OUT] = self.bytes_out
        cells[CELL_ERRORS] = self.errors
        for digit in range(1, 6):
            cells[CELL_CLASS_1XX + digit - 1] = classes[digit]
        for at, count in enumerate(self.latencies):
            cells[CELL_LATENCY + at] = count
        cells[CELL_LATENCY_SUM_US] = int(self.seconds * 1_000_000)
        queues = self.queues
        cells[CELL_QUEUE] = max(0, sum(classes) - sum(queues))
        for at in range(1, len(queues)):
            cells[CELL_QUEUE + at] = queues[at]
        cells[CELL_QUEUE_SUM_US] = int(self.waited_s * 1_000_000)
