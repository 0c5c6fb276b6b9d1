"""Text with placeholders, compiled once, expanded for each request. ``caddyfile.replacing`` has the scanning rules."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

from ..caddyfile.replacing import UnclosedBraces, pieces
from . import names
from .names import Environ, OfRequest, PlaceholderError
from .request import Request


class _Slot(NamedTuple):
    """A placeholder of requests."""

    name: str
    value: OfRequest


_Piece = str | _Slot
_T = TypeVar("_T")


class Template:
    """A compiled text."""

    __slots__ = ("_constant", "_pieces", "is_static", "names", "text")

    def __init__(self, text: str, found: list[_Piece]) -> None:
        self.text = text
        self.names = tuple(dict.fromkeys(piece.name for piece in found if isinstance(piece, _Slot)))
        """The placeholders of requests in it, each once, in order."""
        self.is_static = not self.names
        """Every request gives the same."""
        self._pieces = found
        self._constant = self.fill({}) if self.is_static else None

    def expand(self, request: Request) -> str:
        """The text with the values of *request*; nothing where a regular expression has not matched as yet."""
        if self._constant is not None:
            return self._constant
        return "".join([piece if isinstance(piece, str) else piece.value(request) or "" for piece in self._pieces])

    @property
    def constant(self) -> str:
        """The text of a static template, without the backslashes that kept braces literal."""
        assert self._constant is not None
        return self._constant

    def fill(self, values: Mapping[str, str]) -> str:
        """The text with *values*, by the names of the placeholders; those that are missing are empty."""
        return "".join([piece if isinstance(piece, str) else values.get(piece.name, "") for piece in self._pieces])

    def __repr__(self) -> str:
        return f"<Template {self.text!r}>"


def compile(text: str, environ: Environ | None = None) -> Template:
    """Compile *text*, with full names: short ones such as ``{host}`` exist only in a Caddyfile. *environ*: what
    ``{env.…}`` is looked up in, now; our own when not given. Raises ``PlaceholderError``: a name is unknown.
    """
    around = os.environ if environ is None else environ

    def piece(name: str) -> _Piece:
        source = names.look_up(name)
        if source.of_place is not None:
            return source.of_place(around)
        assert source.of_request is not None
        return _Slot(name, source.of_request)

    return Template(text, _pieces(text, piece))


def settle(text: str, environ: Environ) -> str:
    """*text* with all that no request can change written out, so that it means the same in another process. Raises
    ``PlaceholderError``: as ``compile``.
    """
    if "{" not in text:
        return text

    def piece(name: str) -> str:
        source = names.look_up(name)
        # What is of requests is kept as it is; the mark takes it through the scan.
        return f"{_KEPT}{name}{_KEPT}" if source.of_place is None else source.of_place(environ)

    literal = "".join(_pieces(text, piece)).replace("{", "\\{").replace("}", "\\}")
    parts = literal.split(_KEPT)
    return "".join(f"{{{part}}}" if index % 2 else part for index, part in enumerate(parts))


_KEPT = "\udc00"  # never in text: surrogateescape makes only U+DC80 to U+DCFF


def _pieces(text: str, look_up: Callable[[str], _T | str]) -> list[_T | str]:
    try:
        return pieces(text, look_up)
    except UnclosedBraces:
        raise PlaceholderError("too many braces are never closed", "a literal brace is written \\{") from None
