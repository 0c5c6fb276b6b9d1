"""A one-off command: somebody at a terminal, or a script, waits for it at the other end of a connection.

Its descriptors come from whoever asked, and go to the command; the daemon reads and writes none of them. For those that
are a terminal the command makes one itself (``worker.execute``), and whoever asked gets its other side from there.
What is said on the connection: lines of JSON, ``{"signal": n}`` to the daemon; ``{"pid": n}``, and at last
``{"exit": n}`` or ``{"error": text}`` from it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import Sequence
from typing import NamedTuple

from ..system.log.fields import FieldLog
from ..system.snapshots import SessionSnapshot
from ..system.tasks import cancelled
from .execution import Execution, NotExecuted
from .surroundings import Surroundings

log = FieldLog("caddysnake.app")

_HANDED_S = 10.0
"""So long whoever asked may take to hand its descriptors over."""
_PATIENCE_S = 10.0
"""A command whose asker has gone has so long until it is ended by force."""
_LINE_MAX = 4096
STREAMS = 3


class OneOff(NamedTuple):
    """What is to be run. ``terminal``: which of its streams are to be a terminal, of ``size`` lines and columns."""

    command: tuple[str, ...]
    terminal: tuple[int, ...] = ()
    size: tuple[int, int] = (24, 80)
    term: str = ""

    @property
    def descriptors(self) -> int:
        """How many are to be handed over: the streams that are no terminal, and where the terminal is sent."""
        return STREAMS - len(self.terminal) + bool(self.terminal)


class Session:
    """One command, and the connection of whoever asked, which is the session's from now on."""

    def __init__(self, app: str, sock: socket.socket) -> None:
        self.app = app
        self.command: tuple[str, ...] = ()
        self.execution: Execution | None = None
        self._sock = sock
        self._is_starting = True
        sock.setblocking(False)

    async def run(self, asked: OneOff, surroundings: Surroundings) -> None:
        """Take the descriptors, run the command, and say how it ended."""
        self.command = asked.command
        descriptors: list[int] = []
        try:
            async with asyncio.timeout(_HANDED_S):
                descriptors = await self._descriptors(asked.descriptors)
            self.execution = await self._begin(asked, surroundings, descriptors)
        except (NotExecuted, OSError, TimeoutError, ValueError) as exc:
            self._say(error=str(exc) or "its descriptors did not come")
            self._end()
            return
        finally:
            for fd in descriptors:
                os.close(fd)
        self._is_starting = False
        pid, command = self.execution.pid, asked.command[0]
        log.info("command is executed", app=self.app, process="exec", pid=pid, command=command)
        self._say(pid=pid)
        await self._attend(self.execution)

    async def _descriptors(self, count: int) -> list[int]:
        """What was handed over; more, or fewer, than ``count`` are refused. Raises ``ValueError``, ``OSError``."""
        await _readable(self._sock)
        _, found, flags, _ = socket.recv_fds(self._sock, 1, count)
        if len(found) != count or flags & socket.MSG_CTRUNC:
            for fd in found:
                os.close(fd)
            raise ValueError(f"{len(found)} descriptors came, and {count} are needed")
        return found

    async def _begin(self, asked: OneOff, surroundings: Surroundings, descriptors: Sequence[int]) -> Execution:
        plain = iter(descriptors)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            streams = [null if number in asked.terminal else next(plain) for number in range(STREAMS)]
            if not asked.terminal:
                return await Execution.begin(surroundings, asked.command, "exec", streams=streams)
            sink = next(plain)
            extra = {"terminal": sink, "streams": list(asked.terminal), "size": list(asked.size)}
            environ = {"TERM": asked.term} if asked.term else {}
            return await Execution.begin(
                surroundings, asked.command, "exec", streams=streams, extra=extra, pass_fds=[sink], environ=environ
            )
        finally:
            os.close(null)

    async def _attend(self, execution: Execution) -> None:
        asking = asyncio.ensure_future(self._hear(execution))
        await asyncio.wait((asking, execution.ending), return_when=asyncio.FIRST_COMPLETED)
        if not execution.ending.done():  # whoever asked has gone
            await execution.stop(signal.SIGHUP, _PATIENCE_S)
        await cancelled(asking)
        ending = execution.ending.result()
        log.info("command has ended", app=self.app, process="exec", pid=execution.pid, reason=ending.reason)
        self._say(exit=ending.exit_code, reason=ending.reason)
        self._end()

    async def _hear(self, execution: Execution) -> None:
        """Pass signals on, until whoever asked has gone."""
        loop, rest = asyncio.get_running_loop(), b""
        with contextlib.suppress(OSError):
            while data := await loop.sock_recv(self._sock, _LINE_MAX):
                *lines, rest = (rest + data).split(b"\n")
                if len(rest) > _LINE_MAX:
                    return
                for line in lines:
                    with contextlib.suppress(ValueError, TypeError, KeyError):
                        execution.signal_group(signal.Signals(int(json.loads(line)["signal"])))

    def _say(self, **what: object) -> None:
        with contextlib.suppress(OSError):
            self._sock.send(json.dumps(what).encode() + b"\n")

    def stop(self) -> None:
        """Tell the command to end: the daemon does."""
        if self.execution is not None:
            self.execution.signal_group(signal.SIGHUP)
            self.execution.signal_group(signal.SIGTERM)

    def kill(self) -> None:
        """End the command by force."""
        if self.execution is not None:
            self.execution.kill()

    def _end(self) -> None:
        self._is_starting = False
        self._sock.close()

    # -- going on in another image of the daemon -----------------------------------------------------------------

    @property
    def is_settled(self) -> bool:
        """It is not being started, or reaped, just now."""
        return not self._is_starting and self.execution is not None and self.execution.is_settled

    def snapshot(self) -> SessionSnapshot | None:
        """Return what ``go_on`` needs in another image of the daemon; None when nothing runs yet."""
        sock = self._sock.fileno()
        if self.execution is None or sock < 0:
            return None
        execution = self.execution.snapshot()
        return SessionSnapshot(app=self.app, command=list(self.command), sock=sock, execution=execution)

    async def go_on(self, saved: SessionSnapshot) -> None:
        """Go on where ``saved`` says."""
        self.command = tuple(saved.command)
        self.execution = Execution.restored(self.app, saved.execution)
        self._is_starting = False
        await self._attend(self.execution)


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(sock.fileno(), lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(sock.fileno())
