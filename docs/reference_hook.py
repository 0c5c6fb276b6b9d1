"""MkDocs hook: writes the reference of the Caddyfile page from what the parser itself knows.

A line `{{ subdirectives }}` or `{{ global options }}` becomes a section per setting: its syntax line and the docstring
of the function that reads it. So the page cannot drift from the code.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from caddysnake.config.language import commands, deploying  # noqa: F401 (register their subdirectives)
from caddysnake.config.language.directives import SUBDIRECTIVES
from caddysnake.config.language.options import OPTIONS
from caddysnake.config.language.registry import Registry, Setting


def _section(setting: Setting[Any]) -> str:
    about = inspect.cleandoc(setting.doc)
    if setting.repeatable:
        about += " May be repeated."
    return f"### {setting.name}\n\n```caddyfile\n{setting.syntax}\n```\n\n{about}\n"


def _sections(registry: Registry[Any]) -> str:
    sections = [_section(setting) for setting in registry.settings.values()]
    if registry.refused:
        sections.append("### Not offered\n\nKnown, and refused, with the reason:\n")
        sections.append("\n".join(f"- `{name}`: {reason}." for name, reason in registry.refused.items()))
    return "\n".join(sections)


PARTS: dict[str, Callable[[], str]] = {
    "{{ subdirectives }}": lambda: _sections(SUBDIRECTIVES),
    "{{ global options }}": lambda: _sections(OPTIONS),
}


def on_page_markdown(markdown: str, **_rest: Any) -> str:
    for marker, part in PARTS.items():
        if marker in markdown:
            markdown = markdown.replace(marker, part())
    return markdown
