"""Mixed load, reloads, kills and tenants that come and go, for a while: nothing of the sidecar grows.

``CADDYSNAKE_SOAK=600`` makes it ten minutes, and prints the series (``pytest -s``). The short form cannot tell a slow
leak from a cache that fills, so its bounds are wide; what it holds is that the number of everything comes back.
"""

from __future__ import annotations

import http.client
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from support.daemon import PATIENCE_S, Process, caddy, children, daemon, workers
from support.town import block, settle

pytestmark = [pytest.mark.system, pytest.mark.timeout(3600)]

SECONDS = float(os.environ.get("CADDYSNAKE_SOAK", "12"))
IS_LONG = SECONDS >= 120
TURN_S = SECONDS / (40 if IS_LONG else 6)
TENANTS = [f"t{number}" for number in range(12)]
GROWTH_MB = 25.0 if IS_LONG else 60.0


class Sample(NamedTuple):
    """What the daemon and the processes of ours that outlive a turn hold."""

    daemon_mb: float
    descriptors: int
    threads: int
    processes: int
    files: int
    """In the folders of temporary files and sockets."""


def sample(process: Process, folder: Path) -> Sample:
    status = Path(f"/proc/{process.pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return Sample(
        int(fields["VmRSS"].split()[0]) / 1024,
        len(os.listdir(f"/proc/{process.pid}/fd")),
        int(fields["Threads"]),
        len(children(process.pid)),
        sum(len(files) for _, _, files in os.walk(folder / "tmp")),
    )


def zombies(process: Process) -> list[str]:
    """Below the daemon: each a line of its status."""
    found = []
    for pid in children(process.pid):
        with suppress(OSError):
            stat = Path(f"/proc/{pid}/stat").read_text()
            if stat.rpartition(")")[2].split()[0] == "Z":
                found.append(stat)
    return found


@contextmanager
def load(port: int, wrong: Counter[object], done: Counter[str]) -> Iterator[None]:
    """Clients that ask tenants and the app that is always there, in turn."""
    ends = threading.Event()

    def client(seed: int) -> None:
        dice = random.Random(seed)
        connection = http.client.HTTPConnection("127.0.0.1", port, PATIENCE_S)
        while not ends.is_set():
            host = dice.choice([*(f"{name}.tenants.test" for name in TENANTS), "main.test", "nobody.tenants.test"])
            posts = dice.random() < 0.3
            try:
                connection.request("POST" if posts else "GET", "/", b"x" * 3000 if posts else None, {"Host": host})
                response = connection.getresponse()
                content = response.read()
            except (OSError, http.client.HTTPException) as exc:
                wrong[type(exc).__name__] += 1
                connection.close()
                continue
            name = host.partition(".")[0]
            if name == "nobody":
                done["404"] += response.status == 404
            elif response.status == 200 and content.startswith(name.encode()):
                done[name] += 1
            else:
                wrong[response.status, content[:100]] += 1
            time.sleep(0.01)
        connection.close()

    clients = [threading.Thread(target=client, args=(seed,)) for seed in range(6)]
    for each in clients:
        each.start()
    try:
        yield
    finally:
        ends.set()
        for each in clients:
            each.join()


def test_nothing_grows(tmp_path: Path) -> None:
    settle(tmp_path / "tenants", *TENANTS, "main")
    (tmp_path / "tmp").mkdir()
    fixed = (
        f"python {{\nmodule_asgi main:app\nworking_dir {tmp_path}/tenants/main\nenv_var TENANT main\n"
        "workers 2\nmax_requests 400 100\n}"
    )
    text = (
        f"{{\ndefault_bind unix/{tmp_path}/s.sock\n}}\nhttp://main.test {{\n{fixed}\n}}\n"
        f"http://*.tenants.test {{\n{block(tmp_path / 'tenants', 'max_dynamic_apps 6', 'idle_timeout 1s')}\n}}\n"
    )
    front = f":{{port}} {{\n\treverse_proxy unix/{tmp_path}/s.sock\n}}\n"
    wrong: Counter[object] = Counter()
    done: Counter[str] = Counter()
    series: list[Sample] = []
    killed = reloads = 0
    with daemon(tmp_path, text, environ={"TMPDIR": str(tmp_path / "tmp")}) as process:
        with caddy(tmp_path, front) as (_, port):
            end = time.monotonic() + SECONDS
            dice = random.Random(1)
            with load(port, wrong, done):
                while time.monotonic() < end:
                    time.sleep(TURN_S / 3)
                    process.popen.send_signal(signal.SIGHUP)
                    reloads += 1
                    process.wait_for_log('"msg":"reloaded"', reloads)
                    time.sleep(TURN_S / 3)
                    victims = sorted(workers(process.pid))
                    if victims:
                        os.kill(dice.choice(victims), signal.SIGKILL)
                        killed += 1
                    time.sleep(TURN_S / 3)
                    series.append(sample(process, tmp_path))
        # Everybody has gone: tenants sleep, and what is left is what was there when it began.
        deadline = time.monotonic() + PATIENCE_S
        while len(workers(process.pid)) > 2:
            assert time.monotonic() < deadline, process.log[-3000:]
            time.sleep(0.1)
        while zombies(process):
            assert time.monotonic() < deadline, zombies(process)
            time.sleep(0.1)
        last = sample(process, tmp_path)
        assert process.popen.poll() is None
    if IS_LONG:
        print("\nMB daemon, descriptors, threads, processes, files")
        for each in (*series, last):
            print(f"{each.daemon_mb:9.1f}", *each[1:], sep="\t")
        print(f"{sum(done.values())} answers, {reloads} reloads, {killed} kills, {dict(wrong)}")
    assert done["main"] > 10
    assert done["404"] > 0
    assert sum(name in done for name in TENANTS) == len(TENANTS)
    # A killed worker takes with it what it had read, and no more: six clients, one request each.
    assert sum(wrong.values()) <= killed * 6, wrong
    first = series[0]
    assert last.daemon_mb < first.daemon_mb + GROWTH_MB, series
    assert last.descriptors <= first.descriptors + 20, series
    assert last.threads <= first.threads + 4, series
    assert last.processes <= first.processes, series
    assert last.files <= first.files, series
    half = series[len(series) // 2]
    if IS_LONG:
        assert series[-1].daemon_mb < half.daemon_mb + 5, series
