"""How commands call a running daemon: its admin API. ``finding`` says where that is.

Without an import of the daemon's: a command that asks how things are should answer at once.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from .target import CallFailed, Target, connect, understood, unreachable

PATIENCE_S = 30.0
_LOOK_S = 15.0
_LONGEST_S = 3600.0
_LINES = "application/x-ndjson"
_SILENCE_S = 60.0
"""The daemon says something more often, while there is something to wait for."""


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket, to a daemon of this user's, of root's, or, for root, to any."""

    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = connect(Target(self._path), self.timeout)


def call(
    target: Target,
    method: str,
    path: str,
    body: bytes | None = None,
    content_type: str = "text/caddyfile",
    timeout: float | None = PATIENCE_S,
) -> dict[str, Any]:
    """What the API answers, parsed. ``timeout`` None: as long as it takes, an hour at most, if the daemon answers to
    others meanwhile. Raises ``CallFailed``.
    """
    headers = {"Content-Type": content_type} if body is not None else {}
    with _connected(target, timeout or PATIENCE_S) as connection:
        # Who is refused is told before anything is read.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request(method, path, body, headers | _origin(target))
        if timeout is None and connection.sock is not None:
            _await_answer(connection.sock, target)
        response = connection.getresponse()
        status, text = response.status, response.read()
    return understood(target, status, text)


def stream(target: Target, path: str) -> Iterator[bytes]:
    """What the API answers to a GET, line by line, as it comes and for as long as it does. Raises ``CallFailed``."""
    with _connected(target, PATIENCE_S) as connection:
        connection.request("GET", path, headers=_origin(target))
        response = connection.getresponse()
        if response.status >= 400:
            understood(target, response.status, response.read())
        if connection.sock is not None:
            connection.sock.settimeout(None)
        while line := response.readline():
            yield line


def follow(
    target: Target, method: str, path: str, body: bytes | None, hear: Callable[[str, str], None],
    content_type: str = "text/caddyfile", change: str = "/load",
) -> dict[str, Any]:  # fmt: skip
    """What the API answers, parsed; until then ``hear(app, line)`` gets each line that is told of an app.

    Who presses Ctrl-C cancels the ``change``, and hears what became of it. Raises ``CallFailed``.
    """

    def cancel(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # who presses it again leaves
        print("cancelling …", file=sys.stderr)
        try:
            call(target, "DELETE", change)
        except CallFailed as exc:
            print(f"Warning: {exc}", file=sys.stderr)

    headers = {"Content-Type": content_type} if body is not None else {}
    before = signal.signal(signal.SIGINT, cancel)
    try:
        with _connected(target, _SILENCE_S) as connection:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, path, body, {**headers, **_origin(target), "Accept": _LINES})
            response = connection.getresponse()
            if response.headers.get_content_type() != _LINES:
                return understood(target, response.status, response.read())
            while line := response.readline():
                try:
                    said = json.loads(line)
                except ValueError:
                    break
                if "answer" in said:
                    return understood(target, said["status"], json.dumps(said["answer"]).encode())
                if "line" in said:
                    hear(said["app"], said["line"])
    finally:
        signal.signal(signal.SIGINT, before)
    raise CallFailed(f"the daemon at {target} has ended meanwhile: see its log")


def switch(target: Target, path: str, body: bytes, protocol: str) -> socket.socket:
    """A connection to the daemon that speaks ``protocol`` from now on. Raises ``CallFailed``."""
    with _connected(target, PATIENCE_S) as connection:
        headers = {"Connection": "Upgrade", "Upgrade": protocol, "Content-Type": "application/json"}
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request("POST", path, body, headers)
        sock = connection.sock
        assert sock is not None
        response = connection.getresponse()
        if response.status != 101:
            understood(target, response.status, response.read())
            raise CallFailed(f"{target} is not caddysnake's admin API: it answered {response.status}")
        found = socket.socket(fileno=os.dup(sock.fileno()))
        found.settimeout(None)
        return found


@contextlib.contextmanager
def _connected(target: Target, timeout: float) -> Iterator[http.client.HTTPConnection]:
    """Raises ``CallFailed`` for what goes wrong while it is used."""
    connection: http.client.HTTPConnection
    if target.path:
        connection = _UnixConnection(target.path, timeout)
    else:
        connection = http.client.HTTPConnection(target.host, target.port, timeout)
    try:
        yield connection
    except (OSError, http.client.HTTPException) as exc:
        raise unreachable(target, exc) from None
    finally:
        connection.close()


def _origin(target: Target) -> dict[str, str]:
    return {} if target.path else {"Origin": f"http://{target.host}:{target.port}"}


def _await_answer(sock: socket.socket, target: Target) -> None:
    """Wait until something comes on ``sock``. Raises ``CallFailed`` when the daemon answers nobody."""
    until = time.monotonic() + _LONGEST_S
    while not select.select([sock], [], [], _LOOK_S)[0]:
        try:
            call(target, "GET", "/health/live", timeout=_LOOK_S)
        except CallFailed as exc:
            if exc.answer:
                continue  # it refuses, and so it is there
            raise CallFailed(f"the admin API at {target} does not answer: see the daemon's log") from None
        if time.monotonic() > until:
            raise CallFailed(f"the daemon is not done after {_LONGEST_S / 60:g} minutes: see its log")
