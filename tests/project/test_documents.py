"""What the documents say is there: files, verbs, and configurations that can be read."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from caddysnake.caddyfile.formatter import format_source
from caddysnake.cli import units
from caddysnake.config.language.adapt import load
from caddysnake.config.plan.plan import plan
from caddysnake.config.plan.rendezvous import name_for

ROOT = Path(__file__).resolve().parents[2]
# Only ours: a virtual environment is full of other people's documents.
FOLDERS = ("*.md", "docs/**/*.md", "examples/*/*.md", "benchmarks/*.md")
DOCUMENTS = sorted(path for pattern in FOLDERS for path in ROOT.glob(pattern))

LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")


# The examples' documents show parts of Caddyfile.example; these show whole files, except where a syntax is explained.
CONFIGURATIONS = [
    pytest.param(block, id=f"{path.name}-{number}")
    for path in (ROOT / "README.md", ROOT / "docs" / "start.md", ROOT / "docs" / "caddyfile.md")
    for number, block in enumerate(re.findall(r"```caddyfile\n(.*?)```", path.read_text(), re.DOTALL))
    if "<" not in block
]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def code_removed(text: str) -> str:
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_relative_links_lead_somewhere(document: Path) -> None:
    links = LINK.findall(code_removed(document.read_text()))
    assert [link for link in links if not os.path.exists(document.parent / link)] == []


@pytest.mark.parametrize("document", [ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=name)
def test_each_verb_of_make_that_is_named_exists(document: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    verbs = set(re.findall(r"(?:^\$ |`)make ([a-z]+)", document.read_text(), re.MULTILINE))
    assert verbs
    assert [verb for verb in verbs if not re.search(rf"^{verb}:", makefile, re.MULTILINE)] == []


def test_the_socket_of_the_services_admin_api_is_called_as_the_page_says() -> None:
    assert f"/run/caddysnake/admin/{name_for(units.CONFIG)} root@" in (ROOT / "docs/monitoring.md").read_text()


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_no_table_and_no_figure_is_missing_or_empty(document: Path) -> None:
    text = re.sub(r"```.*?```", "(code)", document.read_text(), flags=re.DOTALL)
    tables = re.findall(r"^\|[-:| ]+\|\n((?:\|.*\n?)*)", text, re.MULTILINE)
    assert all(tables), "a table that has a head has rows"
    rows = [row for table in tables for row in table.splitlines()]
    assert [row for row in rows if not row.replace("|", "").strip()] == []
    assert "\n\n\n" not in text, "something stood between these empty lines"


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if f": {page}" not in navigation] == []


@pytest.mark.parametrize("text", CONFIGURATIONS)
def test_a_configuration_that_is_shown_can_be_run(text: str) -> None:
    plan(load(text.encode(), "Caddyfile", {}), cores=2)
    assert format_source(text) == text


def test_the_example_is_formatted() -> None:
    text = (ROOT / "Caddyfile.example").read_text()
    assert format_source(text) == text


@pytest.mark.parametrize("document", [ROOT / "CONTRIBUTING.md", ROOT / "docs" / "security.md"], ids=name)
def test_each_file_of_ours_that_is_named_is_there(document: Path) -> None:
    known = {path.relative_to(ROOT).as_posix() for path in (ROOT / "caddysnake").glob("**/*.py")}
    known |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").glob("**/*.py")}
    named = set(re.findall(r"`((?:[a-z0-9_.]+/)+[a-z_0-9]+\.py)`", document.read_text()))
    assert named
    assert [name for name in named if not any(f"/{path}".endswith(f"/{name}") for path in known)] == []
