"""The same Caddyfile with every ``python`` block standing in the text itself.

A block may come out of a snippet or an imported file. To replace it by something that differs from place to place, it
must first be written out where it is used:

* an ``import`` in a site, of which a ``python`` block comes, is replaced by what it stands for, and so are those right
  before and behind it;
* when whole sites with such a block come out of an ``import``, the whole file is written out.

Everything else stays as it is: comments, layout, variables, and imports that bring no ``python`` block. What is written
out has lost its comments.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ...caddyfile.parser import ParsedFile, SiteBlock
from ...caddyfile.tokens import Token
from ..language.adapt import Reading
from .printing import print_lines, print_token
from .sourcetext import Edit, SourceText, begins_line, block_end, segment_end


class _WrittenOutError(Exception):
    """The text cannot be matched with what was parsed, or need not be: everything is to be written out."""


class Item(NamedTuple):
    """Something at the top level of a file."""

    kind: str
    """``options``, ``snippet``, ``named route``, ``site`` or ``import``."""
    keys: tuple[Token, ...]
    body: tuple[Token, ...]
    """The tokens inside the braces."""
    tokens: tuple[Token, ...]
    """All of them, braces included."""


def expand_python(text: SourceText, file: str, reading: Reading) -> bytes | None:
    """*text* with each ``python`` block of *reading* written where it is used; None: each stands there."""
    if all(token.text != "import" for token in text.tokens):
        return None
    try:
        edits = list(_expansions(text, file, reading))
    except _WrittenOutError:
        return _print_file(reading.parsed).encode()
    return text.edited(edits).encode()


def items(tokens: Sequence[Token]) -> list[Item]:
    """What stands at the top level of a file."""
    found: list[Item] = []
    index = 0
    while index < len(tokens):
        start = index
        if tokens[index].text == "import":
            index = segment_end(tokens, index)
            words = tuple(tokens[start:index])
            found.append(Item("import", words[1:], (), words))
            continue
        keys: list[Token] = []
        while index < len(tokens) and not tokens[index].opens:
            if keys and not keys[-1].text.endswith(",") and begins_line(tokens, index):
                break
            keys.append(tokens[index])
            index += 1
        if index < len(tokens) and tokens[index].opens:
            end = block_end(tokens, index)
            body = tokens[index + 1 : end - 1] if tokens[end - 1].closes else tokens[index + 1 : end]
        else:
            end = len(tokens)
            body = tokens[index:]
        index = max(end, start + 1)
        found.append(Item(_kind(keys), tuple(keys), tuple(body), tuple(tokens[start:index])))
    return found


def _kind(keys: Sequence[Token]) -> str:
    if not keys:
        return "options"
    if len(keys) == 1 and keys[0].text.endswith(")"):
        if keys[0].text.startswith("("):
            return "snippet"
        if keys[0].text.startswith("&("):
            return "named route"
    return "site"


def _direct(token: Token, file: str) -> bool:
    """*token* stands in the file itself: it came through no import and out of no snippet."""
    return token.file == file and not token.imports and not token.snippet


def _expansions(text: SourceText, file: str, reading: Reading) -> Iterable[Edit]:
    sites = iter(reading.parsed.sites)
    named = dict(reading.parsed.named_routes)
    for item in items(text.tokens):
        match item.kind:
            case "named route":
                segment = named.pop(item.keys[0].text[2:-1])
                yield from _inside(text, file, reading, item.body, segment.tokens[2:-1])
            case "site":
                site = next(sites, None)
                # Sites of imports come in between; those with a python block end this attempt, see below.
                while site is not None and not _direct(site.keys[0], file):
                    _refuse_python(_tokens(site), reading)
                    site = next(sites, None)
                if site is None or any(token.text == "import" for token in item.keys):
                    raise _WrittenOutError
                yield from _inside(text, file, reading, item.body, _tokens(site))
            case "snippet":
                if _holds_python(item.body):
                    # Whatever imported it is expanded now.
                    start, end = text.whole_lines(text.start(item.tokens[0]), text.end(item.tokens[-1]))
                    yield Edit(start, end, "")
    for site in sites:
        _refuse_python(_tokens(site), reading)
    for segment in named.values():
        _refuse_python(segment.tokens, reading)


def _tokens(site: SiteBlock) -> list[Token]:
    return [token for segment in site.segments for token in segment.tokens]


def _refuse_python(tokens: Iterable[Token], reading: Reading) -> None:
    if any(id(token) in reading.apps for token in tokens):
        raise _WrittenOutError


def _holds_python(body: Sequence[Token]) -> bool:
    named = (index for index, token in enumerate(body) if token.text == "python" and not token.quote)
    return any(begins_line(body, index) for index in named)


def _inside(
    text: SourceText, file: str, reading: Reading, tokens: Sequence[Token], parsed: Sequence[Token]
) -> Iterable[Edit]:
    """The edits within one block, by walking over its *tokens* as written and as *parsed* side by side."""
    index = place = 0
    while index < len(tokens):
        token = tokens[index]
        if token.text == "import" and begins_line(tokens, index):
            end = _imports_end(tokens, index)
            behind = tokens[end] if end < len(tokens) else None
            start = place
            while place < len(parsed) and not _reached(parsed[place], behind, file):
                place += 1
            if any(id(found) in reading.apps for found in parsed[start:place]):
                yield _written_out(text, tokens[index], tokens[end - 1], parsed[start:place])
            index = end
            continue
        if place >= len(parsed) or not _same_place(parsed[place], token, file):
            raise _WrittenOutError
        index += 1
        place += 1
    if place != len(parsed):
        raise _WrittenOutError


def _imports_end(tokens: Sequence[Token], index: int) -> int:
    """The index behind a run of imports. What came of each of them cannot be told apart, nested ones considered."""
    while index < len(tokens) and tokens[index].text == "import" and begins_line(tokens, index):
        index = segment_end(tokens, index)
    return index


def _reached(found: Token, behind: Token | None, file: str) -> bool:
    return behind is not None and _direct(found, file) and (found.line, found.column) >= (behind.line, behind.column)


def _same_place(found: Token, token: Token, file: str) -> bool:
    return _direct(found, file) and (found.line, found.column) == (token.line, token.column)


def _written_out(text: SourceText, first: Token, last: Token, tokens: Sequence[Token]) -> Edit:
    start, end = text.start(first), text.end(last)
    indent = text.indent(start)
    lines = print_lines(tokens, 0)
    if "\n" in "".join(token.text for token in tokens):
        # Text over several lines would change by being indented.
        return Edit(start, end, lines.rstrip("\n"))
    return Edit(start, end, lines.replace("\n", f"\n{indent}").rstrip())


def _print_file(parsed: ParsedFile) -> str:
    pieces: list[str] = []
    if parsed.options:
        pieces.append("{\n" + "".join(print_lines(segment.tokens, 1) for segment in parsed.options) + "}\n")
    for name, segment in parsed.named_routes.items():
        pieces.append(f"&({name}) {{\n" + print_lines(segment.tokens[2:-1], 1) + "}\n")
    for site in parsed.sites:
        keys = ", ".join(print_token(key) for key in site.keys)
        body = "".join(print_lines(segment.tokens, 1) for segment in site.segments)
        pieces.append(f"{keys} {{\n{body}}}\n")
    return "\n".join(pieces)
