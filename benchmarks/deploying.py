"""`python -m benchmarks.deploying`: how soon a build that is returned, or rolled back, is asked no more, and how soon
an app has more workers; for caddysnake alone, through a stock Caddy, with POSTs.

A machine that is busy with something else shows in all of it.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from .load import Figures
from .running import free_port, running, start_caddy, wait_for_answer
from .servers import OURS, our_binaries

APP = """import os, time

BEGUN = 0


def wsgi(environ, start_response):
    global BEGUN
    begun = time.time()
    environ["wsgi.input"].read()
    time.sleep(float(environ["PATH_INFO"][1:] or 0.01))
    BEGUN += 1
    if {sick} and BEGUN % 10 == 5:
        raise LookupError("no such table")
    told = b"Hello, World! {version} %d %.6f" % (os.getpid(), begun)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(told)))])
    return [told]
"""
CADDYFILE = """{
	admin unix/admin.sock
	log {
		format json
	}
}
unix/s {
	python {
		module_wsgi changing:wsgi
		working_dir app
		threads 4
		LINES
	}
}
"""
CLIENTS = 8
PATIENCE_S = 30.0


class _Clients:
    """Ask without end, over a kept-alive connection each; know which version began a request last, and when."""

    def __init__(self, port: int, path: str = "/", count: int = CLIENTS, pause_s: float = 0.004) -> None:
        self._port, self._path, self._pause_s = port, path, pause_s
        self._over = threading.Event()
        self.failed = self.answered = 0
        self.first: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self.pids: dict[str, float] = {}
        """When each process has begun its first request."""
        self._threads = [threading.Thread(target=self._run) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S)
        while not self._over.wait(self._pause_s):
            try:
                connection.request("POST", self._path, b"name=value")
                response = connection.getresponse()
                said = response.read().split()
            except (OSError, http.client.HTTPException):
                self.failed += 1
                connection.close()
                continue
            if response.status != 200:  # 500 is what the sick build itself answers
                self.failed += response.status != 500
                continue
            self.answered += 1
            version, pid, at = said[2].decode(), said[3].decode(), float(said[4])
            self.first[version] = min(self.first.get(version, at), at)
            self.last[version] = max(self.last.get(version, at), at)
            self.pids[pid] = min(self.pids.get(pid, at), at)
        connection.close()


class _Site:
    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.version = 1

    def write(self, sick: bool = False) -> str:
        """The next version; its name."""
        self.version += 1
        write(self.folder, self.version, sick)
        return str(self.version)

    def command(self, *arguments: str) -> int:
        asked = [str(our_binaries() / OURS), *arguments]
        return subprocess.run(asked, cwd=self.folder, capture_output=True, check=False, timeout=120).returncode

    def began_at(self, message: str) -> float:
        """When what the log tells last with ``message`` began, in seconds of the epoch."""
        records = [json.loads(line) for line in (self.folder / "log").read_text().splitlines() if message in line]
        return float(records[-1]["ts"]) - float(records[-1].get("duration", 0.0))


def write(folder: Path, version: int, sick: bool = False) -> None:
    """The app. Longer with each version: bytecode is told from its source by size and second."""
    text = APP.format(version=version, sick=sick) + "#" * version + "\n"
    (folder / "app" / "changing.py").write_text(text)


@contextmanager
def _site(*lines: str) -> Iterator[_Site]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        (folder / "app").mkdir()
        write(folder, 1)
        (folder / "Caddyfile").write_text(CADDYFILE.replace("LINES", "\n\t\t".join(lines)))
        (folder / "run").write_text(f"cd {folder} && exec {our_binaries() / OURS} run\n")
        pid = stack.enter_context(running(OURS, ["sh", str(folder / "run")], folder / "log"))
        wait_for_answer(OURS, pid, folder / "log", path=folder / "s")
        port = free_port()
        caddy = start_caddy(stack, folder, [(port, folder / "s")], is_tuned=False)
        wait_for_answer("Caddy", caddy, folder / "caddy.log", port=port)
        yield _Site(folder, port)


def returned() -> Figures:
    """From the verdict to the last request that begins in a build that fails a tenth of them."""
    with _site("workers 2", "canary {", "share 20%", "for 10s", "min_requests 40", "}") as site:
        clients = _Clients(site.port)
        try:
            sick = site.write(sick=True)
            status = site.command("reload")
            time.sleep(1)
        finally:
            clients.close()
        verdict = float(_app(site)["refused"]["last_at"])
        late_ms = max(0.0, clients.last.get(sick, 0.0) - verdict) * 1000
        return {"last_ms": late_ms, "failed": clients.failed, "wrong": status != 1, "requests": clients.answered}


def rolled_back() -> Figures:
    """From the daemon's receipt to the first answer of the build before."""
    with _site("workers 2", "keep_previous 1m") as site:
        clients = _Clients(site.port)
        try:
            new = site.write()
            status = site.command("reload")
            time.sleep(1)
            clients.first.clear()
            status += site.command("rollback")
            time.sleep(1)
        finally:
            clients.close()
        record = site.began_at("/rollback")
        first_ms = max(0.0, clients.first["1"] - record) * 1000
        last_ms = max(0.0, clients.last[new] - record) * 1000
        figures = {"failed": clients.failed, "wrong": status != 0, "requests": clients.answered}
        return {"first_ms": first_ms, "last_ms": last_ms, **figures}


def grown() -> Figures:
    """From the first request of a burst until the third worker begins one; then back to one, under requests."""
    with _site("workers 1 6", "scale_down_after 1s") as site:
        begun = time.time()
        clients = _Clients(site.port, "/0.1", 32, 0.0)
        time.sleep(2)
        clients.close()
        few = _Clients(site.port, "/0.01", 2, 0.02)
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until and len(_app(site)["workers"]) > 1:
            time.sleep(0.2)
        few.close()
        third = sorted(clients.pids.values())[2:3]
        third_ms = {"third_ms": (third[0] - begun) * 1000} if third else {}
        left = len(_app(site)["workers"])
        return {**third_ms, "left": left, "failed": clients.failed + few.failed, "requests": few.answered}


def _app(site: _Site) -> Any:
    asked = [str(our_binaries() / OURS), "status", "--json"]
    told = subprocess.run(asked, cwd=site.folder, capture_output=True, check=True, timeout=60).stdout
    return json.loads(told)["apps"][0]


TRIALS = {"returned": returned, "rolled-back": rolled_back, "grown": grown}


def main() -> None:
    """Print each figure's median, and its worst, over all rounds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deploying", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these of {', '.join(TRIALS)}")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for name in options.names or TRIALS:
        rounds = [TRIALS[name]() for _ in range(options.rounds)]
        print(f"{name}: {TRIALS[name].__doc__}")
        for each in {column: None for figures in rounds for column in figures}:
            found = [float(figures[each]) for figures in rounds if each in figures]
            print(f"  {each:10} median {statistics.median(found):8.1f}   most {max(found):8.1f}")


if __name__ == "__main__":
    main()
