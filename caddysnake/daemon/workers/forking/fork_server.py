"""Fork servers, seen from the daemon: one per interpreter, interface, preload set and interpreter environment."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess

from .... import files
from ....channel.codes import failure
from ....channel.endpoint import ChannelError, pair
from ....channel.messages import Failed, Message, Prepared, Reap, Reaped, Spawn, Spawned
from ....installation import PACKAGE
from ...system import processes
from ...system.as_json import plain
from ...system.log.fields import FieldLog
from ...system.log.held import HeldOutput
from ...system.log.records import printable
from ...system.processes import Process
from ...system.state import ForkServerSnapshot
from ...system.tasks import KeptTasks
from ...system.timings import TIMINGS, Timings
from ..child.child import Launcher
from ..child.launcher import ForkServerKey, SpawnError
from ..child.peer import UNASKED_A_SECOND, Peer
from . import ahead
from .interpreter import Sight, execute

log = FieldLog("caddysnake.spawner")

_LEAVE_S = 1.0
"""After it has closed its channel."""
_HEARD_S = 5.0
"""So long what it says, before it is ready, may wait in the pipe."""
_LINE_MAX = 300


class ForkServer(Launcher):
    """One fork server process. ``gone`` is set when it has ended."""

    def __init__(
        self,
        key: ForkServerKey,
        libraries: list[str],
        sight: Sight,
        saved: ForkServerSnapshot | None = None,
        timings: Timings = TIMINGS,
    ) -> None:
        """``sight``: what it is started from. ``saved``: it is taken over. Raises ``OSError``, ``SpawnError``."""
        self._key = key
        self.sight = sight
        self._libraries = libraries
        self.timings = timings
        self._loop = asyncio.get_running_loop()
        self.process: Process
        self._output = HeldOutput()
        if saved is None:
            self.process, ours = self._execute()
            self._output.hold(self.process.pid, _HEARD_S)
            self._pidfd = os.pidfd_open(self.process.pid)
        else:
            self.process, ours = processes.InheritedChild(saved.pid), socket.socket(fileno=saved.channel)
            self._pidfd = saved.pidfd
            self._output.restore(saved.outlets)
        self.gone = asyncio.Event()
        self.workers: set[int] = set()
        self._busy_at = self._loop.time()
        self.peer = Peer(ours, UNASKED_A_SECOND, self._hear, self._on_closed, self._on_breach)
        self._prepared: asyncio.Future[str] = self._loop.create_future()
        self._forks: dict[int, asyncio.Future[int]] = {}
        self._reaps: dict[int, asyncio.Future[int]] = {}
        self._unwanted: set[int] = set()  # asked for, and given up before their pid was known
        self._reapings = KeptTasks()
        self._waiting = 0  # for it to be ready
        self._broken = ""  # the rule that it was killed for
        if saved is not None:
            self._resume(saved)
        self._loop.add_reader(self._pidfd, self._on_exit)
        self.peer.listen()

    @property
    def pid(self) -> int:
        """The fork server's, the parent of its workers."""
        return self.process.pid

    def _execute(self) -> tuple[Process, socket.socket]:
        key = self._key
        if self.sight.cannot:
            raise SpawnError("setup-failed", self.sight.cannot)
        options: dict[str, object] = {
            "interface": key.interface,
            "preload": list(key.preload),
            "path": list(self.sight.path),
            "is_walled": self.sight.walls is not None,
        }
        if key.account is None and self.sight.walls is None:
            found = ahead.claim(self.sight.python, key.interface, dict(key.environ), options)
            if found is not None:
                content = {"logger": "spawner", "fields": self._fields(), "streams": ["stdout", "stderr"]}
                if self._output.restore({"content": content, "readers": found.readers}):
                    return found.process, found.channel
                found.end()  # nobody would read what it writes: the next one has our own output
        ours, theirs = pair()
        options |= {"channel": theirs.fileno(), "libraries": self._libraries}
        bootstrap = str(PACKAGE / "worker" / "bootstrap.py")
        try:
            streams = [None, *self._output.open("spawner", self._fields(), ("stdout", "stderr"))]
            command = [self.sight.python, bootstrap, json.dumps(options)]
            process = execute(key.account, dict(key.environ), command, [theirs.fileno()], streams, self.sight.walls)
        except (OSError, subprocess.SubprocessError) as exc:
            ours.close()
            self._output.end()
            why = getattr(exc, "strerror", None) or exc
            raise SpawnError("setup-failed", f"cannot run {key.python}: {why}{self._hint()}", fatal=True) from None
        except SpawnError:
            ours.close()
            self._output.end()
            raise
        finally:
            theirs.close()
        return process, ours

    def _fields(self) -> dict[str, object]:
        """What names it in the log."""
        return {"python": self._key.python, **({} if self.sight.walls is None else {"walled": True})}

    def snapshot(self) -> ForkServerSnapshot:
        """All that whoever goes on with it must know."""
        prepared, useless = None, None
        if self._prepared.done():
            problem = self._prepared.exception()
            if problem is None:
                prepared = self._prepared.result()
            else:
                useless = (getattr(problem, "code", "spawn-failed"), str(problem))
        return ForkServerSnapshot(
            pid=self.pid,
            pidfd=self._pidfd,
            channel=self.peer.channel,
            key=plain(self._key),
            prepared=prepared,
            useless=useless,
            outlets=self._output.snapshot(),
            workers=sorted(self.workers),
            idle_s=self.idle_for(self._loop.time()),
        )

    def _resume(self, saved: ForkServerSnapshot) -> None:
        self.workers = set(saved.workers)
        self._busy_at -= saved.idle_s
        if saved.prepared is not None:
            self._prepared.set_result(saved.prepared)
        elif saved.useless is not None:
            self._fail_prepared(SpawnError(failure(saved.useless[0]), saved.useless[1], fatal=True))

    def _hint(self) -> str:
        """What keeps it from running, or its user from running it, if it is plain to see."""
        if self.sight.is_script:
            return (
                f"\n({self._key.python} is a script, which starts an interpreter that may be another each time. "
                "Name that one instead: its path is what `import sys; print(sys.executable)` says in it.)"
            )
        account = self._key.account
        if account is None:
            return ""
        gids = frozenset((account.gid, *account.groups))
        for path in (self._key.python, str(PACKAGE / "worker" / "bootstrap.py"), *self._libraries[:1]):
            closed = files.closed_to(path, account.uid, gids)
            if closed is not None:
                return (
                    f"\n(User {account.name} may not read {path}: the mode of {closed} keeps it out. "
                    "Install Python, and caddysnake, where every user may read them.)"
                )
        return ""

    async def prepared(self) -> str:
        """Wait for the preloads; what runs, such as ``CPython 3.13.0``. Raises ``SpawnError``."""
        self._waiting += 1
        try:
            return await asyncio.wait_for(asyncio.shield(self._prepared), self.timings.prepare_s)
        except TimeoutError:
            self.kill()  # or the next worker would wait for it as long
            raise SpawnError("import-failed", f"preload not done within {self.timings.prepare_s:g}s") from None
        finally:
            self._waiting -= 1

    def gave_up(self) -> None:
        """See ``Launcher.gave_up``. One that hangs as it gets ready goes with the last who waits for it."""
        if not self._prepared.done() and not self._waiting:
            self.kill()

    def idle_for(self, now: float) -> float:
        """For how many seconds it has had no worker and nothing to do."""
        if self.workers or self._forks or not self._prepared.done():
            self._busy_at = now
        return now - self._busy_at

    @property
    def is_useless(self) -> bool:
        """It could not be prepared."""
        return self._prepared.done() and self._prepared.exception() is not None

    async def fork(self, worker: int, channel: int, grace_s: float) -> tuple[int, int]:
        """Fork worker number ``worker`` on the caller's ``channel``: pid and pidfd. Raises ``SpawnError``."""
        self._busy_at = self._loop.time()
        await self.prepared()
        answer: asyncio.Future[int] = self._loop.create_future()
        self._forks[worker] = answer
        is_asked = is_taken = False
        try:
            if not self.peer.hand_over(Spawn(worker, grace_s), [channel]):
                raise SpawnError("spawn-failed", "its channel is full")
            is_asked = True
            pid = await asyncio.wait_for(answer, self.timings.fork_s)
            pidfd = processes.open_child_of(self.pid, pid)
            is_taken = True
        except OSError as exc:  # ChannelClosed and TimeoutError among them
            why = f"no worker from the spawner of {self._key.python}: {exc}{self._hint()}"
            raise SpawnError("spawn-failed", why) from None
        finally:
            is_waiting = self._forks.pop(worker, None) is not None
            if is_asked and is_waiting and not is_taken:
                self._give_up(worker, answer)
        self.workers.add(worker)
        return pid, pidfd

    def _give_up(self, worker: int, answer: asyncio.Future[int]) -> None:
        """Nobody waits for ``worker`` any more. What was forked, or will be, is ended and reaped all the same."""
        if answer.cancelled() or not answer.done():
            self._unwanted.add(worker)  # its pid is yet to come
        elif answer.exception() is None:
            self._end(worker, answer.result())

    def _end(self, worker: int, pid: int) -> None:
        if pid > 0:
            self._reapings.begin(self._reap_in_order(worker, pid))

    async def _reap_in_order(self, worker: int, pid: int) -> None:
        try:
            pidfd = processes.open_child_of(self.pid, pid)
        except OSError:
            return  # the pid is its claim; or it has died, and we reap what we inherit
        with files.closing(pidfd):
            self.end(worker, pid, pidfd)
            await self.reap(worker, pidfd)

    async def reap(self, worker: int, gone: int) -> int | None:
        """The wait status of a worker that has ended; None when it cannot be learnt. ``gone``: its pidfd."""
        self.workers.discard(worker)
        if not self.gone.is_set():
            answer: asyncio.Future[int] = self._loop.create_future()
            self._reaps[worker] = answer
            try:
                if self.peer.send(Reap(worker)):
                    return await asyncio.wait_for(answer, self.timings.fork_s)
            except (TimeoutError, SpawnError):
                pass
            finally:
                self._reaps.pop(worker, None)
        return processes.reap(gone)  # its fork server is dead, and we are the heir

    @property
    def is_asked(self) -> bool:
        """It has something to answer."""
        return bool(self._forks or self._reaps)

    @property
    def is_open(self) -> bool:
        """It is there, and was not told to leave."""
        return not self.gone.is_set() and self.peer.is_open

    def close(self) -> None:
        """Let it leave: it does when its channel ends and it has no children."""
        self.peer.close()

    def kill(self) -> None:
        """SIGKILL. Workers it has forked live on."""
        if not self.gone.is_set():
            self.process.kill()

    def _on_closed(self) -> None:
        self._loop.call_later(_LEAVE_S, self.kill)  # it is ending, and its status says of what; or of no use

    def _on_breach(self, what: str) -> None:
        log.error("spawner broke a rule of the channel", pid=self.pid, error=what)
        self._broken = f"it broke a rule of the channel: {what}"
        self.kill()

    def _hear(self, message: Message) -> None:
        if isinstance(message, Prepared) and not self._prepared.done():
            self._output.release()
            self._prepared.set_result(message.detail)
        elif isinstance(message, Failed) and not self._prepared.done():
            text = message.text + (self._hint() if message.code == "setup-failed" else "")
            self._fail_prepared(SpawnError(failure(message.code), text, fatal=True))
        elif isinstance(message, Spawned):
            self._spawned(message.worker, message.pid)
        elif isinstance(message, Reaped):
            self._answered(self._reaps.get(message.worker), message.status)
        else:
            raise ChannelError(f"{type(message).__name__} from a spawner")

    def _spawned(self, worker: int, pid: int) -> None:
        waiting = self._forks.get(worker)
        # Who is cancelled comes to say so a turn later than what it waits for.
        if worker in self._unwanted or (waiting is not None and waiting.cancelled()):
            self._unwanted.discard(worker)
            self._forks.pop(worker, None)
            self._end(worker, pid)
        else:
            self._answered(waiting, pid)

    def _answered(self, waiting: asyncio.Future[int] | None, value: int) -> None:
        if waiting is not None and not waiting.done():
            waiting.set_result(value)
        else:  # what was asked for is no flood, however much it is
            self.peer.count(" that nobody waits for")

    def _on_exit(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self.peer.hear_last_words()
        code = self.process.wait()
        how = self._broken or f"it ended with {processes.describe_exit(-code if code < 0 else code << 8)}"
        if said := self._output.said("stderr").strip():
            how += f", and said at last: {printable(said.splitlines()[-1].strip()[:_LINE_MAX])}"
        self.gone.set()
        self.close()
        self._output.end()
        self._fail_prepared(SpawnError("spawn-failed", f"{self._key.python} was not ready: {how}{self._hint()}"))
        for answer in (*self._forks.values(), *self._reaps.values()):
            if not answer.done():
                why = f"no worker from the spawner of {self._key.python}: {how}"
                answer.set_exception(SpawnError("spawn-failed", why))
        if self.workers:
            log.error("spawner died; its workers go on", pid=self.pid, error=how)

    def _fail_prepared(self, error: SpawnError) -> None:
        if not self._prepared.done():
            self._prepared.set_exception(error)
            self._prepared.exception()  # somebody may wait for it, or nobody
