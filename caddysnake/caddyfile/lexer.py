"""Characters to tokens.

The grammar of words is Caddy's, with all its corners, so the lexer is a state machine over characters
(:class:`_Machine`). Nearly all of a file is made of words and quoted strings without a backslash, though; for those one
regular expression is enough (:data:`_SHORTCUT`), and the machine only runs where it fails. The machine begins each
token afresh, so the two can take turns at every token.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum, auto

from .errors import CaddyfileError
from .tokens import HEREDOC, Token

# The name may hold anything but a closing brace; an empty pair stays as it is.
_VARIABLE = re.compile(r"\{\$([^}]+)\}")


def substitute(source: str, environ: Mapping[str, str]) -> str:
    """*source* with every variable replaced, once; one that is unset by its default, or by nothing."""

    def value_of(match: re.Match[str]) -> str:
        name, _, default = match[1].partition(":")
        return environ.get(name, default)

    return _VARIABLE.sub(value_of, source)


# What Go's unicode.IsSpace says; str.isspace() also takes U+001C to U+001F.
SPACES = "\t\n\v\f\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
SPACE_SET = frozenset(re.findall(rf"[{SPACES}]", "".join(map(chr, range(0x3001)))))

# One gap and then a token or comment that holds nothing that needs a second look. A lone carriage return right after a
# word is refused, because it is dropped there and the word goes on.
_SHORTCUT = re.compile(
    rf"""
    (?P<gap>[{SPACES}]*+)
    (?:
        (?P<comment>\#[^\n\\]*(?=\n|\Z))
      | "(?P<quoted>[^"\\]*)"
      | `(?P<ticked>[^`]*)`
      | (?P<word>(?!<<)[^{SPACES}"`\#\\][^{SPACES}\\]*+)(?=[{SPACES}]|\Z)(?!\r(?!\n))
    )
    """,
    re.VERBOSE,
)
MARKER = re.compile(r"[A-Za-z0-9_-]+")


def tokenize(source: str, file: str) -> list[Token]:
    """The tokens of *source*; *file* is the name they carry.

    Environment variables are not replaced here. Raises ``CaddyfileError``: something quoted, or a heredoc, is never
    closed, or a heredoc is malformed.
    """
    return _Scanner(source.removeprefix("\ufeff"), file).run()


class _Scanner:
    """One pass over one source.

    ``row`` is Caddy's count of lines: escaped line ends are held back in ``skipped`` until an ordinary line end comes.
    ``line`` and ``line_start`` follow the physical lines, up to ``marked``.
    """

    def __init__(self, source: str, file: str) -> None:
        self.source = source
        self.file = file
        self.position = 0
        self.row = 1
        self.skipped = 0
        self.line = 1
        self.line_start = 0
        self.marked = 0
        self.tokens: list[Token] = []
        self.words: dict[str, str] = {}
        """One of each: many lines say the same."""

    def run(self) -> list[Token]:
        """The tokens of the whole source."""
        source, end = self.source, len(self.source)
        match_shortcut = _SHORTCUT.match
        while self.position < end:
            match = match_shortcut(source, self.position)
            if match is None:
                _Machine(self).run()
                continue
            gap = match["gap"]
            if "\n" in gap:
                self.end_lines(gap.count("\n"))
            kind = match.lastgroup
            assert kind is not None
            self.position = match.end()
            if kind == "comment":
                continue
            start = match.end("gap")
            text = match[kind]
            if kind == "word":
                self.emit(text, start, "", self.row)
                continue
            self.emit(text, start, source[start], self.row)
            if "\n" in text:
                self.end_lines(text.count("\n"))
        return self.tokens

    def end_lines(self, count: int) -> None:
        """Take note of line ends that are not escaped."""
        self.row += count + self.skipped
        self.skipped = 0

    def emit(self, text: str, start: int, quote: str, row: int) -> None:
        """Add a token whose first character is at *start*."""
        self._mark(start)
        text = self.words.setdefault(text, text)
        self.tokens.append(Token(text, self.file, self.line, start - self.line_start + 1, quote, row))

    def error(self, message: str, position: int, token: str, hint: str) -> CaddyfileError:
        """The error of what is at *position*."""
        self._mark(position)
        column = position - self.line_start + 1
        return CaddyfileError(message, self.file, self.line, column=column, token=token, hint=hint)

    def _mark(self, position: int) -> None:
        """Move the physical line count on to *position*."""
        breaks = self.source.count("\n", self.marked, position)
        if breaks:
            self.line += breaks
            self.line_start = self.source.rfind("\n", self.marked, position) + 1
        self.marked = position


class _State(Enum):
    """Where the machine is."""

    GAP = auto()
    COMMENT = auto()
    WORD = auto()
    QUOTED = auto()
    TICKED = auto()
    OPENER = auto()  # in a heredoc's marker, behind <<
    DONE = auto()


class _Machine:
    """Reads one token, character by character, or none when only space and comments are left.

    ``escaped`` is set by a backslash and stays until something makes use of it. In a gap and in a comment that is only
    the line end, which then does not end the line: a backslash anywhere in a comment joins the next line. Caddy has it
    so.
    """

    def __init__(self, scanner: _Scanner) -> None:
        self.scanner = scanner
        self.state = _State.GAP
        self.text: list[str] = []
        self.start = self.position = scanner.position
        self.row = scanner.row
        self.escaped = False
        self.no_heredoc = False

    def run(self) -> None:
        """Read the token and hand it to the scanner, which then stands behind it."""
        scanner = self.scanner
        source, end = scanner.source, len(scanner.source)
        while self.state is not _State.DONE and self.position < end:
            char = source[self.position]
            self.position += 1
            _TRANSITIONS[self.state](self, char)
        scanner.position = self.position
        if self.state in (_State.QUOTED, _State.TICKED):
            raise self._unclosed('"' if self.state is _State.QUOTED else "`")
        if self.state in (_State.WORD, _State.OPENER):
            self._emit("")

    def in_gap(self, char: str) -> None:
        if char == "\\" and not self.escaped:
            self.escaped = True
            self.start = self.position - 1
        elif char in SPACE_SET:
            if char == "\n":
                self._end_line()
        elif char == "#":
            self.state = _State.COMMENT
        else:
            self.row = self.scanner.row
            if not self.escaped:
                self.start = self.position - 1
            self.state = _OPENING_QUOTES.get(char, _State.WORD)
            if self.state is _State.WORD:
                self._add(char)

    def in_comment(self, char: str) -> None:
        if char == "\\":
            self.escaped = True
        elif char == "\n":
            self._end_line()
            self.state = _State.GAP

    def in_word(self, char: str) -> None:
        if not self.no_heredoc and self.text[:2] == ["<", "<"]:
            self.state = _State.OPENER
            self.in_opener(char)
        elif char == "\\" and not self.escaped:
            self.escaped = True
        elif char not in SPACE_SET:
            self._add(char)
        elif char != "\r":
            if char == "\n":
                self._end_line()
            self._emit("")

    def in_quotes(self, char: str) -> None:
        if char == "\\" and not self.escaped:
            self.escaped = True
            return
        if self.escaped:
            self.escaped = False
            if char != '"':
                self.text.append("\\")
        elif char == '"':
            self._emit('"')
            return
        self._add_quoted(char)

    def in_ticks(self, char: str) -> None:
        if char == "`":
            self._emit("`")
        else:
            self._add_quoted(char)

    def in_opener(self, char: str) -> None:
        if char == " ":
            self._emit("")  # no heredoc after all
        elif char == "\n":
            self._heredoc("".join(self.text[2:]))
        elif char != "\r":
            self.text.append(char)

    def _add(self, char: str) -> None:
        if self.escaped:
            self.escaped = False
            if char == "<":
                self.no_heredoc = True
            else:
                self.text.append("\\")
        self.text.append(char)

    def _add_quoted(self, char: str) -> None:
        if char == "\n":
            self.scanner.end_lines(1)
        self.text.append(char)

    def _end_line(self) -> None:
        if self.escaped:
            self.scanner.skipped += 1
            self.escaped = False
        else:
            self.scanner.end_lines(1)

    def _emit(self, quote: str) -> None:
        self.scanner.emit("".join(self.text), self.start, quote, self.row)
        self.state = _State.DONE

    def _unclosed(self, quote: str) -> CaddyfileError:
        text = "".join(self.text)
        first_line = text.split("\n", 1)[0]
        message = f"a quote is opened and never closed: {quote}{first_line[:40]}"
        return self.scanner.error(message, self.start, text, f"close it with another {quote}")

    def _heredoc(self, marker: str) -> None:
        """Read a heredoc whose first line begins at the current position."""
        scanner, opener = self.scanner, f"<<{marker}"
        self._check_marker(marker)
        # The marker closes wherever it is found first, even inside a longer word: Caddy has it so.
        found = scanner.source.find(marker, self.position)
        if found < 0:
            message = f"heredoc {opener} is never closed"
            raise scanner.error(message, self.start, opener, f"close it with a line {marker}")
        body = scanner.source[self.position : found]
        scanner.emit(self._unindented(body, marker), self.start, HEREDOC, self.row)
        scanner.end_lines(body.count("\n") + 1)
        self.position = found + len(marker)
        self.state = _State.DONE

    def _check_marker(self, marker: str) -> None:
        opener = f"<<{marker}"
        if not marker:
            hint = "write <<END and close it with END"
            raise self.scanner.error("a heredoc needs a marker after <<", self.start, opener, hint)
        if marker.startswith("<"):
            raise self.scanner.error("too many < for a heredoc", self.start, opener, f"write <<{marker.lstrip('<')}")
        if not MARKER.fullmatch(marker):
            message = f"a heredoc's marker may only hold letters, digits, - and _; got {marker!r}"
            raise self.scanner.error(message, self.start, opener, "write <<END")

    def _unindented(self, body: str, marker: str) -> str:
        """*body* without the indentation of the closing marker, and without the last line end."""
        *lines, indent = body.split("\n")
        position = self.position
        text: list[str] = []
        for line in lines:
            if line.startswith(indent):
                text.append(line.removeprefix(indent))
            elif line in ("", "\r"):
                text.append(line)
            else:
                message = f"a heredoc's line is indented less than its closing {marker}, or otherwise"
                raise self.scanner.error(message, position, line, f"begin it with {indent!r}, as the closing line does")
            position += len(line) + 1
        return "\n".join(text).replace("\r", "")


_OPENING_QUOTES = {'"': _State.QUOTED, "`": _State.TICKED}

_TRANSITIONS = {
    _State.GAP: _Machine.in_gap,
    _State.COMMENT: _Machine.in_comment,
    _State.WORD: _Machine.in_word,
    _State.QUOTED: _Machine.in_quotes,
    _State.TICKED: _Machine.in_ticks,
    _State.OPENER: _Machine.in_opener,
}
