"""What ``import`` does to tokens: finding the files, and putting in the arguments and blocks it was given.

The parser decides where an import stands and splices the result in; nothing here knows of its position.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from glob import glob
from typing import NamedTuple

from .errors import nearest
from .hosts import integer
from .replacing import UnclosedBraces, pieces
from .tokens import Token, on_new_line

_INDEX = re.compile(r"args\[(.+)\]")
_OLD_INDEX = re.compile(r"args\.(.+)")


class Arguments(NamedTuple):
    """What follows the name on an ``import`` line."""

    values: Sequence[Token]
    block: Sequence[Token]
    """The tokens between the braces, for ``{block}``."""
    blocks: Mapping[str, Sequence[Token]]
    """The same, by the first word of each line in it, for ``{blocks.name}``."""


Warn = Callable[[Token, str], None]


def put_in(tokens: Sequence[Token], arguments: Arguments, at: Token, depth: int, warn: Warn) -> list[Token]:
    """*tokens* as they stand after the import *at*, with arguments and blocks for placeholders, but in a snippet
    defined within them. *depth* is the nesting at the import. Raises ``CaddyfileError``: ``{args[n]}`` with a negative
    n.
    """
    place = f"{at.file}:{at.line}"
    arrived: list[Token] = []
    definitions = _Definitions(depth)
    for original in tokens:
        came = f"{place} ({original.snippet})" if original.snippet else place
        token = original._replace(imports=(*original.imports, came))
        inside = definitions.hold(token, arrived[-1] if arrived else None)
        text = token.text
        if "{" not in text and "\\" not in text:
            arrived.append(token)
        elif text == "{block}":
            arrived.extend(arguments.block)
        elif text.startswith("{blocks.") and text.endswith("}"):
            arrived.extend(arguments.blocks.get(text[len("{blocks.") : -1], ()))
        elif inside:
            arrived.append(token)
        elif (span := _range(token, len(arguments.values), warn)) is not None:
            arrived.extend(token._replace(text=value.text) for value in arguments.values[span[0] : span[1]])
        else:
            arrived.append(token._replace(text=_replace_known(token, arguments.values, warn)))
    return arrived


class _Definitions:
    """Follows whether tokens belong to a snippet's definition: ``(name) {`` at the top level, to its end."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._named = False
        self._inside = False
        self._index = 0

    def hold(self, token: Token, before: Token | None) -> bool:
        """Take note of the next *token*; ``True`` while it is part of a definition."""
        if not self._inside and self._depth == 0:
            self._index = 0 if before is None or on_new_line(before, token) else self._index + 1
            if self._index == 0 and len(token.text) >= 3 and token.text[0] == "(" and token.text[-1] == ")":
                self._named = True
        if token.opens:
            self._depth += 1
            if self._index == 1 and self._named and self._depth == 1:
                self._inside, self._named = True, False
        elif token.closes:
            self._depth -= 1
            if self._depth == 0:
                self._inside = False
        return self._inside


def _range(token: Token, count: int, warn: Warn) -> tuple[int, int] | None:
    """The arguments that ``{args[a:b]}`` stands for, ``None`` when *token* is no such range or it is out of bounds."""
    text = token.text
    if not (text.startswith("{args[") and text.endswith("]}")):
        return None
    inner = text[len("{args[") : -len("]}")]
    start, colon, stop = inner.partition(":")
    if not inner:
        warn(token, f"{text} has no index")
    if not colon:
        return None
    first, last = integer(start or "0"), integer(stop or str(count))
    if first is None or last is None:
        warn(token, f"{text} is not a range of numbers")
        return None
    if not 0 <= first <= last <= count:
        warn(token, f"{text} is out of bounds, {count} argument(s) were given")
        return None
    return first, last


def _replace_known(token: Token, values: Sequence[Token], warn: Warn) -> str:
    """The text with ``{args[n]}`` (and the old ``{args.n}``) replaced and one level of brace escapes taken off."""
    try:
        return "".join(pieces(token.text, lambda key: _argument(key, token, values, warn)))
    except UnclosedBraces:
        return ""


def _argument(key: str, token: Token, values: Sequence[Token], warn: Warn) -> str | None:
    old = _OLD_INDEX.fullmatch(key)
    match = old or _INDEX.fullmatch(key)
    if match is None:
        return None
    index, number = match[1], integer(match[1])
    if not old and ":" in index:
        warn(token, f"{{{key}}} must be a word of its own")
        return None
    if number is None:
        warn(token, f"{{{key}}} has no number for an index")
        return None
    if number < 0:
        raise token.error(f"{{{key}}}: an index counts from 0 and cannot be negative")
    if number >= len(values):
        warn(token, f"{{{key}}} is out of bounds, {len(values)} argument(s) were given")
        return None
    if old:
        warn(token, f"{{{key}}} is deprecated, write {{args[{index}]}}")
    return values[number].text


def find_files(pattern: str, at: Token, snippets: Iterable[str], warn: Warn) -> list[str]:
    """The files that *pattern* names, relative to the file that *at* stands in, sorted.

    *snippets* are the names it might have been meant for. Raises ``CaddyfileError``: a plain name is not there, or the
    pattern has more wildcards than one.
    """
    folder = os.path.dirname(os.path.abspath(at.file))
    path = pattern if os.path.isabs(pattern) else os.path.normpath(os.path.join(folder, pattern))
    if path.count("*") > 1 or path.count("?") > 1 or ("[" in path and "]" in path):
        raise at.error(f"an import pattern may hold only one wildcard (*): {path}")
    if not any(char in path for char in "*?[]"):
        if not os.path.lexists(path):
            hint = nearest(pattern, snippets) or "a snippet is defined before its use; a file is relative to this one"
            raise at.error(f"no snippet and no file of this name to import: {pattern}", hint)
        return [path]
    # Dot-files match too, but for an asterisk in front. Folder by folder, as Caddy sorts them.
    matches = sorted(glob(path, include_hidden=True), key=lambda match: os.fsencode(match).split(b"/"))
    if os.path.basename(path).startswith("*"):
        matches = [match for match in matches if not os.path.basename(match).startswith(".")]
    if not matches:
        warn(at, f"no files match the import pattern {pattern}")
    return matches
