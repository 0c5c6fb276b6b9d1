"""Format a Caddyfile: tabs, one space between words, braces where they belong. What it means never changes.

Prints the result. Exits with 1 when a file was not formatted, so that a check can rely on it; with --overwrite the file
is written instead, and from standard input (-) the status is always 0.
"""

from __future__ import annotations

import argparse
import sys
from difflib import SequenceMatcher

from ..caddyfile.formatter import format_source
from .reading import DEFAULT_FILE, CommandFailed, Source, read


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("file", nargs="?", help="the Caddyfile, - for standard input (default: ./Caddyfile)")
    parser.add_argument("-c", "--config", metavar="FILE", help="the same, as other commands have it")
    parser.add_argument("-w", "--overwrite", action="store_true", help="write the result into the file")
    parser.add_argument("-d", "--diff", action="store_true", help="print what would change instead of the result")


def main(args: argparse.Namespace) -> int:
    """Format; 0 when there was nothing to do, or it was done."""
    path = args.file or args.config
    if path == "-" and args.overwrite:
        raise CommandFailed("--overwrite needs a file, and this is standard input")
    source = read(path)
    try:
        before = source.content.decode()
    except UnicodeDecodeError as exc:
        line = exc.object.count(b"\n", 0, exc.start) + 1
        raise CommandFailed(f"{path or DEFAULT_FILE}:{line}: the file is not UTF-8 (save it as UTF-8)") from None
    after = format_source(before)
    if args.overwrite:
        _write(source, after)
        return 0
    sys.stdout.write(_difference(before, after) if args.diff else after)
    if before == after or path == "-":
        return 0
    sys.stdout.flush()
    where = f"{source.file}:{_first_difference(before, after)}"
    raise CommandFailed(f"{where}: the file is not formatted (write the result into it with --overwrite)")


def _write(source: Source, after: str) -> None:
    content = after.encode()
    if content != source.content:
        try:
            # In place, so that owner, mode and links stay.
            with open(source.file, "wb") as file:
                file.write(content)
        except OSError as exc:
            raise CommandFailed(f"cannot write {source.file}: {exc.strerror}") from None


def _difference(before: str, after: str) -> str:
    """Every line, with ``-`` in front of those that go and ``+`` in front of those that come."""
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    lines: list[str] = []
    for kind, start, end, new_start, new_end in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        lines += [f"{' ' if kind == 'equal' else '-'} {line}" for line in old[start:end]]
        lines += [f"+ {line}" for line in new[new_start:new_end] if kind != "equal"]
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


def _first_difference(before: str, after: str) -> int:
    old, new = before.split("\n"), after.split("\n")
    return next((number for number, pair in enumerate(zip(old, new, strict=False), 1) if pair[0] != pair[1]), len(old))
