"""The examples with WebSockets, as they are, through a real Caddy."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from support.daemon import PATIENCE_S, daemon, free_port, get
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

pytestmark = pytest.mark.system

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@contextlib.contextmanager
def example(name: str, folder: Path) -> Iterator[int]:
    """The example on a port of its own; in the end it stops, and its log tells of no failure."""
    here = folder / "e"
    shutil.copytree(EXAMPLES / name, here, ignore=shutil.ignore_patterns("__pycache__"))
    port = free_port()
    # Short, since the path of a socket may have 107 bytes and that of a test's folder is long.
    with tempfile.TemporaryDirectory(prefix="cs-") as runtime:
        environ = {"EXAMPLE_PORT": str(port), "XDG_RUNTIME_DIR": runtime}
        with daemon(here, (here / "Caddyfile").read_text(), "--caddy", environ=environ) as process:
            process.wait_for_log("serving initial configuration")
            yield port
            assert process.stop() == 0, process.log
            assert "Traceback" not in process.log


def websocket(port: int, target: str, origin: str | None = None, cookie: str = "") -> ClientConnection:
    return connect(
        f"ws://localhost:{port}{target}",
        additional_headers={"Cookie": cookie} if cookie else None,
        origin=Origin(origin or f"http://localhost:{port}"),
        open_timeout=PATIENCE_S,
        close_timeout=PATIENCE_S,
        # The name may stand for two addresses, of which Caddy listens on one.
        sock=socket.create_connection(("127.0.0.1", port), PATIENCE_S),
    )


def heard(client: ClientConnection) -> Any:
    return json.loads(client.recv(PATIENCE_S))


def close(client: ClientConnection) -> None:
    """Close, and see the other side's answer."""
    client.close()
    answer = client.protocol.close_rcvd
    assert answer is not None
    assert answer.code == 1000


@pytest.fixture
def channels(tmp_path: Path) -> Iterator[int]:
    with example("channels", tmp_path) as port:
        yield port


@pytest.fixture
def socketio(tmp_path: Path) -> Iterator[int]:
    with example("socketio", tmp_path) as port:
        yield port


# Channels


def test_channels_serves_its_page_an_echo_and_rooms(channels: int) -> None:
    status, page = get("/", channels, Host=f"localhost:{channels}")
    assert status == 200
    assert b"/ws/rooms/lobby" in page

    with websocket(channels, "/ws/echo") as client:
        for message in ("ä text", b"\x00bytes", "x" * 100_000):
            client.send(message)
            assert client.recv(PATIENCE_S) == message

    with websocket(channels, "/ws/rooms/a?name=Ada") as ada:
        assert heard(ada) == {"name": "Ada", "text": "comes in"}
        with websocket(channels, "/ws/rooms/b?name=Cleo") as cleo, websocket(channels, "/ws/rooms/a?name=Bob") as bob:
            assert heard(cleo) == {"name": "Cleo", "text": "comes in"}
            for client in (ada, bob):
                assert heard(client) == {"name": "Bob", "text": "comes in"}
            ada.send("hello")
            for client in (ada, bob):
                assert heard(client) == {"name": "Ada", "text": "hello"}
            # Of what was said in the other room nothing was heard here.
            cleo.send("alone")
            assert heard(cleo) == {"name": "Cleo", "text": "alone"}
            close(bob)
            assert heard(ada) == {"name": "Bob", "text": "leaves"}


def test_channels_closes_with_a_code_of_its_own_and_refuses_other_origins(channels: int) -> None:
    with websocket(channels, "/ws/rooms/a") as client:
        with pytest.raises(ConnectionClosedError) as closed:
            client.recv(PATIENCE_S)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4000, "a name is needed")
    with pytest.raises(InvalidStatus) as refused:
        websocket(channels, "/ws/echo", origin="http://elsewhere.example")
    assert refused.value.response.status_code == 403


# Socket.IO. Packets are written out: https://socket.io/docs/v4/engine-io-protocol/ and …/socket-io-protocol/
# "0" open, "1" close, "2" ping, "3" pong, "4" message, "5" upgrade, "6" noop;
# in a message "0" connect, "2" event, "3" acknowledgement.

PATH = "/socket.io/?EIO=4&transport="
SEPARATOR = "\x1e"


