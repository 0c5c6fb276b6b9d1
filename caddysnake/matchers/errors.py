"""The one exception of matchers."""

from __future__ import annotations


class MatcherError(ValueError):
    """A matcher that cannot be used. ``hint`` says what would be right."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint
