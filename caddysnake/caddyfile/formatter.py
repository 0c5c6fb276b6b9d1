"""The canonical layout of a Caddyfile, as ``caddy fmt`` gives it.

A block's content is indented by tabs, one space stands between words, at most one empty line between lines, and an
opening brace ends its line. Words, quoted text, heredocs and comments are left as they are.

The layout is decided character by character while the text goes by, with a one-character memory of what was written.
That is how Caddy does it, and the only way to come to the same result for text that is no valid Caddyfile either. It
goes wrong with a few constructs that hardly anyone writes (a word that begins with two braces, a backtick that begins
the first line of a block): what would change a token then is not done, see :func:`format_source`.
"""

from __future__ import annotations

import re
from enum import Enum, auto

from .errors import CaddyfileError
from .lexer import MARKER, SPACE_SET, SPACES, tokenize

_STRIPPED = "".join(SPACE_SET)
_IN_WORD = re.compile(rf"[^{SPACES}{{}}\"`#\\<]+")
_IN_COMMENT = re.compile(r"[^\n<]+")
_IN_DOUBLE = re.compile(r"[^\"`\\<]+")
# Deeper blocks are not indented further, against absurd input.
_MAX_INDENT = 10


# After so many passes a layout that still changes is given up.
_MAX_PASSES = 4


def format_source(text: str) -> str:
    """*text* in canonical layout; it ends with one newline.

    Its tokens stay the same, and formatting the result again changes nothing. Where the layout cannot promise that, the
    text comes back as it was, but for space at its ends.
    """
    result = _Layout().run(text)
    for _ in range(_MAX_PASSES):
        if _words(result) != _words(text):
            break
        again = _Layout().run(result)
        if again == result:
            return result
        result = again
    stripped = text.strip(_STRIPPED) + "\n"
    return stripped if _words(stripped) == _words(text) else text


def _words(text: str) -> list[tuple[str, str]] | None:
    """What may not change: the tokens and how they are quoted. ``None`` when the text has no tokens for an error."""
    try:
        return [(token.text, token.quote) for token in tokenize(text, "")]
    except CaddyfileError:
        return None


class _Literal(Enum):
    """Text that goes by unchanged."""

    NONE = auto()
    COMMENT = auto()
    DOUBLE = auto()
    TICKED = auto()
    TICK_IN_DOUBLE = auto()
    MARKER = auto()  # of a heredoc, behind <<
    HEREDOC = auto()


class _Brace(Enum):
    """What became of the opening brace seen last."""

    NONE = auto()
    HELD = auto()  # written as soon as it is known what follows
    WRITTEN = auto()


