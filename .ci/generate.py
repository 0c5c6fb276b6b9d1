"""Write what is made of the command line's parsers: scripts for shells, and the manual page.

    python .ci/generate.py            write them
    python .ci/generate.py --check    only say which are out of date; 1 if any is

They are part of the package, so that no installation needs what makes them.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import shtab
from argparse_manpage.manpage import Manpage

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from caddysnake.cli.completion import SHELLS  # noqa: E402
from caddysnake.cli.main import PROGRAM, whole_parser  # noqa: E402
from caddysnake.cli.manpage import PAGE, SECTION  # noqa: E402

FOLDER = ROOT / "caddysnake" / "cli" / "generated"
FILES = {"FILE": shtab.FILE, "DIR": shtab.DIRECTORY}
ABOUT = {
    "prog": PROGRAM,
    "project_name": PROGRAM,
    "description": "run Python web apps behind a stock Caddy",
    "manual_section": SECTION,
    "manual_title": "System administration",
    "url": "https://pypi.org/project/caddysnake-sidecar/",
}


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from parsers(inner)


def completion(shell: str) -> str:
    whole = whole_parser()
    for parser in parsers(whole):
        for action in parser._actions:
            if isinstance(action.metavar, str) and action.metavar in FILES:
                action.complete = FILES[action.metavar]
    return shtab.complete(whole, shell)


def manual_page() -> str:
    page = str(Manpage(whole_parser(), ABOUT, format="single-commands-section"))
    # Its first line holds the day on which it was made, and the day before no change.
    return re.sub(r'^(\.TH \S+ "\d+") "[^"]*"', r'\1 ""', page, count=1)


def main() -> int:
    only_checks = "--check" in sys.argv
    made = {f"{PROGRAM}.{shell}": completion(shell) for shell in SHELLS} | {PAGE: manual_page()}
    stale = []
    for name, made_text in made.items():
        path = FOLDER / name
        text = made_text.rstrip("\n") + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not only_checks:
                FOLDER.mkdir(exist_ok=True)
                path.write_text(text, encoding="utf-8")
    for name in stale:
        print(f"{FOLDER.relative_to(ROOT) / name}: {'out of date: make generated' if only_checks else 'written'}")
    return int(bool(stale) and only_checks)


if __name__ == "__main__":
    sys.exit(main())
