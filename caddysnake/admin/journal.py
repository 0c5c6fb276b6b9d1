"""The log as it was written last, and as it goes on: read from the log process, passed on to whoever asked."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator

from ..daemon.main import Daemon, DaemonPhase
from ..daemon.system.log.process import logger
from ..daemon.tenants.lookup import UnknownApp
from ..logs.ring import Query
from .errors import ApiError
from .survey import known_apps

MEDIA_TYPE = "application/x-ndjson"
_ANSWER_S = 10.0
"""Within which the log process begins."""
_PIECE_BYTES = 64 * 1024
_LOOK_S = 1.0


async def open_pipe(fd: int, limit: int = _PIECE_BYTES) -> tuple[asyncio.StreamReader, asyncio.BaseTransport]:
    """Read what comes from ``fd``, which is closed with the transport. No line may have more than ``limit`` bytes."""
    loop = asyncio.get_running_loop()
    stream = asyncio.StreamReader(limit, loop=loop)
    pipe = os.fdopen(fd, "rb", 0)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream, loop=loop), pipe)
    return stream, transport


async def read(daemon: Daemon, query: Query) -> AsyncGenerator[bytes, None]:
    """Records, one JSON object a line, for as long as the query says. Raises ``ApiError``."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        is_asked = logger.read(query, writing)
    finally:
        os.close(writing)
    if not is_asked:
        os.close(reading)
        raise ApiError("busy", "nobody remembers what was logged: the log process is new, or of an older version")
    stream, transport = await open_pipe(reading)
    try:
        try:
            first = await asyncio.wait_for(stream.readline(), _ANSWER_S)
        except TimeoutError:
            first = b""
        if not first:
            raise ApiError("busy", "the log process does not answer, or too many read the log already")
        _expect(daemon, query, is_known=json.loads(first)["known"])
    except BaseException:
        transport.close()
        raise
    pieces = _pieces(daemon, stream, transport)
    await anext(pieces)  # it has begun, and so will close what it reads from, whoever has left by now
    return pieces


def _expect(daemon: Daemon, query: Query, *, is_known: bool) -> None:
    """Raise ``UnknownApp`` or ``ApiError`` for an app, or a process of it, that neither runs nor is in the log."""
    if is_known:
        return
    apps = {each.app.name: each.app for each in known_apps(daemon)}
    templates = daemon.running.templates
    if query.app is not None and not any(map(query.names, {*apps, *templates})):
        raise UnknownApp.among(query.app, {*apps, *templates})
    if query.process is None or any(map(query.names, templates)):  # whose apps may have one, and sleep
        return
    meant = [app for name, app in apps.items() if query.names(name)]
    specs = [app.spec.commands for app in meant]
    names = {each.name for spec in specs for each in spec.processes}
    names |= {each.name for spec in specs for each in spec.schedules}
    names |= {each.label for app in meant for each in app.background.processes}
    if not any(map(query.means, names)):
        told = UnknownApp.among(query.process, names, "there is no process or schedule")
        raise ApiError("no-such-process", str(told), "`caddysnake status` names them")


async def _pieces(
    daemon: Daemon, stream: asyncio.StreamReader, transport: asyncio.BaseTransport
) -> AsyncGenerator[bytes, None]:
    """What comes; nothing, now and then, so that whoever passes it on can see whether anybody is there."""
    try:
        yield b""
        while daemon.phase is not DaemonPhase.STOPPING:
            try:
                piece = await asyncio.wait_for(stream.read(_PIECE_BYTES), _LOOK_S)
            except TimeoutError:
                yield b""
                continue
            if not piece:
                return
            yield piece
    finally:
        transport.close()
