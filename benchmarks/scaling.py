"""`python -m benchmarks.scaling`: what grows with what, for caddysnake alone: make scaling.

Each series changes one number and measures what a request, or a start, costs. CPU time, so that a busy machine matters
less.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from . import report
from .__main__ import RESULTS, describe
from .beside import commands, processes, schedules
from .load import Figures, Wrk, require_wrk
from .processes import cpu_us, pss_bytes
from .rounds import cores
from .running import end_in_order, free_port, running, wait_for_answer
from .servers import APPS, BenchmarkError, our_binaries
from .trials import first_byte_ms, until_answered

FAST = {"seconds": 1.0, "rounds": 2}
CONNECTED_A_SECOND = 1250
"""A run with many connections must last longer than it takes to make them."""
THOROUGH = {"seconds": 3.0, "rounds": 5}


def _block(module: str, *lines: str) -> str:
    return f"\tpython {{\n\t\t{module}\n" + "".join(f"\t\t{line}\n" for line in lines) + "\t}\n"


BARE = ("module_asgi bare_asgi:app", f"working_dir {APPS}")


class Stand:
    """One daemon on one Caddyfile, and loads on it."""

    def __init__(self, pid: int, port: int, seconds: float, rounds: int) -> None:
        self.pid, self.port = pid, port
        self._seconds, self._rounds = seconds, rounds

    def load(self, load: Wrk, core: int | None = None) -> Figures:
        """Medians over the rounds, with CPU time a request and memory."""
        url = f"http://127.0.0.1:{self.port}"
        seconds = max(self._seconds, load.connections / CONNECTED_A_SECOND)
        load.run(url, 1, core)
        found: list[Figures] = []
        for _ in range(self._rounds):
            before = cpu_us(self.pid)
            figures = load.run(url, seconds, core)
            figures["cpu_us"] = (cpu_us(self.pid) - before) / max(figures["count"], 1)
            found.append(figures)
        medians = {name: statistics.median(each[name] for each in found) for name in found[0]}
        return medians | {"pss_mb": (pss_bytes(self.pid) or 0) / 1_000_000}


@contextmanager
def stand(config: str, port: int, options: argparse.Namespace, *, core: int | None = None) -> Iterator[Stand]:
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        file, log = Path(folder, "Caddyfile"), Path(folder, "log")
        file.write_text(config)
        command = [str(our_binaries() / "caddysnake"), "run", "--config", str(file), "--socket-dir", folder]
        with running("caddysnake", command, log, core=core) as pid:
            wait_for_answer("caddysnake", pid, log, port=port)
            yield Stand(pid, port, options.seconds, options.rounds)


def connections(options: argparse.Namespace) -> list[Figures]:
    """Kept-alive connections to one ASGI worker, all of them busy."""
    server_core, load_core = cores()
    rows = []
    port = free_port()
    with stand(f"tcp/127.0.0.1:{port} {{\n{_block(*BARE, 'workers 1')}}}\n", port, options, core=server_core) as each:
        for count in (1, 10, 100, 1000, 5000, 10_000):
            figures = each.load(Wrk(count), load_core)
            rows.append({"connections": count, **_some(figures, "cpu_us", "rate", "p99_ms", "failed", "pss_mb")})
    return rows


def workers(options: argparse.Namespace) -> list[Figures]:
    """Worker processes of one app, 64 connections."""
    rows = []
    for count in (1, 2, 4, 8):
        port = free_port()
        with stand(f"tcp/127.0.0.1:{port} {{\n{_block(*BARE, f'workers {count}')}}}\n", port, options) as each:
            figures = each.load(Wrk(64))
            rows.append({"workers": count, **_some(figures, "cpu_us", "rate", "p99_ms", "failed", "pss_mb")})
    return rows


def _other_site(number: int) -> str:
    """A site with matchers, whose app nobody asks for."""
    matched = 'handle /other/* {\n\t\trespond "no app of ours"\n\t}'
    return f"http://t{number}.example.com {{\n\t{matched}\n\tpython /some/* {{\n\t\timport tenant\n\t}}\n}}\n"


def routes(options: argparse.Namespace) -> list[Figures]:
    """Sites with path matchers on one socket, so that each request passes the relay. All are for the last."""
    server_core, load_core = cores()
    rows = []
    for count in (1, 10, 100, 1000):
        port = free_port()
        named = "".join(_other_site(number) for number in range(count - 1))
        tenant = f"(tenant) {{\n\t{BARE[0]}\n\t{BARE[1]}\n\tenv_var HOST {{http.request.host}}\n}}\n"
        last = f"http://127.0.0.1 {{\n\thandle / {{\n{_block(*BARE, 'workers 1')}\t}}\n}}\n"
        config = f"{{\n\tdefault_bind tcp/127.0.0.1:{port}\n}}\n{tenant}{named}{last}"
        with stand(config, port, options, core=server_core) as each:
            figures = each.load(Wrk(64), load_core)
            rows.append({"sites": count, **_some(figures, "cpu_us", "rate", "p99_ms", "failed", "pss_mb")})
    return rows


def tenants(options: argparse.Namespace) -> list[Figures]:
    """Tenants of one template: each asked once, then left alone until they sleep. Bare apps."""
    return [_tenants(count, "process") for count in ((1, 10, 100, 1000) if options.full else (1, 10, 100))]


def tenants_as_threads(options: argparse.Namespace) -> list[Figures]:
    """The same with `workers_runtime thread`."""
    return [_tenants(count, "thread") for count in ((1, 10, 100, 1000) if options.full else (1, 10, 100))]


def _tenants(count: int, runtime: str) -> Figures:
    with tempfile.TemporaryDirectory(prefix="tenants-") as folder:
        for number in range(count + 1):
            Path(folder, f"t{number}").mkdir()
            # Apps can share a process if no two of their modules have the same name.
            Path(folder, f"t{number}", f"t{number}.py").write_text((APPS / "bare_asgi.py").read_text())
        port = free_port()
        sleep_s = 5 + count // 10
        tenant = "{http.request.host.labels.1}"
        lines = (f"max_dynamic_apps {count + 1}", f"idle_timeout {sleep_s}s", "workers 1", f"workers_runtime {runtime}")
        app = _block(f"module_asgi {tenant}:app", f"working_dir {folder}/{tenant}", *lines)
        file, log = Path(folder, "Caddyfile"), Path(folder, "log")
        file.write_text(f"tcp/127.0.0.1:{port} {{\n{app}}}\n")
        command = [str(our_binaries() / "caddysnake"), "run", "--config", str(file)]
        with running("caddysnake", command, log) as pid:
            until_answered(port, "t0.localhost", pid, log)
            empty = pss_bytes(pid) or 0
            times = [first_byte_ms(port, f"t{number}.localhost") for number in range(1, count + 1)]
            awake, files = pss_bytes(pid) or 0, len(os.listdir(f"/proc/{pid}/fd"))
            _until_asleep(log, count + 1, sleep_s)
            asleep = pss_bytes(pid) or 0
            again = [first_byte_ms(port, f"t{number}.localhost") for number in range(1, min(count, 20) + 1)]
        return {
            "tenants": count,
            "first_byte_ms": statistics.median(times),
            "mb_each": (awake - empty) / count / 1_000_000,
            "daemon_files": files,
            "asleep_mb": asleep / 1_000_000,
            "again_ms": statistics.median(again),
        }


def configuration(options: argparse.Namespace) -> list[Figures]:
    """Sites with an app each in one Caddyfile: CPU seconds to check it, and to write Caddy's part of it."""
    rows = []
    for count in (10, 100, 1000, 10_000):
        with tempfile.TemporaryDirectory(prefix="sites-") as folder:
            file = Path(folder, "Caddyfile")
            file.write_text(
                "".join(
                    f"site{number}.example.com {{\n{_block(*BARE, f'env_var NUMBER {number}')}}}\n\n"
                    for number in range(count)
                )
            )
            row = {"sites": float(count)}
            for name, command in (("check_s", "validate"), ("caddyfile_s", "caddyfile")):
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                program = [str(our_binaries() / "caddysnake"), command, "--config", str(file)]
                with running(command, program, Path(folder, "log")) as pid:
                    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                row[name] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            rows.append(row)
    return rows


