"""What is remembered of bytes that come again to the letter, a bounded number of each kind.

Clients repeat themselves: a browser sends the same fields for everything on a page, a proxy the same head for each
health check. To look bytes up costs a hash over all of them, some 0.2 microseconds for a whole head; what is found
saves the parser and what is built on it: 6 microseconds and more where heads are read in Python, about one where the
extension reads them (``plain``).

Most bytes never come again: paths, cookies, identifiers of requests. So a thing is kept when it is seen for the second
time, and of those seen once no more than a number stays. Where hardly anything is found, a memory rests for a while.
"""

from __future__ import annotations

from typing import TypeVar

_Kept = TypeVar("_Kept")

_SEEN_MAX = 1024
_REST = 4096


class Memory(dict[bytes, _Kept]):
    """Things by their bytes. ``most``: how many at once; ``rests``: it is left alone while nothing is found, for which
    who finds something counts ``hits``.

    Threads may share it: a count that is lost does no harm.
    """

    __slots__ = ("_most", "_rests", "_seen", "hits", "rest")

    def __init__(self, most: int, rests: bool = False) -> None:
        super().__init__()
        self._most = most
        self._rests = rests
        self._seen: set[int] = set()
        self.hits = 0
        """How many were found since it was last looked at."""
        self.rest = 0
        """How many more are let by before it wakes again."""

    def comes_again(self, key: bytes) -> bool:
        """Return whether ``key`` has been seen lately: it is worth keeping then."""
        if self.rest:
            self.rest -= 1
            return False
        seen, number = self._seen, hash(key)
        if number in seen:
            return True
        if len(seen) >= _SEEN_MAX:
            seen.clear()
            if self._rests and self.hits < _SEEN_MAX // 4:
                self.rest = _REST
                self.clear()
            self.hits = 0
        seen.add(number)
        return False

    def keep(self, key: bytes, kept: _Kept) -> None:
        """Remember one more."""
        if len(self) >= self._most:
            self.clear()
        self[key] = kept
