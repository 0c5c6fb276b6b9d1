"""Plain heads, read by the extension ``caddysnake-speedups`` where it is installed.

It makes a scope or an environ of a head in one call, or reads one that goes on to a worker, and leaves whatever is not
plain to the code in Python, which judges alone what is wrong with a head.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

from ..libraries import load
from .heads import Line

FORM = 2
"""What we know of the extension's results. One that has another form is not used."""

FORWARDED, HOST_FIELD, NOBODY = range(3)
"""Whom to believe about the client and the server: what a proxy forwards; the Host field alone; nobody."""

Found = tuple[Line, "list[tuple[bytes, bytes]] | None", bytes, "int | None", int, Any]
"""Line, fields, Host, Content-Length and size of a head; and what was made of it."""


class Reader(Protocol):
    """Reads the heads of one app."""

    def read(self, data: bytes, start: Any, origin: int) -> Found | None:
        """Return what ``data`` begins with; None if that is no plain head. ``start``: the client's address for a scope,
        what the connection adds to an environ. ``origin``: one of the numbers above.
        """


def _load() -> Any:
    try:
        library = load("caddysnake_speedups")
    except ImportError:
        return None
    return library.Reader if getattr(library, "FORM", None) == FORM else None


_READER = _load()


def new_reader(
    template: dict[str, Any] | Literal[False] | None,
    extensions: tuple[str, ...],
    root: tuple[str, bytes],
    limits: tuple[int, int],
    keeps_fields: bool = True,
) -> Reader | None:
    """Return a reader; None without the extension.

    ``template``: what all scopes hold, with ``extensions``; None for environs, whose fields stand beside them where
    ``keeps_fields``; False for heads that are passed on, of which the bytes are told where all of them go along.
    ``root``: what a proxy has taken off the path, decoded and as it was sent. ``limits``: the longest target, in bytes,
    and the most fields.
    """
    if _READER is None:
        return None
    reader: Reader = _READER(template, extensions, *root, *limits, keeps_fields)
    return reader
