"""Tokens to blocks: site addresses, snippets, imports, named routes.

What a directive means is not known here; a *segment* is a directive's line with the block that it opens.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .. import files
from .dispenser import Dispenser
from .errors import CaddyfileError
from .importing import Arguments, find_files, put_in
from .lexer import substitute, tokenize
from .shorthands import expand
from .tokens import Stream, Token


@dataclass(frozen=True, slots=True)
class Segment:
    """A directive: its line, and the tokens of the block opened there, braces included."""

    tokens: Sequence[Token]

    @property
    def name(self) -> str:
        """The directive's name."""
        return self.tokens[0].text

    def dispenser(self) -> Dispenser:
        """A cursor that stands before the directive's name."""
        return Dispenser(self.tokens)

    def arguments(self) -> list[Token]:
        """What follows the name on its line."""
        line = self.dispenser()
        line.next()
        return line.remaining_arg_tokens()


@dataclass(frozen=True, slots=True)
class SiteBlock:
    """One site: its addresses and its directives, in the order of the text."""

    keys: list[Token]
    segments: list[Segment]
    braced: bool = True


@dataclass(frozen=True, slots=True)
class ParsedFile:
    """A Caddyfile taken apart."""

    options: list[Segment]
    """The directives of the global options block."""
    sites: list[SiteBlock]
    named_routes: dict[str, Segment]
    """``&(name) { … }`` by name; the segment begins with the name, then comes the block."""
    warnings: list[CaddyfileError] = field(default_factory=list)
    """What is accepted but likely a mistake; not raised."""
    files: list[str] = field(default_factory=list)
    """Every file that was read through ``import``, absolute, in order."""


def parse(source: bytes, file: str, environ: Mapping[str, str]) -> ParsedFile:
    """Take the Caddyfile *source*, in UTF-8, apart. *file* is its name, for messages, and for the folder that imports
    are relative to; *environ* is what ``{$NAME}`` is replaced from. Raises ``CaddyfileError``: the first thing that is
    wrong.
    """
    if not source:
        raise CaddyfileError("the file is empty", file, 1, hint="a site or at least a comment is needed")
    return _Parser(tokenize(_decoded(source, file, environ), file), environ).run()


def _decoded(source: bytes, file: str, environ: Mapping[str, str]) -> str:
    try:
        text = source.decode("utf-8")
    except UnicodeDecodeError as error:
        before = source[: error.start].decode("utf-8")
        raise _not_utf8(f"the file is not UTF-8: byte 0x{source[error.start]:02x}", before, file) from None
    text = substitute(text, environ)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        # Python keeps the odd bytes of a variable as lone surrogates.
        raise _not_utf8("a variable put in here is not UTF-8", text[: error.start], file) from None
    return text


def _not_utf8(message: str, before: str, file: str) -> CaddyfileError:
    column = len(before) - before.rfind("\n")
    return CaddyfileError(message, file, before.count("\n") + 1, column=column, hint="save it as UTF-8")


