"""``POST /apps/{key}/exec``: from an HTTP request over the unix socket to a one-off command that owns the connection.

The caller's descriptors come after the 101, on a socket that nobody reads from any more but the session.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

import orjson

from ..daemon.commands.session import STREAMS, OneOff
from ..daemon.main import Daemon, DaemonPhase
from .errors import ApiError
from .request import Answer, Request

PROTOCOL = "caddysnake-exec"
_SWITCHED = f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: {PROTOCOL}\r\nConnection: Upgrade\r\n\r\n".encode()
_WORDS_MAX = 4096


async def execute(daemon: Daemon, request: Request, body: bytes) -> Answer:
    """Begin a command for whoever calls. Raises ``ApiError``."""
    if request.connection.sock.family != socket.AF_UNIX:
        raise ApiError("unix-only", "a command can be executed over the admin API's unix socket only")
    if daemon.phase is not DaemonPhase.READY or daemon.is_upgrading:
        raise ApiError("busy", "the daemon starts, stops or is being upgraded")
    if request.headers.get("upgrade", "") != PROTOCOL:
        raise ApiError("bad-request", f"it needs Upgrade: {PROTOCOL}", "use `caddysnake exec`")
    asked = _asked(body)
    oneoffs = daemon.running.oneoffs
    try:
        name, surroundings, folder = await oneoffs.around(request.found["key"])
    except OSError as exc:
        raise ApiError("start", f"its surroundings cannot be looked at: {exc}") from None
    try:
        own = await request.connection.take()
    except OSError:
        return Answer(499, None, {})
    try:
        own.sendall(_SWITCHED)
    except OSError:
        own.close()
        return Answer(499, None, {})
    oneoffs.begin(own, name, asked, surroundings, folder)
    return Answer(101, None, {})


def _asked(body: bytes) -> OneOff:
    try:
        said: Mapping[str, Any] = orjson.loads(body)
        command = tuple(map(str, said["command"]))
        terminal = tuple(sorted({int(number) for number in said.get("terminal", ())}))
        lines, columns = (min(max(int(number), 1), 9999) for number in said.get("size", (24, 80)))
        term = str(said.get("term", ""))
    except (ValueError, TypeError, KeyError):
        raise ApiError("bad-request", "the content is not what a command is asked for with") from None
    is_odd = not command or not command[0] or len(command) > _WORDS_MAX or not set(terminal) <= set(range(STREAMS))
    if is_odd or any("\0" in word for word in (*command, term)):
        raise ApiError("bad-request", "that is no command")
    return OneOff(command, terminal, (lines, columns), term)
