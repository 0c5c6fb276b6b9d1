"""Release commands: one after the other, before the first worker of a build; who is refused says why."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from ...channel.settings import sealed
from ..system.log.fields import FieldLog
from ..system.tasks import cancelled
from .execution import Execution, NotExecuted
from .spec import ReleaseCommand
from .surroundings import Surroundings

log = FieldLog("caddysnake.app")

Tell = Callable[[str, str], None]
"""``tell(app, line)`` hears what release commands write."""

_PATIENCE_S = 10.0
"""What is to end has so long until it is ended by force."""
_CHUNK, _LINE_MAX, _KEPT = 16 * 1024, 4096, 40
_LINES_A_SECOND = 2000
_LOOK_S = 0.02
_LEFT_S = 0.5


class Releases:
    """Those that run. An upgrade of the daemon waits for them: what was half done would be begun anew."""

    def __init__(self) -> None:
        self.under_way: list[str] = []
        """For people: whose they are."""
        self.is_held = False
        """None begins."""

    async def hold(self) -> None:
        """Begin none until ``is_held`` is taken back, and wait for those that run."""
        self.is_held = True
        while self.under_way:  # noqa: ASYNC110  # seldom, and for a moment or for minutes
            await asyncio.sleep(_LOOK_S)


releases = Releases()
"""Of this process."""


class ReleaseFailed(Exception):
    """A release command has failed. The text says which, how, and what it said at last."""


async def release(commands: Iterable[ReleaseCommand], surroundings: Surroundings, tell: Tell | None = None) -> None:
    """Run ``commands``. Raises ``ReleaseFailed``; who is cancelled ends the one that runs."""
    while releases.is_held:  # noqa: ASYNC110
        await asyncio.sleep(_LOOK_S)
    releases.under_way.append(surroundings.app)
    try:
        for each in commands:
            await _run(each, surroundings, tell)
    finally:
        releases.under_way.remove(surroundings.app)


async def _run(each: ReleaseCommand, surroundings: Surroundings, tell: Tell | None) -> None:
    app, what = surroundings.app, shlex.join(each.command)
    fields: dict[str, Any] = {"app": app, "process": "release", "command": what}
    log.info("release command begins", **fields)
    if tell is not None:
        tell(app, f"$ {what}")
    output = _Output(app, tell)
    try:
        execution = await Execution.begin(
            surroundings, each.command, "release", streams=[output.stdin, output.writer, output.writer]
        )
    except BaseException as exc:
        output.close()
        if isinstance(exc, NotExecuted):
            raise ReleaseFailed(f"release {what}: {exc}") from None
        raise
    output.begin()
    try:
        await asyncio.wait((execution.ending,), timeout=each.timeout_s)
        is_late = not execution.ending.done()
        ending = await execution.stop(signal.SIGTERM, _PATIENCE_S) if is_late else execution.ending.result()
    except asyncio.CancelledError:
        await asyncio.shield(execution.stop(signal.SIGTERM, _PATIENCE_S))
        await output.end()
        log.warning("release command was ended: the change was cancelled", **fields)
        raise
    await output.end()
    if is_late or not ending.is_good:
        why = f"not done within {each.timeout_s:g}s" if is_late else ending.reason
        raise ReleaseFailed(f"release {what}: {why}{output.last()}")
    log.info("release command is done", **fields, duration=round(ending.duration_s, 3))


class _Output:
    """What a release command writes: for whoever reads along, and the log. One that is faster waits."""

    def __init__(self, app: str, tell: Tell | None) -> None:
        self._app = app
        self._tell = tell
        reader, self.writer = os.pipe2(os.O_CLOEXEC)
        self._reader = os.fdopen(reader, "rb", 0)
        self.stdin = sealed("caddysnake-stdin", b"")
        """An empty file: when it was read is seen."""
        os.utime(self.stdin, (0, 0))
        self._has_read = False
        self._rest = b""
        self._kept: deque[str] = deque(maxlen=_KEPT)
        self._is_over = False
        self._reading: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """The command has its end."""
        os.close(self.writer)
        self._reading = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        stream = asyncio.StreamReader(limit=_CHUNK)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), self._reader
        )
        try:
            while data := await stream.read(_CHUNK):
                *lines, self._rest = (self._rest + data).split(b"\n")
                if len(self._rest) > _LINE_MAX:
                    lines, self._rest = [*lines, self._rest], b""
                for line in lines:
                    self._say(line)
                if len(lines) > 1 and not self._is_over:  # nobody's terminal is faster, and there are others to see to
                    await asyncio.sleep(len(lines) / _LINES_A_SECOND)
        finally:
            transport.close()

    def _say(self, line: bytes) -> None:
        text = line.decode("utf-8", "backslashreplace").rstrip("\r")[:_LINE_MAX]
        self._kept.append(text)
        log.info(text, app=self._app, process="release")
        if self._tell is not None:
            self._tell(self._app, text)

    def last(self) -> str:
        """What it said at last, as the end of a message."""
        said = "\n".join(self._kept).rstrip()
        hint = ""
        if self._has_read or "not a tty" in said:
            hint = "\n(Nothing is on its standard input: give it an option that asks no questions, such as --noinput.)"
        return (f"\n{said}" if said else "") + hint

    async def end(self) -> None:
        """The command has ended: what is left in the pipe is read; somebody else may keep its other end."""
        self._is_over = True
        if self._reading is not None:
            await asyncio.wait((self._reading,), timeout=_LEFT_S)
            await cancelled(self._reading)
        if self._rest:
            self._say(self._rest)
        self._has_read = os.fstat(self.stdin).st_atime_ns > 0
        os.close(self.stdin)

    def close(self) -> None:
        """It was not begun."""
        self._reader.close()
        os.close(self.writer)
        os.close(self.stdin)
