"""Where everything goes: standard error, written by a thread that may be held up for as long as its reader likes.

A terminal that is stopped, a journald that stands still, a disk that is full or gone: whoever has something to log goes
on meanwhile. What does not find room is not taken, and whoever offers it counts it.
"""

from __future__ import annotations

import errno
import os
import select
import threading
from collections import deque

ROOM_BYTES = 4 * 1024 * 1024
_BATCH_BYTES = 256 * 1024


class Sink:
    """Writes to ``fd``, which stays the caller's."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._lost = 0
        self._is_torn = False
        self._is_closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="writes", daemon=True)
        self._thread.start()

    @property
    def is_full(self) -> bool:
        """Whether ``ROOM_BYTES`` wait to be written: ``offer`` takes nothing then."""
        return self._bytes >= ROOM_BYTES

    def offer(self, text: bytes) -> bool:
        """Take ``text``, whole lines; False when there is no room."""
        if self._bytes >= ROOM_BYTES:
            return False
        with self._changed:
            self._waiting.append(text)
            self._bytes += len(text)
            self._changed.notify()
        return True

    def take_lost(self) -> int:
        """How many of what was taken could not be written since this was last asked."""
        with self._changed:
            lost, self._lost = self._lost, 0
        return lost

    def close(self, patience_s: float) -> bool:
        """Write what is waiting; False when that is not done after ``patience_s`` seconds."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join(patience_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._is_closing:
                        return
                    self._changed.wait()
                batch = [self._waiting.popleft()]
                size = len(batch[0])
                while self._waiting and size < _BATCH_BYTES:
                    batch.append(self._waiting.popleft())
                    size += len(batch[-1])
            written = self._write(b"".join(batch))
            with self._changed:
                self._bytes -= size
                if not written:
                    self._lost += len(batch)

    def _write(self, data: bytes) -> bool:
        left = memoryview(b"\n" + data if self._is_torn else data)
        whole = len(left)
        while left:
            try:
                left = left[os.write(self._fd, left) :]
            except OSError as exc:
                if exc.errno == errno.EAGAIN:  # somebody who shares it has made it so
                    poller = select.poll()
                    poller.register(self._fd, select.POLLOUT)
                    poller.poll(1000)
                    continue
                self._is_torn = self._is_torn or len(left) < whole
                return False
        self._is_torn = False
        return True
