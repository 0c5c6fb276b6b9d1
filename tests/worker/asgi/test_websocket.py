"""WebSocket as an app and a client see it: one real worker, real connections."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.rawhttp import RawClient
from support.worker import Worker, running, settings
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from caddysnake.channel.messages import Drained, Returned
from caddysnake.worker.websocket.frames import BINARY, CLOSE, PING, PONG, TEXT
from caddysnake.worker.websocket.mask import plain_unmask

HERE = Path(__file__).parent
KEY = base64.b64encode(bytes(16)).decode()


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    wanted = settings("websocket_apps:app", "asgi", HERE, loop=request.param, lifespan="off")
    with running(wanted) as started:
        yield started


class RawSocket(RawClient):
    """Speaks WebSocket frame by frame."""

    def handshake(self, path: str, *headers: str) -> tuple[int, dict[str, str]]:
        lines = "".join(f"{header}\r\n" for header in headers)
        self.send(
            f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{lines}\r\n".encode()
        )
        status, _, fields = self.head()
        return status, dict(fields)

    def frame(self, opcode: int, payload: bytes = b"", first: int = 0x80) -> None:
        self.send(masked(opcode, payload, first))

    def next(self) -> tuple[int, bytes]:
        """The next frame: its first byte without FIN, its payload."""
        first, size = self.exactly(2)
        assert first & 0x80
        if size > 125:
            size = int.from_bytes(self.exactly(2 if size == 126 else 8), "big")
        return first & 0x7F, self.exactly(size)

    def closes(self, code: int | None) -> None:
        """The server closes, with ``code``, and ends the connection."""
        opcode, payload = self.next()
        assert opcode == CLOSE
        assert (int.from_bytes(payload[:2], "big") if payload else None) == code
        assert self.is_ended()


def masked(opcode: int, payload: bytes = b"", first: int = 0x80) -> bytes:
    mask = os.urandom(4)
    size = len(payload)
    length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return bytes((first | opcode,)) + length + mask + plain_unmask(payload, mask)


@pytest.fixture
def ws(worker: Worker) -> Iterator[RawSocket]:
    with RawSocket(worker.connect()) as ws:
        yield ws


@contextmanager
def connected(worker: Worker, path: str, **options: Any) -> Iterator[ClientConnection]:
    """By the websockets library."""
    with connect(f"ws://a.example{path}", sock=worker.connect(), max_size=None, **options) as connection:
        yield connection


def notes(client: RawClient) -> Any:
    return json.loads(client.get("/notes").body)


def wait_for_notes(client: RawClient, count: int) -> Any:
    deadline = time.monotonic() + 20
    while len(found := notes(client)) < count:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)
    return found


# The handshake


def test_the_handshake_is_that_of_the_rfc(client: RawClient, ws: RawSocket) -> None:
    status, headers = ws.handshake("/echo")
    assert status == 101
    assert headers["upgrade"] == "websocket"
    assert headers["connection"] == "upgrade"
    digest = hashlib.sha1(KEY.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    assert headers["sec-websocket-accept"] == base64.b64encode(digest).decode()
    assert "content-length" not in headers
    assert "sec-websocket-extensions" not in headers
    ws.frame(TEXT, b"hello")
    assert ws.next() == (TEXT, b"hello")


def test_the_scope_of_a_socket(client: RawClient, ws: RawSocket) -> None:
    ws.handshake(
        "/scope?a=b", "Sec-WebSocket-Protocol: chat, v2", "Sec-WebSocket-Protocol: v3", "X-Forwarded-Proto: https"
    )
    scope = json.loads(ws.next()[1])
    assert scope["type"] == "websocket"
    assert scope["scheme"] == "wss"
    assert scope["path"] == "/scope"
    assert scope["raw_path"] == "/scope"
    assert scope["query_string"] == "a=b"
    assert scope["http_version"] == "1.1"
    assert scope["subprotocols"] == ["chat", "v2", "v3"]
    assert scope["extensions"] == {"websocket.http.response": {}}
    assert scope["asgi"]["spec_version"] == "2.5"
    assert "method" not in scope


def test_subprotocol_and_headers_are_the_apps(client: RawClient, worker: Worker) -> None:
    with connected(worker, "/scope", subprotocols=["chat", "other"]) as ws:
        assert ws.subprotocol == "chat"
    with RawSocket(worker.connect()) as raw:
        _, headers = raw.handshake("/headers")
        assert (headers["x-one"], headers["set-cookie"], headers["connection"]) == ("1", "a=b", "upgrade")


@pytest.mark.parametrize(
    ("status", "changed"),
    [
        (426, "Sec-WebSocket-Version: 12"),
        (426, None),
        (400, "Sec-WebSocket-Key: short"),
        (400, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="),
        (400, "Content-Length: 1"),
    ],
)
def test_a_wrong_handshake_is_refused(ws: RawSocket, client: RawClient, status: int, changed: str | None) -> None:
    wanted = {"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": KEY}
    lines = [f"{name}: {value}" for name, value in wanted.items()]
    if changed is None:
        lines = lines[1:]
    elif changed.startswith("Sec-WebSocket-Version"):
        lines[0] = changed
    elif changed == "Sec-WebSocket-Key: short":
        lines[1] = changed
    else:
        lines.append(changed)
    head = "GET /echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    answer = ws.ask((head + "".join(f"{line}\r\n" for line in lines) + "\r\n").encode())
    assert answer.status == status
    assert answer.header("sec-websocket-version") == ("13" if status == 426 else None)
    assert answer.header("upgrade") == ("websocket" if status == 426 else None)
    assert ws.is_ended()


def test_an_upgrade_to_something_else_is_a_plain_request(client: RawClient) -> None:
    assert client.get("/upgrade", "Connection: Upgrade", "Upgrade: h2c").body == b"plain"
    assert client.post("/upgrade", b"x", "Connection: Upgrade", "Upgrade: websocket").body == b"plain"
    assert client.get("/upgrade").body == b"plain"


def test_a_rejected_socket_is_a_403_and_the_connection_stays(client: RawClient, ws: RawSocket) -> None:
    status, headers = ws.handshake("/reject")
    assert (status, ws.exactly(int(headers["content-length"]))) == (403, b"Forbidden\n")
    assert ws.get("/notes").body
    assert wait_for_notes(client, 1)[0]["type"] == "websocket.disconnect"


def test_a_denial_is_the_apps_own_answer(client: RawClient, worker: Worker) -> None:
    with pytest.raises(InvalidStatus) as caught, connected(worker, "/deny"):
        pass
    assert caught.value.response.status_code == 401
    assert caught.value.response.headers["www-authenticate"] == "Basic"
    assert caught.value.response.body == b"who are you?"
    assert wait_for_notes(client, 1)[0]["type"] == "websocket.disconnect"


@pytest.mark.parametrize("path", ["/raise_first", "/return_first", "/bad_subprotocol", "/bad_header"])
def test_an_app_that_fails_in_the_handshake_is_a_500(client: RawClient, ws: RawSocket, path: str) -> None:
    status, headers = ws.handshake(path)
    assert status == 500
    assert "z" not in headers


def test_a_client_that_leaves_in_the_handshake(client: RawClient, worker: Worker) -> None:
    with RawSocket(worker.connect()) as leaving:
        leaving.send(
            b"GET /late_accept HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n\r\n" % KEY.encode()
        )
        wait_for_notes(client, 1)
    assert wait_for_notes(client, 2)[1] == {"type": "websocket.disconnect", "code": 1006, "reason": ""}


def test_frames_sent_with_the_handshake_are_not_lost(client: RawClient, ws: RawSocket) -> None:
    ws.send(
        b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n\r\n" % KEY.encode() + masked(TEXT, b"early")
    )
    assert ws.head()[0] == 101
    assert ws.next() == (TEXT, b"early")


# Messages


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_messages_of_every_size_come_back(client: RawClient, worker: Worker, compression: str | None) -> None:
    with connected(worker, "/echo", compression=compression) as ws:
        assert bool(ws.protocol.extensions) is bool(compression)
        for size in (0, 1, 125, 126, 127, 65535, 65536, 1_000_000):
            ws.send(data := os.urandom(size))
            assert ws.recv(20) == data
            ws.send(text := "é" * (size // 2))
            assert ws.recv(20) == text
        ws.send(["in ", "frag", "ments"])
        assert ws.recv(20) == "in fragments"


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_a_burst_comes_in_order_with_what_is_large_and_the_end(
    client: RawClient, worker: Worker, compression: str | None
) -> None:
    with connected(worker, "/burst", compression=compression) as websocket:
        said = [str(websocket.recv(30)).rstrip(".") for _ in range(500)]
        assert said == [str(number) for number in range(500)]
        with pytest.raises(ConnectionClosed) as caught:
            websocket.recv(30)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 4001


def test_large_messages_are_deflated_in_turns_and_come_whole(client: RawClient, worker: Worker) -> None:
    client.get("/forget")
    with connected(worker, "/large_at_once", compression="deflate") as websocket:
        came = sorted((websocket.recv(60) for _ in range(4)), key=len)
        assert came == [b"small", *(random.Random(number).randbytes(3_000_000 + number) for number in range(3))]
        was_given_up, longest_s = wait_for_notes(client, 2)
        assert was_given_up
        assert longest_s < 0.05


def test_the_last_of_a_burst_waits_for_nothing(client: RawClient, ws: RawSocket) -> None:
    assert ws.handshake("/burst_and_silence")[0] == 101
    assert [ws.next() for _ in range(10)] == [(TEXT, b"%d" % number) for number in range(10)]


def test_text_and_bytes_may_be_given_as_none(client: RawClient, ws: RawSocket) -> None:
    ws.handshake("/none_keys")
    assert ws.next() == (BINARY, b"b")
    assert ws.next() == (TEXT, b"t")


def test_pings_are_answered_also_inside_a_message(client: RawClient, ws: RawSocket) -> None:
    ws.handshake("/echo")
    ws.frame(TEXT, b"a", first=0)
    ws.frame(PING, b"payload")
    assert ws.next() == (PONG, b"payload")
    ws.frame(0, b"b")
    assert ws.next() == (TEXT, b"ab")


def test_a_message_over_the_limit_is_1009(client: RawClient, ws: RawSocket) -> None:
    ws.handshake("/echo")
    ws.send(b"\x82\xff" + (17 << 20).to_bytes(8, "big") + bytes(4))
    ws.closes(1009)
    assert wait_for_notes(client, 1)[0]["code"] == 1009


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(masked(TEXT, b"\xff"), 1007, id="not UTF-8"),
        pytest.param(masked(3), 1002, id="reserved opcode"),
        pytest.param(b"\x81\x01a", 1002, id="not masked"),
        pytest.param(masked(0, b"a"), 1002, id="nothing to continue"),
    ],
)
def test_a_client_that_breaks_the_rules_is_told_which(client: RawClient, ws: RawSocket, data: bytes, code: int) -> None:
    ws.handshake("/echo")
    ws.send(data)
    ws.closes(code)
    assert wait_for_notes(client, 1)[0]["code"] == code


# The end


def test_a_clients_close_is_answered_with_a_close(client: RawClient, ws: RawSocket) -> None:
    ws.handshake("/echo")
    ws.frame(CLOSE, (4000).to_bytes(2, "big") + b"done")
    ws.closes(4000)
    assert wait_for_notes(client, 1) == [{"type": "websocket.disconnect", "code": 4000, "reason": "done"}]


def test_a_close_without_a_code_is_1005(client: RawClient, ws: RawSocket) -> None:
    ws.handshake("/echo")
    ws.frame(CLOSE)
    ws.closes(None)
    assert wait_for_notes(client, 1)[0]["code"] == 1005


def test_a_connection_that_just_ends_is_1006(client: RawClient, worker: Worker) -> None:
    with RawSocket(worker.connect()) as ws:
        ws.handshake("/echo")
    assert wait_for_notes(client, 1)[0]["code"] == 1006


def test_an_apps_close_has_its_code_and_reason(client: RawClient, worker: Worker) -> None:
    with connected(worker, "/close") as ws:
        with pytest.raises(ConnectionClosed):
            ws.recv(20)
        assert (ws.close_code, ws.close_reason) == (4002, "bye")
    found = wait_for_notes(client, 2)
    assert found[0] == {"type": "websocket.disconnect", "code": 4002, "reason": "bye"}
    assert "cannot be sent" in found[1] or "closed" in found[1]


@pytest.mark.parametrize(("path", "code"), [("/return", 1000), ("/raise", 1011)])
def test_an_app_that_ends_closes_its_socket(client: RawClient, ws: RawSocket, path: str, code: int) -> None:
    ws.handshake(path)
    opcode, payload = ws.next()
    assert (opcode, payload) == (CLOSE, code.to_bytes(2, "big"))
    ws.frame(CLOSE, payload)
    assert ws.is_ended()


def test_sending_to_a_client_that_left_raises_and_closing_does_not(client: RawClient, worker: Worker) -> None:
    with connected(worker, "/send_when_gone"):
        pass
    assert wait_for_notes(client, 2) == ["websocket.disconnect", "ClientDisconnected"]


@pytest.mark.parametrize(
    "mistake",
    ["both", "neither", "nothing", "wrong", "text_bytes", "unknown", "accept", "http", "code_1006", "code_text"],
)
def test_a_mistake_in_a_message_is_told_to_the_app_and_1011_to_the_client(
    client: RawClient, ws: RawSocket, mistake: str
) -> None:
    ws.handshake(f"/mistake?{mistake}")
    assert ws.next() == (CLOSE, (1011).to_bytes(2, "big"))
    assert wait_for_notes(client, 1) == ["ResponseError"]


# Flow control


def send_what_is_taken(sock: socket.socket, data: bytes) -> int:
    """Send until nothing more is taken for half a second; how much was."""
    sock.settimeout(0.5)
    sent = 0
    try:
        while sent < len(data):
            sent += sock.send(data[sent : sent + 65536])
    except TimeoutError:
        pass
    return sent


def test_a_client_waits_for_an_app_that_does_not_receive(client: RawClient, worker: Worker) -> None:
    before = int(client.get("/memory").body)
    with RawSocket(worker.connect()) as ws:
        ws.handshake("/slow")
        stream = (b"\x82\xff" + (1 << 20).to_bytes(8, "big") + bytes(4) + bytes(1 << 20)) * 50
        sent = send_what_is_taken(ws.sock, stream)
        assert sent < 10 << 20
        assert int(client.get("/memory").body) < before + (8 << 20)
        client.get("/open?slow")
        ws.sock.settimeout(20)
        ws.sock.sendall(stream[sent:])
        assert ws.next() == (TEXT, str(50 << 20).encode())


def test_an_app_waits_for_a_client_that_does_not_read(client: RawClient, ws: RawSocket) -> None:
    ws.handshake("/flood")
    count = -1
    while (now := len(notes(client))) != count:
        count = now
        time.sleep(0.1)
    assert count < 5
    for _ in range(50):
        assert ws.next() == (BINARY, bytes(1 << 20))


def test_pings_of_a_client_that_does_not_read_take_no_memory(client: RawClient, ws: RawSocket) -> None:
    ws.handshake("/flood")
    wait_for_notes(client, 1)
    before = int(client.get("/memory").body)
    ws.send(masked(PING, b"x" * 125) * 100_000)
    assert int(client.get("/memory").body) < before + (4 << 20)


def test_two_receives_wait_without_losing_a_message(client: RawClient, worker: Worker) -> None:
    with connected(worker, "/echo") as ws:
        for number in range(200):
            ws.send(str(number))
        assert [ws.recv(20) for _ in range(200)] == [str(number) for number in range(200)]


# Time, and the worker's own end


def test_a_client_that_is_silent_is_pinged_and_then_dropped() -> None:
    wanted = settings(
        "websocket_apps:app", "asgi", HERE, websocket_ping_interval_s=0.2, websocket_ping_timeout_s=2.0, lifespan="off"
    )
    with running(wanted) as worker:
        with RawSocket(worker.connect()) as ws:
            ws.handshake("/echo")
            assert ws.next() == (PING, b"")
            ws.frame(PONG)
            assert ws.next() == (PING, b"")
            ws.closes(1011)
        worker.drop_duplicates()


def test_a_worker_that_leaves_tells_its_sockets_to_come_again() -> None:
    wanted = settings("websocket_apps:app", "asgi", HERE, lifespan="off")
    with running(wanted) as worker, RawSocket(worker.connect()) as ws, RawClient(worker.connect()) as idle:
        ws.handshake("/echo")
        worker.drain(20)
        assert worker.message() == Returned(1)
        assert ws.next() == (CLOSE, (1012).to_bytes(2, "big"))
        ws.frame(CLOSE, (1012).to_bytes(2, "big"))
        assert ws.is_ended()
        assert worker.message() == Drained()
        assert idle.is_quiet()


def test_an_app_that_sends_while_its_worker_leaves_meets_a_client_that_is_gone(tmp_path: Path) -> None:
    """It is the server's doing: an OSError, as if the client had left, and what had arrived is not lost."""
    wanted = settings("websocket_apps:app", "asgi", HERE, lifespan="off")
    with running(wanted) as worker, RawSocket(worker.connect()) as ws:
        ws.handshake(f"/leaving?{tmp_path / 'said'}")
        assert ws.next() == (TEXT, b"open")
        ws.frame(TEXT, b"last words")
        assert ws.next() == (TEXT, b"tick")
        worker.drain(20)
        while (received := ws.next()) == (TEXT, b"tick"):
            pass
        assert received == (CLOSE, (1012).to_bytes(2, "big"))
        ws.frame(CLOSE, (1012).to_bytes(2, "big"))
        assert ws.is_ended()
        assert worker.message() == Drained()
    assert json.loads((tmp_path / "said").read_text()) == ["OSError", "last words", "websocket.disconnect"]


def test_an_idle_socket_is_small() -> None:
    count = 200
    with running(settings("websocket_apps:app", "asgi", HERE, lifespan="off")) as worker:
        offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
        with RawClient(worker.connect()) as client:
            sockets = [RawSocket(worker.connect()) for _ in range(count + 10)]
            for ws in sockets[:10]:
                ws.handshake("/echo", offer)
                ws.frame(TEXT, b"warm")
                ws.next()
            before = int(client.get("/memory").body)
            for ws in sockets[10:]:
                status, headers = ws.handshake("/echo", offer)
                assert (status, "sec-websocket-extensions" in headers) == (101, True)
                ws.frame(TEXT, b"hello")
                assert ws.next()[0] == 0x40 | TEXT
            each = (int(client.get("/memory").body) - before) / count
            assert each < 60_000
            for ws in sockets:
                ws.close()
        worker.drop_duplicates()


def test_a_socket_over_tcp(worker: Worker, client: RawClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock = socket.create_connection(listener.getsockname(), timeout=20)
        accepted, _ = listener.accept()
        worker.give(accepted, flags=0)
        with connect("ws://a.example/echo", sock=sock) as ws:
            ws.send("hello")
            assert ws.recv(20) == "hello"
