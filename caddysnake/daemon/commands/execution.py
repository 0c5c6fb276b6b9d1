"""One command, executed as its app is: a session of its own, its app's limits, a cgroup where there can be any.

It is executed by the app's own interpreter, which is started by the code that starts interpreters, waits until it is in
its cgroup, and then becomes the command (``worker.execute``). It gets nothing on its standard input unless somebody
passes it one, and what it writes is in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypedDict, Unpack

from ...channel.gate import GO, GO_GROUPED
from ...config.plan.accounts import Account
from ...installation import PACKAGE
from ..system import cgroups, processes
from ..system.log.fields import FieldLog
from ..system.log.pipes import OutputPipes
from ..system.log.process import logger
from ..system.processes import InheritedChild, Process
from ..system.snapshots import ExecutionSnapshot
from ..workers.child.launcher import SpawnError
from ..workers.forking.interpreter import execute
from . import leftovers
from .surroundings import Surroundings

log = FieldLog("caddysnake.app")

_STARTED_S = 30.0
"""Until its interpreter has become it."""
_ANSWER_MAX = 4096

_live: set[int] = set()


def pids() -> set[int]:
    """Return the processes of all commands: whoever reaps strays leaves them alone."""
    return set(_live)


class NotExecuted(Exception):
    """The command was not executed. The text says why."""


class Ending(NamedTuple):
    """How a command has ended. ``status``: as wait(2) has it; None: it cannot be learnt."""

    status: int | None
    duration_s: float
    reason: str
    """For people: ``exit status 1``, ``signal SIGKILL``, or why the kernel has killed it."""

    @property
    def is_good(self) -> bool:
        """Its exit status was 0."""
        return self.status == 0

    @property
    def exit_code(self) -> int:
        """As shells have it: 128 and the number of the signal that ended it."""
        if self.status is None:
            return 255
        code = os.waitstatus_to_exitcode(self.status)
        return code if code >= 0 else 128 - code


class _How(TypedDict, total=False):
    streams: Sequence[int | None]
    """Its standard input, output and error, the caller's; without, nothing is read, and what it writes is logged."""
    extra: Mapping[str, Any]
    """For ``worker.execute``."""
    pass_fds: Sequence[int]
    death_signal: int
    """What it gets if the daemon is killed: SIGTERM."""
    environ: Mapping[str, str]


