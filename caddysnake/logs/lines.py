"""From bytes to lines of text: what an app writes in whatever pieces and of whatever kind. Pure.

A line ends with a line feed; a carriage return before it goes too. What is no UTF-8 is shown as ``\\xff``. Beyond
``LINE_MAX_BYTES`` the rest of a line is left out, and how much is said.
"""

from __future__ import annotations

LINE_MAX_BYTES = 16 * 1024
"""Twice that in JSON still fits into an entry of journald's (48 KiB) with what is around it."""


class Lines:
    """Cuts one stream."""

    def __init__(self, longest: int = LINE_MAX_BYTES) -> None:
        """``longest``: bytes of a line that are kept."""
        self._longest = longest
        self._begun = b""
        self._cut = 0

    def __bool__(self) -> bool:
        """A line has begun and not ended."""
        return bool(self._begun)

    def feed(self, data: bytes) -> list[str]:
        """The lines that ``data`` completes."""
        first, *rest = data.split(b"\n")
        self._begin(first)
        if not rest:
            return []
        found = [self.take()]
        last = rest.pop()
        found += [self._text(line, 0) for line in rest]
        self._begin(last)
        return found

    def take(self) -> str:
        """The line that has begun, as far as it has come."""
        text = self._text(self._begun, self._cut)
        self._begun = b""
        self._cut = 0
        return text

    def _begin(self, piece: bytes) -> None:
        room = max(0, self._longest - len(self._begun))
        if len(piece) > room:
            self._cut += len(piece) - room
            piece = piece[:room]
        self._begun += piece

    def _text(self, line: bytes, cut: int) -> str:
        if len(line) > self._longest:
            cut += len(line) - self._longest
            line = line[:self._longest]
        if cut:
            line = _whole_characters(line)
        elif line.endswith(b"\r"):
            line = line[:-1]
        text = line.decode("utf-8", "backslashreplace")
        return f"{text} [… {cut:,} bytes cut]" if cut else text


def _whole_characters(line: bytes) -> bytes:
    """``line`` without a character that the cut has left incomplete."""
    for back in range(1, min(4, len(line) + 1)):
        byte = line[-back]
        if byte & 0xC0 == 0xC0:
            return line[:-back]
        if byte & 0x80 == 0:
            break
    return line
