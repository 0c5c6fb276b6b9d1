"""The canonical layout: what it looks like, that it keeps every token, and that Caddy would do the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from support.caddies import fmt, needs_caddy
from support.caddyfiles import caddyfiles, layouts
from support.caddyjudge import fuzz, fuzz_in_process
from support.tables import Case, cases, title

from caddysnake.caddyfile.errors import CaddyfileError
from caddysnake.caddyfile.formatter import format_source
from caddysnake.caddyfile.lexer import tokenize

LAYOUTS = cases(Path(__file__).parent / "tables" / "layouts.toml")


def words(text: str) -> list[tuple[str, str]] | None:
    """The tokens of a text with their quotes, or nothing when it has an error."""
    try:
        return [(token.text, token.quote) for token in tokenize(text, "Caddyfile")]
    except CaddyfileError:
        return None


@pytest.mark.parametrize("case", LAYOUTS, ids=title)
def test_a_text_is_laid_out(case: Case) -> None:
    assert format_source(case["text"]) == case["formatted"]


@needs_caddy
@pytest.mark.parametrize("case", [case for case in LAYOUTS if "differs" not in case], ids=title)
def test_a_text_is_laid_out_as_caddy_does_it(case: Case) -> None:
    assert fmt(case["text"]) == case["formatted"]


@needs_caddy
@fuzz
@given(layouts() | caddyfiles())
def test_any_text_is_laid_out_as_caddy_does_it_unless_that_is_wrong(text: str) -> None:
    theirs = fmt(text)

    ours = format_source(text)

    if ours != theirs:
        # Caddy changed a token, or would change its own layout.
        assert words(theirs) != words(text) or fmt(theirs) != theirs


@fuzz_in_process
@given(layouts() | caddyfiles())
def test_no_token_changes_with_the_layout(text: str) -> None:
    assert words(format_source(text)) == words(text)


@fuzz_in_process
@given(layouts() | caddyfiles())
def test_a_layout_is_its_own_layout(text: str) -> None:
    once = format_source(text)

    assert format_source(once) == once


def test_a_token_that_the_layout_would_change_keeps_the_text_as_it_is() -> None:
    text = "a {\n    `b` c\n}\n"

    assert format_source(text) == text
