"""A configuration as the daemon is given it: the text, its meaning, and what to run. Who reads it is the caller's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from ...config.language.values import SocketAddress
from ...config.plan.admin import OFF, AdminEndpoint
from .desired import Desired


class Document(NamedTuple):
    """A Caddyfile's text. ``file`` is its absolute path; the name is in parentheses when there is none to read."""

    content: bytes
    file: str


class Asked(NamedTuple):
    """Where Caddy may ask whether a host is served, and how that is known: ``serves`` looks at the file system."""

    listen: SocketAddress
    serves: Callable[[str], bool]


class CaddyPart(NamedTuple):
    """What a supervised Caddy runs."""

    text: str = ""
    """A Caddyfile; empty when there is no such Caddy."""
    admin: str = ""
    """Where the Caddy that runs it is told of another, or ``off``."""
    source: Document = Document(b"", "(none)")
    """What it was made of, under the name that messages give it."""

    def is_same(self, other: CaddyPart) -> bool:
        """Whether Caddy is told the same by both."""
        return (self.text, self.admin) == (other.text, other.admin)


class Configuration(NamedTuple):
    """What is, or shall be, run."""

    composition: Desired
    document: Document = Document(b"", "(none)")
    meaning: Mapping[str, Any] = {}
    """As JSON, without secrets."""
    admin: AdminEndpoint = OFF
    warnings: tuple[str, ...] = ()
    asked: Asked | None = None
    caddy: CaddyPart = CaddyPart()


class Problem(NamedTuple):
    """One thing that is wrong with a configuration. ``line`` 0: nowhere in particular."""

    file: str
    line: int
    text: str


class ReloadFailed(Exception):
    """The new configuration cannot be run; the text says why. The old one goes on.

    ``code`` is a stable word: ``config`` (it cannot be read, with its ``problems``), ``listen``, ``start`` (an app does
    not start: ``app``, and ``detail``, its own code for why), ``restart`` (only a restart can carry it out),
    ``caddy`` (a supervised Caddy refuses its part of it), ``busy``.
    """

    def __init__(
        self, text: str, code: str = "config", problems: tuple[Problem, ...] = (), app: str = "", detail: str = ""
    ) -> None:
        super().__init__(text)
        self.code = code
        self.problems = problems
        self.app = app
        self.detail = detail


class ConfigurationReader(Protocol):
    """Reads configurations, in a thread: it may look at the file system for as long as that takes."""

    @property
    def base(self) -> str:
        """Where relative paths begin: the folder in which the daemon was started, wherever that leads by now."""

    def read(self, file: str) -> Document:
        """The text at ``file`` as it is now. Raises ``ReloadFailed``."""

    def understand(self, document: Document) -> Configuration:
        """What ``document`` asks for. Raises ``ReloadFailed``."""
