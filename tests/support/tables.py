"""Reads the tables of written cases, and lays a case out as files."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

ENVIRON = {
    "E_SET": "one two",
    "E_EMPTY": "",
    "E_BRACE": "{host}",
    "E_NEST": "{$E_SET}",
    "E_NL": "a\nb",
    "E_QUOTE": 'q"q',
    "E_PORT": "8081",
}
"""What the cases may find in the environment."""

Case = dict[str, Any]


def cases(table: Path) -> list[Case]:
    """The cases of one TOML file."""
    return tomllib.loads(table.read_text())["case"]


def title(case: Case) -> str:
    """What the case is called in a test report: its name, or its text."""
    return case.get("name") or case["text"].replace("\n", "⏎")


def lay_out(folder: Path, text: str, files: dict[str, str] | None = None) -> Path:
    """Write a Caddyfile and the files it imports into *folder*; returns the Caddyfile."""
    for name, content in (files or {}).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode())
    caddyfile = folder / "Caddyfile"
    caddyfile.write_bytes(text.encode())
    return caddyfile


def as_arguments(text: str) -> str:
    """A Caddyfile in which *text* stands as the arguments of a line, line 3."""
    return f":80 {{\nfile_server {{\nindex {text}\n}}\n}}\n"


def as_matcher(text: str) -> str:
    """A Caddyfile in which *text* defines a named matcher, which is used."""
    return f":80 {{\n@m {text}\nrespond @m ok\n}}\n"


def as_address(text: str) -> str:
    """A Caddyfile in which *text* is a site's address."""
    return f"{text} {{\nrespond ok\n}}\n"
