"""RE2's syntax, as Go's regexp takes it: a pattern to a tree, or an error that says what is wrong.

Everything a tree can hold is plain: sets of characters, assertions, sequences, choices, repetitions, groups. Flags,
classes, escapes and case folding are resolved here, so that whatever runs the tree has no opinion on them. Look-around
and back-references are not part of the language, which is what makes it possible to run any pattern in linear time.

Reference: https://github.com/google/re2/wiki/Syntax
"""

from __future__ import annotations

import re
from bisect import bisect_right
from enum import Enum
from typing import NamedTuple

from .charsets import LAST, PERL_CLASSES, POSIX_CLASSES, Ranges, folded, merged, negated, unicode_class
from .errors import MatcherError

_REPEAT_MAX = 1000  # RE2's and Go's
_DEPTH_MAX = 100  # each takes five frames of Python's


class Assertion(Enum):
    """What must hold at a place, without taking a character."""

    TEXT_START = "text start"
    TEXT_END = "text end"
    LINE_START = "line start"
    LINE_END = "line end"
    WORD_EDGE = "word edge"
    NO_WORD_EDGE = "no word edge"


class Chars(NamedTuple):
    """One character out of a set."""

    ranges: Ranges

    def holds(self, code: int) -> bool:
        """The character of *code* is one of these."""
        at = bisect_right(self.ranges, (code, LAST)) - 1
        return at >= 0 and code <= self.ranges[at][1]


class Sequence(NamedTuple):
    """One after the other. An empty one matches nothing at all, everywhere."""

    items: tuple[Node, ...]


class Choice(NamedTuple):
    """One of them; the first that leads to a match."""

    items: tuple[Node, ...]


class Repeat(NamedTuple):
    """*low* to *high* times, ``None`` for any number; as often as possible unless lazy."""

    item: Node
    low: int
    high: int | None
    is_lazy: bool


class Group(NamedTuple):
    """Captures; the whole match is group 0, so these count from 1."""

    item: Node
    number: int


Node = Chars | Assertion | Sequence | Choice | Repeat | Group


class Tree(NamedTuple):
    """A parsed pattern."""

    root: Node
    groups: tuple[str, ...]
    """The names of the groups; empty for those that have none."""


def parse(pattern: str) -> Tree:
    """The tree of *pattern*.

    Raises:
        MatcherError: Caddy would refuse it, or it needs the scripts of Unicode.
    """
    parser = _Parser(pattern)
    root = parser.choice(0)
    if parser.at < len(pattern):
        raise parser.error("unexpected )")
    return Tree(root, tuple(parser.names))


class _Flags(NamedTuple):
    ignore_case: bool = False
    multi_line: bool = False
    dot_all: bool = False
    swap_greed: bool = False


_FLAG_NAMES = {"i": "ignore_case", "m": "multi_line", "s": "dot_all", "U": "swap_greed"}
_COUNT = re.compile(r"\{([0-9]+)(?:(,)([0-9]*))?\}")
_GROUP_NAME = re.compile(r"\?P?<([^>]*)>")
_FLAG_GROUP = re.compile(r"\?([imsU]*)(?:(-)([imsU]+))?([:)])")
_LOOK = ("?=", "?!", "?<=", "?<!")

_EMPTY = Sequence(())
_CONTROLS = {"a": 7, "f": 12, "t": 9, "n": 10, "r": 13, "v": 11}
_ASSERTIONS = {
    "A": Assertion.TEXT_START,
    "z": Assertion.TEXT_END,
    "b": Assertion.WORD_EDGE,
    "B": Assertion.NO_WORD_EDGE,
}


