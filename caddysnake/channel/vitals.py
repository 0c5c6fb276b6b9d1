"""The vital-signs page: shared memory that a worker writes and the daemon reads when it likes.

Layout, all offsets in bytes::

    0       header: 64 unsigned 64-bit words, the process's own (``Word``)
    512     thread blocks: 256 x 32 words; block t is written by thread t only (``Cell``)
    66048   slots: one state byte for each of 16,384 connection slots (``SLOT_*``)

Nothing is sent on the hot path. One writer per word, summed by the reader: a read-modify-write that threads share loses
counts. The reader believes nothing: each number is copied once and clamped, so are sums of them (``plus``), and none
is ever an index or a size.

The memfd is sealed against shrinking and growing before anyone else gets it: one ftruncate by the other side would end
the reader with SIGBUS.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import signal
from collections.abc import Sequence


def quantile(wanted: float, bounds: Sequence[float], counts: Sequence[int]) -> float | None:
    """Seconds below which ``wanted`` of the requests were answered, as Prometheus has it; None without any."""
    total = sum(counts)
    if not total:
        return None
    rank, below, lower = wanted * total, 0, 0.0
    for bound, count in zip(bounds, counts, strict=False):
        if count and below + count >= rank:
            return lower + (bound - lower) * (rank - below) / count
        below, lower = below + count, bound
    return bounds[-1]


SLOTS = 16384
THREADS = 256
_WORD = 8
_HEADER_WORDS = 64
_CELL_WORDS = 32
_THREADS_AT = _HEADER_WORDS * _WORD
_SLOTS_AT = _THREADS_AT + THREADS * _CELL_WORDS * _WORD
SIZE = -(-(_SLOTS_AT + SLOTS) // mmap.PAGESIZE) * mmap.PAGESIZE

# The life of one connection in its slot. CLOSED -> GIVEN is written by the daemon before it hands over; everything
# after by the worker, which leaves CLOSED (ended) or RETURNED (given back). The daemon turns RETURNED into CLOSED, and
# only a CLOSED slot is given again.
SLOT_CLOSED = 0
SLOT_GIVEN = 1
"""Handed over, not yet taken."""
SLOT_IDLE = 2
"""Taken, at a request boundary, nothing read."""
SLOT_READING = 3
"""Something of a request has been, or is about to be, read; no response head is out."""
SLOT_HEAD_SENT = 4
"""A response head has begun to leave."""
SLOT_RETURNED = 5
"""Given back; the slot is free again when ``Returned`` has arrived, not before: the message names the slot alone."""

# Header words.
WORD_ACTIVE = 0
"""Requests being answered (event-loop servers; threaded ones are told by ``CELL_STARTED``)."""
WORD_TICK = 1
"""Monotonic milliseconds of the loop's, or keeper's, last turn."""
WORD_CONNECTIONS = 2
"""Connections held."""
WORD_GUEST = 3
"""What its code knows beyond the first version of the channel, which an older one could not say (``KNOWS_*``)."""
WORD_OVERDUE = 4
"""Requests that go on although their time was over some seconds ago, and nothing ends them."""
WORD_WEBSOCKETS = 5
"""Calls of the app for WebSockets."""
WORD_LATE = 6
"""Requests whose time (``request_timeout``) was over: answered 504 in the app's place, or cut. A threaded worker counts
them here alone."""
WORD_FULL = 7
"""Requests that were answered 429 in the app's place (``max_in_flight``)."""

STACKS_SIGNAL = signal.SIGRTMIN + 8 if hasattr(signal, "SIGRTMIN") else signal.SIGUSR2
"""By which the daemon has a worker write the stacks of its threads. Not one that apps are likely to use."""

LOOK_SIGNAL = signal.SIGRTMIN + 9 if hasattr(signal, "SIGRTMIN") else signal.SIGUSR2
"""By which the daemon has a worker look at its channel, whatever its main thread is at; before it serves, tell where
that stands. Only for one whose page says that it knows this."""

KNOWS_PROFILE = 1
"""It knows ``Profile`` and ``LOOK_SIGNAL``."""

KNOWS_TAKES = 2
"""It knows ``Takes``."""

CELLS = _CELL_WORDS + 2
"""How many sums are made of a page: one of each word of a thread block, ``CELL_LATE``, and ``CELL_FULL``."""

