"""The one exception a Caddyfile's author gets to see.

Everything in the language that can be wrong ends in a :class:`CaddyfileError`, which knows where: the file, the line,
the column and the token, and, where one can be given, what would be right.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CaddyfileError(Exception):
    """A mistake in a Caddyfile, said to the person who wrote it. ``message``: in one sentence without a full stop.
    ``file``: its name as it was given, or an imported one's absolute path. ``line``: from 1, after environment
    substitution; 0: nowhere in particular. ``column``: from 1, in characters; None: the whole line. ``token``: what is
    wrong. ``hint``: what would be right. ``imports``: the ``import`` lines that it came in by, the latest last.
    """

    def __init__(
        self,
        message: str,
        file: str,
        line: int,
        *,
        column: int | None = None,
        token: str | None = None,
        hint: str | None = None,
        imports: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.file = file
        self.line = line
        self.column = column
        self.token = token
        self.hint = hint
        self.imports = imports

    def __str__(self) -> str:
        place = "" if is_unwritten(self.file) else f"{self.file}:{self.line}: " if self.line else f"{self.file}: "
        text = f"{place}{self.message}"
        if self.imports:
            text += ", imported at " + ", ".join(reversed(self.imports))
        if self.hint:
            text += f" ({self.hint})"
        return text


class Hinted(ValueError):
    """What is wrong with a value, wherever that was written. ``hint`` says what would be right."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def is_unwritten(file: str) -> bool:
    """Whether ``file`` is the name of none: in parentheses stands what the text was made of."""
    return file.startswith("(") and file.endswith(")")


def nearest(word: str, known: Iterable[str]) -> str | None:
    """``did you mean "…"?`` with the known name that is most like *word*, or ``None`` when none is like it."""
    close = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.7)
    return f'did you mean "{close[0]}"?' if close else None