class Execution:
    """A command that runs. ``name``: what it is called in the log."""

    def __init__(self, app: str, name: str, process: Process, pidfd: int, mark: str) -> None:
        self.app = app
        self.name = name
        self.pid = process.pid
        self.started_at = time.time()
        self.ending: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        """Done when nothing of it is left that can be ended."""
        self._process = process
        self._pidfd = pidfd
        self._mark = mark
        self._group: cgroups.Group | None = None
        self._outlets: OutputPipes | None = None
        self._reaping: asyncio.Task[None] | None = None
        self._reaped: Ending | None = None
        """How it has ended, while something that it left is still looked for."""
        if pidfd >= 0:
            _live.add(self.pid)
            asyncio.get_running_loop().add_reader(pidfd, self._on_exit)

    @classmethod
    async def begin(
        cls, surroundings: Surroundings, command: Sequence[str], name: str, **how: Unpack[_How]
    ) -> Execution:
        """Return ``command``, which is being executed; who is cancelled leaves nothing behind. Raises ``NotExecuted``.
        """
        beginning = asyncio.ensure_future(cls._begin(surroundings, command, name, how))
        try:
            return await asyncio.shield(beginning)
        except asyncio.CancelledError:
            beginning.add_done_callback(_kill_unwanted)
            await asyncio.wait((beginning,))
            if beginning.exception() is None:
                await asyncio.wait((beginning.result().ending,))
            raise

    @classmethod
    async def _begin(cls, surroundings: Surroundings, command: Sequence[str], name: str, how: _How) -> Execution:
        streams, extra = how.get("streams"), how.get("extra", {})
        if surroundings.cannot:
            raise NotExecuted(surroundings.cannot)
        gate, theirs = socket.socketpair()
        pipes: OutputPipes | None = None
        mark = secrets.token_hex(8)
        terminal: int | None = None
        try:
            if surroundings.walls is not None and "terminal" in extra:
                terminal = _new_terminal(extra["terminal"], surroundings.account)
                extra = {**extra, "opened": terminal}
            if streams is None:
                fields: dict[str, Any] = {"app": surroundings.app, "process": name}
                fields |= {} if surroundings.walls is None else {"walled": True}
                pipes = logger.outlets("app", fields, ("stdout", "stderr"))
                streams = [None, *(pipes.writers if pipes is not None else [None, None])]
            options = {
                "gate": theirs.fileno(),
                "working_dir": surroundings.working_dir,
                "limits": dict(surroundings.limits),
                "death_signal": int(how.get("death_signal", signal.SIGTERM)),
                **extra,
            }
            bootstrap = str(PACKAGE / "worker" / "bootstrap.py")
            words = [surroundings.python, "-IBS", "-X", "utf8", bootstrap, json.dumps(options)]
            words += surroundings.words(command)
            own = {**surroundings.environ, **how.get("environ", {}), leftovers.MARK: mark}
            walls = surroundings.walls
            handed = [theirs.fileno(), *how.get("pass_fds", ()), *([] if terminal is None else [terminal])]
            process = await asyncio.to_thread(execute, surroundings.account, own, words, handed, streams, walls)
        except (OSError, ValueError, SpawnError, subprocess.SubprocessError) as exc:
            gate.close()
            if pipes is not None:
                pipes.end()
            why = getattr(exc, "strerror", None) or exc
            raise NotExecuted(f"cannot run {surroundings.python}: {why}") from None
        finally:
            theirs.close()
            if terminal is not None:
                os.close(terminal)
        execution = cls(surroundings.app, name, process, os.pidfd_open(process.pid), mark)
        execution._outlets = pipes
        if pipes is not None:
            pipes.handed()
            pipes.begin(process.pid)
        with gate:
            problem = await execution._let_go(gate, surroundings)
        if problem:
            execution.kill()
            await execution.ending
            raise NotExecuted(problem)
        return execution

    async def _let_go(self, gate: socket.socket, surroundings: Surroundings) -> str:
        """Put it into its cgroup, and let it become the command; why it did not, if it did not."""
        bounds = cgroups.bounds_of(surroundings.limits)
        if cgroups.root() is not None:
            self._group = await cgroups.Group.of(f"{self.app}-{self.name}", self._mark, self.pid, bounds)
        gate.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            is_limited = self._group is not None and "memory" in bounds
            await loop.sock_sendall(gate, GO_GROUPED if is_limited else GO)
            async with asyncio.timeout(_STARTED_S):
                answer = await loop.sock_recv(gate, _ANSWER_MAX)
        except TimeoutError:
            return f"it was not executed within {_STARTED_S:g}s"
        except OSError as exc:
            return f"{surroundings.python} ended before it became the command: {exc.strerror}"
        return _told(answer, surroundings) if answer else ""

    # -- its end -------------------------------------------------------------------------------------------------

    def signal(self, number: int) -> None:
        """Send it a signal. Nothing happens when it has ended."""
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self._pidfd, number)

    def signal_group(self, number: int) -> None:
        """Send a signal to it, and to those of its process group, as a terminal does."""
        if self._pidfd >= 0 and not self.ending.done():
            with contextlib.suppress(OSError):
                os.killpg(self.pid, number)

    def kill(self) -> None:
        """End it, and what it has started, by force."""
        if self._pidfd >= 0:
            processes.kill_group(self._pidfd, self.pid)
        if self._group is not None:
            self._group.end()

    async def stop(self, number: int, patience_s: float | None) -> Ending:
        """Send it signal ``number``, and wait for its end; after ``patience_s`` seconds it is ended by force."""
        self.signal(number)
        await asyncio.wait((self.ending,), timeout=patience_s)
        self.kill()
        return await asyncio.shield(self.ending)

    def on_end(self, hear: Callable[[Ending], None]) -> None:
        """Have ``hear`` called when it has ended."""
        self.ending.add_done_callback(lambda done: None if done.cancelled() else hear(done.result()))

    def _on_exit(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._pidfd)
        self._reaping = loop.create_task(self._reap())

    async def _reap(self) -> None:
        """End what it has started, reap it, and say how it ended. Its number is its own until it is reaped."""
        duration_s = time.time() - self.started_at
        processes.kill_group(self._pidfd, self.pid)
        why = ""
        if self._group is not None:
            why = await self._group.why_killed()
            await self._group.remove()
        else:
            await asyncio.to_thread(leftovers.end_session, self.pid)
        code = self._process.wait()
        status = -code if code < 0 else code << 8
        self._reaped = Ending(status, duration_s, why or processes.describe_exit(status))
        _live.discard(self.pid)
        os.close(self._pidfd)
        self._pidfd = -1
        if self._outlets is not None:
            self._outlets.end()
        if self._group is None:
            await self._tell_left()
        if not self.ending.done():
            self.ending.set_result(self._reaped)

    async def _tell_left(self) -> None:
        for pid, command in (await asyncio.to_thread(leftovers.marked, self._mark, pids())).items():
            hint = "it left the session of what started it; where the service has Delegate=yes it is ended, too"
            fields: dict[str, Any] = {"app": self.app, "process": self.name, "pid": pid, "command": command}
            log.warning("a process was left behind", **fields, hint=hint)

    # -- going on in another image of the daemon -----------------------------------------------------------------

    @property
    def is_settled(self) -> bool:
        """It is not being reaped just now."""
        return self._reaping is None or self._reaping.done()

    def snapshot(self) -> ExecutionSnapshot:
        """Return what ``restored`` needs in another image of the daemon."""
        return ExecutionSnapshot(
            name=self.name,
            pid=self.pid,
            pidfd=self._pidfd,
            mark=self._mark,
            started_at=self.started_at,
            group=self._group.snapshot() if self._group is not None else None,
            outlets=self._outlets.state() if self._outlets is not None and self._reaped is None else None,
            reaped=self._reaped,
        )

    @classmethod
    def restored(cls, app: str, saved: ExecutionSnapshot) -> Execution:
        """Return what ``snapshot`` told of."""
        found = cls(app, saved.name, InheritedChild(saved.pid), saved.pidfd, saved.mark)
        found.started_at = saved.started_at
        found._group = cgroups.Group(*saved.group) if saved.group is not None else None
        found._outlets = logger.adopt_outlets(saved.outlets)
        if saved.reaped is not None:
            found.ending.set_result(Ending(*saved.reaped))
        return found


