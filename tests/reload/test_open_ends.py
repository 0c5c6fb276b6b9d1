"""What is open for long during a reload: WebSockets are told to come again, streams finish, and neither holds it up."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import PATIENCE_S, Process, UnixHTTPConnection, alive, caddy, daemon, get, workers
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect, unix_connect

pytestmark = pytest.mark.system

SOURCE = '''
import asyncio
VERSION = "1"


async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            await send({"type": "websocket.send", "text": VERSION + " " + message["text"]})
    elif scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        parts = 20 if scope["path"] == "/stream" else 1
        for part in range(parts):
            await send({"type": "http.response.body", "body": VERSION.encode(), "more_body": part < parts - 1})
            if parts > 1:
                await asyncio.sleep(0.1)
    else:
        raise NotImplementedError
'''
TEXT = "unix/x.sock {\n\tpython {\n\t\tmodule_asgi main:app\n\t\tworkers 1\n\t}\n}\n"


def write(folder: Path, version: str) -> None:
    (folder / "main.py").write_text(SOURCE.replace('"1"', repr(version)) + "#" * int(version))


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    write(tmp_path, "1")
    with daemon(tmp_path, TEXT) as process:
        yield process


def reload(process: Process, folder: Path, version: str, times: int = 1) -> None:
    write(folder, version)
    process.popen.send_signal(signal.SIGHUP)
    process.wait_for_log('"reloaded"', times)


def echo(client: ClientConnection, text: str) -> str:
    client.send(text)
    answer = client.recv(timeout=PATIENCE_S)
    assert isinstance(answer, str)
    return answer


@pytest.mark.parametrize("via", ["socket", "caddy"])
def test_websockets_are_told_to_come_again_and_do_not_hold_up_reloads(
    tmp_path: Path, process: Process, via: str
) -> None:
    with contextlib.ExitStack() as stack:
        if via == "caddy":
            stock = "http://:{port} {\n\treverse_proxy unix/%s\n}\n" % (tmp_path / "x.sock")
            _, port = stack.enter_context(caddy(tmp_path, stock))
            clients = [stack.enter_context(connect(f"ws://127.0.0.1:{port}/")) for _ in range(5)]
        else:
            clients = [
                stack.enter_context(unix_connect(str(tmp_path / "x.sock"), uri="ws://localhost/")) for _ in range(5)
            ]
        assert [echo(client, "hello") for client in clients] == ["1 hello"] * 5
        (old,) = workers(process.pid)
        reload(process, tmp_path, "2")
        assert get("/", path=tmp_path / "x.sock") == (200, b"2")
        reload(process, tmp_path, "3", 2)
        assert get("/", path=tmp_path / "x.sock") == (200, b"3")
        for client in clients:
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(timeout=PATIENCE_S)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
        deadline = time.monotonic() + PATIENCE_S
        while alive(old) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not alive(old)
        assert len(workers(process.pid)) == 1
    assert "within the grace period" not in process.log


KEPT = """unix/x.sock {
	python /none {
		module_asgi main:app
		workers 1
	}
	python /* {
		module_asgi main:app
		workers 1
		grace_period 1s
		websocket_drain keep %s
	}
}
"""


@pytest.mark.parametrize("via", ["direct", "relay"])
def test_websockets_may_stay_where_they_are_for_a_while_and_http_moves_at_once(tmp_path: Path, via: str) -> None:
    write(tmp_path, "1")
    text = KEPT % "6s"
    if via == "direct":
        text = text.replace(text[text.index("\tpython /none") : text.index("\tpython /*")], "").replace("/* ", "")
    with daemon(tmp_path, text) as process:
        socket = tmp_path / "x.sock"
        with unix_connect(str(socket), uri="ws://localhost/") as client:
            assert echo(client, "hello") == "1 hello"
            begun = time.monotonic()
            reload(process, tmp_path, "2")
            assert get("/", path=socket) == (200, b"2")
            reload(process, tmp_path, "3", 2)
            assert get("/", path=socket) == (200, b"3")

            def stay() -> None:
                while time.monotonic() - begun < PATIENCE_S:
                    assert echo(client, "still") == "1 still"
                    time.sleep(0.2)

            with pytest.raises(ConnectionClosed) as closed:
                stay()
            assert time.monotonic() - begun >= 6.0
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
        wanted = 1 if via == "direct" else 2
        deadline = time.monotonic() + PATIENCE_S
        while len(workers(process.pid)) > wanted and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(workers(process.pid)) == wanted
        assert "within the grace period" not in process.log


def test_a_stop_waits_for_no_websocket_that_a_reload_has_kept(tmp_path: Path) -> None:
    write(tmp_path, "1")
    text = TEXT.replace("workers 1", "workers 1\n\t\tgrace_period 5s\n\t\twebsocket_drain keep 1h")
    with daemon(tmp_path, text) as process, unix_connect(str(tmp_path / "x.sock"), uri="ws://localhost/") as client:
        assert echo(client, "hello") == "1 hello"
        reload(process, tmp_path, "2")
        assert echo(client, "still") == "1 still"
        process.popen.send_signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=PATIENCE_S)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        assert process.wait() == 0


def test_a_stream_finishes_on_the_worker_that_began_it(tmp_path: Path, process: Process) -> None:
    client = UnixHTTPConnection(tmp_path / "x.sock")
    try:
        client.request("GET", "/stream")
        response = client.getresponse()
        assert response.read(1) == b"1"
        reload(process, tmp_path, "2")
        assert get("/", path=tmp_path / "x.sock") == (200, b"2")
        assert response.read() == b"1" * 19
        client.request("GET", "/")  # on the same connection, which has moved
        assert client.getresponse().read() == b"2"
    finally:
        client.close()