# Cells of a thread block.
CELL_REQUESTS = 0
"""Requests completed."""
CELL_BYTES_IN = 1
"""Body bytes read."""
CELL_BYTES_OUT = 2
"""Body bytes written."""
CELL_STARTED = 3
"""Monotonic milliseconds at which the request that this thread now runs began; 0 when it runs none."""
CELL_ERRORS = 4
"""Requests the app ended with an exception."""
CELL_CLASS_1XX = 5
"""First of five: responses by class, 1xx to 5xx."""
CELL_LATENCY = 10
"""First of ``len(LATENCY_BOUNDS_S) + 1``: requests by duration, the last without bound."""
CELL_LATENCY_SUM_US = 22
"""Microseconds of all requests completed."""
CELL_QUEUE = 23
"""First of ``len(QUEUE_BOUNDS_S) + 1``: requests by how long they waited before the app was called."""
CELL_QUEUE_SUM_US = 31

CELL_LATE, CELL_FULL = _CELL_WORDS, _CELL_WORDS + 1
"""No words of a block, but ``WORD_LATE`` and ``WORD_FULL`` of the header."""

QUEUE_BOUNDS_S = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 5.0)

LATENCY_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds in seconds: Caddy's own, so that its histograms and ours can be laid over each other."""

LARGEST = 1 << 53
"""No number that is read from a page, nor a sum of such, is larger: floats, JSON's numbers and 64 bits hold it."""


def create(name: str) -> int:
    """A new page, zeroed and sealed in size; its descriptor (close-on-exec), the caller's. Raises ``OSError``."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, SIZE)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(fd)
        raise
    return fd


class Page:
    """One mapping of the page, for either side.

    ``slots`` is a view of bytes, ``header`` and ``thread(t)`` are views of unsigned 64-bit words; writing an element is
    one aligned store. ``close`` drops the mapping; the descriptor is the caller's and may be closed once mapped.
    """

    __slots__ = ("_map", "_view", "_words", "header", "slots")

    def __init__(self, fd: int) -> None:
        """Map ``fd``. Raises ``ValueError`` when it is not a page of the right size."""
        if os.fstat(fd).st_size != SIZE:
            raise ValueError(f"not a vital-signs page: {os.fstat(fd).st_size} bytes instead of {SIZE}")
        self._map = mmap.mmap(fd, SIZE)
        self._view = memoryview(self._map)
        self._words = self._view[:_SLOTS_AT].cast("Q")
        self.header = self._words[:_HEADER_WORDS]
        self.slots = self._view[_SLOTS_AT : _SLOTS_AT + SLOTS]

    def thread(self, index: int) -> memoryview:
        """The words of thread block ``index``. Raises ``IndexError`` unless it is below ``THREADS``."""
        if not 0 <= index < THREADS:
            raise IndexError(f"thread block {index}")
        start = _HEADER_WORDS + index * _CELL_WORDS
        return self._words[start : start + _CELL_WORDS]

    def total(self, cell: int, threads: int) -> int:
        """The sum of one cell (``CELL_*``) over the first ``threads`` blocks, clamped."""
        words = self._words
        first = _HEADER_WORDS + cell
        return plus(*(words[first + t * _CELL_WORDS] for t in range(min(threads, THREADS))))

    def cells(self, thread: int) -> list[int]:
        """All words of one thread block, in one copy, clamped."""
        start = _HEADER_WORDS + thread * _CELL_WORDS
        words = self._words[start : start + _CELL_WORDS].tolist()
        return words if max(words) <= LARGEST else [min(value, LARGEST) for value in words]

    def thread_word(self, thread: int, cell: int) -> int:
        """One word of one thread block, clamped."""
        return int(min(self._words[_HEADER_WORDS + thread * _CELL_WORDS + cell], LARGEST))

    def word(self, index: int) -> int:
        """One header word, clamped."""
        return int(min(self.header[index], LARGEST))

    def close(self) -> None:
        """Drop the mapping and the page's own views. Raises ``BufferError`` while a view from ``thread`` lives."""
        for view in (self.header, self.slots, self._words, self._view):
            view.release()
        self._map.close()


def plus(*numbers: int) -> int:
    """The sum of what pages say, clamped as what they say is (``LARGEST``): one forged word is as good as many."""
    return min(sum(numbers), LARGEST)


def queue_cell(seconds: float) -> int:
    """The cell of the histogram that counts a request that has waited for ``seconds``."""
    cell = CELL_QUEUE
    for bound in QUEUE_BOUNDS_S:
        if seconds <= bound:
            return cell
        cell += 1
    return cell


def latency_cell(seconds: float) -> int:
    """The cell of the histogram that counts a request of ``seconds``: that of the first bound not below it."""
    cell = CELL_LATENCY
    for bound in LATENCY_BOUNDS_S:
        if seconds <= bound:
            return cell
        cell += 1
    return cell
