"""The tokens of a file while it is parsed: a place between those taken and those to come, where imports put in more."""

from __future__ import annotations

from .tokens import Token, on_new_line


class Stream:
    """The tokens, with a cursor between those taken and those still to come.

    Both sides are stacks, so putting in the tokens of an import costs their number, wherever it is in the file.
    """

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
