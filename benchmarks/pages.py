"""`python -m benchmarks.pages RESULTS.json…`: fills the tables of docs/ with what was measured.

A table is filled that stands below the command which measures it, "`python -m benchmarks asgi wsgi` gives:". Its rows
are those of the command's names, its head says what is in them. What no file holds stays; of several the last counts.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from .__main__ import named
from .report import COLUMNS, row
from .scaling import SERIES, number, series_title
from .scenarios import SCENARIOS
from .servers import OURS, RELAY, WITHOUT
from .trials import TRIALS

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ("performance.md", "scaling.md")
TABLE = re.compile(
    r"(?P<command>`(?:python -m benchmarks\s|make scaling ARGS=)(?P<names>[a-z0-9_\s-]+?)(?:\s--[^`]*)?`\sgives:\n\n)"
    r"(?P<head>\|.*\n\|[-: |]+\n)(?P<rows>(?:\|.*\n)*)"
)
NAMES = {
    WITHOUT: "without",
    RELAY: "our relay",
    "gunicorn-uvicorn": "gunicorn+uvicorn",
    "gunicorn-gthread": "gthread",
    "gunicorn-sync": "sync",
    "go-plugin": "Go plugin",
}
RATIOS = {"CPU": "cpu_us", "CPU with Caddy's": "all_cpu_us", "rate": "rate"}
FIGURES = {title: (name, shape) for name, (title, shape) in COLUMNS.items()}
RELOADS = ("failed", "max_ms", "new_ms")


def measured(files: list[Path]) -> dict[str, Any]:
    """What each scenario, trial and series gave, by its name."""
    found: dict[str, Any] = {}
    for document in map(json.loads, (file.read_text() for file in files)):
        found |= {each.get("scenario") or each["trial"]: each["servers"] for each in document.get("results", ())}
        found |= {name: document[name] for name in SERIES if name in document}
    return found


def filled(text: str, found: dict[str, Any]) -> str:
    """The page with the rows of what was found."""
    return TABLE.sub(lambda table: table["command"] + table["head"] + _rows(table, found), text)


def _rows(table: re.Match[str], found: dict[str, Any]) -> str:
    titles = [each.strip() for each in table["head"].splitlines()[0].strip("|").split("|")]
    known = [*SCENARIOS, *TRIALS, *SERIES]
    names = [each for name in table["names"].split() for each in named(name, known)]
    if titles[0] in ("scenario", "trial"):
        old = {line.split("`")[1]: line for line in table["rows"].splitlines()}
        cells = _of_scenario if titles[0] == "scenario" else _of_trial
        new = {name: row([f"`{name}`", *cells(titles[1:], found[name])]) for name in names if name in found}
        lines = [new.get(name) or old[name] for name in names if name in new or name in old]
    elif names[0] not in found:
        return table["rows"]
    elif titles[0] == "server":
        servers = found[names[0]]
        headline = FIGURES[titles[1]][0]
        ordered = sorted(servers, key=lambda name: servers[name]["medians"][headline])
        lines = [row([NAMES.get(name, name), *_of_server(titles[1:], servers[name])]) for name in ordered]
    else:
        named_rows = [{series_title(name): value for name, value in each.items()} for each in found[names[0]]]
        lines = [row([number(each[title]) for title in titles]) for each in named_rows]
    return "".join(f"{line}\n" for line in lines)


def _of_scenario(titles: list[str], servers: dict[str, Any]) -> list[str]:
    """Ours, and what it is over each peer's."""
    cells = []
    for title in titles:
        if title in FIGURES:
            cells += _of_server([title], servers[OURS])
            continue
        ratio = RATIOS[title.rpartition(", ")[2]]
        peers = {name: _cell(each["ours_over_it"][ratio], ".2f") for name, each in servers.items() if name != OURS}
        told = [value if name == WITHOUT else f"{NAMES.get(name, name)} {value}" for name, value in peers.items()]
        cells.append(", ".join(told))
    return cells


def _of_trial(titles: list[str], servers: dict[str, Any]) -> list[str]:
    """Of each server what came of its reloads."""
    by_title = {NAMES.get(name, name): each["medians"] | {"failed": each["failed"]} for name, each in servers.items()}
    told = {title: ", ".join(_cell(each.get(name), ",.0f") for name in RELOADS) for title, each in by_title.items()}
    return [told.get(title, "") for title in titles]


def _of_server(titles: list[str], server: dict[str, Any]) -> list[str]:
    return [_cell(server["medians"].get(FIGURES[title][0]), FIGURES[title][1]) for title in titles]


def _cell(value: float | None, shape: str) -> str:
    return "-" if value is None else f"{value:{shape}}"


def main() -> None:
    """Write the pages that change."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pages", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("results", nargs="+", type=Path, metavar="FILE", help="JSON that a run has kept")
    found = measured(parser.parse_args().results)
    for page in (DOCS / name for name in PAGES):
        text = page.read_text()
        if (new := filled(text, found)) != text:
            page.write_text(new)
            print(f"{page}: written")


if __name__ == "__main__":
    main()