def _new_terminal(sink: int, account: Account | None) -> int:
    """A pseudo-terminal for a command in a sandbox; its other side goes into ``sink``. Raises ``OSError``."""
    other, ours = os.openpty()
    try:
        if account is not None:
            os.fchown(ours, account.uid, account.gid)
        with socket.socket(fileno=os.dup(sink)) as sock:
            socket.send_fds(sock, [b"t"], [other])
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(other)
    return ours


def _kill_unwanted(beginning: asyncio.Future[Execution]) -> None:
    if not beginning.cancelled() and beginning.exception() is None:
        beginning.result().kill()


def _told(answer: bytes, surroundings: Surroundings) -> str:
    """What its interpreter has said of why it did not become the command: a tenant's word, and cut."""
    try:
        said = json.loads(answer)
        what, number, text = str(said["what"])[:200], said["errno"], str(said["text"])[:200]
    except (ValueError, TypeError, KeyError):
        return "it was not executed"
    user = "this user" if surroundings.account is None else f"user {surroundings.account.name}"
    if number == 2 and os.sep not in what:
        first, *more = surroundings.environ["PATH"].split(os.pathsep)
        where = f"{first}{', nor elsewhere in PATH' if more else ''}"
        return f"{what}: there is no such command for {user} in {where}. Install it there, or write its whole path"
    if what == surroundings.working_dir:
        return f"working_dir {what}: {text}, for {user}"
    return f"{what}: {text}, for {user}"
