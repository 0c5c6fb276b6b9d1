"""Reads the files that were made of the command line's parsers: see ``.ci/generate.py``."""

from __future__ import annotations

from importlib.resources import files


def read(name: str) -> str:
    """Return the text of the generated file ``name``."""
    return files("caddysnake.cli.generated").joinpath(name).read_text(encoding="utf-8")
