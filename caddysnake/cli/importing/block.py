"""A site with one ``python`` block while it is put together, and its text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from ...caddyfile.errors import CaddyfileError
from ...caddyfile.formatter import format_source
from ...caddyfile.tokens import Token
from ...config.language import block as _  # noqa: F401 (registers all subdirectives)
from ...config.language.directives import SUBDIRECTIVES
from ...config.language.values import InvalidValue, module_variable, placeholders
from ...config.language.variables import check_name
from ...config.stock.printing import print_token

VARIABLE: Final = "{$"
"""Begins a variable that Caddy, and we, read from the environment: what a shell has written as ``$NAME``."""


class Block:
    """Lines, and a comment for all that has no line."""

    def __init__(self) -> None:
        self.server = ""
        """Who ran the app until now; its name is in front of what comments say."""
        self.addresses: list[str] = []
        self.mode: str | None = None
        """Of sockets whose address has none, as ``0660``."""
        self.comments: list[str] = []
        """What stands at the top."""
        self.options: dict[str, tuple[str, ...]] = {}
        """Global options: their words by their names."""
        self._lines: dict[str, list[tuple[str, ...]]] = {}
        self._notes: list[str] = []

    def has(self, name: str) -> bool:
        """Whether there is a line of that subdirective."""
        return name in self._lines

    def count(self, name: str) -> int:
        """How many lines of that subdirective there are."""
        return len(self._lines.get(name, ()))

    def put(self, name: str, *words: str) -> None:
        """The only line of its kind."""
        if any("$(" in each or "`" in each for each in words):
            self.note(f"{name} {' '.join(words)}", "no shell is run: write its value")
        else:
            self._lines[name] = [words]

    def drop(self, name: str) -> None:
        """No line of that subdirective."""
        self._lines.pop(name, None)

    def add(self, name: str, *words: str) -> None:
        """One more line of its kind."""
        self._lines.setdefault(name, []).append(words)

    def note(self, setting: str, why: str) -> None:
        """``setting`` has no line, and why."""
        text = " ".join(f"{setting}: {why}".split())
        if text not in self._notes:
            self._notes.append(text)

    def command(self, name: str, words: Sequence[str]) -> None:
        """A line ``name`` whose command is ``words``; a ``python`` of the app's is the word alone."""
        first, *rest = words
        if re.fullmatch(r"(.*/)?python[0-9.]*", first):
            first = "python"
        self.add(name, first, *rest)

    def environ(self, name: str, value: str) -> None:
        """A variable of the app's environment."""
        try:
            check_name(name)
        except InvalidValue as exc:
            self.note(name, f"{exc}")
            return
        if "$(" in value or "`" in value:
            self.note(f"{name}={value}", "no shell is run: write its value")
            return
        self._lines["env_var"] = [each for each in self._lines.get("env_var", []) if each[0] != name]
        self.add("env_var", name, value)

    def app(self, interface: str, text: str) -> None:
        """The app as ``module:variable``; what of it is not understood is said."""
        name, brace, rest = text.partition("}")
        if name.startswith(VARIABLE) and ":" not in name:
            text = f"{name}:app:app{brace}{rest if rest.startswith('(') else ''}"
        elif not placeholders(text):
            try:
                module_variable(text)
            except InvalidValue as exc:
                self.note(text, f"{exc}; {exc.hint}" if exc.hint else str(exc))
                text = re.sub(r"\(.+\)\Z", "()", text, flags=re.DOTALL)
                text = text if re.fullmatch(r"[\w.]+:[\w.]+(\(\))?", text) else "app:app"
        self.drop("module_wsgi")
        self.drop("module_asgi")
        self.put(f"module_{interface}", text)

    def text(self) -> str:
        """The site."""
        lines = [f"{', '.join(self._with_mode(address) for address in self.addresses)} {{", "python {"]
        for name in SUBDIRECTIVES.settings:
            lines += [self._line(name, words) for words in self._lines.get(name, [])]
        lines += [f"# {note}" for note in self._notes]
        return "\n".join([*lines, "}", "}", ""])

    def _with_mode(self, address: str) -> str:
        return f"{address}|{self.mode}" if self.mode and address.startswith("unix/") else address

    def _line(self, name: str, words: tuple[str, ...]) -> str:
        try:
            return " ".join([name, *(word(each) for each in words)])
        except CaddyfileError as exc:
            return f"# {name} {words[0] if words else ''}: {exc}"


def caddyfile(blocks: Sequence[Block]) -> str:
    """A file with a site for each block, and the global options of all."""
    lines = [f"# {comment}" for block in blocks for comment in block.comments]
    options = {name: words for block in blocks for name, words in block.options.items()}
    if options:
        lines += ["{", *(f"{name} {' '.join(words)}" for name, words in options.items()), "}", ""]
    return format_source("\n".join([*lines, *(block.text() for block in blocks)]))


def word(text: str) -> str:
    """``text`` as one word of a Caddyfile. A brace that is not a variable's is literal; a block passes."""
    if text.startswith("{\n"):
        return text
    if VARIABLE in text:
        return f'"{text}"' if re.search(r"\s", text) else text
    escaped = text.replace("{", "\\{").replace("}", "\\}")
    return print_token(Token(escaped, "", 1, 1))
