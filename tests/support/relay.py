"""A real relay process, with the test in the daemon's and the workers' place."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPResponse
from typing import Any

from caddysnake.channel import vitals
from caddysnake.channel.endpoint import ChannelClosed, Endpoint, pair
from caddysnake.channel.messages import (
    PROTOCOL_VERSION,
    TAKE_LISTENER_SHIFT,
    TAKE_TRUSTED,
    Configure,
    Drain,
    Link,
    Lost,
    Message,
    Need,
    Ready,
    Refused,
    Take,
    Takes,
    Unneed,
)
from caddysnake.channel.settings import RelaySettings, seal
from support.worker import PATIENCE_S, receive


def sites(*hosts: str) -> dict[str, Any]:
    """A routing table in which host number n leads to app number n."""
    return {
        "sites": [{"match": [{"host": [host]}], "routes": [{"app": app}]} for app, host in enumerate(hosts)],
        "templates": {},
        "variables": {},
    }


def everything(app: int = 0) -> dict[str, Any]:
    """A routing table in which all requests lead to one app."""
    return {"sites": [{"routes": [{"app": app}]}], "templates": {}, "variables": {}}


class Relay:
    """A configured, ready relay."""

    def __init__(self, settings: RelaySettings) -> None:
        ours, theirs = pair()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "caddysnake.relay.main", json.dumps({"channel": theirs.fileno()})],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        theirs.close()
        self.endpoint = Endpoint(ours)
        page_fd = vitals.create("test")
        settings_fd = seal(settings)
        self.page = vitals.Page(page_fd)
        assert self.endpoint.hand_over(Configure(PROTOCOL_VERSION), [settings_fd, page_fd])
        os.close(page_fd)
        os.close(settings_fd)
        ready = receive(self.endpoint)
        assert isinstance(ready, Ready), ready
        self._slot = 0
        self._kept: dict[int, socket.socket] = {}
        self._links: list[socket.socket] = []
        self._needs: set[int] = set()
        self.errors = b""

    # In the daemon's place

    @property
    def links(self) -> list[socket.socket]:
        """The workers' ends of all links that were given."""
        return self._links

    def give(self, sock: socket.socket, flags: int = TAKE_TRUSTED, listener: int = 0) -> int:
        """Hand ``sock`` over as the daemon does, keeping this copy as the daemon's duplicate; its slot."""
        slot = self._slot
        self._slot += 1
        self.page.slots[slot] = vitals.SLOT_GIVEN
        flags |= listener << TAKE_LISTENER_SHIFT
        assert self.endpoint.hand_over(Take(slot, flags), [sock.fileno()])
        self._kept[slot] = sock
        return slot

    def give_together(self, socks: list[socket.socket], flags: int = TAKE_TRUSTED) -> None:
        """Hand ``socks`` over in one message, as the daemon does with a burst of connections."""
        takes = []
        for sock in socks:
            takes.append(Take(self._slot, flags))
            self.page.slots[self._slot] = vitals.SLOT_GIVEN
            self._kept[self._slot] = sock
            self._slot += 1
        assert self.endpoint.hand_over(Takes.several(takes), [sock.fileno() for sock in socks])

    def connect(self, flags: int = TAKE_TRUSTED, listener: int = 0) -> socket.socket:
        """A client's socket to the relay (blocking, with a time-out)."""
        client, server = socket.socketpair()
        client.settimeout(PATIENCE_S)
        self.give(server, flags, listener)
        return client

    @property
    def last_slot(self) -> int:
        """Of the connection that was given last."""
        return self._slot - 1

    def duplicate(self, slot: int) -> socket.socket:
        """The daemon's duplicate of the connection in ``slot``."""
        return self._kept[slot]

    def message(self, timeout: float = PATIENCE_S) -> Message:
        """The next message but ``Lost``, which come each second."""
        while isinstance(message := receive(self.endpoint, timeout), Lost):
            pass
        if isinstance(message, Need):
            self._needs.add(message.need)
        elif isinstance(message, Unneed):
            self._needs.discard(message.need)
        return message

    def need(self) -> Need:
        """The next message, which must be a need."""
        message = self.message()
        assert isinstance(message, Need), message
        return message

    def link(self, need: Need | None = None) -> socket.socket:
        """Answer ``need``, or the next one, with a link; the worker's end of it (blocking, with a time-out)."""
        need = need or self.need()
        ours, theirs = socket.socketpair()
        ours.settimeout(PATIENCE_S)
        assert self.endpoint.hand_over(Link(need.need), [theirs.fileno()])
        self._needs.discard(need.need)
        theirs.close()
        self._links.append(ours)
        return ours

    def refuse(self, status: int, code: str, retry_after_s: int = 0, text: str = "") -> None:
        """Answer the next need so."""
        need = self.need()
        self._needs.discard(need.need)
        self.endpoint.send(Refused(need.need, status, retry_after_s, code, text))

    def drain(self, grace_s: float = 5.0) -> None:
        self.endpoint.send(Drain(grace_s))

    def slot_state(self, slot: int) -> int:
        return int(self.page.slots[slot])

    def take_kept(self) -> list[socket.socket]:
        """The duplicates and the workers' ends of links, which are the caller's to close from now on."""
        kept = [*self._kept.values(), *self._links]
        self._kept.clear()
        self._links.clear()
        return kept

    def forget(self) -> None:
        """End all connections and links, and wait until it knows."""
        for sock in (*self._kept.values(), *self._links):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        self._kept.clear()
        self._links.clear()
        deadline = time.monotonic() + PATIENCE_S
        while self.page.word(vitals.WORD_CONNECTIONS) and time.monotonic() < deadline:
            time.sleep(0.005)
        with contextlib.suppress(TimeoutError):
            while True:
                self.message(timeout=0)
        for need in self._needs:
            self.endpoint.send(Refused(need, 503, 0, "forgotten", ""))
        self._needs.clear()

    def close(self) -> None:
        """End it: it leaves when told, and all that it held is closed."""
        for sock in (*self._kept.values(), *self._links):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        with contextlib.suppress(ChannelClosed):
            self.drain(0.5)
        try:
            _, self.errors = self.process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise
        finally:
            self.endpoint.close()
            self.page.close()


