"""What is understood of a few hundred written cases, and what is said about the wrong ones.

Each of the tables can be extended by anyone who can write a Caddyfile; test_against_caddy.py asks the real Caddy about
the same cases.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.outline import outline
from support.tables import ENVIRON, Case, as_address, as_arguments, as_matcher, cases, lay_out, title

from caddysnake.caddyfile.dispenser import Dispenser
from caddysnake.caddyfile.errors import CaddyfileError
from caddysnake.caddyfile.parser import ParsedFile, parse
from caddysnake.caddyfile.structure import StructuredSite, build_sites

TABLES = Path(__file__).parent / "tables"


def understood(text: str, file: str = "Caddyfile") -> tuple[ParsedFile, list[StructuredSite], list[CaddyfileError]]:
    try:
        parsed = parse(text.encode(), file, ENVIRON)
    except CaddyfileError as error:
        return ParsedFile([], [], {}), [], [error]
    return (parsed, *build_sites(parsed))


@pytest.mark.parametrize("case", cases(TABLES / "tokens.toml"), ids=title)
def test_words_are_split_unquoted_and_joined(case: Case) -> None:
    parsed, _, errors = understood(as_arguments(case["text"]))

    assert [str(error) for error in errors] == ([case["error"]] if "error" in case else [])
    if "error" not in case:
        segment = parsed.sites[0].segments[0].tokens
        line = Dispenser(segment[2:])
        line.next()
        assert line.remaining_args() == case["tokens"]
        rest = segment[3 + len(case["tokens"]) :]
        assert [token.text for token in rest if not token.closes] == case.get("next_line", [])


@pytest.mark.parametrize("case", cases(TABLES / "files.toml"), ids=title)
def test_a_file_becomes_an_ordered_tree_of_routes(case: Case, tmp_path: Path) -> None:
    file = lay_out(tmp_path, case["text"], case.get("files"))

    parsed, sites, errors = understood(case["text"], str(file))

    assert "\n".join(map(str, errors)).replace(f"{tmp_path}/", "") == case.get("error", "")
    assert "\n".join(map(str, parsed.warnings)).replace(f"{tmp_path}/", "") == case.get("warnings", "")
    if not errors:
        assert outline(sites) == case["outline"]


@pytest.mark.parametrize("case", cases(TABLES / "matchers.toml"), ids=title)
def test_a_named_matcher_takes_the_form_of_caddys_json(case: Case) -> None:
    _, sites, errors = understood(as_matcher(case["text"]))

    assert "\n".join(map(str, errors)) == case.get("error", "")
    if not errors:
        assert sites[0].routes[0].matcher == json.loads(case["matcher"])


@pytest.mark.parametrize("case", cases(TABLES / "addresses.toml"), ids=title)
def test_a_site_address_is_normalised(case: Case) -> None:
    _, sites, errors = understood(as_address(case["text"]))

    assert "\n".join(map(str, errors)) == case.get("error", "")
    if not errors:
        assert ", ".join(address.key for address in sites[0].addresses) == case["key"]


@pytest.mark.parametrize("table", ["tokens", "files", "matchers", "addresses"])
def test_each_case_of_a_table_is_there_once(table: str) -> None:
    titles = [title(case) for case in cases(TABLES / f"{table}.toml")]

    assert len(set(titles)) == len(titles)
