"""Lines that belong together: a traceback is one record, not forty. Pure.

Told by their form alone, as Python writes them, so kept simple: an exception whose text has several lines ends the
group at the second, and what two threads print at once may be mixed. Nothing is ever left out.
"""

from __future__ import annotations

import re
from typing import NamedTuple

GROUP_MAX_CHARACTERS = 24 * 1024
GROUP_MAX_LINES = 400

_TRACEBACK = "Traceback (most recent call last):"
_LINKS = (
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)
_STACK = re.compile(
    r"(Current thread|Thread) 0x[0-9a-f]+.*:\Z|Fatal Python error: |Extension modules: |Stack \(most recent call "
)


class Group(NamedTuple):
    """``title`` is one line; ``text`` the whole where there are several, else empty. ``is_error``: a traceback."""

    title: str
    text: str
    is_error: bool
    trace: str = ""
    """Of the request that was being answered, where that is known."""


class Grouping:
    """Groups the lines of one stream.

    ========  ====================================================================
    state     meaning
    ========  ====================================================================
    plain     each line is for itself
    frames    in a traceback: indented lines, then the exception's own
    after     behind that: only a chained exception's introduction goes on with it
    stack     in a dump of stacks (faulthandler): indented and empty lines, heads
    ========  ====================================================================
    """

    def __init__(self) -> None:
        self._state = "plain"
        self._lines: list[str] = []
        self._size = 0
        self._trace = ""

    def __bool__(self) -> bool:
        """A group may go on with the next line."""
        return bool(self._lines)

    def feed(self, line: str, trace: str = "") -> list[Group]:
        """What ``line``, which belongs to ``trace``, completes."""
        if self._lines and (len(self._lines) >= GROUP_MAX_LINES or self._size > GROUP_MAX_CHARACTERS):
            return [*self.take(), *self.feed(line, trace)]
        done: list[Group] = []
        state = self._following(line)
        if state == "plain":
            done = self.take()
            self._trace = trace
            state = "frames" if line == _TRACEBACK else "stack" if _STACK.match(line) else "plain"
            if state == "plain":
                return [*done, Group(line, "", False, trace)]
        self._lines.append(line)
        self._size += len(line)
        self._state = state
        return done

    def _following(self, line: str) -> str:
        """The state behind ``line``; ``plain`` when it does not belong to what is there."""
        is_indented = line[:1] in (" ", "\t", "")
        match self._state:
            case "frames":
                return "frames" if is_indented else "after"
            case "after" if not line or line in _LINKS:
                return "after"
            case "after" if line == _TRACEBACK:
                return "frames"
            case "stack" if is_indented or _STACK.match(line):
                return "stack"
        return "plain"

    def take(self) -> list[Group]:
        """What is there, complete or not."""
        lines, self._lines = self._lines, []
        was_stack = self._state == "stack"
        self._state = "plain"
        self._size = 0
        if not lines:
            return []
        empty = 0
        while lines and not lines[-1]:
            lines.pop()
            empty += 1
        title = lines[0] if was_stack else lines[-1]
        text = "\n".join(lines) if len(lines) > 1 else ""
        return [Group(title, text, True, self._trace), *[Group("", "", False)] * empty]


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
        if _TRACEBACK not in text:
            return
        kind = _VARIES.sub("#", text.rstrip().rpartition("\n")[2][:200])
        if kind in self._counts or len(self._counts) < _KINDS_MAX:
            self._counts[kind] = self._counts.get(kind, 0) + 1
            self._firsts.setdefault(kind, text[-_TEXT_MAX:])

    def foremost(self) -> tuple[int, str]:
        """Return how often the most frequent kind came, and the first of it; 0 and nothing when there was none."""
        kind = max(self._counts, key=self._counts.__getitem__, default=None)
        return (0, "") if kind is None else (self._counts[kind], self._firsts[kind])
