"""Runs a tree of RE2's syntax over a text in time linear in the text's length.

It is a backtracking search that remembers: a choice that was tried at a place of the text and led nowhere is never
tried there again. So there are at most (choices in the pattern) times (characters in the text) steps, whatever either
of them looks like, and the match is the one that a search without memory would have found: the leftmost, and of those
the one that prefers what stands first. Go's regexp has the same idea for short texts.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from .errors import MatcherError
from .syntax import Assertion, Chars, Choice, Group, Node, Repeat, Sequence, Tree

_PROGRAM_MAX = 20_000
_MEMO_MAX = 1024


class _Op(IntEnum):
    CHAR = 0
    SPLIT = 1  # go on at the first target, later perhaps at the second
    JUMP = 2
    SAVE = 3
    ASSERT = 4
    MATCH = 5


class _Set(dict[str, bool]):
    """Whether characters are in a set, remembered for the first of them that are asked for."""

    def __init__(self, chars: Chars) -> None:
        super().__init__()
        self._chars = chars

    def __missing__(self, char: str) -> bool:
        found = self._chars.holds(ord(char))
        if len(self) < _MEMO_MAX:
            self[char] = found
        return found


_NO_SET = _Set(Chars(()))


class _Instruction(NamedTuple):
    op: int
    to: int = 0
    other: int = 0
    number: int = 0
    """Of a split: which one it is. Of a save: the slot."""
    chars: _Set = _NO_SET
    assertion: Assertion = Assertion.TEXT_START


class Program:
    """A compiled tree.

    Raises:
        MatcherError: it would be too large.
    """

    def __init__(self, tree: Tree) -> None:
        self._code: list[_Instruction] = []
        self._splits = 0
        self._slots = 2 * (len(tree.groups) + 1)
        self._is_anchored = starts_at_text_start(tree.root)
        self._emit(Group(tree.root, 0))
        self._add(_Instruction(_Op.MATCH))

    def search(self, text: str) -> list[int] | None:
        """Where the leftmost match and its groups begin and end, two numbers each, -1 for a group that took no part;
        ``None`` when there is no match."""
        size = len(text) + 1
        tried = bytearray(self._splits * size)
        for start in range(1 if self._is_anchored else size):
            found = self._from(text, start, tried, size)
            if found is not None:
                return found
        return None

    def _from(self, text: str, start: int, tried: bytearray, size: int) -> list[int] | None:
        code = self._code
        end = size - 1
        slots = [-1] * self._slots
        # Places to go back to, and slots to put back on the way there (as numbers below zero).
        stack = [(0, start)]
        while stack:
            at, place = stack.pop()
            if at < 0:
                slots[~at] = place
                continue
            while True:
                op, to, other, number, chars, assertion = code[at]
                if op == _Op.CHAR:
                    if place == end or not chars[text[place]]:
                        break
                    place += 1
                    at += 1
                elif op == _Op.SPLIT:
                    mark = number * size + place
                    if tried[mark]:
                        break
                    tried[mark] = 1
                    stack.append((other, place))
                    at = to
                elif op == _Op.JUMP:
                    at = to
                elif op == _Op.SAVE:
                    stack.append((~number, slots[number]))
                    slots[number] = place
                    at += 1
                elif op == _Op.ASSERT:
                    if not _holds(assertion, text, place):
                        break
                    at += 1
                else:
                    return slots
        return None

    # Compiling

    def _add(self, instruction: _Instruction) -> int:
        if len(self._code) >= _PROGRAM_MAX:
            raise MatcherError("a regular expression is too large", "smaller repeat counts make it smaller")
        self._code.append(instruction)
        return len(self._code) - 1

    def _split(self) -> int:
        """A split whose targets are not known yet."""
        self._splits += 1
        return self._add(_Instruction(_Op.SPLIT, number=self._splits - 1))

    def _aim(self, at: int, to: int, other: int, *, swap: bool = False) -> None:
        self._code[at] = self._code[at]._replace(to=other if swap else to, other=to if swap else other)

    def _emit(self, node: Node) -> None:
        match node:
            case Chars():
                self._add(_Instruction(_Op.CHAR, chars=_Set(node)))
            case Assertion():
                self._add(_Instruction(_Op.ASSERT, assertion=node))
            case Sequence(items):
                for item in items:
                    self._emit(item)
            case Group(item, index):
                self._add(_Instruction(_Op.SAVE, number=2 * index))
                self._emit(item)
                self._add(_Instruction(_Op.SAVE, number=2 * index + 1))
            case Choice(items):
                self._choice(items)
            case Repeat():
                self._repeat(node)

    def _choice(self, items: tuple[Node, ...]) -> None:
        jumps = []
        for item in items[:-1]:
            split = self._split()
            self._emit(item)
            jumps.append(self._add(_Instruction(_Op.JUMP)))
            self._aim(split, split + 1, len(self._code))
        self._emit(items[-1])
        for jump in jumps:
            self._code[jump] = self._code[jump]._replace(to=len(self._code))

    def _repeat(self, node: Repeat) -> None:
        item, low, high, is_lazy = node
        for _ in range(low):
            start = len(self._code)
            self._emit(item)
        if high is None:
            if low:
                # The last of those that must be is the one that goes on: x+ is x and back again.
                split = self._split()
                self._aim(split, start, split + 1, swap=is_lazy)
            elif _may_be_empty(item):
                # As (x+)?, so that one empty turn of the loop is still a turn, and captures. Go does so.
                self._repeat(Repeat(Repeat(item, 1, None, is_lazy), 0, 1, is_lazy))
            else:
                split = self._split()
                self._emit(item)
                self._add(_Instruction(_Op.JUMP, to=split))
                self._aim(split, split + 1, len(self._code), swap=is_lazy)
            return
        splits = []
        for _ in range(high - low):
            splits.append(self._split())
            self._emit(item)
        for split in splits:
            self._aim(split, split + 1, len(self._code), swap=is_lazy)


def _may_be_empty(node: Node) -> bool:
    match node:
        case Chars():
            return False
        case Sequence(items):
            return all(_may_be_empty(item) for item in items)
        case Choice(items):
            return any(_may_be_empty(item) for item in items)
        case Group(item, _):
            return _may_be_empty(item)
        case Repeat(item, low, _, _):
            return low == 0 or _may_be_empty(item)
    return True  # an assertion


def starts_at_text_start(node: Node) -> bool:
    """Whether *node* can match at the start of a text only."""
    match node:
        case Assertion.TEXT_START:
            return True
        case Sequence(items):
            return bool(items) and starts_at_text_start(items[0])
        case Choice(items):
            return all(starts_at_text_start(item) for item in items)
        case Group(item, _):
            return starts_at_text_start(item)
        case Repeat(item, low, _, _):
            return low > 0 and starts_at_text_start(item)
    return False


def _holds(assertion: Assertion, text: str, place: int) -> bool:
    match assertion:
        case Assertion.TEXT_START:
            return place == 0
        case Assertion.TEXT_END:
            return place == len(text)
        case Assertion.LINE_START:
            return place == 0 or text[place - 1] == "\n"
        case Assertion.LINE_END:
            return place == len(text) or text[place] == "\n"
    before = place > 0 and _is_word(text[place - 1])
    after = place < len(text) and _is_word(text[place])
    return (before != after) is (assertion is Assertion.WORD_EDGE)


def _is_word(char: str) -> bool:
    return char == "_" or (char.isascii() and char.isalnum())
