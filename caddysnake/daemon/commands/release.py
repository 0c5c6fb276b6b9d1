"""Release commands: one after the other, before the first worker of a build; who is refused says why."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import signal
from collections import deque
from collections.abc import Callable, Iterable

from .execution import Execution, NotExecuted
from .spec import ReleaseCommand
from .surroundings import Surroundings

log = logging.getLogger("caddysnake.app")

Tell = Callable[[str, str], None]
"""``tell(app, line)`` hears what release commands write."""

_PATIENCE_S = 10.0
"""What is to end has so long until it is ended by force."""
_CHUNK, _LINE_MAX, _KEPT = 16 * 1024, 4096, 40
_LINES_A_SECOND = 2000
_LOOK_S = 0.02
_ENDED_INPUT = ("EOFError", "EOF when reading", "end of file", "not a tty")


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


def told(command: Iterable[str]) -> str:
    """Return ``command`` as a shell would take it."""
    return shlex.join(command)


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
    app, what = surroundings.app, told(each.command)
    fields = {"app": app, "process": "release", "command": what}
    log.info("release command begins", extra={"fields": fields})
    if tell is not None:
        tell(app, f"$ {what}")
    output = _Output(app, tell)
    try:
        execution = await Execution.begin(
            surroundings, each.command, "release", streams=[None, output.writer, output.writer]
        )
    except NotExecuted as exc:
        output.close()
        raise ReleaseFailed(f"release {what}: {exc}") from None
    except BaseException:
        output.close()
        raise
    output.begin()
    try:
        await asyncio.wait((execution.ending,), timeout=each.timeout_s)
        is_late = not execution.ending.done()
        ending = await execution.stop(signal.SIGTERM, _PATIENCE_S) if is_late else execution.ending.result()
    except asyncio.CancelledError:
        await asyncio.shield(execution.stop(signal.SIGTERM, _PATIENCE_S))
        output.end()
        log.warning("release command was ended: the change was cancelled", extra={"fields": fields})
        raise
    output.end()
    if is_late:
        raise ReleaseFailed(f"release {what}: not done within {each.timeout_s:g}s{output.last()}")
    if not ending.is_good:
        raise ReleaseFailed(f"release {what}: {ending.reason}{output.last()}")
    log.info("release command is done", extra={"fields": {**fields, "duration": round(ending.duration_s, 3)}})


class _Output:
    """What a release command writes: for whoever reads along, and the log. One that is faster waits."""

    def __init__(self, app: str, tell: Tell | None) -> None:
        self._app = app
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._reader, self.writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._reader, False)
        self._rest = b""
        """Of a line that has no end yet; at last, of one that never got one, as that of a question."""
        self._kept: deque[str] = deque(maxlen=_KEPT)
        self._pause: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """The command has its end."""
        os.close(self.writer)
        self.writer = -1
        self._loop.add_reader(self._reader, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._reader, _CHUNK)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(self._reader)
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LINE_MAX:
            lines, self._rest = [*lines, self._rest], b""
        for line in lines:
            self._say(line)
        if len(lines) > 1:  # nobody's terminal is faster, and the daemon has others to see to
            self._loop.remove_reader(self._reader)
            self._pause = self._loop.call_later(len(lines) / _LINES_A_SECOND, self._resume)

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._reader, self._read)

    def _say(self, line: bytes) -> None:
        text = line.decode("utf-8", "backslashreplace").rstrip("\r")[:_LINE_MAX]
        self._kept.append(text)
        log.info(text, extra={"fields": {"app": self._app, "process": "release"}})
        if self._tell is not None:
            self._tell(self._app, text)

    def last(self) -> str:
        """What it said at last, as the end of a message."""
        said = "\n".join(self._kept).rstrip()
        hint = ""
        if self._rest or any(word.lower() in said.lower() for word in _ENDED_INPUT):
            hint = "\n(Nothing is on its standard input: give it an option that asks no questions, such as --noinput.)"
        return f"\n{said}{hint}" if said else hint

    def end(self) -> None:
        """The command has ended: what is left in the pipe is read."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        self._loop.remove_reader(self._reader)
        left = b""
        try:
            while len(left) < 1 << 16 and (data := os.read(self._reader, _CHUNK)):
                left += data
        except BlockingIOError:
            pass  # somebody else has the other end still
        *lines, self._rest = (self._rest + left).split(b"\n")
        for line in filter(None, (*lines, self._rest)):
            self._say(line)
        self.close()

    def close(self) -> None:
        """Let go of the pipe."""
        for fd in (self._reader, self.writer):
            if fd >= 0:
                os.close(fd)
        self._reader = self.writer = -1
