"""Tokens: the words of a Caddyfile, each knowing where it stood; and all of a file's while they are parsed."""

from __future__ import annotations

from typing import NamedTuple

from .errors import CaddyfileError

HEREDOC = "<"
"""The value of :attr:`Token.quote` for a heredoc, after the character that opens one."""


class Token(NamedTuple):
    """One word.

    Two counts of lines are kept. ``line`` is the physical one, for people. ``row`` decides whether two tokens stand on
    one line of the language: a continuation (a backslash before the line's end) advances ``line`` but not ``row``.
    """

    text: str
    """What the token means: quotes and escapes are gone, the indentation of a heredoc too."""
    file: str
    line: int
    """Counted from 1."""
    column: int
    """Counted from 1, in characters; the opening quote where there is one."""
    quote: str = ""
    """How it was quoted: ``""`` not at all, ``'"'``, a backtick, or ``<`` for a heredoc."""
    row: int = 0
    imports: tuple[str, ...] = ()
    """The ``file:line`` of each import the token was put in by, the latest last.

    An import within a snippet knows of its own place only, not of the one the snippet is imported at. Caddy has it so,
    and takes tokens of one such chain for neighbours on one line if their rows say so.
    """
    snippet: str = ""
    """The name of the snippet whose definition holds the token."""

    @property
    def opens(self) -> bool:
        """It is a brace that opens a block. A quoted one never does."""
        return self.text == "{" and not self.quote

    @property
    def closes(self) -> bool:
        """It is a brace that closes a block."""
        return self.text == "}" and not self.quote

    @property
    def last_row(self) -> int:
        """The row on which the token ends."""
        # A heredoc's text lacks the line of its opening and the line of its closing marker. For one without any line in
        # between that is one too many: what follows it counts as on the same line. Caddy has it so.
        return self.row + self.text.count("\n") + (2 if self.quote == HEREDOC else 0)

    def error(self, message: str, hint: str | None = None) -> CaddyfileError:
        """The error of this token, to be raised."""
        return CaddyfileError(
            message, self.file, self.line, column=self.column, token=self.text, hint=hint, imports=self.imports
        )


def on_new_line(before: Token, after: Token) -> bool:
    """Whether *after* begins a line behind *before*. Tokens of different files or imports never share one."""
    return before.last_row < after.row or before.file != after.file or before.imports != after.imports


class Stream:
    """The tokens, with a cursor between taken and coming ones: stacks, so an import costs what it puts in."""

    def __init__(self, tokens: list[Token]) -> None:
        self.taken: list[Token] = []
        self._pending = tokens[::-1]

    def next(self) -> bool:
        """Take the next token; ``False`` when there is none."""
        if not self._pending:
            return False
        self.taken.append(self._pending.pop())
        return True

    def back(self) -> None:
        """Give the last token back."""
        self._pending.append(self.taken.pop())

    def replace(self, mark: int, tokens: list[Token]) -> None:
        """Drop what was taken since *mark* (a length of ``taken``), and let *tokens* come next."""
        del self.taken[mark:]
        self._pending.extend(reversed(tokens))

    @property
    def token(self) -> Token:
        """The token taken last."""
        return self.taken[-1]

    @property
    def upcoming(self) -> Token | None:
        """The token that comes next."""
        return self._pending[-1] if self._pending else None

    @property
    def on_new_line(self) -> bool:
        """The token taken last begins a line."""
        return len(self.taken) < 2 or on_new_line(self.taken[-2], self.taken[-1])

    @property
    def line_ends(self) -> bool:
        """No token follows on the line of the one taken last."""
        return not self._pending or on_new_line(self.taken[-1], self._pending[-1])
