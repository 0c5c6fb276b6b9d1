"""What no app has answered, or not to its end, counts as an error everywhere, and by one name for its cause."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.admin import call, command
from support.daemon import PATIENCE_S, Process, daemon, eventually, get

pytestmark = pytest.mark.system

APPS = """
import asyncio, os, signal, time

def wsgi(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if path in ("/wait", "/late"):
        time.sleep(600 if path == "/wait" else 4)
    if path == "/raise":
        raise ValueError("asked for")
    if path == "/cut":
        start_response("200 OK", [("Content-Length", "10")])(b"begun")
        raise ValueError("asked for")
    start_response("503 Busy" if path == "/busy" else "200 OK", [])
    return [b"ok"]

async def asgi(scope, receive, send):
    assert scope["type"] == "http"
    path = scope["path"]
    if path == "/kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if path in ("/wait", "/late"):
        await asyncio.sleep(600)
    if path == "/spin":
        time.sleep(600)
    if path == "/raise":
        raise ValueError("asked for")
    await send({"type": "http.response.start", "status": 503 if path == "/busy" else 200})
    if path == "/cut":
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        raise ValueError("asked for")
    await send({"type": "http.response.body", "body": b"ok"})
"""
VIAS = {
    "direct": "unix/x.sock {{\n\tpython {{\n{lines}\t}}\n}}\n",
    "relay": "unix/x.sock {{\n\tpython /none {{\n\t\tmodule_wsgi main:wsgi\n\t}}\n\tpython {{\n{lines}\t}}\n}}\n",
    "tenant": "unix/x.sock {{\n\tpython {{\n\t\tworking_dir {{host}}\n{lines}\t}}\n}}\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for place in (tmp_path, tmp_path / "ann"):
        place.mkdir(exist_ok=True)
        (place / "main.py").write_text(APPS)
    return tmp_path


def file(via: str, interface: str, *lines: str) -> str:
    inside = (f"module_{interface} main:{interface}", "workers 1", "env_var WHO me", *lines)
    return VIAS[via].format(lines="".join(f"\t\t{line}\n" for line in inside))


def send(folder: Path, path: str) -> str:
    """POST, which nobody repeats, and tell what the answer begins with; nothing when the connection was cut."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE_S)
        sock.connect(str(folder / "x.sock"))
        sock.sendall(f"POST {path} HTTP/1.1\r\nHost: ann\r\nContent-Length: 0\r\n\r\n".encode())
        try:
            return sock.recv(1 << 16).decode("latin-1")
        except ConnectionError:
            return ""


def at_once(folder: Path, path: str, times: int) -> list[threading.Thread]:
    threads = [threading.Thread(target=send, args=(folder, path)) for _ in range(times)]
    for thread in threads:
        thread.start()
    return threads


def asked(process: Process) -> dict[str, Any]:
    """The app that is asked, or its template, which goes on when its apps do not."""
    status = call(process, "GET", "/status").json
    return next((each for each in status["templates"]), None) or status["apps"][-1]


def metrics(process: Process, name: str) -> dict[tuple[str, ...], float]:
    """Values of the last app, or of the template, by its other labels."""
    text = call(process, "GET", "/metrics").body.decode()
    found = [each for family in text_string_to_metric_families(text) for each in family.samples if each.name == name]
    wanted = asked(process)["name"]
    return {
        tuple(value for label, value in sorted(each.labels.items()) if label != "app"): each.value
        for each in found
        if each.labels["app"] == wanted and each.value
    }


def counted(process: Process) -> tuple[int, int]:
    traffic = asked(process)["traffic"]
    return traffic["requests"], traffic["errors"]


def settled(process: Process, requests: int, errors: int) -> None:
    """Workers tell their page now and then, relays each second."""
    eventually(lambda: counted(process) == (requests, errors), process)


@pytest.mark.parametrize("via", list(VIAS))
@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_what_was_lost_counts_as_errors_by_its_cause(folder: Path, interface: str, via: str) -> None:
    threads = ("threads 8",) if interface == "wsgi" else ()
    with daemon(folder, file(via, interface, *threads, "request_timeout 3s", "grace_period 1s")) as process:
        for path, status in (("/", "200"), ("/busy", "503"), ("/raise", "500"), ("/cut", "200")):
            assert send(folder, path).split()[1] == status
        settled(process, 4, 3)
        assert asked(process)["traffic"]["exceptions"] == 2

        late = send(folder, "/late")
        assert late.split()[1] == "504"
        assert "caddysnake-code: deadline" in late
        settled(process, 5, 4)
        assert asked(process)["refusals"] == {"deadline": 1}

        waiting = at_once(folder, "/wait", 3)
        eventually(lambda: call(process, "GET", "/apps").json["apps"][-1]["in_flight"] == 3, "three in flight")
        answer = send(folder, "/kill")
        assert answer == "" if via == "direct" else answer.startswith("HTTP/1.1 502 ")
        for thread in waiting:
            thread.join()
        settled(process, 9, 8)
        assert asked(process)["refusals"] == {"deadline": 1, "worker-gone": 4}
        eventually(lambda: asked(process)["restarts"] == {"crashed": 1}, "a restart")
        assert metrics(process, "caddysnake_http_request_errors_total") == {(): 8}
        assert metrics(process, "caddysnake_http_refusals_total") == {("deadline",): 1, ("worker-gone",): 4}
        assert metrics(process, "caddysnake_http_responses_total")["5xx",] == 8
        assert metrics(process, "caddysnake_worker_restarts_total")["crashed",] == 1


def test_a_request_that_the_daemon_answers_for_a_worker_that_hangs_counts_once(folder: Path) -> None:
    with daemon(folder, file("direct", "asgi", "request_timeout 1s", "grace_period 1s")) as process:
        assert "caddysnake-code: deadline" in send(folder, "/spin")
        eventually(lambda: asked(process)["restarts"] == {"deadline": 1}, "a worker that hung")
        settled(process, 1, 1)
        assert asked(process)["refusals"] == {"deadline": 1}


@pytest.mark.parametrize("via", ["direct", "tenant"])
def test_an_app_that_does_not_come_up_is_one_whose_every_request_fails(folder: Path, via: str) -> None:
    for place in (folder, folder / "ann"):
        (place / "main.py").write_text("1/0\n")
    other = "unix/y.sock {\n\tpython {\n\t\tmodule_wsgi good:app\n\t}\n}\n"
    (folder / "good.py").write_text(APPS + "app = wsgi\n")
    with daemon(folder, other + file(via, "wsgi")) as process:
        for _ in range(3):
            answer = send(folder, "/")
            assert "caddysnake-code: import-failed" in answer
            assert answer.split()[1] in ("500", "503")
        settled(process, 3, 3)
        found = asked(process)
        assert found["refusals"] == {"import-failed": 3}
        assert found["last_failure"]["code"] == "import-failed"
        assert metrics(process, "caddysnake_http_responses_total")["5xx",] == 3


def test_a_failure_that_is_over_is_shown_as_over(folder: Path) -> None:
    with daemon(folder, file("direct", "wsgi")) as process:
        def failure() -> Any:
            return asked(process)["last_failure"]

        shown: Callable[[], str] = lambda: command(process, folder, "status", check=True).stdout  # noqa: E731
        # A reload that is refused is no failure of the app, nor a restart.
        (folder / "main.py").write_text("raise RuntimeError('not today')\n")
        refused = command(process, folder, "reload")
        assert refused.returncode == 1
        assert "(import-failed)" in refused.stderr
        found = asked(process)
        assert (found["last_failure"], found["restarts"], found["state"]) == (None, {}, "serving")
        assert found["refused"]["code"] == "import-failed"
        assert "not today" in shown()
        (folder / "main.py").write_text(APPS)
        command(process, folder, "reload", check=True)
        assert "not today" not in shown()

        os.kill(call(process, "GET", "/workers").json["workers"][0]["pid"], 9)
        eventually(lambda: failure() and failure()["over_at"], "a worker in the place of that which was killed")
        line = next(line for line in shown().splitlines() if "failed" in line)
        assert "(crashed), over since" in line
        assert line.endswith("SIGKILL")

        # While it goes on, with the whole traceback.
        (folder / "main.py").write_text("raise RuntimeError('not now')\n")
        os.kill(call(process, "GET", "/workers").json["workers"][0]["pid"], 9)
        eventually(lambda: failure()["code"] == "import-failed", "a start that fails")
        assert failure()["over_at"] is None
        assert "Traceback (most recent call last):" in shown()
        (folder / "main.py").write_text(APPS)
        eventually(lambda: failure()["over_at"], "a start that does not")
        assert "Traceback" not in shown()
        assert get("/", path=folder / "x.sock")[0] == 200
