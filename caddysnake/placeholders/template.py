"""Text with placeholders, compiled once, expanded for each request.

The scanning rules are Caddy's: an unescaped ``{`` begins a name that runs to the next ``}`` without a backslash before
it, names are taken to the letter, ``\\{`` and ``\\}`` are literal braces, and values are never expanded again.

Two modes say what becomes of a name that nobody knows: to nothing (``ALL``, as in matchers and paths), or it stays as
it is written and is itself looked through (``KNOWN``, as in what ``respond`` says).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from enum import Enum
from typing import NamedTuple

from . import names
from .names import Environ, OfRequest, PlaceholderError, Source
from .request import Request

_UNCLOSED_MAX = 100  # Caddy's own bound


class Mode(Enum):
    """What becomes of names that are unknown."""

    ALL = "all"  # they become nothing
    KNOWN = "known"  # they stay


class _Slot(NamedTuple):
    """A placeholder of requests, and what stands in its place while it is unknown."""

    name: str
    value: OfRequest
    otherwise: tuple[_Piece, ...]


_Piece = str | _Slot
_Find = Callable[[str], Source | None]


class Template:
    """A compiled text."""

    __slots__ = ("_constant", "_pieces", "is_static", "names", "text")

    def __init__(self, text: str, names_: tuple[str, ...], pieces: tuple[_Piece, ...]) -> None:
        self.text = text
        self.names = names_
        """The placeholders of requests in it, each once, in order."""
        self.is_static = not names_
        """Every request gives the same."""
        self._pieces = pieces
        self._constant = "".join([piece for piece in pieces if isinstance(piece, str)]) if self.is_static else None

    def expand(self, request: Request) -> str:
        """The text with the values of *request*."""
        return self._constant if self._constant is not None else _join(self._pieces, request)

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


def compile(text: str, *, mode: Mode = Mode.ALL, is_strict: bool = True, environ: Environ | None = None) -> Template:
    """Compile *text*, with full names: short ones such as ``{host}`` exist only in a Caddyfile. ``mode``: what becomes
    of unknown names, which are an error if ``is_strict``: ``PlaceholderError``. ``environ``: what ``{env.…}`` is looked
    up in, now; our own when not given.
    """
    find: _Find = names.look_up if is_strict else names.find
    scan = _Scan(mode, find, os.environ if environ is None else environ)
    try:
        pieces = scan.pieces(text)
    except _TooManyUnclosed:
        if is_strict:
            raise PlaceholderError("", "too many braces are never closed", "a literal brace is written \\{") from None
        pieces = ()
    return Template(text, tuple(dict.fromkeys(scan.names)), pieces)


def settle(text: str, environ: Environ) -> str:
    """*text* with all that no request can change written out, so that it means the same in another process. Raises
    ``PlaceholderError``: as ``compile``.
    """
    if "{" not in text:
        return text
    settled: list[str] = []

    def find(name: str) -> Source:
        source = names.look_up(name)
        if source.of_place is not None:
            return source
        # Kept as it is; the mark is what takes it through the scan.
        return Source(of_place=lambda _: f"{_KEPT}{name}{_KEPT}")

    for piece in _Scan(Mode.ALL, find, environ).pieces(text):
        assert isinstance(piece, str)
        settled.append(piece)
    literal = "".join(settled).replace("{", "\\{").replace("}", "\\}")
    parts = literal.split(_KEPT)
    return "".join(f"{{{part}}}" if index % 2 else part for index, part in enumerate(parts))


_KEPT = "\udc00"  # never in text: surrogateescape makes only U+DC80 to U+DCFF


class _TooManyUnclosed(Exception):
    pass


class _Scan:
    """One pass over a text; remembers the names of requests it came by."""

    def __init__(self, mode: Mode, find: _Find, environ: Environ) -> None:
        self._mode = mode
        self._find = find
        self._environ = environ
        self.names: list[str] = []

    def pieces(self, text: str) -> tuple[_Piece, ...]:
        if "{" not in text and "}" not in text:
            return (text,) if text else ()
        pieces: list[_Piece] = []
        start = at = unclosed = 0
        while at < len(text):
            char = text[at]
            if char in "{}" and at > 0 and text[at - 1] == "\\":
                pieces.append(text[start : at - 1])
                start = at
            elif char == "{":
                if unclosed > _UNCLOSED_MAX:
                    raise _TooManyUnclosed
                end = _closing(text, at)
                if end is None:
                    unclosed += 1
                else:
                    pieces.append(text[start:at])
                    start = at
                    if (piece := self._placeholder(text, at, end)) is not None:
                        pieces.append(piece)
                        at = end
                        start = end + 1
            at += 1
        pieces.append(text[start:])
        return tuple(piece for piece in pieces if piece != "")

    def _placeholder(self, text: str, at: int, end: int) -> _Piece | None:
        """What stands for the placeholder from *at* to *end*; ``None`` when the brace is an ordinary character."""
        name = text[at + 1 : end]
        source = self._find(name)
        if source is None:
            return None if self._mode is Mode.KNOWN else ""
        if source.of_place is not None:
            return source.of_place(self._environ)
        assert source.of_request is not None
        otherwise: tuple[_Piece, ...] = ()
        if self._mode is Mode.KNOWN:
            otherwise = ("{", *self.pieces(text[at + 1 : end + 1]))
        self.names.append(name)
        return _Slot(name, source.of_request, otherwise)


def _closing(text: str, at: int) -> int | None:
    """Where the placeholder that opens at *at* is closed; ``None`` when it is not."""
    end = text.find("}", at)
    if end < 0:
        return None
    # A brace that is the very last character closes, even after a backslash.
    while end < len(text) - 1 and text[end - 1] == "\\":
        end = text.find("}", end + 1)
        if end < 0:
            return None
    return end


def _join(pieces: tuple[_Piece, ...], request: Request) -> str:
    found = []
    for piece in pieces:
        if isinstance(piece, str):
            found.append(piece)
        elif (value := piece.value(request)) is not None:
            found.append(value)
        elif piece.otherwise:
            found.append(_join(piece.otherwise, request))
    return "".join(found)
