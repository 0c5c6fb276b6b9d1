"""Characters to tokens.

The grammar of words is Caddy's, with all its corners, so the lexer is a state machine over characters
(:class:`_Scanner`). Nearly all of a file is made of words and quoted strings without a backslash, though; for those one
regular expression is enough (:data:`_SHORTCUT`), and the machine only runs where it fails. The machine begins each
token afresh, so the two can take turns at every token.
"""

from __future__ import annotations

import re
from enum import Enum, auto

from .errors import CaddyfileError
from .tokens import HEREDOC, Token

# What Go's unicode.IsSpace says; str.isspace() also takes U+001C to U+001F.
SPACES = "\t\n\v\f\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_SPACE_SET = frozenset(re.findall(rf"[{SPACES}]", "".join(map(chr, range(0x3001)))))

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
_MARKER = re.compile(r"[A-Za-z0-9_-]+")


def tokenize(source: str, file: str) -> list[Token]:
    """The tokens of *source*; *file* is the name they carry.

    Environment variables are not replaced here.

    Raises:
        CaddyfileError: something quoted, or a heredoc, is never closed, or a heredoc is malformed.
    """
    return _Scanner(source.removeprefix("\ufeff"), file).run()


class _State(Enum):
    """Where in a token the machine is."""

    GAP = auto()
    COMMENT = auto()
    WORD = auto()
    QUOTED = auto()
    TICKED = auto()
    OPENER = auto()  # between << and the end of the line


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

    def run(self) -> list[Token]:
        source, end = self.source, len(self.source)
        match_shortcut = _SHORTCUT.match
        while self.position < end:
            match = match_shortcut(source, self.position)
            if match is None:
                self._careful_token()
                continue
            gap = match["gap"]
            if "\n" in gap:
                self._count_rows(gap.count("\n"))
            kind = match.lastgroup
            assert kind is not None
            self.position = match.end()
            if kind == "comment":
                continue
            start = match.end("gap")
            text = match[kind]
            if kind == "word":
                self._emit(text, start, "")
                continue
            self._emit(text, start, source[start])
            if "\n" in text:
                self._count_rows(text.count("\n"))
        return self.tokens

    def _count_rows(self, line_ends: int) -> None:
        self.row += line_ends + self.skipped
        self.skipped = 0

    def _emit(self, text: str, start: int, quote: str, row: int | None = None) -> None:
        self._mark(start)
        column = start - self.line_start + 1
        self.tokens.append(Token(text, self.file, self.line, column, quote, self.row if row is None else row))

    def _mark(self, position: int) -> None:
        """Move the physical line count on to *position*."""
        breaks = self.source.count("\n", self.marked, position)
        if breaks:
            self.line += breaks
            self.line_start = self.source.rfind("\n", self.marked, position) + 1
        self.marked = position

    def _error(self, message: str, position: int, token: str, hint: str | None = None) -> CaddyfileError:
        self._mark(position)
        column = position - self.line_start + 1
        return CaddyfileError(message, self.file, self.line, column=column, token=token, hint=hint)

    def _careful_token(self) -> None:
        """Read one token, character by character; none when only space and comments are left."""
        source, end = self.source, len(self.source)
        state = _State.GAP
        text: list[str] = []
        start = position = self.position
        row = self.row
        escaped = literal = False  # after a backslash; after \<, which makes a heredoc's opener an ordinary word
        while position < end:
            char = source[position]
            position += 1

            if state is _State.WORD and not literal and len(text) > 1 and text[0] == text[1] == "<":
                state = _State.OPENER
            if state is _State.OPENER:
                if char == " ":
                    break
                if char == "\n":
                    self._heredoc("".join(text[2:]), start, position)
                    return
                if char != "\r":
                    text.append(char)
                continue

            if char == "\\" and not escaped and state is not _State.TICKED:
                if state is _State.GAP:
                    start = position - 1
                escaped = True
                continue

            if state in (_State.QUOTED, _State.TICKED):
                if state is _State.QUOTED and escaped:
                    if char != '"':
                        text.append("\\")
                    escaped = False
                elif char == ('"' if state is _State.QUOTED else "`"):
                    self.position = position
                    self._emit("".join(text), start, char, row)
                    return
                if char == "\n":
                    self._count_rows(1)
                text.append(char)
                continue

            if char in _SPACE_SET:
                if char == "\r":
                    continue
                if char == "\n":
                    if escaped:
                        self.skipped += 1
                        escaped = False
                    else:
                        self._count_rows(1)
                    if state is _State.COMMENT:
                        state = _State.GAP
                if state is _State.WORD:
                    break
                continue

            if state is _State.COMMENT:
                continue
            if state is _State.GAP:
                if char == "#":
                    state = _State.COMMENT
                    continue
                row = self.row
                if not escaped:
                    start = position - 1
                if char in '"`':
                    state = _State.QUOTED if char == '"' else _State.TICKED
                    continue
                state = _State.WORD
            if escaped:
                escaped = False
                if char == "<":
                    literal = True
                else:
                    text.append("\\")
            text.append(char)

        self.position = position
        if state in (_State.QUOTED, _State.TICKED):
            raise self._unclosed(start, "".join(text), '"' if state is _State.QUOTED else "`")
        if text:
            self._emit("".join(text), start, "", row)

    def _unclosed(self, start: int, text: str, quote: str) -> CaddyfileError:
        first_line = text.split("\n", 1)[0]
        return self._error(
            f"a quote is opened and never closed: {quote}{first_line[:40]}",
            start,
            text,
            f"close it with another {quote}",
        )

    def _heredoc(self, marker: str, start: int, position: int) -> None:
        """Read a heredoc whose first line begins at *position*."""
        opener = f"<<{marker}"
        if not marker:
            raise self._error("a heredoc needs a marker after <<", start, opener, "write <<END and close it with END")
        if marker.startswith("<"):
            raise self._error("too many < for a heredoc", start, opener, f"write <<{marker.lstrip('<')}")
        if not _MARKER.fullmatch(marker):
            raise self._error(
                f"a heredoc's marker may only hold letters, digits, - and _; got {marker!r}",
                start,
                opener,
                "write <<END",
            )
        # The marker closes wherever it is found first, even inside a longer word: Caddy has it so.
        found = self.source.find(marker, position)
        if found < 0:
            raise self._error(f"heredoc {opener} is never closed", start, opener, f"close it with a line {marker}")
        body = self.source[position:found]
        self._emit(self._unindented(body, marker, position), start, HEREDOC)
        self.row += self.skipped + 1 + body.count("\n")
        self.skipped = 0
        self.position = found + len(marker)

    def _unindented(self, body: str, marker: str, position: int) -> str:
        """*body* without the indentation of the closing marker, and without the last line end."""
        *lines, indent = body.split("\n")
        text: list[str] = []
        for line in lines:
            if line.startswith(indent):
                text.append(line.removeprefix(indent))
            elif line in ("", "\r"):
                text.append(line)
            else:
                raise self._error(
                    f"a heredoc's line is indented less than its closing {marker}, or otherwise",
                    position,
                    line,
                    f"begin it with {indent!r}, as the closing line does",
                )
            position += len(line) + 1
        return "\n".join(text).replace("\r", "")