class _Parser:
    """Reads a pattern from left to right. ``at`` is where it stands."""

    def __init__(self, pattern: str) -> None:
        self._text = pattern
        self._flags = _Flags()
        self.at = 0
        self.names: list[str] = []

    def error(self, message: str, hint: str | None = None) -> MatcherError:
        return MatcherError(f"in the regular expression {self._text!r}: {message}", hint)

    def _next(self, text: str) -> bool:
        return self._text.startswith(text, self.at)

    def choice(self, depth: int) -> Node:
        """Everything up to a closing parenthesis or the end. Flags set within end with it."""
        if depth > _DEPTH_MAX:
            raise self.error("groups are nested too deeply")
        outer = self._flags
        items = [self._sequence(depth)]
        while self._next("|"):
            self.at += 1
            items.append(self._sequence(depth))
        self._flags = outer
        return items[0] if len(items) == 1 else Choice(tuple(items))

    def _sequence(self, depth: int) -> Node:
        items: list[Node] = []
        repeated = ""  # the repetition operator just read
        while self.at < len(self._text) and self._text[self.at] not in "|)":
            start = self.at
            if (counts := self._repetition()) is not None:
                operator = self._text[start : self.at]
                if repeated:
                    raise self.error(f"invalid nested repetition operator {repeated + operator}")
                if not items:
                    raise self.error(f"there is nothing before {operator} to repeat")
                items[-1] = self._repeat(items[-1], *counts)
                repeated = operator
                continue
            repeated = ""
            if self._next("\\Q"):
                items += self._quoted()
            elif (item := self._item(depth)) is not None:
                items.append(item)
        return items[0] if len(items) == 1 else Sequence(tuple(items))

    # Repetition

    def _repetition(self) -> tuple[int, int | None, bool] | None:
        """The operator at this place as its counts and whether it is lazy; ``None`` when there is none."""
        char = self._text[self.at]
        if char in "*+?":
            low, high = {"*": (0, None), "+": (1, None), "?": (0, 1)}[char]
            self.at += 1
        else:
            match = _COUNT.match(self._text, self.at)
            if match is None:
                return None
            low = int(match[1])
            high = low if not match[2] else int(match[3]) if match[3] else None
            if low > _REPEAT_MAX or (high is not None and not low <= high <= _REPEAT_MAX):
                raise self.error(f"invalid repeat count {match[0]}", f"from 0 to {_REPEAT_MAX}, the smaller one first")
            self.at = match.end()
        is_lazy = self._next("?")
        self.at += is_lazy
        return low, high, is_lazy is not self._flags.swap_greed

    def _repeat(self, item: Node, low: int, high: int | None, is_lazy: bool) -> Node:
        repeat = Repeat(item, low, high, is_lazy)
        if _copies(repeat) > _REPEAT_MAX:
            raise self.error("nested repeat counts multiply to more than 1000")
        return repeat

    # One item

    def _item(self, depth: int) -> Node | None:
        char = self._text[self.at]
        if char == "(":
            return self._group(depth)
        if char == "[":
            return self._class()
        if char == "\\":
            return self._escape()
        self.at += 1
        if char == "^":
            return Assertion.LINE_START if self._flags.multi_line else Assertion.TEXT_START
        if char == "$":
            return Assertion.LINE_END if self._flags.multi_line else Assertion.TEXT_END
        if char == ".":
            return Chars(((0, LAST),) if self._flags.dot_all else negated(((10, 10),)))
        return self._literal(ord(char))

    def _literal(self, code: int) -> Chars:
        return Chars(folded(((code, code),)) if self._flags.ignore_case else ((code, code),))

    def _quoted(self) -> list[Node]:
        text, _, _ = self._text[self.at + 2 :].partition("\\E")
        self.at = min(self.at + 2 + len(text) + 2, len(self._text))
        return [self._literal(ord(char)) for char in text]

    def _group(self, depth: int) -> Node | None:
        self.at += 1
        if not self._next("?"):
            return self._captured("", depth)
        if match := _GROUP_NAME.match(self._text, self.at):
            name = match[1]
            if not re.fullmatch(r"[0-9A-Za-z_]+", name):
                if not self._text.startswith(_LOOK, self.at):
                    raise self.error(f"{name!r} cannot be the name of a group")
            else:
                self.at = match.end()
                return self._captured(name, depth)
        if self._text.startswith(_LOOK, self.at):
            raise self.error("look-around is not part of RE2's syntax", "match what is there, and use not for the rest")
        match = _FLAG_GROUP.match(self._text, self.at)
        if match is None:
            raise self.error(f"invalid or unsupported Perl syntax ({self._text[self.at : self.at + 2]}")
        self.at = match.end()
        flags = self._flags._replace(**{_FLAG_NAMES[flag]: True for flag in match[1]})
        flags = flags._replace(**{_FLAG_NAMES[flag]: False for flag in match[3] or ""})
        if match[4] == ")":
            self._flags = flags
            return None
        outer, self._flags = self._flags, flags
        item = self.choice(depth + 1)
        self._flags = outer
        self._close()
        return item

    def _captured(self, name: str, depth: int) -> Node:
        self.names.append(name)
        index = len(self.names)
        item = self.choice(depth + 1)
        self._close()
        return Group(item, index)

    def _close(self) -> None:
        if not self._next(")"):
            raise self.error("a parenthesis is not closed")
        self.at += 1

    # Escapes

    def _escape(self) -> Node:
        letter = self._text[self.at + 1 : self.at + 2]
        if letter in _ASSERTIONS:
            self.at += 2
            return _ASSERTIONS[letter]
        if (ranges := self._class_escape()) is not None:
            return Chars(ranges)
        return self._literal(self._code_point())

    def _class_escape(self) -> Ranges | None:
        """``\\d`` and its like, ``\\pL`` and ``\\p{Lu}``; ``None`` when there is none at this place."""
        letter = self._text[self.at + 1 : self.at + 2]
        if not letter or letter not in "dswDSWpP":
            return None
        self.at += 2
        if letter in "pP":
            ranges = self._unicode_class()
        else:
            ranges = PERL_CLASSES[letter.lower()]
            if self._flags.ignore_case:
                ranges = folded(ranges)
        return negated(ranges) if letter.isupper() else ranges

    def _unicode_class(self) -> Ranges:
        name = self._text[self.at : self.at + 1]
        self.at += 1
        if name == "{":
            name, closed, _ = self._text[self.at :].partition("}")
            if not closed:
                raise self.error("\\p{ is not closed")
            self.at += len(name) + 1
        is_negated = name.startswith("^")
        name = name.removeprefix("^")
        ranges = unicode_class(name)
        if ranges is None:
            raise self.error(
                f"the class \\p{{{name}}} is not known here",
                "general categories are, such as \\p{L} or \\p{Lu}; scripts such as \\p{Greek} are not",
            )
        if self._flags.ignore_case:
            ranges = folded(ranges)
        return negated(ranges) if is_negated else ranges

    def _code_point(self) -> int:
        """The one character that the escape at this place stands for."""
        text = self._text
        start = self.at
        if start + 1 >= len(text):
            raise self.error("a backslash stands at the end")
        char = text[start + 1]
        self.at += 2
        if char in _CONTROLS:
            return _CONTROLS[char]
        if char == "0" or (char in "1234567" and text[self.at : self.at + 1] in tuple("01234567")):
            while self.at < start + 4 and text[self.at : self.at + 1] in tuple("01234567"):
                self.at += 1
            return int(text[start + 1 : self.at], 8)
        if char == "x":
            match = re.compile(r"\{([0-9A-Fa-f]+)\}|([0-9A-Fa-f]{2})").match(text, self.at)
            if match is None or (code := int(match[1] or match[2], 16)) > LAST:
                raise self.error("invalid escape \\x", "\\x7F or \\x{10FFFF}")
            self.at = match.end()
            return code
        if char.isascii() and not char.isalnum():
            return ord(char)
        hint = {"Z": "\\z is the end of the text"}.get(char)
        if char.isdigit():
            hint = "back-references are not part of RE2's syntax"
        raise self.error(f"invalid escape sequence \\{char}", hint)

    # Classes

    def _class(self) -> Chars:
        self.at += 1
        is_negated = self._next("^")
        self.at += is_negated
        ranges: list[tuple[int, int]] = []
        is_first = True
        while is_first or not self._next("]"):
            is_first = False
            if self.at >= len(self._text):
                raise self.error("a bracket is not closed")
            if self._next("[:") and (posix := self._posix_class()) is not None:
                ranges += posix
            elif self._next("\\") and (perl := self._class_escape()) is not None:
                ranges += perl
            elif self._flags.ignore_case:
                ranges += folded((self._class_range(),))
            else:
                ranges.append(self._class_range())
        self.at += 1
        holds = merged(ranges)
        return Chars(negated(holds) if is_negated else holds)

    def _posix_class(self) -> Ranges | None:
        match = re.compile(r"\[:(\^?)(.*?):\]").match(self._text, self.at)
        if match is None:
            return None
        if match[2] not in POSIX_CLASSES:
            raise self.error(f"invalid character class {match[0]}")
        self.at = match.end()
        ranges = POSIX_CLASSES[match[2]]
        if self._flags.ignore_case:
            ranges = folded(ranges)
        return negated(ranges) if match[1] else ranges

    def _class_range(self) -> tuple[int, int]:
        start = self.at
        low = high = self._class_char()
        if self._next("-") and not self._next("-]") and self.at + 1 < len(self._text):
            self.at += 1
            high = self._class_char()
        if high < low:
            raise self.error(f"invalid range {self._text[start : self.at]}")
        return low, high

    def _class_char(self) -> int:
        if self.at >= len(self._text):
            raise self.error("a bracket is not closed")
        if self._next("\\"):
            return self._code_point()
        self.at += 1
        return ord(self._text[self.at - 1])


def _copies(node: Node) -> int:
    """How many copies of its innermost item a tree of counted repetitions stands for, at most."""
    match node:
        case Repeat(item, low, high, _):
            return max(low, high or 0, 1) * _copies(item)
        case Sequence(items) | Choice(items):
            return max((_copies(item) for item in items), default=1)
        case Group(item, _):
            return _copies(item)
    return 1