@contextlib.contextmanager
def running(*tables: dict[str, Any], **settings: Any) -> Iterator[Relay]:
    """A ready relay with these routing tables, ended afterwards."""
    relay = Relay(RelaySettings(list(tables or [everything()]), **settings))
    try:
        yield relay
    finally:
        relay.close()
        print(relay.errors.decode(), file=sys.stderr)  # shown when the test fails
    for bug in (b"Exception in callback", b"Fatal error", b"never retrieved"):
        assert bug not in relay.errors, relay.errors.decode()


# In a worker's place, and a client's


def read_until(sock: socket.socket, end: bytes) -> bytes:
    """What arrives until ``end`` is at the end of it."""
    data = b""
    while not data.endswith(end):
        piece = sock.recv(65536)
        assert piece, data
        data += piece
    return data


def read_head(sock: socket.socket) -> bytes:
    """A head, and nothing behind it."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        piece = sock.recv(1)
        assert piece, data
        data += piece
    return data


def read_exactly(sock: socket.socket, count: int) -> bytes:
    """So many bytes, fewer at the end."""
    data = b""
    while len(data) < count and (piece := sock.recv(count - len(data))):
        data += piece
    return data


def read_all(sock: socket.socket) -> bytes:
    """What arrives until the end."""
    pieces = []
    while piece := sock.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def ok(body: bytes = b"ok", more: bytes = b"") -> bytes:
    """A response with ``body`` and the field lines ``more``."""
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n%b\r\n%b" % (len(body), more, body)


def get(target: str = "/", host: str = "test", more: str = "") -> bytes:
    """A request without content."""
    return f"GET {target} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n".encode()


def response(sock: socket.socket, method: str = "GET") -> HTTPResponse:
    """The next response, its head read."""
    answer = HTTPResponse(sock, method=method)
    answer.begin()
    return answer
