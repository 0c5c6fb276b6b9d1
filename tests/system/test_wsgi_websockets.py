"""WebSockets of WSGI apps: libraries that speak the protocol on the connection itself, with their real clients."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import socketio
from support.admin import call, command
from support.daemon import Process, caddy, daemon, eventually, get
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect, unix_connect

pytestmark = pytest.mark.system

SOCK = """
import time
from flask import Flask, request
from flask_sock import Sock

app = Flask(__name__)
sock = Sock(app)

@app.get("/")
def index():
    return "plain"

@sock.route("/echo")
def echo(ws):
    while True:
        text = ws.receive()
        if text == "raise":
            raise RuntimeError("as asked")
        if text == "stay":
            time.sleep(3600)
        ws.send(text * 2)

inner = app.wsgi_app

def outer(environ, start_response):
    if environ["PATH_INFO"] == "/refused":
        start_response("418 I'm a Teapot", [("Content-Type", "text/plain"), ("Content-Length", "8")])
        return [b"not here"]
    return inner(environ, start_response)

app.wsgi_app = outer
"""

SOCKETIO = """
from flask import Flask
from flask_socketio import SocketIO, emit

app = Flask(__name__)
io = SocketIO(app, async_mode="threading")

@io.on("ping")
def ping(data):
    emit("pong", data + 1)
"""


def block(*lines: str) -> str:
    return "python {\nmodule_wsgi main:app\nworkers 1\nthreads 2\n" + "\n".join(lines) + "\n}"


def direct(folder: Path, *lines: str) -> str:
    return f"unix/{folder}/s.sock {{\n{block(*lines)}\n}}\n"


def relayed(folder: Path, *lines: str) -> str:
    return f"unix/{folder}/s.sock {{\n@any path /*\nhandle @any {{\n{block(*lines)}\n}}\n}}\n"


def thread(folder: Path, *lines: str) -> str:
    return direct(folder, "workers_runtime thread", *lines)


@contextlib.contextmanager
def running(folder: Path, text: str, app: str = SOCK) -> Iterator[tuple[Process, Path]]:
    (folder / "main.py").write_text(app)
    with daemon(folder, text) as process:
        yield process, folder / "s.sock"


def opened(path: Path, target: str = "/echo") -> ClientConnection:
    return unix_connect(str(path), f"ws://x{target}", ping_interval=None, open_timeout=60)


def websockets_of(process: Process) -> int:
    (app,) = call(process, "GET", "/apps").json["apps"]
    return int(app["websockets"])


@pytest.mark.parametrize("kind", [direct, relayed, thread])
def test_flask_sock_serves_more_clients_than_there_are_threads(kind: object, tmp_path: Path) -> None:
    assert callable(kind)
    with running(tmp_path, kind(tmp_path)) as (process, path), contextlib.ExitStack() as stack:
        clients = [stack.enter_context(opened(path)) for _ in range(6)]
        for number, client in enumerate(clients):
            client.send(f"{number}")
            assert client.recv(60) == f"{number}" * 2
        large = "ä" * 200_000
        clients[0].send(large)
        assert clients[0].recv(60) == large * 2
        assert get("/", path=path) == (200, b"plain"), "they hold no thread of the requests"
        assert websockets_of(process) == 6
        assert b'caddysnake_websockets{app="main:app"} 6.0' in call(process, "GET", "/metrics").body
        for client in clients:
            client.close(1000)
            assert client.close_code == 1000
        eventually(lambda: websockets_of(process) == 0, "the end of all")


def test_an_app_that_raises_or_answers_plainly_is_heard(tmp_path: Path) -> None:
    with running(tmp_path, direct(tmp_path, "log", "request_timeout 5s")) as (process, path):
        with pytest.raises(InvalidStatus) as refused:
            opened(path, "/refused").close()
        assert refused.value.response.status_code == 418
        assert refused.value.response.body == b"not here"
        with opened(path) as client:
            client.send("raise")
            with pytest.raises(ConnectionClosed):
                client.recv(60)
        process.wait_for_log("RuntimeError: as asked")
        eventually(lambda: '"status":101' in process.log.replace(" ", ""), "the line of the access log")
        assert get("/", path=path) == (200, b"plain")


@pytest.mark.parametrize("kind", [direct, relayed, thread])
def test_a_reload_tells_clients_to_connect_anew(kind: object, tmp_path: Path) -> None:
    assert callable(kind)
    with running(tmp_path, kind(tmp_path, "grace_period 3s")) as (process, path):
        with opened(path) as client, opened(path) as stubborn:
            for each in (client, stubborn):
                each.send("x")
                assert each.recv(60) == "xx"
            stubborn.send("stay")  # its handler looks at nothing any more: it is cut when the grace is over
            command(process, tmp_path, "reload", check=True)
            with opened(path) as new:
                new.send("new")
                assert new.recv(60) == "newnew"
            with pytest.raises(ConnectionClosed) as ended:
                client.recv(60)
            assert ended.value.rcvd is not None
            assert ended.value.rcvd.code == 1012
            with pytest.raises(ConnectionClosed):
                stubborn.recv(60)
        eventually(lambda: len(_workers(process)) == 1, "the end of the old worker")


def test_websocket_drain_keep_leaves_them_on_the_old_worker(tmp_path: Path) -> None:
    text = direct(tmp_path, "grace_period 200ms", "websocket_drain keep 1h")
    with running(tmp_path, text) as (process, path), opened(path) as client:
        command(process, tmp_path, "reload", check=True)
        eventually(lambda: "the grace period is over" in process.log or len(_workers(process)) == 2, "both workers")
        with opened(path) as new:
            new.send("new")
            assert new.recv(60) == "newnew"
        client.send("old")
        assert client.recv(60) == "oldold"
        command(process, tmp_path, "reload", check=True)
        client.send("older")
        assert client.recv(60) == "olderolder"


def _workers(process: Process) -> list[object]:
    (app,) = call(process, "GET", "/apps").json["apps"]
    return list(app["workers"])


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_max_websockets_bounds_them_and_the_rest_is_told(interface: str, tmp_path: Path) -> None:
    text = direct(tmp_path, "max_websockets 2")
    app = SOCK
    if interface == "asgi":
        text = text.replace("module_wsgi", "module_asgi").replace("threads 2\n", "")
        app = """
