"""Write what is made of the code: scripts for shells and the manual page of the command line's parsers, and the
docs' table of codes.

    python .ci/generate.py            write them
    python .ci/generate.py --check    only say which are out of date; 1 if any is

Those of the command line are part of the package, so that no installation needs what makes them.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import shtab
from argparse_manpage.manpage import Manpage

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from caddysnake.admin.errors import CODES as API  # noqa: E402
from caddysnake.channel.codes import ANSWERS, FAILURES, REPLACED, Code  # noqa: E402
from caddysnake.cli.completion import SHELLS  # noqa: E402
from caddysnake.cli.main import PROGRAM, whole_parser  # noqa: E402
from caddysnake.cli.manpage import PAGE, SECTION  # noqa: E402
from caddysnake.http1.errors import BREACHES  # noqa: E402

FOLDER = ROOT / "caddysnake" / "cli" / "generated"
CODES = ROOT / "docs" / "codes.md"
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


def _table(head: str, rows: Iterable[tuple[str, ...]]) -> str:
    columns = head.count("|") + 1
    lines = [f"| {head} |", "|" + " --- |" * columns]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _codes(codes: dict[str, Code]) -> str:
    rows = ((f"`{name}`", str(each.status), each.about, each.remedy or "–") for name, each in codes.items())
    return _table("code | status | what happened | what to do", rows)


def codes_page() -> str:
    return f"""# Codes

Every cause has one name: in the field `caddysnake-code` of an answer that is not the app's, in the log (`code`), in
`/metrics`, in `caddysnake status`, on the live page and here. They are stable: alerts may rely on them.

This page is made of the code (`make generated`). [Troubleshooting](guides/troubleshooting.md) goes by symptoms.

## Why a worker ended, or an app did not start

In `status` and `/metrics` (`caddysnake_worker_restarts_total`, label `cause`); requests that nobody can answer for that
are told the same.

{_codes(FAILURES)}

## Why a healthy worker was replaced

{_table("cause | why", ((f"`{name}`", about) for name, about in REPLACED.items()))}

## What else a request is told

Those of 500 and more count as errors of the app. How often each was told, is `caddysnake_http_refusals_total`; requests
that were cut are in there as well.

{_codes(ANSWERS)}

## Requests that break a rule of HTTP

The status is 400, or 413, 414, 417, 426, 431, 501, 505 where one of those says more. They are the client's doing.

{_table("code | the request", ((f"`{name}`", about) for name, about in BREACHES.items()))}

## What a reload, and the admin API, may answer

{_table("code | status | what happened | what to do", (
    (f"`{name}`", str(each.status), each.about, each.remedy or "–") for name, each in API.items()
))}
"""


def main() -> int:
    only_checks = "--check" in sys.argv
    made = {FOLDER / f"{PROGRAM}.{shell}": completion(shell) for shell in SHELLS}
    made |= {FOLDER / PAGE: manual_page(), CODES: codes_page()}
    stale = []
    for path, made_text in made.items():
        text = made_text.rstrip("\n") + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(path)
            if not only_checks:
                path.parent.mkdir(exist_ok=True)
                path.write_text(text, encoding="utf-8")
    for path in stale:
        print(f"{path.relative_to(ROOT)}: {'out of date: make generated' if only_checks else 'written'}")
    return int(bool(stale) and only_checks)


if __name__ == "__main__":
    sys.exit(main())
