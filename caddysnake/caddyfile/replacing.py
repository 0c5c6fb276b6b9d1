r"""Placeholders in a text, found as Caddy finds them.

One runs from an unescaped brace to the next closing one that is not escaped; ``\{`` and ``\}`` are plain braces. Names
are taken to the letter, and values are not searched again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

_UNCLOSED_MAX = 100  # Caddy's own bound: such text would take quadratic time

_T = TypeVar("_T")


class UnclosedBraces(ValueError):
    """Too many braces are opened and never closed. Caddy makes nothing of such a text."""


def pieces(text: str, look_up: Callable[[str], _T | str | None]) -> list[_T | str]:
    """*text* in pieces: what is literal, and what *look_up* makes of names. A name of which it makes ``None`` stays,
    and the search goes on behind its opening brace. Raises ``UnclosedBraces``.
    """
    if "{" not in text and "}" not in text:
        return [text] if text else []
    found: list[_T | str] = []
    written = position = unclosed = 0
    while position < len(text):
        char = text[position]
        if char in "{}" and position > 0 and text[position - 1] == "\\":
            found.append(text[written : position - 1])
            written = position
        elif char == "{":
            if unclosed > _UNCLOSED_MAX:
                raise UnclosedBraces
            end = _closing(text, position)
            if end < 0:
                unclosed += 1
            elif (value := look_up(text[position + 1 : end])) is not None:
                found += [text[written:position], value]
                position = end
                written = end + 1
        position += 1
    return [piece for piece in (*found, text[written:]) if piece != ""]


def _closing(text: str, position: int) -> int:
    """Where the placeholder opened at *position* closes, or -1. A last brace closes even when escaped."""
    end = text.find("}", position)
    while 0 < end < len(text) - 1 and text[end - 1] == "\\":
        end = text.find("}", end + 1)
    return end
