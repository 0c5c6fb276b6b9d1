"""Write the manual page, caddysnake(8), made of what --help says.

  caddysnake manpage --directory /usr/local/share/man/man8
  man caddysnake
"""

from __future__ import annotations

import argparse
import os
from importlib.resources import files

from .reading import CommandFailed


def read(name: str) -> str:
    """Return the text of the generated file ``name``."""
    return files("caddysnake.cli.generated").joinpath(name).read_text(encoding="utf-8")


SECTION = "8"
PAGE = f"caddysnake.{SECTION}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("-o", "--directory", metavar="DIR", help="where to write it (default: to standard output)")


def main(args: argparse.Namespace) -> int:
    """Write; 0, or 1 when the directory cannot be written to."""
    page = read(PAGE)
    if args.directory is None:
        print(page, end="")
        return 0
    path = os.path.join(args.directory, PAGE)
    try:
        os.makedirs(args.directory, exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(page)
    except OSError as exc:
        raise CommandFailed(f"cannot write {path}: {exc.strerror}") from None
    print(path)
    return 0
