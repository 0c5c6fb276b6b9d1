"""Golden files: a Caddyfile, a line ``---``, and the JSON or the errors that it gives. One file a behaviour.

To write the expectations of new files: ``python tests/adapt/test_golden.py NAME…``, then read what it wrote.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from caddysnake.config.language.adapt import ConfigErrors, load, to_json
from caddysnake.config.language.directives import SUBDIRECTIVES

FOLDER = Path(__file__).parent
ENVIRON = {"GREETING": "hello there"}


def outcome(source: str) -> str:
    """What a Caddyfile gives: JSON and warnings, or errors."""
    try:
        config = load(source.encode(), "Caddyfile", ENVIRON)
    except ConfigErrors as exc:
        return "".join(f"{error}\n" for error in exc.errors)
    warnings = "".join(f"warning: {warning}\n" for warning in config.warnings)
    return json.dumps(to_json(config), indent="\t", ensure_ascii=False) + "\n" + warnings


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.caddyfiletest")), ids=lambda path: path.stem)
def test_a_caddyfile_gives_what_its_file_says(path: Path) -> None:
    source, _, expected = path.read_text().partition("---\n")
    assert outcome(source) == expected


def test_there_are_golden_files() -> None:
    assert len(list(FOLDER.glob("*.caddyfiletest"))) > 30


def test_the_example_of_every_subdirective_has_every_one() -> None:
    """But for the spellings of one and the same: the other kind of app, other words for a limit of the content."""
    text = (FOLDER / "every_subdirective.caddyfiletest").read_text()
    elsewhere = {"module_wsgi", "threads", "request_body"}
    shown = {line.split()[0] for line in text.partition("---")[0].splitlines() if line.startswith("\t\t")}
    assert set(SUBDIRECTIVES.settings) - shown - elsewhere == set()


def write(name: str) -> None:
    """Fill in the expectation of one file."""
    path = FOLDER / f"{name}.caddyfiletest"
    source, line, _ = path.read_text().partition("---\n")
    path.write_text(source + line + outcome(source))


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        write(argument)
