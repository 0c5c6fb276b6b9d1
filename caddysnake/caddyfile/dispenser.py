"""The cursor a directive holds: it walks over the tokens of one or more segments and says what is wrong where."""

from __future__ import annotations

from collections.abc import Sequence

from .errors import CaddyfileError
from .tokens import Token, on_new_line


class Dispenser:
    """Hands out tokens one after another. The vocabulary is that of Caddy's own dispenser.

    A fresh dispenser stands *before* its first token: call :meth:`next` first. The usual shape of a directive is::

        while dispenser.next():  # the directive's name
            arguments = dispenser.remaining_args()
            nesting = dispenser.nesting()
            while dispenser.next_block(nesting):
                match dispenser.val(): ...

    The token handed in as *place* is blamed when there is none to blame.
    """

    def __init__(self, tokens: Sequence[Token], place: Token | None = None) -> None:
        self._tokens = tokens
        self._cursor = -1
        self._nesting = 0
        self._place = place
        self.inner: Dispenser | None = None
        """The line of its block that is being read, where that is read by itself."""

    def next(self) -> bool:
        """Go to the next token, on whatever line; ``False`` when there is none, and the cursor then stays."""
        is_there = self._cursor < len(self._tokens) - 1
        self._cursor += is_there
        return is_there

    def next_arg(self) -> bool:
        """Go to the next token if it is an argument: on the same line, and not the brace that opens a block."""
        if not self._next_on_line():
            return False
        if self.token().opens:
            self._cursor -= 1
            return False
        return True

    def next_block(self, nesting: int) -> bool:
        """Loop over the lines of a block: enter it from the line that opens it, then go to each next token in it.

        *nesting* is what :meth:`nesting` said before the loop. Inside, read each line's arguments to its end.
        ``False`` when no block is opened here, when it is empty, and at its end.
        """
        if self._nesting > nesting:
            if not self.next():
                return False
            if self.token().closes and not self._next_on_line():
                self._nesting -= 1
            elif self.token().opens and not self._next_on_line():
                self._nesting += 1
            return self._nesting > nesting
        if not self._next_on_line():
            return False
        if not self.token().opens:
            self._cursor -= 1
            return False
        self.next()
        if self.token().closes:
            return False
        self._nesting += 1
        return True

    def nesting(self) -> int:
        """How many blocks deep the cursor is."""
        return self._nesting

    def token(self) -> Token:
        """The token under the cursor; an empty one at the place of the dispenser when there is none."""
        if 0 <= self._cursor < len(self._tokens):
            return self._tokens[self._cursor]
        return self._nowhere()

    def val(self) -> str:
        """The text of the token under the cursor; empty when there is none."""
        return self._tokens[self._cursor].text if 0 <= self._cursor < len(self._tokens) else ""

    def remaining_args(self) -> list[str]:
        """The arguments left on this line. The cursor ends on the last of them."""
        return [token.text for token in self.remaining_arg_tokens()]

    def remaining_arg_tokens(self) -> list[Token]:
        """As :meth:`remaining_args`, but the tokens themselves."""
        found: list[Token] = []
        while self.next_arg():
            found.append(self.token())
        return found

    def next_segment(self) -> list[Token]:
        """The tokens from the one under the cursor to the end of its line, or of the block that line opens."""
        tokens = [self.token(), *self.remaining_arg_tokens()]
        opened = False
        nesting = self.nesting()
        while self.next_block(nesting):
            if not opened:
                # The loop enters behind the brace; take it along.
                opened = True
                tokens.append(self._tokens[self._cursor - 1])
            tokens.append(self.token())
        if opened:
            tokens.append(self.token())
        return tokens

    def error(self, message: str, hint: str | None = None) -> CaddyfileError:
        """The error of the token under the cursor, to be raised."""
        return self.token().error(message, hint)

    def arg_error(self, hint: str | None = None) -> CaddyfileError:
        """The error of a line with the wrong number of arguments."""
        if self.token().opens:
            return self.error("unexpected {, expected an argument", hint)
        return self.error(f'wrong number of arguments at or after "{self.val()}"', hint)

    def _next_on_line(self) -> bool:
        following = self._cursor + 1
        if following >= len(self._tokens):
            return False
        # Caddy's dispenser counts the first token as on the line it stands before.
        if following and on_new_line(self._tokens[self._cursor], self._tokens[following]):
            return False
        self._cursor = following
        return True

    def _nowhere(self) -> Token:
        place = self._place
        if place is None and self._tokens:
            place = self._tokens[-1]
        return place._replace(text="") if place is not None else Token("", "Caddyfile", 1, 1)