def _until_asleep(log: Path, count: int, sleep_s: int) -> None:
    """Raises BenchmarkError when they do not."""
    deadline = time.monotonic() + 4 * sleep_s + 60
    while log.read_text(errors="replace").count("app is idle and put to sleep") < count:
        if time.monotonic() > deadline:
            raise BenchmarkError(f"fewer than {count} apps have been put to sleep")
        time.sleep(1)
    time.sleep(2)


def _some(figures: Figures, *names: str) -> Figures:
    return {name: figures[name] for name in names}


SERIES: dict[str, Callable[[argparse.Namespace], list[Figures]]] = {
    each.__name__: each
    for each in (
        connections, workers, routes, tenants, tenants_as_threads, configuration, processes, schedules, commands,
    )
}
_TITLES = {
    "asleep_mb": "PSS MB, all asleep",
    "daemon_files": "files of the daemon",
    "again_ms": "first byte after sleep ms",
    "rate": "requests/s",
    "wakeups_a_s": "wake-ups a second",
    "cpu_ms_a_s": "CPU ms a second",
    "rss_mb": "RSS MB of the daemon",
    "alone_ms": "Python alone ms",
    "exec_ms": "by exec ms",
    "gigabyte_s": "1 GB by exec s",
    "gigabyte_cpu_s": "daemon's CPU s of that",
    "reload_ms": "reload ms",
    "release_ms": "with a release ms",
}
_TITLES |= {"check_s": "validate, CPU s", "caddyfile_s": "caddyfile, CPU s"}


