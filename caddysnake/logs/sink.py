"""Where everything goes: standard error, written by a thread that may be held up for as long as its reader likes.

A terminal that is stopped, a journald that stands still, a disk that is full or gone: whoever has something to log goes
on meanwhile. What does not find room is not taken, and whoever offers it counts it.

Room and turns are shared: of each app only so much waits, and a slow reader gets so many bytes of each in turn. What
fits into one turn is written in the order in which it came.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import threading
from collections import deque

ROOM_BYTES = 4 * 1024 * 1024
SHARE_BYTES = ROOM_BYTES // 4
"""Of one owner. When many have something waiting, it is less."""

OURS = "caddysnake"
"""The owner of what the daemon says, whose share is always whole."""

_BATCH_BYTES = 256 * 1024
_TURN_BYTES = 16 * 1024


class Sink:
    """Writes to ``fd``, which stays the caller's."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._waiting: dict[str, deque[tuple[int, bytes]]] = {}
        self._owed: dict[str, int] = {}
        """By owner: bytes that wait, or are being written."""
        self._bytes = 0
        self._count = 0
        self._is_awaited = False
        self.room_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        """Becomes readable when there is room again that somebody has asked for in vain."""
        self._lost = 0
        self._is_torn = False
        self._is_closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="writes", daemon=True)
        self._thread.start()

    def has_room(self, owner: str) -> bool:
        """Whether ``owner`` has not yet used up its share of what may wait."""
        share = SHARE_BYTES if owner == OURS else min(SHARE_BYTES, ROOM_BYTES // (len(self._owed) + 1))
        if self._owed.get(owner, 0) < share:
            return True
        self._is_awaited = True
        return False

    def forget_wakes(self) -> None:
        """Make ``room_fd`` unreadable again."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.room_fd)

    def offer(self, text: bytes, owner: str = OURS) -> bool:
        """Take ``text``, whole lines of ``owner``'s; False when there is no room at all."""
        if self._bytes >= 2 * ROOM_BYTES:
            return False
        with self._changed:
            self._waiting.setdefault(owner, deque()).append((self._count, text))
            self._count += 1
            self._owed[owner] = self._owed.get(owner, 0) + len(text)
            self._bytes += len(text)
            self._changed.notify()
        return True

    def take_lost(self) -> int:
        """How many of what was taken could not be written since this was last asked."""
        with self._changed:
            lost, self._lost = self._lost, 0
        return lost

    def close(self, patience_s: float) -> None:
        """Write what is waiting, for ``patience_s`` seconds at most."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join(patience_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._is_closing:
                        return
                    self._changed.wait()
                batch, sizes = self._take()
            written = self._write(b"".join(text for _, text in sorted(batch)))
            with self._changed:
                for owner, size in sizes.items():
                    self._bytes -= size
                    self._owed[owner] -= size
                    if not self._owed[owner]:
                        del self._owed[owner]
                if not written:
                    self._lost += len(batch)
                wakes, self._is_awaited = self._is_awaited, False
            if wakes:
                os.eventfd_write(self.room_fd, 1)

    def _take(self) -> tuple[list[tuple[int, bytes]], dict[str, int]]:
        """Some ``_BATCH_BYTES``, so many of each owner in turn; and how much of it is whose."""
        batch: list[tuple[int, bytes]] = []
        sizes: dict[str, int] = {}
        total = 0
        while self._waiting and total < _BATCH_BYTES:
            owner = next(iter(self._waiting))
            waiting = self._waiting.pop(owner)
            size = 0
            while waiting and size < _TURN_BYTES:
                batch.append(waiting.popleft())
                size += len(batch[-1][1])
            sizes[owner] = sizes.get(owner, 0) + size
            total += size
            if waiting:
                self._waiting[owner] = waiting  # at the end of the row
        return batch, sizes

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
