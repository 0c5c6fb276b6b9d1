"""The tables of the docs are filled by the commands that stand above them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks.__main__ import named
from benchmarks.pages import DOCS, PAGES, TABLE, filled, measured
from benchmarks.scaling import SERIES
from benchmarks.scenarios import SCENARIOS
from benchmarks.trials import TRIALS

KNOWN = [*SCENARIOS, *TRIALS, *SERIES]
RESULTS = {
    "results": [
        {
            "scenario": "asgi",
            "servers": {
                "caddysnake": {"medians": {"cpu_us": 12.84}, "ours_over_it": {"cpu_us": 1.0, "rate": 1.0}},
                "uvicorn": {"medians": {"cpu_us": 20.1}, "ours_over_it": {"cpu_us": 0.641, "rate": 1.549}},
                "gunicorn-uvicorn": {"medians": {"cpu_us": 20.1}, "ours_over_it": {"cpu_us": 0.65, "rate": None}},
            },
        },
        {
            "scenario": "cost-asgi-log",
            "servers": {
                "caddysnake": {"medians": {"cpu_us": 30.0}, "ours_over_it": {"all_cpu_us": 1.0}},
                "caddysnake-without": {"medians": {"cpu_us": 15.0}, "ours_over_it": {"all_cpu_us": 2.0}},
            },
        },
        {
            "trial": "ready",
            "servers": {
                "caddysnake": {"medians": {"ready_ms": 319.4}, "failed": 0},
                "granian": {"medians": {"ready_ms": 84.0}, "failed": 0},
            },
        },
        {
            "trial": "reload-get",
            "servers": {
                "caddysnake": {"medians": {"failed": 0, "max_ms": 130.2, "new_ms": 103.0}, "failed": 0},
                "hypercorn": {"medians": {"failed": 1, "max_ms": 1983.0}, "failed": 40},
            },
        },
    ],
    "workers": [{"workers": 2, "cpu_us": 11.8, "rate": 75765.2, "p99_ms": 1.0}],
}
FILLED = {
    "python -m benchmarks asgi wsgi": (
        "| scenario | CPU µs | ours ÷ theirs, CPU | ours ÷ theirs, rate |\n| --- | ---: | --- | --- |\n",
        "| `asgi` | 1 | 2 | 3 |\n| `wsgi` | 9.2 | granian 0.87 | granian 1.16 |\n",
        "| `asgi` | 12.8 | uvicorn 0.64, gunicorn+uvicorn 0.65 | uvicorn 1.55, gunicorn+uvicorn - |\n"
        "| `wsgi` | 9.2 | granian 0.87 | granian 1.16 |\n",
    ),
    "python -m benchmarks cost\n--rounds 15": (
        "| scenario | CPU µs | with ÷ without, CPU with Caddy's |\n| --- | ---: | ---: |\n",
        "",
        "| `cost-asgi-log` | 30.0 | 2.00 |\n",
    ),
    "python -m benchmarks ready": (
        "| server | ready ms |\n| --- | ---: |\n",
        "| caddysnake | 400 |\n",
        "| granian | 84 |\n| caddysnake | 319 |\n",
    ),
    "python -m benchmarks reload-get\nreload-post": (
        "| trial | caddysnake | Go plugin | hypercorn |\n| --- | --- | --- | --- |\n",
        "",
        "| `reload-get` | 0, 130, 103 |  | 40, 1,983, - |\n",
    ),
    "make scaling ARGS=workers": (
        "| workers | CPU µs | requests/s |\n| ---: | ---: | ---: |\n",
        "| 1 | 2 | 3 |\n",
        "| 2 | 11.8 | 75,765 |\n",
    ),
    "make scaling ARGS=connections": ("| connections |\n| ---: |\n", "| 1 |\n", "| 1 |\n"),
}


@pytest.mark.parametrize(("command", "head", "before", "after"), [(name, *each) for name, each in FILLED.items()])
def test_a_table_gets_the_rows_that_were_measured(
    tmp_path: Path, command: str, head: str, before: str, after: str
) -> None:
    (tmp_path / "results.json").write_text(json.dumps(RESULTS))
    page = f"Before.\n\n`{command}` gives:\n\n{head}%s\nAfter.\n"
    assert filled(page % before, measured([tmp_path / "results.json"])) == page % after


@pytest.mark.parametrize("page", PAGES)
def test_each_table_of_the_docs_has_a_row_for_each_name_of_its_command(page: str) -> None:
    text = (DOCS / page).read_text()
    tables = list(TABLE.finditer(text))
    assert len(tables) == len(re.findall(r"`\sgives:\n", text))
    for table in tables:
        names = {name: named(name, KNOWN) for name in table["names"].split()}
        assert all(names.values()), names
        if table["head"].startswith(("| scenario", "| trial")):
            rows = [line.split("`")[1] for line in table["rows"].splitlines()]
            assert rows == [each for found in names.values() for each in found]