def series_title(column: str) -> str:
    """The title of a figure."""
    return _TITLES.get(column) or report.title_of(column)


def to_markdown(name: str, rows: Sequence[Figures]) -> str:
    titles = [series_title(column) for column in rows[0]]
    lines = [f"### {name}", "", SERIES[name].__doc__ or "", "", report.row(titles)]
    lines.append(report.row(["---:"] * len(titles)))
    lines += [report.row([number(value) for value in each.values()]) for each in rows]
    return "\n".join(lines) + "\n"


def number(value: float) -> str:
    """As many digits as mean something."""
    if value == int(value) or value >= 1000:
        return f"{value:,.0f}"
    return f"{value:,.1f}" if value >= 10 else f"{value:.2f}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these: {', '.join(SERIES)}")
    parser.add_argument("--full", action="store_true", help="longer, and up to 1,000 tenants")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the JSON and Markdown files")
    options = parser.parse_args()
    vars(options).update(THOROUGH if options.full else FAST)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # wrk needs a descriptor for each connection
    end_in_order()
    started = time.strftime("%Y-%m-%d-%H%M%S")
    machine = report.machine()
    tables = [f"# {started}\n\n{describe(machine)}\n"]
    document: dict[str, object] = {"started": started, "machine": machine}
    try:
        require_wrk()
        for name in options.names or SERIES:
            rows = SERIES[name](options)
            document[name] = rows
            tables.append(to_markdown(name, rows))
            print(tables[-1], flush=True)
    except (BenchmarkError, KeyError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / f"{started}-scaling.json").write_text(json.dumps(document, indent=2) + "\n")
    (options.output / f"{started}-scaling.md").write_text("\n".join(tables))
    print(f"Kept in {options.output}/{started}-scaling.json and .md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
