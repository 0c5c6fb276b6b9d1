"""The access log, beside that of a real Caddy in front, request by request."""

from __future__ import annotations

import contextlib
import http.client
import json
from pathlib import Path
from typing import Any

import pytest
from support.daemon import PATIENCE_S, Process, UnixHTTPConnection, caddy, daemon, get
from support.probe import write

pytestmark = pytest.mark.system

SOURCE = """
HEADERS = [("Content-Type", "text/plain"), ("Set-Cookie", "session=1"), ("X-Two", "a"), ("X-Two", "b")]

def wsgi(environ, start_response):
    if environ["PATH_INFO"].endswith("/raise"):
        raise ValueError("no")
    start_response("201 Created", HEADERS)
    return [b"got ", str(len(environ["wsgi.input"].read())).encode()]

async def asgi(scope, receive, send):
    assert scope["type"] == "http"
    if scope["path"].endswith("/raise"):
        raise ValueError("no")
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    headers = [(name.lower().encode(), value.encode()) for name, value in HEADERS]
    await send({"type": "http.response.start", "status": 201, "headers": headers})
    await send({"type": "http.response.body", "body": b"got ", "more_body": True})
    await send({"type": "http.response.body", "body": str(size).encode()})
"""

DIRECT = (
    "unix/{folder}/app.sock {{\n\tpython {{\n\t\tmodule_{interface} probe:{interface}\n\t\tworkers 1\n"
    "\t\tlog{more}\n\t}}\n}}\n"
)
RELAY = (
    "unix/{folder}/app.sock {{\n\thandle_path /blog/* {{\n\t\tpython {{\n\t\t\tmodule_{interface} probe:{interface}\n"
    "\t\t\tworkers 1\n\t\t\tlog{more}\n\t\t}}\n\t}}\n}}\n"
)


def access(process: Process) -> list[dict[str, Any]]:
    records = (json.loads(line) for line in process.log.splitlines() if line.startswith("{"))
    return [record for record in records if record.get("logger", "").startswith("http.log.access")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "probe.py").write_text(SOURCE)
    return tmp_path


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
@pytest.mark.parametrize("caddyfile", [DIRECT, RELAY], ids=["direct", "relay"])
def test_a_record_is_caddys_own_of_the_same_request(folder: Path, interface: str, caddyfile: str) -> None:
    text = caddyfile.format(folder=folder, interface=interface, more="")
    log = "log {\n\t\tformat json\n\t}"
    front = f"http://127.0.0.1:{{port}} {{\n\t{log}\n\treverse_proxy unix/{folder}/app.sock\n}}\n"
    with daemon(folder, text) as process, caddy(folder, front) as (proxy, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, PATIENCE_S)
        secrets = {"Cookie": "session=1", "Authorization": "Basic eDp5", "X-Own": "1"}
        connection.request("POST", "/blog/a%20b?q=1", b"x" * 1000, secrets)
        assert connection.getresponse().read() == b"got 1000"
        connection.request("GET", "/blog/raise")
        assert connection.getresponse().read()
        connection.close()
        process.wait_for_log("handled request", 2)
        proxy.wait_for_log("handled request", 2)
        for ours, caddys in zip(access(process), access(proxy), strict=True):
            same_request(ours, caddys)
        assert "session=1" not in process.log
        first, second = access(process)
        assert first["app"] == f"probe:{interface}"
        assert second["level"] == "error"


def same_request(ours: dict[str, Any], caddys: dict[str, Any]) -> None:
    assert list(ours)[: len(caddys)] == list(caddys)
    assert list(ours["request"]) == list(caddys["request"])
    for name in ("level", "msg", "bytes_read", "user_id", "size", "status"):
        assert ours[name] == caddys[name], name
    for name in ("remote_ip", "client_ip", "proto", "method", "host", "uri", "headers"):
        assert ours["request"][name] == caddys["request"][name], name
    assert ours["logger"] == "http.log.access"
    assert 0 < ours["duration"] < PATIENCE_S
    assert abs(ours["ts"] - caddys["ts"]) < 5
    for name, values in ours["resp_headers"].items():
        assert caddys["resp_headers"][name] == values
    assert ours["resp_headers"].keys() == caddys["resp_headers"].keys() - {"Server", "Via"}
    if ours["status"] == 201:
        assert ours["resp_headers"]["Set-Cookie"] == ["REDACTED"]


def test_credentials_are_logged_only_when_asked_for_and_nothing_without_the_directive(folder: Path) -> None:
    text = DIRECT.format(folder=folder, interface="wsgi", more=" {\n\t\t\tlog_credentials\n\t\t}")
    with daemon(folder, text) as process:
        get("/", path=folder / "app.sock", Cookie="session=1")
        process.wait_for_log("handled request")
        (record,) = access(process)
    assert record["request"]["headers"]["Cookie"] == ["session=1"]
    assert record["resp_headers"]["Set-Cookie"] == ["session=1"]
    with daemon(folder, text.replace("log {\n\t\t\tlog_credentials\n\t\t}", "")) as process:
        get("/", path=folder / "app.sock")
    assert access(process) == []


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_a_client_that_leaves_is_a_499(tmp_path: Path, interface: str) -> None:
    write(tmp_path, "import time\ndef slow():\n    time.sleep(0.5)\n    return 'x' * 10_000_000\n")
    with daemon(tmp_path, DIRECT.format(folder=tmp_path, interface=interface, more="")) as process:
        connection = UnixHTTPConnection(tmp_path / "app.sock")
        connection.request("GET", "/slow")
        connection.close()
        process.wait_for_log("handled request")
        (record,) = access(process)
    assert record["status"] in (499, 200)
    assert record["request"]["uri"] == "/slow"


def test_a_request_is_logged_though_its_thread_goes_on_with_one_that_takes_long(tmp_path: Path) -> None:
    (tmp_path / "probe.py").write_text(
        "import pathlib, time\n\n"
        "def wsgi(environ, start_response):\n"
        "    awaited = pathlib.Path(__file__).with_name(environ['PATH_INFO'][1:] + '.txt')\n"
        "    while 'wait' in awaited.name and not awaited.exists():\n"
        "        time.sleep(0.01)\n"
        "    start_response('204 No Content', [])\n"
        "    return []\n"
    )
    text = DIRECT.format(folder=tmp_path, interface="wsgi", more="\n\t\tthreads 1")
    with daemon(tmp_path, text) as process, contextlib.ExitStack() as held:
        connections = [UnixHTTPConnection(tmp_path / "app.sock") for _ in range(3)]
        clients = [held.enter_context(contextlib.closing(each)) for each in connections]
        for client in clients:
            client.request("GET", "/begun")
            client.getresponse().read()
        # What comes while the thread is busy is taken together.
        for client, path in zip(clients, ("/wait-1", "/quick", "/wait-2"), strict=True):
            client.request("GET", path)
        (tmp_path / "wait-1.txt").touch()
        process.wait_for_log('"uri":"/quick"')
        assert '"uri":"/wait-2"' not in process.log
        (tmp_path / "wait-2.txt").touch()
        process.wait_for_log('"uri":"/wait-2"')
