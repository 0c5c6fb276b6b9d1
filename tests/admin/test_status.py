"""How the daemon tells how it is: the table, and counts that only grow."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from support.admin import call, command
from support.daemon import PATIENCE_S, Process, daemon, eventually, get
from support.load import app

from caddysnake.channel.vitals import LARGEST, LATENCY_BOUNDS_S, quantile
from caddysnake.cli.beside import span
from caddysnake.cli.status_table import cut, milliseconds, overview, size

APP = "main:wsgi"
SITE = """unix/x.sock {
	python {
		module_wsgi main:wsgi
		workers 2
		MORE
	}
}
"""
TENANTS = """unix/t.sock {
	python {
		module_wsgi main:wsgi
		working_dir {host}
	}
}
"""


def of_app(process: Process) -> Any:
    return call(process, "GET", f"/apps/{APP}").json


@pytest.mark.system
def test_the_table_says_what_runs_and_what_was_refused(folder: Path) -> None:
    with daemon(folder, SITE.replace("MORE", "") + TENANTS) as process:
        assert get("/", path=folder / "t.sock", Host="ann.test")[0] == 200
        assert get("/", path=folder / "t.sock", Host="ben.test")[0] == 404
        (folder / "main.py").write_text(app("2", "raise LookupError('no \\x1b[31mdatabase')\n"))
        assert command(process, folder, "reload").returncode == 1
        text = command(process, folder, "status", check=True).stdout
        table = "\n".join(" ".join(line.split()) for line in text.splitlines())
        assert "\nmain:wsgi serving! 2/2 1 0" in table
        assert "\nann.test main:wsgi serving 1/1 1 1" in table
        assert "direct main:wsgi one app takes every request" in table
        assert "relay {http.request.host}/main:wsgi the app depends on {http.request.host}" in table
        assert "no-such-app 1" in table
        assert "! The last reload was refused" in table
        assert "build 2 was refused" in table
        assert "build 1 keeps serving" in table
        assert r"LookupError: no \x1b[31mdatabase" in table
        assert "not isolated" in table
        found = json.loads(command(process, folder, "status", "--json", check=True).stdout)
        assert found["daemon"]["refused"]["code"] == "import-failed"
        crowd = [{**found["apps"][1], "name": f"t{number}", "key": str(number)} for number in range(50)]
        crowd[7]["waiting"] = 1
        short = overview({**found, "apps": crowd}, lines_max=50)
        assert len(short) == 50
        assert any(line.startswith("  t7 ") for line in short)
        assert not any(line.startswith("  t49 ") for line in short)


FORGING = """
import ctypes, os

def wsgi(environ, start_response):
    with open("/proc/self/maps") as maps:
        for line in maps:
            if "caddysnake-vitals" in line:
                first, last = (int(number, 16) for number in line.split()[0].split("-"))
                ctypes.memset(first, 0xFF, last - first)
    if environ["PATH_INFO"] == "/die":
        os.kill(os.getpid(), 9)
    start_response("200 OK", [])
    return [b"forged"]
"""


@pytest.mark.system
def test_forged_counters_of_one_app_leave_the_others_their_status(folder: Path) -> None:
    (folder / "ann.test" / "main.py").write_text(FORGING)
    (folder / "evil.py").write_text(FORGING)
    evil = SITE.replace("x.sock", "e.sock").replace("main:wsgi", "evil:wsgi").replace("MORE", "")
    with daemon(folder, SITE.replace("MORE", "") + evil + TENANTS) as process:
        assert get("/", path=folder / "x.sock")[0] == 200
        for path in (*["/"] * 6, *["/die"] * 3, *["/"] * 6):
            with contextlib.suppress(ConnectionError, http.client.HTTPException):
                get(path, path=folder / "e.sock")
                get(path, path=folder / "t.sock", Host="ann.test")
        eventually(lambda: all(each["workers_ready"] for each in call(process, "GET", "/apps").json["apps"]), process)
        assert call(process, "GET", "/apps").status == 200
        assert of_app(process)["traffic"]["requests"] == 1
        found = json.loads(command(process, folder, "status", "--json", check=True).stdout)
        forged = next(each for each in found["apps"] if each["name"] == "evil:wsgi")
        assert forged["traffic"]["bytes_out"] == LARGEST
        assert forged["in_flight"] == LARGEST
        assert "main:wsgi" in command(process, folder, "status", check=True).stdout
        metrics = call(process, "GET", "/metrics")
        assert metrics.status == 200
        assert b'caddysnake_http_requests_total{app="main:wsgi"} 1.0' in metrics.body
        assert command(process, folder, "upgrade").returncode == 0, process.log
        assert of_app(process)["traffic"]["requests"] == 1


@pytest.mark.system
def test_counts_only_grow_when_workers_are_replaced(folder: Path) -> None:
    with daemon(folder, SITE.replace("MORE", "max_requests 20") + TENANTS) as process:
        sent = 0
        last = of_app(process)["traffic"]
        killed = False
        deadline = time.monotonic() + PATIENCE_S
        while of_app(process)["restarts"].get("max_requests", 0) < 2 or not killed:
            for _ in range(10):
                assert get("/", path=folder / "x.sock")[0] == 200
                sent += 1
            traffic = of_app(process)["traffic"]
            assert traffic["requests"] >= last["requests"]
            assert all(now >= before for now, before in zip(traffic["latencies"], last["latencies"], strict=True))
            last = traffic
            if not killed and sent >= 10:
                killed = True
                os.kill(of_app(process)["workers"][0]["pid"], signal.SIGKILL)
                eventually(lambda: of_app(process)["restarts"].get("crashed"), process)
            assert time.monotonic() < deadline, process.log
        eventually(lambda: of_app(process)["traffic"]["requests"] >= sent, process)
        found = of_app(process)
        assert found["traffic"]["requests"] == sum(found["traffic"]["latencies"]) == sent
        assert found["traffic"]["responses"][1] == sent
        assert found["last_failure"]["error"] == "worker crashed: signal SIGKILL"
        # What a tenant counted stays its template's when it is gone.
        for _ in range(3):
            assert get("/", path=folder / "t.sock", Host="ann.test")[0] == 200
        assert call(process, "DELETE", "/apps/ann.test%20main:wsgi").status == 200
        (template,) = call(process, "GET", "/status").json["templates"]
        assert (template["live"], template["traffic"]["requests"]) == (0, 3)


def test_a_quantile_of_a_histogram() -> None:
    bounds = LATENCY_BOUNDS_S
    counts = [0] * (len(bounds) + 1)
    assert quantile(0.5, bounds, counts) is None
    counts[0] = 10
    assert quantile(0.5, bounds, counts) == pytest.approx(0.0025)
    counts[-1] = 1000
    assert quantile(0.5, bounds, counts) == 10.0
    counts = [0, 0, 0, 10, *[0] * (len(bounds) - 3)]
    assert quantile(0.5, bounds, counts) == pytest.approx(0.0375)


def test_numbers_are_written_for_people() -> None:
    assert [milliseconds(value) for value in (None, 0.0012, 0.012, 2.5)] == ["-", "1.2ms", "12ms", "2.5s"]
    assert [size(value) for value in (0, 999, 1000, 58_900_000)] == ["0 B", "999 B", "1.0 kB", "58.9 MB"]
    assert [span(value) for value in (-1, 45, 192, 18120, 1_051_200)] == ["0s", "45s", "3m12s", "5h02m", "12d04h"]
    assert cut("a" * 99).endswith("a…")
