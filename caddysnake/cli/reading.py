"""The Caddyfile a command works on, and how errors in it are shown."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from .. import files
from ..caddyfile.errors import CaddyfileError, is_unwritten
from ..config.plan.places import start_folder

DEFAULT_FILE: Final = "Caddyfile"
_SHOWN_MAX_BYTES: Final = 16 * 1024 * 1024
_SHOWN_MAX_LENGTH: Final = 1000
"""Nobody looks for a caret in a longer line."""


Say = Callable[[str, str], None]
"""Says a text of such a level (as the log has them) to whoever called."""


def _to_stderr(text: str, _: str) -> None:
    print(text, file=sys.stderr)


class CommandFailed(Exception):
    """The command cannot go on. The text is for people; without one it has been said why. ``hint``: what to do."""

    def __init__(self, text: str = "", hint: str | None = None) -> None:
        super().__init__(text)
        self.hint = hint


class ReadError(CommandFailed):
    """There is no file to read."""


class Source(NamedTuple):
    """A Caddyfile's content, and its name as messages give it."""

    content: bytes
    file: str


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """The options by which every command is told its Caddyfile."""
    parser.add_argument(
        "-c", "--config", metavar="FILE", help="the Caddyfile, - for standard input (default: ./Caddyfile)"
    )
    parser.add_argument("-a", "--adapter", help=argparse.SUPPRESS)  # Caddy's: it is always a Caddyfile


def read(path: str | None) -> Source:
    """The Caddyfile at *path*, or the one in the current directory. Raises ``ReadError``: it cannot be read."""
    if path == "-":
        return Source(sys.stdin.buffer.read(), "Caddyfile")
    file = DEFAULT_FILE if path is None else path
    try:
        with open(file, "rb") as opened:
            return Source(opened.read(), file)
    except OSError as exc:
        if path is None and isinstance(exc, FileNotFoundError):
            here = start_folder(os.environ)
            raise ReadError(f"there is no Caddyfile in {here}; name one with --config FILE") from None
        raise ReadError(f"cannot read {file}: {exc.strerror}") from None


@contextmanager
def source_of(path: str | None) -> Iterator[Source]:
    """The Caddyfile at *path*, for as long as it is worked on. Raises ``CommandFailed``: it cannot be read, or
    ``ConfigErrors`` was raised meanwhile, and has been printed.
    """
    from ..config.language.adapt import ConfigErrors

    source = read(path)
    try:
        yield source
    except ConfigErrors as exc:
        print_errors(exc.errors, source)
        raise CommandFailed from None


def print_errors(errors: Iterable[CaddyfileError], source: Source | None = None, say: Say = _to_stderr) -> None:
    """Say what is wrong, each with its line of the file."""
    lines: dict[str, list[str]] = {}
    if source is not None:
        lines[source.file] = _lines(source.content)
    for error in errors:
        if error.file not in lines:
            lines[error.file] = _lines_of(error.file)
        shown = _excerpt(error, lines[error.file])
        say(f"Error: {_printable(str(error))}" + (f"\n{shown}" if shown else ""), "error")


def print_warnings(warnings: Iterable[str], say: Say = _to_stderr) -> None:
    """Say what is likely wrong."""
    for warning in warnings:
        say(f"Warning: {_printable(warning)}", "warn")


def _excerpt(error: CaddyfileError, lines: list[str]) -> str:
    """The line with a caret below. Env files are left out: their lines are secrets."""
    if not 1 <= error.line <= len(lines) or is_unwritten(error.file):
        return ""
    line = lines[error.line - 1]
    if len(line) > _SHOWN_MAX_LENGTH:
        return ""
    number = f"{error.line:5} | "
    # Variables are spliced in before anything is counted, so columns behind one are not those of the file.
    if error.column is None or "{$" in line:
        return number + _printable(line.strip())
    indent = len(line) - len(line.lstrip())
    caret = max(error.column - 1 - indent, 0)
    return f"{number}{_printable(line.strip())}\n{' ' * len(number)}{' ' * caret}^"


def _lines_of(file: str) -> list[str]:
    if ".env" in os.path.basename(file):
        return []
    try:
        return _lines(files.read(file, _SHOWN_MAX_BYTES))
    except OSError:
        return []


def _lines(content: bytes) -> list[str]:
    return content.decode("utf-8", "replace").split("\n")


def _printable(text: str) -> str:
    """*text* without what a terminal would act on."""
    return "".join(
        char if char.isprintable() or char == "\t" else char.encode("unicode_escape").decode() for char in text
    )
