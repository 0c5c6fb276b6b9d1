"""A Caddyfile's text as something to edit: where each token begins and ends, and what ``{$NAME}`` stood where.

Tokens are counted in the text after environment variables were put in. Edits are made there too; whatever no edit
touches comes out as it was written, variables included.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ...caddyfile.lexer import SPACES, substitute, tokenize
from ...caddyfile.tokens import HEREDOC, Token, on_new_line

_VARIABLE = re.compile(r"\{\$[^}]+\}")
_WORD = re.compile(rf"[^{SPACES.replace(chr(13), '')}]+")


class Edit(NamedTuple):
    """Replace the text from *start* to *end* by *text*."""

    start: int
    end: int
    text: str


class _Spliced(NamedTuple):
    """Where a variable's value stands, and what was written there."""

    start: int
    end: int
    written: str


class SourceText:
    """The text of one file and its tokens."""

    def __init__(self, source: bytes, file: str, environ: Mapping[str, str]) -> None:
        """Raises ``CaddyfileError`` as the lexer does; *source* must be UTF-8."""
        written = source.decode().removeprefix("\ufeff")
        pieces: list[str] = []
        self._spliced: list[_Spliced] = []
        position = length = 0
        for match in _VARIABLE.finditer(written):
            before = written[position : match.start()]
            value = substitute(match[0], environ)
            length += len(before)
            self._spliced.append(_Spliced(length, length + len(value), match[0]))
            length += len(value)
            pieces += [before, value]
            position = match.end()
        self.text = "".join([*pieces, written[position:]])
        self.tokens = tokenize(self.text, file)
        self._lines = [0, *(match.end() for match in re.finditer("\n", self.text))]

    def start(self, token: Token) -> int:
        """Where *token* begins. It must be of this very file, not imported."""
        return self._lines[token.line - 1] + token.column - 1

    def end(self, token: Token) -> int:
        """Where *token* ends, its closing quote included."""
        start = self.start(token)
        if token.opens or token.closes:
            return start + 1
        if token.quote == '"':
            match = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL).match(self.text, start)
            assert match is not None
            return match.end()
        if token.quote == "`":
            return self.text.index("`", start + 1) + 1
        if token.quote == HEREDOC:
            body = self.text.index("\n", start) + 1
            marker = self.text[start:body].strip()[2:].replace("\r", "")
            return self.text.index(marker, body) + len(marker)
        match = _WORD.match(self.text, start)
        assert match is not None
        return start + len(match[0].rstrip("\r"))

    def indent(self, position: int) -> str:
        """The white space that the line of *position* begins with."""
        line = self.text.rfind("\n", 0, position) + 1
        match = re.compile(r"[ \t]*").match(self.text, line)
        assert match is not None
        return match[0][: position - line]

    def whole_lines(self, start: int, end: int) -> tuple[int, int]:
        """The range widened to whole lines, when nothing else stands on them but a comment behind."""
        line = self.text.rfind("\n", 0, start) + 1
        if self.text[line:start].strip():
            return start, end
        match = re.compile(r"[ \t\r]*(?:#[^\n]*)?(?:\n|\Z)").match(self.text, end)
        return (line, match.end()) if match else (start, end)

    def edited(self, edits: Iterable[Edit], start: int = 0, end: int | None = None) -> str:
        """The text from *start* to *end* with those of *edits* made that lie in it. Edits must not overlap."""
        end = len(self.text) if end is None else end
        pieces: list[str] = []
        position = start
        made = sorted(edit for edit in edits if start <= edit.start and edit.end <= end)
        # One that left nothing may stand right at an edit; it comes out once, in front of it.
        variables = [spliced for spliced in self._spliced if start <= spliced.start and spliced.end <= end][::-1]
        for edit in [*made, Edit(end, end, "")]:
            assert edit.start >= position, "edits overlap"
            while variables and variables[-1].end <= edit.start:
                spliced = variables.pop()
                if spliced.start >= position:
                    pieces += [self.text[position : spliced.start], spliced.written]
                    position = spliced.end
            pieces += [self.text[position : edit.start], edit.text]
            position = edit.end
        return "".join(pieces)


def begins_line(tokens: Sequence[Token], index: int) -> bool:
    """Whether the token at *index* begins a line."""
    return index == 0 or on_new_line(tokens[index - 1], tokens[index])


def block_end(tokens: Sequence[Token], index: int) -> int:
    """The index behind the brace that closes the one at *index*; the number of tokens when none does."""
    depth = 0
    for position in range(index, len(tokens)):
        depth += tokens[position].opens - tokens[position].closes
        if depth == 0:
            return position + 1
    return len(tokens)


def segment_end(tokens: Sequence[Token], index: int) -> int:
    """The index behind a segment: its line, and the block that the line opens."""
    index += 1
    while index < len(tokens) and not on_new_line(tokens[index - 1], tokens[index]):
        if tokens[index].opens:
            return block_end(tokens, index)
        index += 1
    return index
