"""The real Caddy judges: the written cases, and generated ones.

Files that are understood are put together where they can be, since each question to Caddy starts a process.
CADDYSNAKE_FUZZ_EXAMPLES raises the number of generated files, and then each run generates others.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from support.caddies import needs_caddy
from support.caddyfiles import arguments, caddyfiles
from support.caddyjudge import assert_same_as_caddy, fuzz
from support.tables import ENVIRON, Case, as_address, as_arguments, as_matcher, cases, lay_out, title

TABLES = Path(__file__).parent / "tables"
# What the generated files may import.
FILES = {"f.conf": "respond f{args[0]}\n{block}\n", "g/1": "header G 1\n", "g/2": "# nothing\n", "g/.h": "nope\n"}

pytestmark = needs_caddy


def judged(table: str) -> list[Case]:
    """The cases of a table that Caddy should answer alike."""
    return [case for case in cases(TABLES / f"{table}.toml") if "differs" not in case]


def wrong(table: str) -> list[Case]:
    return [case for case in judged(table) if "error" in case]


def test_words_are_what_caddy_takes_them_for(tmp_path: Path) -> None:
    good = [case for case in judged("tokens") if "error" not in case and "next_line" not in case]
    # One site for each, on a port of its own. A text that swallows the brace of its block is left to the next test.
    alone = [case for case in good if "}" not in case["tokens"]]
    texts = [as_arguments(case["text"]).replace(":80", f":{port}", 1) for port, case in enumerate(alone, 20000)]

    assert_same_as_caddy(lay_out(tmp_path, "".join(texts)), ENVIRON)


@pytest.mark.parametrize(
    "case", [case for case in judged("tokens") if "error" in case or "}" in case["tokens"]], ids=title
)
def test_odd_words_are_refused_where_caddy_refuses_them(case: Case, tmp_path: Path) -> None:
    assert_same_as_caddy(lay_out(tmp_path, as_arguments(case["text"])), ENVIRON)


def test_matchers_have_the_form_that_caddy_gives_them(tmp_path: Path) -> None:
    good = [case for case in judged("matchers") if "error" not in case]
    texts = [as_matcher(case["text"]).replace(":80", f":{port}", 1) for port, case in enumerate(good, 20000)]

    assert_same_as_caddy(lay_out(tmp_path, "".join(texts)), ENVIRON)


@pytest.mark.parametrize("case", wrong("matchers"), ids=title)
def test_matchers_are_refused_where_caddy_refuses_them(case: Case, tmp_path: Path) -> None:
    assert_same_as_caddy(lay_out(tmp_path, as_matcher(case["text"])), ENVIRON)


@pytest.mark.parametrize("case", judged("addresses"), ids=title)
def test_addresses_mean_what_they_mean_to_caddy(case: Case, tmp_path: Path) -> None:
    assert_same_as_caddy(lay_out(tmp_path, as_address(case["text"])), ENVIRON)


@pytest.mark.parametrize("case", judged("files"), ids=title)
def test_files_mean_what_they_mean_to_caddy(case: Case, tmp_path: Path) -> None:
    assert_same_as_caddy(lay_out(tmp_path, case["text"], case.get("files")), ENVIRON)


@fuzz
@given(arguments())
def test_any_words_are_what_caddy_takes_them_for(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert_same_as_caddy(lay_out(Path(folder), as_arguments(f"y {text}"), FILES), ENVIRON)


@fuzz
@given(caddyfiles())
def test_any_file_means_what_it_means_to_caddy(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert_same_as_caddy(lay_out(Path(folder), text, FILES), ENVIRON)
