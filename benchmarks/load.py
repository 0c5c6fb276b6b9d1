"""The load: `wrk`, and what it says."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import NamedTuple

from .servers import BenchmarkError, find_program

SCRIPT = Path(__file__).parent / "report.lua"


class Load(NamedTuple):
    """What one run of `wrk` saw. Times in microseconds."""

    requests: int
    duration_us: int
    bytes: int
    errors: int
    """Connections that failed or timed out."""
    statuses: int
    """Answers that were not 2xx or 3xx."""
    p50_us: int
    p99_us: int
    p999_us: int
    max_us: int

    @property
    def per_second(self) -> float:
        return self.requests / self.duration_us * 1_000_000


def require_wrk() -> None:
    if find_program("wrk") is None:
        raise BenchmarkError("wrk makes the load, and it is not installed. Debian: apt-get install wrk")


def run_wrk(url: str, *, connections: int, seconds: int, core: int | None) -> Load:
    """One thread of `wrk` for `seconds`, pinned to `core` if given."""
    pin = ["taskset", "--cpu-list", str(core)] if core is not None else []
    command = [*pin, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(SCRIPT), url]
    run = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=False)
    for line in run.stdout.splitlines():
        if line.startswith("RESULT "):
            return Load(**json.loads(line.removeprefix("RESULT ")))
    raise BenchmarkError(f"{' '.join(command)} failed:\n{run.stdout}{run.stderr}")
