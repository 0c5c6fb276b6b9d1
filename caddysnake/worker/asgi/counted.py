"""Connections that go back to the daemon after so many requests. Apart from the others, so that these pay nothing."""

from __future__ import annotations

from .connection import HttpConnection
from .logged import LoggedConnection


class CountedConnection(HttpConnection):
    """Is given back after ``turns`` requests, which are to be set."""

    turns: int

    def _boundary(self) -> None:
        self.turns -= 1
        super()._boundary()
        if self.turns <= 0:
            self.leave()  # if it is idle; else at its next boundary


class LoggedCountedConnection(CountedConnection, LoggedConnection):
    """The same, with its requests logged."""
