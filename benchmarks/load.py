"""The loads. Each runs for a while, pinned to a core if asked, and says what it saw.

What it saw is a mapping of figures: `count` (what CPU time is divided by), `rate` (a second, of what the load's `unit`
says), `failed`, and times in milliseconds.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .servers import BenchmarkError, find_program

HERE = Path(__file__).parent
PATIENCE_S = 60.0

Figures = dict[str, float]


@dataclass(frozen=True)
class Wrk:
    """Kept-alive requests by `wrk`, one thread; to `unix:PATH` as well."""

    connections: int = 64
    path: str = "/"
    script: str = "get.lua"
    options: tuple[str, ...] = ()
    unit: str = "requests"

    def run(self, url: str, seconds: float, core: int | None) -> Figures:
        script = str(HERE / "lua" / self.script)
        lasting = f"-d{max(round(seconds), 1)}s"
        named = ["env", f"UNIX_SOCKET={url.removeprefix('unix:')}"] if url.startswith("unix:") else []
        target = "http://localhost" if named else url
        command = [*named, "wrk", "-t1", f"-c{self.connections}", lasting, "-s", script, *self.options]
        said = json.loads(_result([*command, target + self.path], seconds, core))
        times = {f"{name}_ms": said[f"{name}_us"] / 1000 for name in ("p50", "p99", "p999", "max")}
        count = said["requests"]
        return {
            "count": count,
            "rate": count / said["duration_us"] * 1_000_000,
            "failed": said["errors"] + said["statuses"],
            **times,
        }


@dataclass(frozen=True)
class Client:
    """A load of `client.py`, by name: `echo`, `events`, `download`, `upload`."""

    kind: str
    connections: int
    path: str = "/"
    size: int = 0
    """Bytes: of a message, or of a body."""
    unit: str = "messages"

    def run(self, url: str, seconds: float, core: int | None) -> Figures:
        port = url.rpartition(":")[2]
        arguments = [self.kind, port, self.path, str(self.connections), str(self.size), str(seconds)]
        command = [sys.executable, "-m", "benchmarks.client", *arguments]
        return {name: float(value) for name, value in json.loads(_result(command, seconds, core)).items()}


Load = Wrk | Client


def require_wrk() -> None:
    if find_program("wrk") is None:
        raise BenchmarkError("wrk makes the load, and it is not installed. Debian: apt-get install wrk")


def _result(command: list[str], seconds: float, core: int | None) -> str:
    pin = ["taskset", "--cpu-list", str(core)] if core is not None else []
    try:
        run = subprocess.run(
            [*pin, *command],
            capture_output=True,
            text=True,
            timeout=seconds + PATIENCE_S,
            check=False,
            cwd=HERE.parent,
        )
    except subprocess.TimeoutExpired:
        raise BenchmarkError(f"{' '.join(command)} does not end") from None
    for line in run.stdout.splitlines():
        if line.startswith("RESULT "):
            return line.removeprefix("RESULT ")
    raise BenchmarkError(f"{' '.join(command)} failed:\n{run.stdout}{run.stderr}")
