"""Regular expressions, and what they capture.

Python's ``re`` is fast, and can be made to take years by the right text; requests are written by strangers. So it runs
a pattern only where the pattern's shape bounds the number of steps, for a text of the length at hand, to what a request
may cost; everything else goes to ``backtracking``, which is slower and never worse than linear. Both find the same.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from ..placeholders.request import Request
from .backtracking import Program, starts_at_text_start
from .errors import MatcherError
from .syntax import Assertion, Chars, Choice, Group, Node, Repeat, Sequence, Tree, parse

_STEPS_MAX: Final = 100_000
"""What ``re`` may take: a millisecond or two."""

_NAME = re.compile(r"[0-9A-Za-z_]{1,64}")
_NOT_UTF8 = re.compile("[\ud800-\udfff]")


class Regexp:
    """A compiled pattern that leaves its captures with the request.

    Args:
        pattern: in RE2's syntax.
        name: what the captures go by beside their number: ``{http.regexp.<name>.1}``. May be empty.

    Raises:
        MatcherError: the pattern or the name is malformed.
    """

    def __init__(self, pattern: str, name: str = "") -> None:
        if name and not _NAME.fullmatch(name):
            raise MatcherError(f"{name!r} cannot be the name of a regular expression", "use letters, digits and _")
        self._pattern = Pattern(pattern)
        starts = ("http.regexp.", f"http.regexp.{name}.") if name else ("http.regexp.",)
        suffixes = [(str(index), index) for index in range(len(self._pattern.groups) + 1)]
        suffixes += [(group, index) for index, group in enumerate(self._pattern.groups, 1) if group]
        self.captures = tuple((start + suffix, index) for start in starts for suffix, index in suffixes)
        """The names of the placeholders it sets, with the numbers of the groups."""

    def matches(self, text: str, request: Request) -> bool:
        """Whether the pattern is found anywhere in *text*."""
        found = self._pattern.search(text)
        if found is None:
            return False
        for name, index in self.captures:
            request.captures[name] = found[index]
        return True


class Pattern:
    """A pattern alone."""

    def __init__(self, pattern: str) -> None:
        tree = parse(pattern)
        self.groups = tree.groups
        self.cost = _cost_of(tree)
        self._tree = tree
        self._expression = None if self.cost is None else re.compile(_expression(tree.root), re.DOTALL)
        self._program = Program(tree)

    def search(self, text: str) -> list[str] | None:
        """What the leftmost match and its groups took; empty for a group that took no part. ``None``: no match."""
        spans = self.search_fast(text) if self._is_cheap(len(text)) else self.search_safely(text)
        if spans is None:
            return None
        return [text[max(start, 0) : max(end, 0)] for start, end in zip(spans[::2], spans[1::2], strict=True)]

    def search_fast(self, text: str) -> list[int] | None:
        """With ``re``."""
        assert self._expression is not None
        match = self._expression.search(_replaced(text))
        if match is None:
            return None
        return [place for index in range(len(self.groups) + 1) for place in match.span(index)]

    def search_safely(self, text: str) -> list[int] | None:
        """In linear time."""
        return self._program.search(_replaced(text))

    def _is_cheap(self, length: int) -> bool:
        return self.cost is not None and self.cost.steps(length) <= _STEPS_MAX


def _replaced(text: str) -> str:
    """*text* with U+FFFD for each byte that is not UTF-8, which is what Go sees."""
    return text if text.isascii() else _NOT_UTF8.sub("\ufffd", text)


class Cost(NamedTuple):
    """How many ways there are to try a pattern on a text of n characters, at most: ``factor * (n + 1) ** degree``."""

    factor: int
    degree: int

    def steps(self, length: int) -> int:
        """How many steps a search of a text of *length* characters may take; beyond a bound, just more than that."""
        return min(self.factor, _STEPS_MAX + 1) * int((length + 1) ** min(self.degree, 8))


def _cost_of(tree: Tree) -> Cost | None:
    """The cost of a search; ``None`` when its shape tells no bound."""
    cost = _cost(tree.root)
    if cost is None or starts_at_text_start(tree.root):
        return cost
    return Cost(cost.factor, cost.degree + 1)  # it is tried at each place


def _cost(node: Node) -> Cost | None:
    match node:
        case Chars() | Assertion():
            return Cost(1, 0)
        case Group(item, _):
            return _cost(item)
        case Sequence(items):
            factor, degree = 1, 0
            for item in items:
                if (cost := _cost(item)) is None:
                    return None
                factor = min(factor * cost.factor, _STEPS_MAX + 1)
                degree += cost.degree
            return Cost(factor, degree)
        case Choice(items):
            costs = [_cost(item) for item in items]
            known = [cost for cost in costs if cost is not None]
            if len(known) < len(costs):
                return None
            return Cost(sum(cost.factor for cost in known), max(cost.degree for cost in known))
        case Repeat(item, low, high, _):
            # Only what is always of one length, and takes at least one character, cannot be split in several ways.
            if not _is_plain(item):
                return None
            return Cost(1, 1) if high is None else Cost(high - low + 1, 0)


def _is_plain(node: Node) -> bool:
    match node:
        case Chars():
            return True
        case Sequence(items):
            return bool(items) and all(_is_plain(item) for item in items)
        case Group(item, _):
            return _is_plain(item)
    return False


# The tree in the words of ``re``

_ASSERTIONS: Final = {
    Assertion.TEXT_START: r"\A",
    Assertion.TEXT_END: r"\Z",
    Assertion.LINE_START: r"(?:\A|(?<=\n))",
    Assertion.LINE_END: r"(?=\n|\Z)",
    Assertion.WORD_EDGE: r"(?a:\b)",
    Assertion.NO_WORD_EDGE: r"(?a:\B)",
}


def _expression(node: Node) -> str:
    match node:
        case Chars(ranges):
            return _class(ranges)
        case Assertion():
            return _ASSERTIONS[node]
        case Sequence(items):
            return "".join(_expression(item) for item in items)
        case Choice(items):
            return f"(?:{'|'.join(_expression(item) for item in items)})"
        case Group(item, _):
            return f"({_expression(item)})"
        case Repeat(item, low, high, is_lazy):
            counts = f"{{{low},{'' if high is None else high}}}"
            return f"(?:{_expression(item)}){counts}{'?' if is_lazy else ''}"


def _class(ranges: tuple[tuple[int, int], ...]) -> str:
    if not ranges:
        return "(?!)"
    if len(ranges) == 1 and ranges[0][0] == ranges[0][1]:
        return re.escape(chr(ranges[0][0]))
    return f"[{''.join(f'{_code(low)}-{_code(high)}' for low, high in ranges)}]"


def _code(code: int) -> str:
    return f"\\U{code:08x}"
