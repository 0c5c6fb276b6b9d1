"""Interleaved rounds: each server once, then each again, in an order that turns by one from round to round.

A machine that grows slower, or is shared, then slows every server alike. All servers of a scenario are up the whole
time; only one is loaded.
"""

from __future__ import annotations

import os
import resource
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .environments import binaries_of, frameworks
from .load import PATIENCE_S, Figures
from .processes import busy_us, cpu_us, pss_bytes
from .running import environ_of, free_port, ordinary_user, running, start_caddy, wait_for_answer
from .scenarios import Scenario
from .servers import OURS, BenchmarkError, Interface, Launch, Reach, Server, our_binaries

WARM_UP_S = 1


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
        children = resource.getrusage(resource.RUSAGE_CHILDREN)  # the load: the only child that has ended meanwhile
        return cls(
            cpu_us(server),
            cpu_us(caddy) if caddy else 0.0,
            (children.ru_utime + children.ru_stime) * 1_000_000,
            busy_us(),
            time.monotonic() * 1_000_000,
        )

    def since(self, earlier: _Clocks, count: float) -> Figures:
        """CPU time for each of `count`, and what others used of the machine's processors, 0 to 1."""
        server, caddy = self.server - earlier.server, self.caddy - earlier.caddy
        ours = server + caddy + self.load - earlier.load
        available = (self.wall - earlier.wall) * (os.cpu_count() or 1)
        others = max(self.busy - earlier.busy - ours, 0.0) / available
        count = max(count, 1)
        return {
            "cpu_us": server / count,
            "all_cpu_us": (server + caddy) / count,
            "others_share": min(others, 1.0),
        }


@dataclass
class Result:
    """What one server did in one scenario or trial."""

    server: str
    rounds: list[Figures] = field(default_factory=list)

    def values(self, name: str) -> list[float]:
        return [figures[name] for figures in self.rounds if name in figures]

    def median(self, name: str) -> float | None:
        found = self.values(name)
        return statistics.median(found) if found else None

    @property
    def failed(self) -> int:
        return int(sum(self.values("failed")))


@dataclass
class _Contestant:
    result: Result
    url: str
    pid: int
    log: Path
    port: int
    path: Path | None


def cores() -> tuple[int, int]:
    """One core for the server and one for the load: the first and the last we may use."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise BenchmarkError("two cores are needed: one for the server and one for the load")
    return allowed[0], allowed[-1]


def interleaved(servers: list[Server], rounds: int, once: Callable[[Server], Figures]) -> list[Result]:
    """`once` for each server, in `rounds` rounds."""
    results = {server.name: Result(server.name) for server in servers}
    for number in range(rounds):
        turn = number % len(servers)
        for server in servers[turn:] + servers[:turn]:
            results[server.name].rounds.append(once(server))
    return list(results.values())


def measure(scenario: Scenario, servers: list[Server], *, rounds: int, seconds: float) -> list[Result]:
    """Every server in `rounds` rounds of `seconds` each."""
    during = [each.format(app=scenario.app, seconds=seconds) for each in scenario.during]
    server_core, load_core = cores() if scenario.reach in (Reach.DIRECT, Reach.UNIX) else (None, None)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        contestants, caddy = _start(stack, scenario, servers, folder, server_core)
        for contestant in contestants.values():
            scenario.load.run(contestant.url, WARM_UP_S, load_core)

        def once(server: Server) -> Figures:
            contestant = contestants[server.name]
            with _at_rest(contestants[each.name].pid for each in servers if each.spins and each is not server):
                before = _Clocks.read(contestant.pid, caddy)
                with _meanwhile(during if server.name == OURS else [], contestant.log.parent):
                    figures = scenario.load.run(contestant.url, seconds, load_core)
                after = _Clocks.read(contestant.pid, caddy)
            memory = pss_bytes(contestant.pid)
            return {
                **figures,
                **after.since(before, figures["count"]),
                **({} if memory is None else {"pss_mb": memory / 1_000_000}),
            }

        return interleaved(servers, rounds, once)


@contextmanager
def _meanwhile(words: list[str], folder: Path) -> Iterator[None]:
    """Run that command of ours, if any, beside the block, and wait for its end.

    Raises BenchmarkError when it fails.
    """
    if not words:
        yield
        return
    command = [str(our_binaries() / OURS), *words, "--config", str(folder / "Caddyfile")]
    beside = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield
        said, _ = beside.communicate(timeout=PATIENCE_S)
    finally:
        beside.kill()
        beside.wait()
    if beside.returncode != 0:
        raise BenchmarkError(f"{' '.join(command)} failed:\n{said}")


@contextmanager
def _at_rest(sessions: Iterator[int]) -> Iterator[None]:
    """Stop all processes of `sessions` for the length of the block."""
    stopped = list(sessions)
    for each in stopped:
        os.killpg(each, signal.SIGSTOP)
    try:
        yield
    finally:
        for each in stopped:
            os.killpg(each, signal.SIGCONT)


def _start(
    stack: ExitStack, scenario: Scenario, servers: list[Server], folder: Path, core: int | None
) -> tuple[dict[str, _Contestant], int | None]:
    """All servers and, if need be, one Caddy with a port for each. Also returns Caddy's pid."""
    contestants: dict[str, _Contestant] = {}
    if scenario.is_ordinary:
        folder.chmod(0o755)
    for server in servers:
        environment = frameworks(server.oldest_python, is_for_everybody=scenario.is_ordinary)
        environ = environ_of(environment, folder)
        own = folder / server.name
        own.mkdir()
        port = free_port()
        path = own / "s" if scenario.has_socket else None
        launch = Launch(
            scenario.interface,
            scenario.app,
            scenario.workers,
            own,
            binaries_of(server),
            environment,
            scenario.reach,
            0 if path else port,
            path,
            extra=("sendfile on\n" if scenario.interface is Interface.ASGI else "")
            + f"env_var BENCHMARK_FILE {environ['BENCHMARK_FILE']}\n"
            + (ordinary_user() if scenario.is_ordinary else ""),
            is_proxied=scenario.is_proxied,
            feature=scenario.feature,
        )
        log = own / "log"
        pid = stack.enter_context(running(server.name, server.command(launch), log, core=core, environ=environ))
        url = f"unix:{path}" if scenario.reach is Reach.UNIX else f"http://127.0.0.1:{port}"
        contestants[server.name] = _Contestant(Result(server.name), url, pid, log, port, path)
    for server in list(servers):
        each = contestants[server.name]
        try:
            wait_for_answer(server.name, each.pid, each.log, port=each.port, path=each.path)
        except BenchmarkError as error:
            if server.name == OURS:
                raise
            print(f"  {server.name} is left out: {error}", flush=True)
            servers.remove(server)
            del contestants[server.name]
    if not scenario.is_behind_caddy:
        return contestants, None
    sockets = [(each.port, each.path) for each in contestants.values() if each.path is not None]
    features = {contestants[OURS].port: (scenario.site, scenario.upstream)} if OURS in contestants else {}
    caddy = start_caddy(stack, folder, sockets, is_tuned=scenario.reach is Reach.TUNED, features=features)
    for each in contestants.values():
        wait_for_answer("Caddy", caddy, folder / "caddy.log", port=each.port)
    return contestants, caddy
