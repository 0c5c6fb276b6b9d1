"""What a tenant's worker can make a relay do with what it sends, and for how much of that the others wait."""

from __future__ import annotations

import contextlib
import itertools
import json
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from support.relay import Relay, get, ok, read_head, response, running, sites

from caddysnake.channel.messages import Need

SECONDS = 1.0
LINKS = 100
WANTED_S = 0.5
"""Of the relay's processor time, as the machine may do much else. Without a bound it is what is sent, many seconds."""

# In a process of its own: what floods is in ours, and takes the interpreter from whoever measures beside it.
NEIGHBOUR = """
import json, socket, sys, time
client, link = (socket.socket(fileno=int(fd)) for fd in sys.argv[1:3])
used = (~int(sys.argv[4]) << 3) | 2  # the clock of a process's processor time
took = []
end = time.monotonic() + float(sys.argv[3])
while time.monotonic() < end:
    began = time.clock_gettime(used)
    client.sendall(b"GET / HTTP/1.1\\r\\nHost: good.test\\r\\n\\r\\n")
    data = b""
    while not data.endswith(b"\\r\\n\\r\\n"):
        data += link.recv(65536)
    link.sendall(b"HTTP/1.1 200 OK\\r\\ntransfer-encoding: chunked\\r\\n\\r\\n4\\r\\nwell\\r\\n0\\r\\n\\r\\n")
    data = b""
    while not data.endswith(b"\\r\\n0\\r\\n\\r\\n"):
        data += client.recv(65536)
    took.append(time.clock_gettime(used) - began)
    time.sleep(0.002)
print(json.dumps(took))
"""


@pytest.fixture
def relay() -> Iterator[Relay]:
    with running(sites("good.test", "bad.test")) as it:
        yield it


class Attack(NamedTuple):
    """What each link says, once and then for ever, and what its client says after its request."""

    first: bytes
    then: bytes
    more: str = "Connection: close\r\n"
    """Fields of the request."""
    from_client: bytes = b""
    piece: int = 1 << 20
    """So much at a time."""


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
UPGRADE = "Connection: Upgrade\r\nUpgrade: websocket\r\n"
CLOSE = "Connection: close\r\n"
UPLOAD = CLOSE + "Transfer-Encoding: chunked\r\n"
ATTACKS = {
    "interim responses": Attack(b"", b"HTTP/1.1 103 x\r\n\r\n" * 10_000),
    "interim responses that nobody sees": Attack(b"", b"HTTP/1.1 100 x\r\n\r\n" * 10_000),
    "interim responses with fields": Attack(b"", (b"HTTP/1.1 103 x\r\n" + b"a:\r\n" * 200 + b"\r\n") * 200),
    "chunks of one byte": Attack(CHUNKED, b"1\r\na\r\n" * 50_000),
    "chunks of one byte with long sizes": Attack(CHUNKED, b"000000000000001\r\na\r\n" * 20_000),
    "chunks in single bytes": Attack(CHUNKED, b"1\r\na\r\n" * 1000, piece=1),
    "trailers in single bytes": Attack(CHUNKED + b"0\r\n", b"a: b\r\n" * 1000, piece=1),
    "trailers": Attack(CHUNKED + b"0\r\n" + b"a:\r\n" * 16_000 + b"\r\n", b""),
    "a head of many lines": Attack(OK, b"a:\r\n" * 10_000),
    "a whole head of many lines": Attack(OK + b"a:\r\n" * 1000 + b"content-length: 0\r\n\r\n", b""),
    "a head of one long line": Attack(OK + b"a: " + b"b" * 250_000 + b"\r\ncontent-length: 0\r\n\r\n", b""),
    "a head in single bytes": Attack(OK, b"a: b\r\n" * 1000, piece=1),
    "a long Connection": Attack(OK + b"connection: " + b"a," * 30_000 + b"\r\ncontent-length: 0\r\n\r\n", b""),
    "a head at its limit with options": Attack(
        OK + (b"connection: " + b"a," * 500 + b"\r\n") * 250 + b"content-length: 0\r\n\r\n", b""
    ),
    "bytes behind the end": Attack(OK + b"content-length: 0\r\n\r\n", b"x" * 100_000),
    "content without end": Attack(OK + b"\r\n", b"x" * 100_000),
    "content in single bytes": Attack(OK + b"\r\n", b"x" * 1000, piece=1),
    "a tunnel": Attack(SWITCHED, b"x" * 100_000, UPGRADE, b"x" * 100_000),
    "a tunnel in single bytes": Attack(SWITCHED, b"x" * 1000, UPGRADE, b"x" * 1000, piece=1),
    "content from its client": Attack(b"", b"", UPLOAD, b"10000\r\n" + bytes(65536) + b"\r\n"),
    "chunks of one byte from its client": Attack(b"", b"", UPLOAD, b"1\r\na\r\n" * 50_000),
}


