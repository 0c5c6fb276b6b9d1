"""How long requests wait before the app is called: shown as that, and not as the app's own time."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from support.admin import call
from support.daemon import Process, UnixHTTPConnection, daemon, eventually, get

pytestmark = pytest.mark.system

APP = """
import pathlib, time

slow = pathlib.Path(__file__).with_name("slow")
if slow.exists():
    time.sleep(float(slow.read_text()))

def wsgi(environ, start_response):
    time.sleep(float(environ["QUERY_STRING"]))
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]

async def asgi(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError
    time.sleep(float(scope["query_string"]))
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""
DIRECT = """unix/a.sock {{
	python {{
		module_{kind} main:{kind}
		workers 1
		{more}
		log
	}}
}}
"""
DYNAMIC = """unix/a.sock {{
	python {{
		module_{kind} main:{kind}
		working_dir {{host}}
		workers 1
		log
	}}
}}
"""


def queues(process: Process, expected: int) -> list[float]:
    """The field ``queue`` of the access log, once there are so many records."""

    def records() -> list[dict[str, Any]]:
        lines = [line for line in process.log.splitlines() if '"handled request"' in line]
        return [json.loads(line) for line in lines]

    eventually(lambda: len(records()) >= expected, "access records")
    return sorted(each["queue"] for each in records())


def together(clients: list[UnixHTTPConnection], target: str) -> float:
    """All of them ask before any is answered; how long that took in all."""
    begun = time.monotonic()
    for client in clients:
        client.request("GET", target)
    for client in clients:
        client.getresponse().read()
        client.close()
    return time.monotonic() - begun


@pytest.mark.parametrize(("kind", "more"), [("wsgi", "threads 1"), ("asgi", ""), ("asgi", "runtime native")])
def test_a_queue_that_is_made_to_wait_shows_as_queue_and_not_as_the_apps_time(
    tmp_path: Path, kind: str, more: str
) -> None:
    (tmp_path / "main.py").write_text(APP)
    with daemon(tmp_path, DIRECT.format(kind=kind, more=more)) as process:
        process.wait_for_log("admin API ready")
        get("/?0", path=tmp_path / "a.sock")
        took_s = together([UnixHTTPConnection(tmp_path / "a.sock") for _ in range(4)], "/?0.6")
        waited = queues(process, 5)
        for seconds, least in zip(waited, (0.0, 0.0, 0.3, 0.9, 1.5), strict=True):
            assert least <= seconds < took_s, waited
        get("/?0", path=tmp_path / "a.sock")
        waited = queues(process, 6)
        assert waited[2] < 0.5, "a request that waits for nobody"
        prompt = sum(each <= 0.25 for each in waited)

        def told() -> Any:
            return call(process, "GET", f"/apps/main:{kind}").json["traffic"]

        eventually(lambda: told()["requests"] == 6, "what the worker has counted")
        traffic = told()
        assert sum(traffic["queues"][:4]) == prompt, "up to 0.25 s"
        assert sum(traffic["queues"]) == traffic["requests"] == 6
        assert traffic["queue_sum_us"] / 1e6 == pytest.approx(sum(waited), abs=0.1)
        assert 2.4 <= traffic["latency_sum_us"] / 1e6 < 5, "with the queue it were six"
        metrics = call(process, "GET", "/metrics").body.decode()
        assert f'caddysnake_request_queue_seconds_count{{app="main:{kind}"}} 6.0' in metrics
        assert f'caddysnake_request_queue_seconds_bucket{{app="main:{kind}",le="0.25"}} {prompt}.0' in metrics


@pytest.mark.parametrize(("kind", "more"), [("wsgi", "threads 1"), ("asgi", ""), ("asgi", "runtime native")])
def test_on_connections_that_are_kept_too(tmp_path: Path, kind: str, more: str) -> None:
    (tmp_path / "main.py").write_text(APP)
    with daemon(tmp_path, DIRECT.format(kind=kind, more=more)) as process:
        kept = [UnixHTTPConnection(tmp_path / "a.sock") for _ in range(3)]
        for connection in kept:
            connection.request("GET", "/?0")
            connection.getresponse().read()
            time.sleep(0.1)
        took_s = together(kept, "/?0.6")
        waited = queues(process, 6)
        for seconds, least in zip(waited, (0.0, 0.0, 0.0, 0.0, 0.3, 0.9), strict=True):
            assert least <= seconds < took_s, waited
        assert waited[3] < 0.5


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_waiting_for_an_app_that_starts_is_waiting_in_a_queue(tmp_path: Path, kind: str) -> None:
    (tmp_path / "ann.test").mkdir()
    (tmp_path / "ann.test" / "main.py").write_text(APP)
    (tmp_path / "ann.test" / "slow").write_text("1")
    with daemon(tmp_path, DYNAMIC.format(kind=kind)) as process:
        get("/?0.1", path=tmp_path / "a.sock", Host="ann.test")
        get("/?0", path=tmp_path / "a.sock", Host="ann.test")
        prompt, waited = queues(process, 2)
        assert prompt < 0.9 < waited < 60


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_what_a_proxy_says_of_the_beginning_is_believed(tmp_path: Path, kind: str) -> None:
    (tmp_path / "main.py").write_text(APP)
    with daemon(tmp_path, DIRECT.format(kind=kind, more="")) as process:
        connection = UnixHTTPConnection(tmp_path / "a.sock")
        ago = time.time() - 3
        times = f"t={ago:.3f}", f"t={ago * 1e3:.0f}", f"{ago * 1e6:.0f}"
        for stamp in (*times, "t=-1", "yesterday", f"t={ago + 99:.0f}", "t=inf", "nan"):
            connection.request("GET", "/?0", headers={"X-Request-Start": stamp})
            connection.getresponse().read()
        connection.close()
        waited = queues(process, 8)
        assert all(each < 2 for each in waited[:5]), waited
        assert all(2.9 < each < 60 for each in waited[5:]), waited


@pytest.mark.parametrize(("kind", "more"), [("wsgi", "threads 2"), ("asgi", "")])
def test_a_connection_that_was_idle_has_not_waited(tmp_path: Path, kind: str, more: str) -> None:
    """A proxy opens more connections than it needs at once, and keeps them."""
    import socket

    (tmp_path / "main.py").write_text(APP)
    with daemon(tmp_path, DIRECT.format(kind=kind, more=more)) as process:
        with socket.socket(socket.AF_UNIX) as kept:
            kept.settimeout(30)
            kept.connect(str(tmp_path / "a.sock"))
            time.sleep(0.6)
            for pause in (0.0, 0.6):
                time.sleep(pause)
                kept.sendall(b"GET /?0 HTTP/1.1\r\nHost: a\r\n\r\n")
                assert b"200 OK" in kept.recv(65536)
        assert queues(process, 2)[-1] < 0.5