async def app(scope, receive, send):
    await receive()
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"] * 2})
"""
    with running(tmp_path, text, app) as (process, path), opened(path) as first:
        with opened(path):
            with pytest.raises(InvalidStatus) as refused:
                opened(path).close()
            assert refused.value.response.status_code == 503
            assert refused.value.response.headers["caddysnake-code"] == "websockets-full"
            assert "retry-after" in refused.value.response.headers
            process.wait_for_log("max_websockets")
        eventually(lambda: websockets_of(process) == 1, "room for another")
        with opened(path) as again:
            again.send("x")
            assert again.recv(60) == "xx"
        first.send("y")
        assert first.recv(60) == "yy"


def test_flask_socketio_upgrades_from_polling_behind_a_stock_caddy(tmp_path: Path) -> None:
    text = direct(tmp_path)
    stock = f"http://127.0.0.1:{{port}} {{\n\treverse_proxy unix/{tmp_path}/s.sock\n}}\n"
    with running(tmp_path, text, SOCKETIO) as (process, _), caddy(tmp_path, stock) as (_, port):
        for transports in (["polling", "websocket"], ["websocket"]):
            with socketio.SimpleClient() as client:
                client.connect(f"http://127.0.0.1:{port}", transports=transports, wait_timeout=60)
                for number in range(5):
                    client.emit("ping", number)
                    assert client.receive(60) == ["pong", number + 1]
                eventually(lambda: client.transport == "websocket", "the upgrade")
        with connect(f"ws://127.0.0.1:{port}/socket.io/?EIO=4&transport=websocket", ping_interval=None) as raw:
            assert str(raw.recv(60)).startswith("0{")
        eventually(lambda: websockets_of(process) == 0, "the end of all")