class Polling:
    """A client that polls, one request after the other."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, PATIENCE_S)
        self._host = f"localhost:{port}"
        self._packets: list[str] = []
        self.target = f"{PATH}polling"
        self.session: dict[str, Any] = {}
        self.sid = ""
        self.cookie = ""

    def __enter__(self) -> Polling:
        self.session = json.loads(self.packet()[1:])
        self.target += f"&sid={self.session['sid']}"
        self.post("40")
        self.sid = json.loads(self.packet()[2:])["sid"]
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._connection.close()

    def ask(self, method: str, body: str | None = None) -> tuple[int, str]:
        headers = {"Host": self._host, **({"Cookie": self.cookie} if self.cookie else {})}
        self._connection.request(method, self.target, body, headers)
        response = self._connection.getresponse()
        self.cookie = (response.headers["Set-Cookie"] or self.cookie).partition(";")[0]
        return response.status, response.read().decode()

    def packet(self) -> str:
        """The next packet; polls when there is none."""
        if not self._packets:
            status, body = self.ask("GET")
            assert status == 200, body
            self._packets = body.split(SEPARATOR)
        return self._packets.pop(0)

    def post(self, *packets: str) -> None:
        assert self.ask("POST", SEPARATOR.join(packets)) == (200, "OK")

    def event(self) -> Any:
        return read_event(self.packet())


def read_event(packet: str | bytes) -> Any:
    assert isinstance(packet, str)
    assert packet.startswith("42"), packet
    return json.loads(packet[2:])


def write_event(*event: Any, acknowledgement: str = "") -> str:
    return f"42{acknowledgement}{json.dumps(event)}"


def begin(client: ClientConnection) -> str:
    """Connect to the namespace /; the id there."""
    packet = client.recv(PATIENCE_S)
    assert isinstance(packet, str)
    assert packet.startswith("0")
    client.send("40")
    answer = client.recv(PATIENCE_S)
    assert isinstance(answer, str)
    assert answer.startswith("40")
    sid: str = json.loads(answer[2:])["sid"]
    return sid


def next_event(client: ClientConnection) -> Any:
    # A noop, which is to end a poll, comes over the WebSocket when there was no poll to end.
    while (packet := client.recv(PATIENCE_S)) == "6":
        pass
    return read_event(packet)


def test_socketio_echoes_and_broadcasts_over_websocket_and_over_polling(socketio: int) -> None:
    status, page = get("/", socketio, Host=f"localhost:{socketio}")
    assert status == 200
    assert b"/socket.io/" in page

    with websocket(socketio, f"{PATH}websocket") as ada, Polling(socketio) as bob:
        ada_id = begin(ada)

        ada.send(write_event("echo", {"n": 1}, acknowledgement="7"))
        assert next_event(ada) == ["echo", {"n": 1}]
        assert ada.recv(PATIENCE_S) == '437[{"n":1}]'
        # Two packets in one request.
        bob.post(write_event("echo", "ä"), write_event("echo", 2))
        assert [bob.event(), bob.event()] == [["echo", "ä"], ["echo", 2]]

        ada.send(write_event("say", "hello"))
        for event in (next_event(ada), bob.event()):
            assert event == ["said", {"from": ada_id, "text": "hello"}]
        bob.post(write_event("say", "back"))
        for event in (next_event(ada), bob.event()):
            assert event == ["said", {"from": bob.sid, "text": "back"}]

        close(ada)
        assert bob.event() == ["left", {"from": ada_id}]
        bob.post("1")
        assert bob.ask("GET")[0] == 400


def test_a_socketio_client_that_polls_changes_to_websocket(socketio: int) -> None:
    with Polling(socketio) as client:
        assert client.session["upgrades"] == ["websocket"]
        with websocket(socketio, f"{PATH}websocket&sid={client.session['sid']}", cookie=client.cookie) as upgraded:
            upgraded.send("2probe")
            assert upgraded.recv(PATIENCE_S) == "3probe"
            assert client.packet() == "6"
            upgraded.send("5")
            upgraded.send(write_event("say", "from here"))
            assert next_event(upgraded) == ["said", {"from": client.sid, "text": "from here"}]
            close(upgraded)


def test_socketio_refuses_a_page_of_another_origin(socketio: int) -> None:
    with pytest.raises(InvalidStatus) as refused:
        websocket(socketio, f"{PATH}websocket", origin="http://elsewhere.example")
    assert refused.value.response.status_code in (400, 403)
