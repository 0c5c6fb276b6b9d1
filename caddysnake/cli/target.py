"""A running daemon's admin API: where it is, whether it may be trusted, and one question without anything that takes
long to import. What changes something, or streams, is ``calling``.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

from .reading import CommandFailed

UCRED = struct.Struct("3i")
"""Of SO_PEERCRED: pid, uid, gid."""
_LONGEST_BYTES = 64 * 1024 * 1024


class CallFailed(CommandFailed):
    """The daemon was not reached, or would not. ``answer`` is what it said, if it did."""

    def __init__(self, text: str, answer: Mapping[str, Any] | None = None) -> None:
        self.answer = answer or {}
        super().__init__(text, self.answer.get("hint"))


class Target(NamedTuple):
    """Where a daemon's API is: a unix socket's path, or a host and port."""

    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        return f"unix/{self.path}" if self.path else f"{self.host}:{self.port}"


def connect(target: Target, timeout: float | None) -> socket.socket:
    """A connection to a daemon of this user's, of root's, or, for root, to any. Raises ``OSError``."""
    if not target.path:
        return socket.create_connection((target.host, target.port), timeout)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        sock.connect(target.path)
        uid = UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))[1]
        if os.geteuid() not in (0, uid) and uid != 0:
            raise PermissionError(1, f"user {uid} answers there, who is neither this user nor root")
    except BaseException:
        sock.close()
        raise
    return sock


def ask(target: Target, path: str, timeout: float) -> dict[str, Any]:
    """What the API answers to a GET, parsed, also when that is 503 with a state. Raises ``CallFailed``."""
    origin = "" if target.path else f"Origin: http://{target.host}:{target.port}\r\n"
    host = "localhost" if target.path else f"{target.host}:{target.port}"
    try:
        with connect(target, timeout) as sock:
            sock.sendall(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n{origin}\r\n".encode())
            parts, size = [], 0
            while (part := sock.recv(1 << 16)) and size < _LONGEST_BYTES:
                parts.append(part)
                size += len(part)
    except OSError as exc:
        raise unreachable(target, exc) from None
    head, _, body = b"".join(parts).partition(b"\r\n\r\n")
    status = head[9:12]
    return understood(target, int(status) if status.isdigit() else 0, body, is_state=True)


def unreachable(target: Target, exc: Exception) -> CallFailed:
    """Why there is no answer, for people."""
    if isinstance(exc, PermissionError):
        why = exc.strerror or "not permitted"
        return CallFailed(f"cannot use the admin API at {target}: {why}; call as the daemon's user, or root")
    if isinstance(exc, TimeoutError):
        return CallFailed(f"the admin API at {target} does not answer: see the daemon's log")
    why = str(getattr(exc, "strerror", None) or exc or type(exc).__name__)
    return CallFailed(f"cannot reach the admin API at {target}: {why}")


def understood(target: Target, status: int, text: bytes, is_state: bool = False) -> dict[str, Any]:
    """The API's answer. ``is_state``: one of 503 may be how things are. Raises ``CallFailed``."""
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or (status >= 400 and "code" not in answer and not is_state):
        raise CallFailed(f"{target} is not caddysnake's admin API: it answered {status}")
    if status >= 400 and "code" in answer:
        raise CallFailed(str(answer.get("error", status)), answer)
    return answer