class _Parser:
    """Goes through a file block by block: each method begins with its first token taken, ends with its last."""

    def __init__(self, tokens: list[Token], environ: Mapping[str, str]) -> None:
        self._stream = Stream(tokens)
        self._environ = environ
        self._snippets: dict[str, list[Token]] = {}
        self._imports: dict[str, set[str]] = {}  # file or snippet -> what it imports
        self._result = ParsedFile([], [], {})
        self._glued_opening: Token | None = None  # the last word that ends in { at the end of its line
        self._glued_closing: Token | None = None  # the last one that ends in } there

    def run(self) -> ParsedFile:
        while self._stream.next():
            self._block()
        return self._result

    # Blocks

    def _block(self) -> None:
        keys, at_end = self._addresses()
        if not at_end and len(keys) == 1 and self._definition(keys[0]):
            return
        segments: list[Segment] = []
        braced = False
        if not at_end:
            braced = self._stream.token.opens
            segments = self._contents(braced)
        if keys:
            self._result.sites.append(SiteBlock(keys, [_expanded(segment) for segment in segments], braced))
        elif segments:
            if self._result.sites or self._result.named_routes or self._result.options:
                hint = "global options come first in the file, in one block; a site needs an address"
                raise segments[0].tokens[0].error("a block without an address", hint)
            self._result.options.extend(segments)

    def _addresses(self) -> tuple[list[Token], bool]:
        """The keys of a block, and whether the file ended with them. Otherwise the token after them is taken."""
        stream = self._stream
        keys: list[Token] = []
        comma: Token | None = None
        while True:
            token = stream.token
            text = token.text
            if text.startswith("@"):
                hint = "move it into the site's block"
                raise token.error(f"a matcher cannot be defined outside a site: {text}", hint)
            if text == "import" and stream.on_new_line:
                self._import(0)
                if not stream.next():
                    return keys, True
                continue
            if token.closes:
                raise self._stray(token)
            if token.opens:
                if comma is not None:
                    raise token.error("expected another address, got {", "take the comma before it away")
                return keys, False
            if text.endswith("{") and not token.quote:
                hint = "put a space between the address and {"
                raise token.error(f"a site address cannot end in a brace: {text}", hint)
            if text:
                comma = token if text.endswith(",") else None
                address = text.removesuffix(",")
                if "," in address:
                    raise token.error(f"a site address holds a comma: {text}", "put a space after the comma")
                if address:
                    keys.append(token._replace(text=address))
            if not stream.next():
                if comma is not None:
                    raise comma.error("the file ends after a comma", "an address is missing")
                return keys, True
            if comma is None and stream.on_new_line:
                return keys, False

    def _definition(self, key: Token) -> bool:
        """Take in a snippet ``(name)`` or a named route ``&(name)``, if that is what *key* is."""
        text = key.text
        if not text.endswith(")") or not text.startswith(("(", "&(")):
            return False
        name = text[text.index("(") + 1 : -1]
        is_route = text[0] == "&"
        if name in (self._result.named_routes if is_route else self._snippets):
            raise key.error(f"the {'named route' if is_route else 'snippet'} {text} is defined twice")
        tokens = self._braced(of_route=is_route)
        if is_route:
            self._result.named_routes[name] = _expanded(Segment([key._replace(text=name), *tokens]))
        else:
            self._snippets[name] = [token if token.snippet else token._replace(snippet=name) for token in tokens]
        return True

    def _braced(self, *, of_route: bool) -> list[Token]:
        """A block's tokens, from the opening brace, taken, on; a snippet's as they stand, without its braces."""
        stream = self._stream
        opening = stream.token
        if not opening.opens:
            raise opening.error(f'expected {{, got "{opening.text}"', "a snippet or named route needs a block")
        tokens = [opening]
        depth = 1
        while depth:
            if not stream.next():
                raise self._unclosed(opening)
            if of_route and stream.token.text == "import" and stream.on_new_line:
                self._import(1, block_allowed=False)
                continue
            tokens.append(stream.token)
            depth += stream.token.opens - stream.token.closes
        return tokens if of_route else tokens[1:-1]

    def _contents(self, braced: bool) -> list[Segment]:
        stream = self._stream
        opening = stream.token
        if not braced:
            stream.back()
        segments: list[Segment] = []
        while stream.next():
            token = stream.token
            if token.closes:
                if not braced:
                    # Caddy ends the site here and goes on.
                    self._warn(token, "unexpected }, no block is open here")
                return segments
            if token.text == "import":
                self._import(1)
                continue
            segments.append(Segment(self._directive()))
        # Caddy looks at the last token only, so the end of a nested block at the end of the file closes the site too.
        if braced and not stream.token.closes:
            raise self._unclosed(opening)
        return segments

    def _directive(self) -> list[Token]:
        """One segment: from the directive's name to the end of its line, or of the block opened on that line."""
        stream = self._stream
        tokens = [stream.token]
        opened: list[Token] = []
        while stream.next():
            token = stream.token
            if token.opens:
                self._check_opening(token)
                opened.append(token)
            elif token.text == "{}" and not token.quote:
                # On a line of its own it still belongs to this directive: Caddy has it so.
                if stream.line_ends:
                    hint = "take it away, or write { and } on two lines"
                    raise token.error("unexpected {} at the end of a line", hint)
            elif not opened and stream.on_new_line:
                stream.back()
                break
            elif token.closes:
                if not opened:
                    raise self._stray(token)
                opened.pop()
            elif token.text == "import" and stream.on_new_line:
                self._import(1)
                continue
            elif not token.quote and stream.line_ends:
                self._note_glued(token)
            tokens.append(token)
        if opened:
            raise self._unclosed(opened[-1])
        return tokens

    def _check_opening(self, brace: Token) -> None:
        stream = self._stream
        if not stream.line_ends and stream.upcoming is not None:
            hint = "a block's content begins on the next line"
            raise stream.upcoming.error("unexpected token after { on the same line", hint)
        if stream.on_new_line:
            raise brace.error("unexpected { on a line of its own", "put it at the end of the line before")

    def _stray(self, brace: Token) -> CaddyfileError:
        hint = "put } on a line of its own, one for each {"
        if (word := self._glued_opening) is not None:
            hint = f"put a space before the {{ of {word.text} in line {word.line}"
        return brace.error("unexpected }, no block is open here", hint)

    def _unclosed(self, brace: Token) -> CaddyfileError:
        hint = "a } is missing"
        if (word := self._glued_closing) is not None:
            hint = f"put the }} of {word.text} in line {word.line} on a line of its own"
        return brace.error("this block is never closed", hint)

    def _note_glued(self, word: Token) -> None:
        """Remember a brace that is probably meant for a block, for the error that it leads to."""
        if word.text.endswith("{"):
            self._glued_opening = word
        elif word.text.endswith("}") and "{" not in word.text:
            self._glued_closing = word

    # Imports

    def _import(self, depth: int, *, block_allowed: bool = True) -> None:
        """Replace the import that is taken by what it stands for; that comes next."""
        stream = self._stream
        at = stream.token
        mark = len(stream.taken) - 1
        words = self._words_of_line()
        if not words:
            raise at.error("import needs the name of a snippet or file")
        pattern = words[0]
        if not pattern.text:
            raise pattern.error("import needs a name that is not empty")
        if not block_allowed and not stream.line_ends:
            # Caddy fails here as well.
            raise at.error("an import inside a named route takes no block", "give it words only")
        block = self._import_block()
        arguments = Arguments(words[1:], block, _by_first_word(block))
        if pattern.text in self._snippets:
            imported = self._snippets[pattern.text]
            sources = [f"{os.path.abspath(imported[0].file)}:{pattern.text}"] if imported else []
        else:
            sources = find_files(pattern.text, pattern, self._snippets, self._warn)
            imported = [token for source in sources for token in self._read(source, pattern)]
        self._connect(at, sources, pattern)
        stream.replace(mark, put_in(imported, arguments, at, depth, self._warn))

    def _words_of_line(self) -> list[Token]:
        stream = self._stream
        words: list[Token] = []
        while not stream.line_ends and not (stream.upcoming is not None and stream.upcoming.opens):
            stream.next()
            words.append(stream.token)
        return words

    def _import_block(self) -> list[Token]:
        """The tokens between the braces that follow an import on its line, if there are any."""
        if self._stream.line_ends:
            return []
        self._stream.next()
        return self._braced(of_route=False)

    def _read(self, path: str, at: Token) -> list[Token]:
        try:
            if os.path.isdir(path):
                raise at.error(f"cannot import {path}: it is a folder", f"import {at.text.rstrip('/')}/*")
            with open(files.open_regular(path), "rb") as file:
                source = file.read()
        except files.Unfit as error:
            raise at.error(f"cannot import {path}: it {error.strerror}") from None
        except OSError as error:
            raise at.error(f"cannot import {path}: {error.strerror}") from None
        if path not in self._result.files:
            self._result.files.append(path)
        if not source.strip():
            self._warn(at, f"the imported file {path} is empty")
        return tokenize(_decoded(source, path, self._environ), path)

    def _connect(self, at: Token, sources: list[str], pattern: Token) -> None:
        """Note who imports what, and refuse a circle."""
        importer = f"{os.path.abspath(at.file)}:{at.snippet}" if at.snippet else os.path.abspath(at.file)
        for source in sources:
            if self._reaches(source, importer):
                raise pattern.error(f"import cycle: {pattern.text} imports itself in the end")
            self._imports.setdefault(importer, set()).add(source)

    def _reaches(self, start: str, goal: str) -> bool:
        seen: set[str] = set()
        todo = [start]
        while todo:
            node = todo.pop()
            if node == goal:
                return True
            if node not in seen:
                seen.add(node)
                todo.extend(self._imports.get(node, ()))
        return False

    def _warn(self, token: Token, message: str) -> None:
        self._result.warnings.append(token.error(message))


def _by_first_word(block: list[Token]) -> dict[str, list[Token]]:
    """The lines (and the blocks they open) of an import's block, by their first word, which is left out."""
    named: dict[str, list[Token]] = {}
    dispenser = Dispenser(block)
    while dispenser.next():
        key = dispenser.token()
        if key.opens:
            raise key.error("a block without a name cannot be given to import", "put a name before the {")
        tokens = dispenser.remaining_arg_tokens()
        nesting = dispenser.nesting()
        while dispenser.next_block(nesting):
            tokens.append(dispenser.token())
        named[key.text] = tokens
    return named


def _expanded(segment: Segment) -> Segment:
    """The segment with the short placeholders written out."""
    if not any("{" in token.text for token in segment.tokens):
        return segment
    return Segment(
        [token._replace(text=expand(token.text)) if "{" in token.text else token for token in segment.tokens]
    )
