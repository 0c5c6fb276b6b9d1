"""The results as JSON, for programs, and as Markdown, for people."""

from __future__ import annotations

import os
import platform
import statistics
from pathlib import Path
from typing import Any

from .rounds import Result
from .scenarios import Scenario
from .servers import OURS
from .trials import Trial

QUIET_SHARE = 0.05
"""How much of the processors others may use while we measure."""

COLUMNS = {
    "cpu_us": ("CPU µs", ",.1f"),
    "all_cpu_us": ("with Caddy's", ",.1f"),
    "call_us": ("µs a call", ",.1f"),
    "p50_ms": ("p50 ms", ",.2f"),
    "p99_ms": ("p99 ms", ",.2f"),
    "p999_ms": ("p99.9 ms", ",.2f"),
    "max_ms": ("longest ms", ",.0f"),
    "calm_max_ms": ("longest when calm", ",.0f"),
    "pss_mb": ("PSS MB", ",.1f"),
    "mb_each": ("PSS MB each", ",.1f"),
    "first_byte_ms": ("first byte ms", ",.0f"),
    "slowest_ms": ("slowest ms", ",.0f"),
    "ready_ms": ("ready ms", ",.0f"),
    "requests": ("requests", ",.0f"),
    "reloads": ("reloads", ",.0f"),
    "kills": ("kills", ",.0f"),
    "new_ms": ("only the new answers after ms", ",.0f"),
    "again_ms": ("answers again after ms", ",.0f"),
    "failed": ("failed", ",.0f"),
}
_DIRECT = ("cpu_us", "p50_ms", "p99_ms", "p999_ms", "pss_mb")
_BEHIND = ("cpu_us", "all_cpu_us", "p50_ms", "p99_ms", "p999_ms", "pss_mb")


def machine() -> dict[str, Any]:
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": os.getloadavg(),
    }


def ratio(results: list[Result], peer: Result, name: str) -> float | None:
    """Ours over the peer's: the median of the rounds' own ratios, which drift does not touch."""
    ours = next((result for result in results if result.server == OURS), None)
    if ours is None:
        return None
    pairs = list(zip(ours.values(name), peer.values(name), strict=False))
    return statistics.median(_over(mine, theirs) for mine, theirs in pairs) if pairs else None


def _over(mine: float, theirs: float) -> float:
    """Nothing of both, failures for instance, is as much."""
    return mine / theirs if theirs else float("inf") if mine else 1.0


def scenario_to_json(scenario: Scenario, results: list[Result]) -> dict[str, Any]:
    about = {
        "scenario": scenario.name,
        "interface": scenario.interface.value,
        "reach": scenario.reach.value,
        "workers": scenario.workers,
        "connections": scenario.load.connections,
        "unit": scenario.load.unit,
    }
    return about | {"servers": _servers(results, ("rate", "cpu_us", "all_cpu_us"))}


def trial_to_json(trial: Trial, results: list[Result]) -> dict[str, Any]:
    return {"trial": trial.name, "text": trial.text, "servers": _servers(results, (trial.headline,))}


def _servers(results: list[Result], compared: tuple[str, ...]) -> dict[str, Any]:
    return {
        result.server: {
            "medians": {name: result.median(name) for name in (result.rounds[0] if result.rounds else ())},
            "ours_over_it": {name: ratio(results, result, name) for name in compared},
            "failed": result.failed,
            "rounds": result.rounds,
        }
        for result in results
    }


def summary_to_markdown(results: list[dict[str, Any]]) -> str:
    """One line for each scenario, from the documents of all: our rate and CPU time, and both over each peer's."""
    lines = [
        "### Summary",
        "",
        f"Behind each peer: {OURS}'s rate over its (more is better) / {OURS}'s CPU time over its (less is better).",
        "",
        row(["scenario", "a second", "CPU µs", "against"]),
        row(["---", "---:", "---:", "---"]),
    ]
    for each in results:
        servers = each["servers"]
        if "scenario" not in each or OURS not in servers:
            continue
        ours = servers[OURS]["medians"]
        against = [
            f"{name} {_cell(server['ours_over_it']['rate'], '.2f')} / {_cell(server['ours_over_it']['cpu_us'], '.2f')}"
            for name, server in servers.items()
            if name != OURS
        ]
        rate = f"{ours['rate']:,.0f} {each['unit']}"
        lines.append(row([each["scenario"], rate, f"{ours['cpu_us']:,.1f}", ", ".join(against)]))
    return "\n".join(lines) + "\n"


def scenario_to_markdown(scenario: Scenario, results: list[Result]) -> str:
    load = scenario.load
    where = f"{scenario.interface.value.upper()}, {scenario.reach.value}"
    about = f"{where}; app {scenario.app}, workers: {scenario.workers}, connections: {load.connections}."
    columns = _BEHIND if scenario.is_behind_caddy else _DIRECT
    ordered = sorted(results, key=lambda each: -(each.median("rate") or 0))
    also = columns[:2] if scenario.is_behind_caddy else columns[:1]
    table = _table(f"{load.unit}/s", "rate", ",.0f", columns, ordered, also)
    return _section(scenario.name, about, table, results)


def trial_to_markdown(trial: Trial, results: list[Result]) -> str:
    title, shape = COLUMNS[trial.headline]
    columns = tuple(name for name in trial.columns if name != trial.headline)
    ordered = sorted(results, key=lambda each: each.median(trial.headline) or 0)
    return _section(trial.name, trial.text, _table(title, trial.headline, shape, columns, ordered), results)


def _table(
    title: str, headline: str, shape: str, columns: tuple[str, ...], results: list[Result], also: tuple[str, ...] = ()
) -> list[str]:
    shown = [name for name in columns if any(result.values(name) for result in results)]
    titles = ["server", title, "lowest to highest round", f"{OURS} ÷ it"]
    titles += [f"{OURS} ÷ it, {COLUMNS[name][0].removesuffix(' µs')}" for name in also]
    titles += [COLUMNS[name][0] for name in shown]
    is_told = "failed" in (headline, *columns)
    titles += [] if is_told else ["failed"]
    lines = [row(titles), row(["---"] + ["---:"] * (len(titles) - 1))]
    for result in results:
        values = result.values(headline)
        cells = [result.server, _cell(result.median(headline), shape)]
        cells.append(f"{min(values):{shape}} to {max(values):{shape}}" if values else "")
        for name in (headline, *also):
            cells.append("" if result.server == OURS else _cell(ratio(results, result, name), ".2f"))
        for name in shown:
            # A failure in any round is one too many for a median to hide.
            cells.append(str(result.failed) if name == "failed" else _cell(result.median(name), COLUMNS[name][1]))
        cells += [] if is_told else [str(result.failed)]
        lines.append(row(cells))
    return lines


def _section(name: str, about: str, table: list[str], results: list[Result]) -> str:
    rounds = max((len(result.rounds) for result in results), default=0)
    lines = [f"### {name}", "", f"{about} Rounds: {rounds}.", "", *table]
    disturbed = max((share for result in results for share in result.values("others_share")), default=0.0)
    if disturbed > QUIET_SHARE:
        lines += ["", f"**Not to be trusted**: other programs used up to {disturbed:.0%} of the processors meanwhile."]
    return "\n".join(lines) + "\n"


def _cell(value: float | None, shape: str) -> str:
    return "?" if value is None else f"{value:{shape}}"


def title_of(column: str) -> str:
    """The title of a figure; its own name when it has none."""
    return COLUMNS[column][0] if column in COLUMNS else column


def row(cells: list[str]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"
