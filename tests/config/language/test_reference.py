"""The reference text of directives, which is their docstring: it says what the code does."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from caddysnake.config.language.adapt import load
from caddysnake.config.language.directives import SUBDIRECTIVES
from caddysnake.config.language.models import Config
from caddysnake.config.language.options import OPTIONS

DEFAULT = re.compile(r"Default: (\S+(?: \d\S*)*)\.(?: |$)")
IN_WORDS = {"max_in_flight", "trusted_proxies"}
"""Whose default cannot be written."""
TAKEN_LATER = {"grace_period"}
"""Whose default, as a global option, is that of the subdirective."""


def config(option: str = "", subdirective: str = "") -> Config:
    block = f"\tpython {{\n\t\tmodule_wsgi a:b\n\t\t{subdirective}\n\t}}\n"
    return load(f"{{\n\t{option}\n}}\nunix/a.sock {{\n{block}}}\n".encode(), "Caddyfile", {})


def defaults() -> Iterator[tuple[str, str, str]]:
    for kind, registry in (("subdirective", SUBDIRECTIVES), ("option", OPTIONS)):
        for setting in registry.settings.values():
            said = DEFAULT.search(" ".join(setting.doc.split()))
            if said is not None and setting.name not in IN_WORDS | TAKEN_LATER:
                yield kind, setting.name, said[1]


@pytest.mark.parametrize(("kind", "name", "default"), list(defaults()))
def test_a_default_that_is_written_changes_nothing(kind: str, name: str, default: str) -> None:
    assert config(**{kind: f"{name} {default}"}) == config()


def test_another_value_does() -> None:
    assert config(subdirective="threads 9") != config()
    assert config(subdirective="max_queue 9") != config()
