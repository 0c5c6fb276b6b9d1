"""What runs beside the workers: what it costs the daemon, and what `exec` and `release` add to their commands."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from .load import Figures
from .running import free_port, running, wait_for_answer
from .servers import APPS, BenchmarkError, our_binaries

SETTLE_S = 3.0
WATCH_S = 10.0
GIGABYTE = 1_000_000_000
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class Daemon(NamedTuple):
    """One daemon, alone: what it starts is not counted."""

    pid: int
    file: Path

    @property
    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * _TICK_S

    def _status(self, field: str) -> int:
        found = re.search(rf"^{field}:\s+(\d+)", Path(f"/proc/{self.pid}/status").read_text(), re.MULTILINE)
        return int(found[1]) if found else 0

    def at_rest(self) -> Figures:
        """What it does while there is nothing to do."""
        time.sleep(SETTLE_S)
        wakeups, cpu_s = self._status("voluntary_ctxt_switches"), self.cpu_s
        time.sleep(WATCH_S)
        return {
            "wakeups_a_s": (self._status("voluntary_ctxt_switches") - wakeups) / WATCH_S,
            "cpu_ms_a_s": (self.cpu_s - cpu_s) * 1000 / WATCH_S,
            "rss_mb": self._status("VmRSS") / 1024,
        }

    def command(self, *words: str) -> list[str]:
        return [str(our_binaries() / "caddysnake"), words[0], "--config", str(self.file), *words[1:]]


@contextmanager
def _daemon(lines: Sequence[str] = ()) -> Iterator[Daemon]:
    with tempfile.TemporaryDirectory(prefix="beside-") as folder:
        file, log, port = Path(folder, "Caddyfile"), Path(folder, "log"), free_port()
        _write(file, port, lines)
        command = [str(our_binaries() / "caddysnake"), "run", "--config", str(file), "--socket-dir", folder]
        with running("caddysnake", command, log) as pid:
            wait_for_answer("caddysnake", pid, log, port=port)
            yield Daemon(pid, file)


def _write(file: Path, port: int, lines: Sequence[str]) -> None:
    block = "\n\t\t".join(("module_wsgi bare_wsgi:app", f"working_dir {APPS}", "workers 1", *lines))
    file.write_text(f"tcp/127.0.0.1:{port} {{\n\tpython {{\n\t\t{block}\n\t}}\n}}\n")


def processes(_: object) -> list[Figures]:
    """Processes beside the workers that sleep: what the daemon does meanwhile."""
    rows = []
    for count in (0, 10, 100):
        lines = [f"process sleeper sleep 100000 {{\n\t\t\tcount {count}\n\t\t}}"] if count else []
        with _daemon(lines) as daemon:
            rows.append({"processes": count, **daemon.at_rest()})
    return rows


def schedules(_: object) -> list[Figures]:
    """Schedules that are not due: what the daemon does meanwhile."""
    rows = []
    for count in (0, 1000):
        hour = (time.localtime().tm_hour + 12) % 24
        with _daemon([f'schedule s{n} "{n % 60} {hour} * * *" true' for n in range(count)]) as daemon:
            rows.append({"schedules": count, **daemon.at_rest()})
    return rows


def commands(options: object) -> list[Figures]:
    """Python alone and by `exec`, a gigabyte between two of these, a reload without and with a release command."""
    rounds: int = getattr(options, "rounds", 2) * 5
    with _daemon() as daemon:
        script = our_binaries() / "python"
        alone, inside = [], []
        for _ in range(rounds):
            alone.append(_took([str(script), "-c", ""]))
            inside.append(_took(daemon.command("exec", "bare_wsgi", "python", "-c", "")))
        before, begun = daemon.cpu_s, time.monotonic()
        source = subprocess.Popen(
            daemon.command("exec", "bare_wsgi", "head", "-c", str(GIGABYTE), "/dev/zero"), stdout=subprocess.PIPE
        )
        count = subprocess.run(
            daemon.command("exec", "bare_wsgi", "wc", "-c"), stdin=source.stdout, capture_output=True, check=True
        )
        if source.wait() or int(count.stdout) != GIGABYTE:
            raise BenchmarkError("the gigabyte did not come through")
        copied = {"gigabyte_s": time.monotonic() - begun, "gigabyte_cpu_s": daemon.cpu_s - before}
        without = statistics.median(_took(daemon.command("reload")) for _ in range(rounds))
        text = daemon.file.read_text()
        daemon.file.write_text(text.replace("workers 1", "workers 1\n\t\trelease python -c ''"))
        released = statistics.median(_took(daemon.command("reload")) for _ in range(rounds))
    figures = {"alone_ms": statistics.median(alone), "exec_ms": statistics.median(inside), **copied}
    return [figures | {"reload_ms": without, "release_ms": released}]


def _took(command: list[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return (time.perf_counter() - begun) * 1000
