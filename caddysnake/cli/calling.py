"""How commands call a running daemon: its admin API. ``finding`` says where that is.

Without an import of the daemon's: a command that asks how things are should answer at once.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

PATIENCE_S = 30.0
_LOOK_S = 15.0
_LONGEST_S = 3600.0
_LINES = "application/x-ndjson"
_SILENCE_S = 60.0
"""The daemon says something more often, while there is something to wait for."""
_UCRED = struct.Struct("3i")


class CallFailed(Exception):
    """The daemon was not reached, or would not. The text is for people. ``answer`` is what it said, if it did."""

    def __init__(self, text: str, answer: Mapping[str, Any] | None = None) -> None:
        super().__init__(text)
        self.answer = answer or {}


class Target(NamedTuple):
    """Where a daemon's API is: a unix socket's path, or a host and port."""

    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        return f"unix/{self.path}" if self.path else f"{self.host}:{self.port}"


def add_address_argument(parser: argparse.ArgumentParser) -> None:
    """The option by which a command is told where the daemon's API is."""
    parser.add_argument(
        "--address", metavar="ADDRESS", help="the daemon's admin API (default: found through the Caddyfile)"
    )


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket, to a daemon of this user's, of root's, or, for root, to any."""

    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
        uid = _UCRED.unpack(self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))[1]
        if os.geteuid() not in (0, uid) and uid != 0:
            raise PermissionError(1, f"user {uid} answers there, who is neither this user nor root")


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
    return _understood(target, status, text)


def stream(target: Target, path: str) -> Iterator[bytes]:
    """What the API answers to a GET, line by line, as it comes and for as long as it does. Raises ``CallFailed``."""
    with _connected(target, PATIENCE_S) as connection:
        connection.request("GET", path, headers=_origin(target))
        response = connection.getresponse()
        if response.status >= 400:
            _understood(target, response.status, response.read())
        if connection.sock is not None:
            connection.sock.settimeout(None)
        while line := response.readline():
            yield line


def follow(
    target: Target, method: str, path: str, body: bytes | None, hear: Callable[[str, str], None],
    content_type: str = "text/caddyfile",
) -> dict[str, Any]:  # fmt: skip
    """What the API answers, parsed; until then ``hear(app, line)`` gets each line that is told of an app.

    Who presses Ctrl-C cancels the change, and hears what became of it. Raises ``CallFailed``.
    """

    def cancel(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # who presses it again leaves
        print("cancelling …", file=sys.stderr)
        try:
            call(target, "DELETE", "/load")
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
                return _understood(target, response.status, response.read())
            while line := response.readline():
                try:
                    said = json.loads(line)
                except ValueError:
                    break
                if "answer" in said:
                    return _understood(target, said["status"], json.dumps(said["answer"]).encode())
                if "line" in said:
                    hear(said["app"], said["line"])
    finally:
        signal.signal(signal.SIGINT, before)
    raise CallFailed(f"the daemon at {target} has ended meanwhile: see its log")


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
    except PermissionError as exc:
        why = exc.strerror or "not permitted"
        raise CallFailed(f"cannot use the admin API at {target}: {why}; call as the daemon's user, or root") from None
    except (OSError, http.client.HTTPException) as exc:
        why = str(getattr(exc, "strerror", None) or exc or type(exc).__name__)
        raise CallFailed(f"cannot reach the admin API at {target}: {why}") from None
    finally:
        connection.close()


def _origin(target: Target) -> dict[str, str]:
    return {} if target.path else {"Origin": f"http://{target.host}:{target.port}"}


def _understood(target: Target, status: int, text: bytes) -> dict[str, Any]:
    """Raises ``CallFailed``."""
    try:
        answer = json.loads(text)
    except ValueError:
        raise CallFailed(f"{target} is not caddysnake's admin API: it answered {status}") from None
    if not isinstance(answer, dict) or (status >= 400 and "code" not in answer):
        raise CallFailed(f"{target} is not caddysnake's admin API: it answered {status}")
    if status >= 400:
        raise CallFailed(str(answer.get("error", status)), answer)
    return answer


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


def report(exc: CallFailed) -> int:
    """Say what went wrong; the exit status."""
    print(f"Error: {exc}", file=sys.stderr)
    hint = exc.answer.get("hint")
    if hint:
        print(f"Hint: {hint}", file=sys.stderr)
    return 1