class _Layout:
    """One text on its way through."""

    def __init__(self) -> None:
        self._out: list[str] = []
        self._last = ""
        self._literal = _Literal.NONE
        self._after_space = True
        self._at_line_start = True
        self._escaped = False
        self._line_ends = 0  # seen since the last character that is no space
        self._depth = 0
        self._brace = _Brace.NONE
        self._brace_apart = False  # a space is written before the held brace already
        self._brace_alone = False  # it opens a line of its own
        self._first_word = ""  # of the line, as far as it is known
        self._first_word_ends = False
        self._no_heredoc = False  # after \<
        self._marker = ""
        self._tail = ""  # the end of the heredoc's current line

    def run(self, text: str) -> str:
        text = text.strip(_STRIPPED)
        position = 0
        while position < len(text):
            self._take(text[position])
            position += 1
            if (run := self._rest_of_run(text, position)) > position:
                self._write(text[position:run])
                if self._literal is _Literal.NONE and not self._first_word_ends:
                    self._first_word += text[position:run]
                position = run
        if self._brace is _Brace.HELD:
            self._open_block()
        return "".join(self._out).strip(_STRIPPED) + "\n"

    def _rest_of_run(self, text: str, position: int) -> int:
        """Up to where nothing can happen but that text is copied: within a word, a comment, a quoted string."""
        if self._escaped:
            return position
        match self._literal:
            case _Literal.COMMENT:
                if self._after_space and self._last == "<":
                    return position
                pattern = _IN_COMMENT
            case _Literal.DOUBLE:
                pattern = _IN_DOUBLE
            case _Literal.NONE:
                if self._after_space or self._line_ends or self._at_line_start or self._brace is _Brace.HELD:
                    return position
                pattern = _IN_WORD
            case _:
                return position
        found = pattern.match(text, position)
        return found.end() if found else position

    def _write(self, text: str) -> None:
        self._out.append(text)
        self._last = text[-1]

    def _new_line(self) -> None:
        self._write("\n")
        self._at_line_start = True

    def _indent(self) -> None:
        if self._depth:
            self._write("\t" * self._depth)

    def _take(self, char: str) -> None:
        if self._opens_heredoc(char):
            return
        if self._literal is _Literal.MARKER and self._take_of_marker(char):
            return
        if self._literal is _Literal.HEREDOC and self._take_of_heredoc(char):
            return
        if self._last == "<" and self._after_space:
            self._after_space = False
        if self._literal is _Literal.COMMENT:
            if char == "\n":
                self._literal = _Literal.NONE
                self._after_space = True
                self._new_line()
            else:
                self._write(char)
            return
        if self._take_escape(char) or self._take_quoted(char):
            return
        if char in SPACE_SET:
            self._after_space = True
            self._no_heredoc = False
            self._line_ends += char == "\n"
            return
        self._take_plain(char)

    # Literals

    def _opens_heredoc(self, char: str) -> bool:
        quiet = self._literal in (_Literal.NONE, _Literal.COMMENT) and not self._no_heredoc
        if not (quiet and self._after_space and self._last == "<" and char == "<"):
            return False
        self._write(char)
        self._literal = _Literal.MARKER
        self._after_space = False
        return True

    def _take_of_marker(self, char: str) -> bool:
        if char == "\n":
            if MARKER.fullmatch(self._marker):
                self._literal = _Literal.HEREDOC
                self._write(char)
            else:
                self._marker = ""
                self._literal = _Literal.NONE
                self._new_line()
            return True
        if char in SPACE_SET:
            self._marker = ""
            self._literal = _Literal.NONE
            return False
        self._marker += char
        self._write(char)
        return True

    def _take_of_heredoc(self, char: str) -> bool:
        self._tail = (self._tail + char)[-len(self._marker) - 1 :]
        if char in SPACE_SET and self._tail[:-1] == self._marker:
            self._marker = self._tail = ""
            self._literal = _Literal.NONE
            return False
        self._write(char)
        if char == "\n":
            self._tail = ""
        return True

    def _take_escape(self, char: str) -> bool:
        if self._escaped:
            if char == "<":
                self._no_heredoc = True
            self._write(char)
            self._escaped = False
            return True
        if char != "\\":
            return False
        if self._after_space:
            self._write(" ")
            self._after_space = False
        self._write(char)
        self._escaped = True
        return True

    def _take_quoted(self, char: str) -> bool:
        if char == "`":
            self._literal = _AFTER_TICK.get(self._literal, _Literal.TICKED)
        if self._literal is _Literal.DOUBLE:
            if char == '"':
                self._literal = _Literal.NONE
            self._write(char)
            return True
        if char == '"':
            if self._literal is _Literal.NONE and self._after_space:
                self._literal = _Literal.DOUBLE
            elif self._literal is _Literal.TICK_IN_DOUBLE:
                self._literal = _Literal.NONE
        if self._literal in (_Literal.TICKED, _Literal.TICK_IN_DOUBLE):
            if char == "`" and self._after_space and not self._at_line_start:
                self._write(" ")
            self._write(char)
            self._after_space = False
            return True
        return False

    # Words and braces

    def _take_plain(self, char: str) -> None:
        after_space, self._after_space = self._after_space, False
        if char == "#":
            self._literal = _Literal.COMMENT
        if self._line_ends and char != "{":
            self._first_word = ""
            self._first_word_ends = False
        if self._brace is _Brace.HELD and (after_space or char == "{"):
            self._open_block()
        if char == "{":
            self._brace = _Brace.HELD
            # Global options after an import: the brace is not the import's.
            self._brace_alone = self._first_word == "import" and self._depth == 0 and self._line_ends == 1
            self._brace_apart = after_space and not self._at_line_start
            if self._brace_apart and not self._line_ends:
                self._write(" ")
            return
        if char == "}" and (after_space or self._brace is _Brace.NONE):
            self._close_block()
            return
        self._note_word(char, after_space)
        for _ in range(min(self._line_ends, 2)):
            self._new_line()
        self._line_ends = 0
        if self._at_line_start:
            self._indent()
        if self._depth == 0 and self._last == "}" and self._at_line_start:
            self._new_line()
            self._new_line()
        if not self._at_line_start and after_space:
            self._write(" ")
        if self._brace is _Brace.HELD:
            self._write("{")
            self._brace = _Brace.WRITTEN
        if after_space and char == "<":
            self._after_space = True
        self._write(char)
        self._at_line_start = False

    def _note_word(self, char: str, after_space: bool) -> None:
        if after_space and self._first_word:
            self._first_word_ends = True
        if not self._first_word_ends:
            self._first_word += char

    def _open_block(self) -> None:
        if self._depth == 0 and self._last == "}":
            self._new_line()
            self._new_line()
        if self._brace_alone and not self._at_line_start:
            self._new_line()
        if self._at_line_start:
            self._indent()
        elif not (self._brace_apart and self._last in SPACE_SET):
            self._write(" ")
        self._write("{")
        self._brace = _Brace.NONE
        self._new_line()
        self._line_ends = 0
        self._depth = min(self._depth + 1, _MAX_INDENT)

    def _close_block(self) -> None:
        if self._last != "\n":
            self._new_line()
        self._depth = max(self._depth - 1, 0)
        self._indent()
        self._write("}")
        self._line_ends = 0


_AFTER_TICK = {
    _Literal.TICK_IN_DOUBLE: _Literal.DOUBLE,
    _Literal.TICKED: _Literal.NONE,
    _Literal.DOUBLE: _Literal.TICK_IN_DOUBLE,
}
