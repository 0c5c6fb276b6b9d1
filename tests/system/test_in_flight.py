"""``max_in_flight``: so many requests of an app are answered at a time, so many wait, and one more is refused."""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path

import pytest
from support.admin import call
from support.daemon import PATIENCE_S, daemon, eventually, get

pytestmark = pytest.mark.system

WSGI = """
import json, os, threading, time
lock, now, most, served = threading.Lock(), 0, 0, 0

def app(environ, start_response):
    global now, most, served
    start_response("200 OK", [])
    if environ["PATH_INFO"] == "/seen":
        return [json.dumps([now, most, served]).encode()]
    with lock:
        now += 1
        most = max(most, now)
    while not os.path.exists("go"):
        time.sleep(0.01)
    with lock:
        now -= 1
        served += 1
    return [environ["wsgi.input"].read()]
"""
ASGI = """
import asyncio, json, os
now = most = served = 0

async def app(scope, receive, send):
    global now, most, served
    if scope["type"] != "http":
        raise RuntimeError
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/seen":
        await send({"type": "http.response.body", "body": json.dumps([now, most, served]).encode()})
        return
    now += 1
    most = max(most, now)
    while not os.path.exists("go"):
        await asyncio.sleep(0.01)
    now -= 1
    served += 1
    await send({"type": "http.response.body", "body": (await receive())["body"]})
"""


def ask(stack: contextlib.ExitStack, path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    stack.callback(client.close)
    client.settimeout(PATIENCE_S)
    client.connect(str(path))
    client.sendall(b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
    return client


@pytest.mark.parametrize(
    ("interface", "runtime"), [("wsgi", "process"), ("asgi", "process"), ("wsgi", "thread"), ("asgi", "thread")]
)
def test_further_requests_wait_and_then_are_refused(tmp_path: Path, interface: str, runtime: str) -> None:
    (tmp_path / "main.py").write_text(WSGI if interface == "wsgi" else ASGI)
    lines = (
        f"module_{interface} main:app", "workers 1", f"workers_runtime {runtime}", "max_in_flight 3", "max_queue 4",
        "health_uri /health",
    )  # fmt: skip
    inside = "".join(f"\t\t{line}\n" for line in lines)
    path = tmp_path / "a.sock"
    with (
        daemon(tmp_path, f"unix/{path} {{\n\tpython {{\n{inside}\t}}\n}}\n") as process,
        contextlib.ExitStack() as stack,
    ):
        running = [ask(stack, path) for _ in range(3)]
        pending = [ask(stack, path) for _ in range(4)]
        refused = ask(stack, path)
        head = refused.recv(4096)
        assert head.startswith(b"HTTP/1.1 429"), process.log
        assert b"caddysnake-code: in-flight-full" in head
        assert b"retry-after: 1" in head
        assert get("/health", path=path)[0] == 200
        pending.pop().close()  # gives up
        pending[0].sendall(b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nho")  # pipelined
        (tmp_path / "go").touch()
        for client in (*running, *pending):
            answer = b""
            while not answer.endswith((b"hi", b"hi\r\n0\r\n\r\n", b"ho", b"ho\r\n0\r\n\r\n")):
                answer += (piece := client.recv(4096))
                assert piece, process.log
            assert answer.startswith(b"HTTP/1.1 200")
        eventually(lambda: json.loads(get("/seen", path=path)[1])[2] >= 7, "the pipelined one")
        now, most, _ = json.loads(get("/seen", path=path)[1])
        assert (now, most) == (0, 3)
        assert process.log.count("a request was refused with 429") == 1
        (one,) = call(process, "GET", "/status").json["apps"]
        assert one["refusals"] == {"in-flight-full": 1}
        assert b'refusals_total{app="main:app",code="in-flight-full"} 1.0' in call(process, "GET", "/metrics").body


def test_fewer_than_there_are_workers_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(WSGI)
    block = "module_wsgi main:app\nworkers 4\nmax_in_flight 3"
    with (
        pytest.raises(AssertionError, match="max_in_flight 3 leaves some of 4 workers without a request"),
        daemon(tmp_path, f"unix/{tmp_path}/a.sock {{\npython {{\n{block}\n}}\n}}\n"),
    ):
        pass
