"""Write the manual page, caddysnake(8), made of what --help says.

  caddysnake manpage --directory /usr/local/share/man/man8
  man caddysnake
"""

from __future__ import annotations

import argparse
import os
import sys

from .. import __version__

SECTION = "8"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("-o", "--directory", metavar="DIR", help="where to write it (default: to standard output)")


def main(args: argparse.Namespace) -> int:
    """Write; 0, or 1 when the directory cannot be written to."""
    from argparse_manpage.manpage import Manpage  # type: ignore[import-untyped]

    from .main import PROGRAM, whole_parser

    data = {
        "prog": PROGRAM,
        "project_name": PROGRAM,
        "description": "run Python web apps behind a stock Caddy",
        "version": __version__,
        "manual_section": SECTION,
        "manual_title": "System administration",
        "url": "https://pypi.org/project/caddysnake-sidecar/",
    }
    page = str(Manpage(whole_parser(), data, format="single-commands-section"))
    if args.directory is None:
        print(page)
        return 0
    path = os.path.join(args.directory, f"{PROGRAM}.{SECTION}")
    try:
        os.makedirs(args.directory, exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(page)
    except OSError as exc:
        print(f"Error: cannot write {path}: {exc.strerror}", file=sys.stderr)
        return 1
    print(path)
    return 0
