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

QUIET_SHARE = 0.05
"""How much of the processors others may use while we measure."""


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


def to_json(scenario: Scenario, results: list[Result]) -> dict[str, Any]:
    return {
        "scenario": scenario.name,
        "interface": scenario.interface.value,
        "behind_caddy": scenario.behind_caddy,
        "workers": scenario.workers,
        "connections": scenario.connections,
        "servers": {
            result.server: {
                "requests_per_second": statistics.median(result.per_second),
                "cpu_us_per_request": _cpu(result),
                "caddy_us_per_request": _caddy(result),
                "ours_over_it": ratio(results, result),
                "pss_bytes": result.pss_bytes,
                "failures": result.failures,
                "rounds": [
                    {
                        **each.load._asdict(),
                        "requests_per_second": each.load.per_second,
                        "cpu_us_per_request": each.cpu_us_per_request,
                        "caddy_us_per_request": each.caddy_us_per_request,
                        "others_share": each.others_share,
                    }
                    for each in result.rounds
                ],
            }
            for result in results
        },
    }


def to_markdown(scenario: Scenario, results: list[Result]) -> str:
    where = "behind Caddy, unix sockets" if scenario.behind_caddy else "direct, one core"
    size = f"workers: {scenario.workers}, connections: {scenario.connections}"
    lines = [
        f"### {scenario.name}",
        "",
        f"{scenario.interface.value.upper()}, {where}; {size}.",
        "",
        f"| server | requests/s | slowest to fastest round | {OURS} ÷ it | CPU µs/request | p50 ms | p99 ms | p99.9 ms "
        "| PSS MB | failed |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for result in sorted(results, key=lambda each: -statistics.median(each.per_second)):
        speeds = result.per_second
        over = ratio(results, result)
        cells = [
            result.server,
            f"{statistics.median(speeds):,.0f}",
            f"{min(speeds):,.0f} to {max(speeds):,.0f}",
            "" if over is None or result.server == OURS else f"{over:.2f}",
            f"{_cpu(result):.1f}",
            *(f"{result.median(name) / 1000:.2f}" for name in ("p50_us", "p99_us", "p999_us")),
            "?" if result.pss_bytes is None else f"{result.pss_bytes / 1_000_000:.1f}",
            str(result.failures),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    disturbed = max(result.others_share for result in results)
    if disturbed > QUIET_SHARE:
        lines += ["", f"**Not to be trusted**: other programs used up to {disturbed:.0%} of the processors meanwhile."]
    return "\n".join(lines) + "\n"


def ratio(results: list[Result], peer: Result) -> float | None:
    """Ours over the peer's requests per second: the median of the rounds' own ratios, which drift does not touch."""
    ours = next((result for result in results if result.server == OURS), None)
    if ours is None:
        return None
    pairs = zip(ours.per_second, peer.per_second, strict=True)
    return statistics.median(mine / theirs if theirs else float("inf") for mine, theirs in pairs)


def _cpu(result: Result) -> float:
    return statistics.median(each.cpu_us_per_request for each in result.rounds)


def _caddy(result: Result) -> float | None:
    used = [each.caddy_us_per_request for each in result.rounds if each.caddy_us_per_request is not None]
    return statistics.median(used) if used else None
