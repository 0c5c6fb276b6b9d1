"""What goes wrong in one process, and how often: its tracebacks, for whoever must say why a build was not taken."""

from __future__ import annotations

import re

_KINDS_MAX = 8
_TEXT_MAX = 4 * 1024
_VARIES = re.compile(r"0x[0-9a-fA-F]+|\d+")


class Troubles:
    """Counts tracebacks that end alike, but for their numbers. Of more than eight kinds, the further ones are not."""

    def __init__(self) -> None:
        self._firsts: dict[str, str] = {}
        self._counts: dict[str, int] = {}

    def note(self, text: str) -> None:
        """Count ``text``, if it is a traceback."""
        if "Traceback (most recent call last):" not in text:
            return
        kind = _VARIES.sub("#", text.rstrip().rpartition("\n")[2][:200])
        if kind in self._counts or len(self._counts) < _KINDS_MAX:
            self._counts[kind] = self._counts.get(kind, 0) + 1
            self._firsts.setdefault(kind, text[-_TEXT_MAX:])

    def foremost(self) -> tuple[int, str]:
        """Return how often the most frequent kind came, and the first of it; 0 and nothing when there was none."""
        kind = max(self._counts, key=self._counts.__getitem__, default=None)
        return (0, "") if kind is None else (self._counts[kind], self._firsts[kind])
