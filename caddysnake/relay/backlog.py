"""What a relay keeps in memory for those who do not read, or not as fast as the other side writes; and its bound.

Each side of a request may be slow, and costs what was read for it and not yet written: some ten kilobytes each, a read
more while there is room. When all of them together hold ``TIGHT_BYTES``, little is read at a time, until half of it is
gone: what is held then grows by ``TIGHT_READ_BYTES`` for each further slow reader, less than its connection costs.
"""

from __future__ import annotations

from collections.abc import Callable

READ_BYTES = 64 * 1024
"""What is read at a time."""

TIGHT_READ_BYTES = 4 * 1024

TIGHT_BYTES = 64 * 1024 * 1024
"""What may be held in sum before less is read at a time."""


class Backlog:
    """The sum, and the buffer for all reads: a loop reads one connection at a time, and what is read is copied to where
    it goes at once. ``changed`` is called when reads become small, or large again.
    """

    def __init__(self, changed: Callable[[], None], tight_bytes: int = TIGHT_BYTES) -> None:
        self._whole = memoryview(bytearray(READ_BYTES))
        self._changed = changed
        self._tight_bytes = tight_bytes
        self.view = self._whole
        """Where to read to, as much as may be read now."""
        self.is_tight = False
        self.held = 0

    def change(self, size: int) -> None:
        """So many bytes more are held; negative: less."""
        self.held += size
        if self.is_tight:
            if self.held < self._tight_bytes // 2:
                self._turn(False)
        elif self.held > self._tight_bytes:
            self._turn(True)

    def _turn(self, is_tight: bool) -> None:
        self.is_tight = is_tight
        self.view = self._whole[:TIGHT_READ_BYTES] if is_tight else self._whole
        self._changed()