class Flood:
    """Clients of one app and the app's workers, in league. ``turn`` moves what can be moved."""

    def __init__(self, relay: Relay, attack: Attack, count: int) -> None:
        self.relay = relay
        self.attack = attack
        self.selector = selectors.DefaultSelector()
        self.sends: dict[socket.socket, Iterator[bytes]] = {}
        self.unsent: dict[socket.socket, bytes] = {}
        self.moved = 0
        for _ in range(count):
            self.ask()

    def ask(self) -> None:
        """One more request."""
        client = self.relay.connect()
        client.sendall(f"POST / HTTP/1.1\r\nHost: bad.test\r\n{self.attack.more}\r\n".encode())
        pieces = pieces_of(b"", self.attack.from_client, self.attack.piece)
        self.watch(client, pieces)

    def watch(self, sock: socket.socket, sends: Iterator[bytes]) -> None:
        sock.setblocking(False)
        self.sends[sock] = sends
        self.selector.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE)

    def turn(self) -> None:
        with contextlib.suppress(TimeoutError):
            while True:
                message = self.relay.message(timeout=0)
                if isinstance(message, Need):
                    self.watch(self.relay.link(message), pieces_of(*self.attack[:2], self.attack.piece))
        for key, events in self.selector.select(0.01):
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            try:
                if events & selectors.EVENT_READ:
                    data = sock.recv(1 << 20)
                    self.moved += len(data)
                    if not data:
                        raise ConnectionResetError
                if events & selectors.EVENT_WRITE:
                    data = self.unsent.pop(sock, b"") or next(self.sends[sock], b"")
                    sent = sock.send(data) if data else 0
                    if sent < len(data):
                        self.unsent[sock] = data[sent:]
                    if not data:
                        self.selector.modify(sock, selectors.EVENT_READ)
            except BlockingIOError:
                self.unsent[sock] = data
            except OSError:
                self.end(sock)

    def close(self) -> None:
        """End all."""
        self.selector.close()
        for sock in self.sends:
            sock.close()

    def end(self, sock: socket.socket) -> None:
        """A connection or link is over: another takes its place."""
        self.selector.unregister(sock)
        del self.sends[sock]
        is_client = sock not in self.relay.links
        sock.close()
        if is_client:
            self.ask()


def pieces_of(first: bytes, then: bytes, size: int) -> Iterator[bytes]:
    if first:
        yield first
    if then:
        for at in itertools.cycle(range(0, len(then), size)):
            yield then[at : at + size]


def waits_of_a_neighbour(relay: Relay, attack: Attack, count: int) -> tuple[list[float], int]:
    """How long the relay worked while each of another app's requests waited, beside so many connections that were
    flooded; and what these moved.
    """
    with relay.connect() as client:
        client.sendall(get("/first", "good.test"))
        link = relay.link()
        read_head(link)
        link.sendall(ok())
        assert response(client).read() == b"ok"
        client.settimeout(None)
        link.settimeout(None)
        flood = Flood(relay, attack, count)
        numbers = (client.fileno(), link.fileno(), SECONDS, relay.process.pid)
        command = [sys.executable, "-c", NEIGHBOUR, *map(str, numbers)]
        neighbour = subprocess.Popen(
            command, stdout=subprocess.PIPE, pass_fds=[client.fileno(), link.fileno()], encoding="ascii"
        )
        deadline = time.monotonic() + 30
        while neighbour.poll() is None and time.monotonic() < deadline:
            flood.turn()
        neighbour.kill()
        output, _ = neighbour.communicate()
    flood.close()
    took: list[float] = json.loads(output or f"[{deadline}]")
    return sorted(took), flood.moved


@pytest.mark.parametrize("kind", ATTACKS)
def test_nobody_waits_for_what_another_apps_worker_makes_of_its_answers(relay: Relay, kind: str) -> None:
    took, moved = waits_of_a_neighbour(relay, ATTACKS[kind], LINKS)
    print(f"{kind}: {len(took)} asked, median {took[len(took) // 2]:.4f}, most {took[-1]:.4f}, moved {moved}")
    assert took[len(took) * 9 // 10] < WANTED_S
