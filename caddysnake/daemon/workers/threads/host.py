"""A thread host, seen from the daemon: a process in which workers of several apps run as threads.

A host leaves as soon as it has no worker.

A thread cannot be ended by force. One that does not end is released: its connections are ended, it is given none, and
its host takes no further app. With two such the host is doomed: its workers are replaced, one after the other, by
others in another host, and then it is killed.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

from ....channel.endpoint import ChannelError, pair
from ....channel.messages import Cancel, Join, LeftBehind, Message, Reaped, Spawned
from ....channel.settings import Settings
from ...system import processes
from ...system import tempdirs as scratch
from ...system.as_json import plain
from ...system.log.fields import FieldLog
from ...system.state import ThreadHostSnapshot
from ..child.child import Child, Launcher
from ..child.equipment import configure, new_page, without
from ..child.launcher import ForkServerKey, SpawnError
from ..child.peer import UNASKED_A_SECOND, Peer, socket_of

log = FieldLog("caddysnake.host")

LOST_MAX = 2
"""Threads that do not end, after which a host is replaced."""

_JOIN_TIMEOUT_S = 30.0
_ANSWER_S = 5.0
"""Within which a host must say that it has heard; its main thread does nothing else, and needs the GIL for it."""
_LEAVE_S = 15.0
_GRACE_S = 30.0
_NAME = "thread host"


class HostPlace(NamedTuple):
    """What decides whether apps may be in one host, as far as the daemon knows it."""

    spawner: ForkServerKey
    """Without the interface, which does not matter."""
    environ: tuple[tuple[str, str], ...]
    limits: tuple[tuple[str, int], ...]
    folder: str = ""
    """The only working directory, where threads cannot have one each."""


class HostState(IntEnum):
    """How far a host is; it never goes back."""

    OPEN = 0  # takes apps that are new to it
    CLOSED = 1  # keeps its workers, and takes more of their apps
    DOOMED = 2  # too many of its threads do not end: its workers are to move
    LOST = 3  # its channel is closed, and nobody wanted that: it is killed
    LEAVING = 4  # was told to leave
    GONE = 5  # has ended


class ThreadHost:
    """One process. ``join`` has a worker run there."""

    def __init__(
        self,
        place: HostPlace,
        launcher: Launcher,
        on_crash: Callable[[ThreadHost], None],
        number: int,
        lost_s: float,
        settings: Settings | None,
        saved: ThreadHostSnapshot | None = None,
    ) -> None:
        """``lost_s``: as in ``Timings``. ``settings``: those of its first app.

        ``saved``: it runs already, and is taken over; ``restore`` it.

        Raises ``OSError``: there are no descriptors, or no memory, for it.
        """
        self.place = place
        self.launcher = launcher
        """What it is forked from."""
        self.number = number
        self.state = HostState.OPEN
        self.groups: dict[int, tuple[str, str]] = {}
        """Working directory and top-level module of each group that has a worker here."""
        self.is_private = False
        """For one app."""
        self.ever: set[int] = set()
        """All groups that have been here: libraries may remember them. After an upgrade none comes."""
        self.gone: asyncio.Event = asyncio.Event()
        self.status: int | None = None
        self._lost_s = lost_s
        self._loop = asyncio.get_running_loop()
        self._threads: dict[int, tuple[int, int]] = {}  # worker's number -> its group, and what tells of its end
        self._ended: dict[int, int] = {}  # their exit statuses, until asked for
        self._stragglers: dict[int, tuple[int, float]] = {}  # released -> their group, and when
        self._answers: dict[int, asyncio.Future[int]] = {}
        self._answer_by: float | None = None
        self._left_behind = 0
        self._idle_since: float | None = None
        self._reaping: asyncio.Task[None] | None = None
        self._on_crash = on_crash
        self._scratch: str | None = None
        ours, theirs = pair() if saved is None else (socket_of(saved.channel), None)
        self.peer = Peer(ours, UNASKED_A_SECOND, self._hear, lambda: self._hang_up(HostState.LOST), self._on_breach)
        limits = settings.limits if settings is not None else None
        self.child = Child(number, _NAME, limits, self.peer, theirs)
        self._settings = settings
        if saved is None:
            self._equip()

    def _equip(self) -> None:
        assert self._settings is not None
        environ = self._settings.environ
        account = self.place.spawner.account
        try:
            if "TMPDIR" not in environ:
                uid, gid = (os.geteuid(), os.getegid()) if account is None else (account.uid, account.gid)
                self._scratch = scratch.make(_NAME, uid, gid)
                environ = {**environ, "TMPDIR": self._scratch}
            self.child.equip("host", {"app": _NAME})
            own = self._settings
            self._settings = Settings(_NAME, "host", "", "", "/", environ, limits=own.limits, sandbox=own.sandbox)
            if not self.child.confinement.is_wanted:
                self._configure(self._settings)
        except BaseException:
            self.child.shut()
            raise

    def _configure(self, settings: Settings) -> None:
        """Raises ``OSError``."""
        page, page_fd = new_page()
        try:
            configure(self.peer, settings, page_fd)
        finally:
            page.close()
            os.close(page_fd)

    @property
    def pid(self) -> int:
        """Its process, 0 before it is forked."""
        return self.child.pid

    @property
    def is_settled(self) -> bool:
        """It is there, and not being forked or reaped just now."""
        return self.child.is_settled and self.state is not HostState.GONE

    def snapshot(self) -> ThreadHostSnapshot:
        """All that whoever goes on with it must know. It must be settled."""
        now = self._loop.time()
        return ThreadHostSnapshot(
            number=self.number,
            place=plain(self.place),
            groups=self.groups,
            is_private=self.is_private,
            threads=self._threads,
            ended=self._ended,
            stragglers={worker: (group, now - since) for worker, (group, since) in self._stragglers.items()},
            left_behind=self._left_behind,
            is_doomed=self.state is HostState.DOOMED,
            scratch=self._scratch,
            **self.child.snapshot(),
        )

    def restore(self, saved: ThreadHostSnapshot) -> None:
        """Go on where ``saved`` says. It holds the code of another image of the daemon, so it takes no more apps."""
        now = self._loop.time()
        self.state = HostState.DOOMED if saved.is_doomed else HostState.CLOSED
        self.groups, self.is_private = saved.groups, saved.is_private
        self._threads, self._ended = saved.threads, saved.ended
        self._stragglers = {worker: (group, now - age_s) for worker, (group, age_s) in saved.stragglers.items()}
        self._left_behind = saved.left_behind
        self._scratch = saved.scratch
        self.child.restore(self.launcher, saved, self._on_exit)
        if not self.peer.is_open:
            self.state = HostState.LEAVING
            self._loop.call_later(_LEAVE_S, self.kill)

    async def begin(self) -> None:
        """Start it. Raises ``SpawnError``."""
        try:
            await self.child.fork(self.launcher, _GRACE_S, self._on_exit)
        except BaseException:
            self.child.shut()
            self._become(HostState.GONE)
            self.gone.set()
            raise
        log.debug("thread host started", pid=self.pid)
        self.child.confinement.begin(self.pid, self._configure_confined)

    def _configure_confined(self, held: frozenset[str]) -> None:
        assert self._settings is not None
        try:
            if self.is_usable:
                self._configure(without(self._settings, held))
        except OSError as exc:  # ChannelClosed among them
            log.error("thread host cannot be told what to run", pid=self.pid, error=str(exc))
            self._become(HostState.CLOSED)
            self.kill()

    def _become(self, state: HostState) -> None:
        self.state = max(self.state, state)

    @property
    def is_open(self) -> bool:
        """It takes apps that are new to it."""
        return self.state is HostState.OPEN

    @property
    def is_usable(self) -> bool:
        """It runs, and its channel is open: it can be asked, though perhaps for no more workers."""
        return self.peer.is_open and self.state is not HostState.GONE

    async def join(self, worker: int, group: int, root: str, module: str, channel: int, grace_s: float) -> int | None:
        """Have ``worker`` run here: what tells of its end, ours; None: modules collide. Raises ``SpawnError``."""
        answer: asyncio.Future[int] = self._loop.create_future()
        self._answers[worker] = answer
        try:
            if not self.peer.hand_over(Join(worker, group, grace_s, root), [channel]):
                raise SpawnError("spawn-failed", "the channel of its thread host is full")
            result = await asyncio.wait_for(answer, _JOIN_TIMEOUT_S)
        except OSError as exc:  # ChannelClosed and TimeoutError among them
            self._become(HostState.CLOSED)  # whoever comes next gets another
            raise SpawnError("spawn-failed", f"its thread host does not answer: {exc!r}") from None
        finally:
            self._answers.pop(worker, None)
        if result == -errno.EEXIST:
            return None
        if result < 0:
            raise SpawnError("resources", f"no room for another thread: {os.strerror(-result)}")
        fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.groups[group] = (root, module)
        self.ever.add(group)
        self._threads[worker] = (group, fd)
        self._idle_since = None
        if worker in self._ended:  # as quick as that
            self._over(worker)
        return fd

    def cancel(self, worker: int) -> None:
        """Ask the threads of ``worker``, which does not come to an end, to stop where they are."""
        if worker in self._threads:
            self._send_cancel(worker)

    def release(self, worker: int) -> bool:
        """Have nothing more to do with ``worker``. True when it may still be running."""
        found = self._threads.get(worker)
        if found is None:
            return worker in self._stragglers
        self._stragglers[worker] = (found[0], self._loop.time())
        self._send_cancel(worker)
        self._over(worker)
        return True

    def is_straggler(self, worker: int) -> bool:
        """``worker`` was let go and its threads may still run: what it holds is not free yet."""
        return worker in self._stragglers

    def status_of(self, worker: int) -> int | None:
        """The exit status of a worker that has ended."""
        return self._ended.pop(worker, self.status)

    def lost(self, now: float) -> int:
        """How many threads have not ended as they should."""
        late = sum(now - since >= self._lost_s for _, since in self._stragglers.values())
        return late + self._left_behind

    def look(self, now: float) -> None:
        """To be called every second or so."""
        if self._answer_by is not None and now >= self._answer_by and self.is_usable:
            what = "thread host hangs and is killed: a thread in it lets no other run"
            log.error(what, pid=self.pid, apps=len(self.groups))
            self._become(HostState.CLOSED)
            self._answer_by = None
            self.kill()
        lost = self.lost(now)
        if lost:
            self._become(HostState.CLOSED)
        if lost >= LOST_MAX and self.state < HostState.DOOMED:
            self._become(HostState.DOOMED)
            what = "thread host is replaced: threads in it do not end"
            log.warning(what, pid=self.pid, threads=lost, apps=len(self.groups))
        if self._threads or self._answers:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
        elif now - self._idle_since >= 1.0:
            self.close()

    @property
    def is_doomed(self) -> bool:
        """Its workers are to move to another: too many of its threads do not end, or it is gone."""
        return self.state is HostState.DOOMED or not self.is_usable

    def close(self) -> None:
        """Let it leave; kill it when it does not."""
        self._hang_up(HostState.LEAVING)

    def _hang_up(self, state: HostState) -> None:
        if self.state < HostState.LOST:
            self._loop.call_later(_LEAVE_S, self.kill)
        self._become(state)
        self.peer.close()

    def kill(self) -> None:
        """SIGKILL to its process group; every worker in it ends."""
        if not self.gone.is_set():
            self.child.end()

    def _over(self, worker: int) -> None:
        group, fd = self._threads.pop(worker)
        os.eventfd_write(fd, 1)
        self._forget_group(group)

    def _forget_group(self, group: int) -> None:
        staying = {each for each, _ in self._threads.values()} | {each for each, _ in self._stragglers.values()}
        if group not in staying:
            self.groups.pop(group, None)

    def _send_cancel(self, worker: int) -> None:
        if self.peer.send(Cancel(worker)) and self._answer_by is None:
            self._answer_by = self._loop.time() + _ANSWER_S

    def _on_breach(self, what: str) -> None:
        log.error("thread host broke a rule of the channel", pid=self.pid, error=what)
        self._hang_up(HostState.LOST)
        self.kill()

    def _hear(self, message: Message) -> None:
        if isinstance(message, Spawned):
            answer = self._answers.get(message.worker)
            if answer is not None and not answer.done():
                answer.set_result(message.pid)
                return
        elif isinstance(message, Reaped):
            if message.worker in self._answers or message.worker in self._threads:
                self._ended[message.worker] = message.status
                if message.worker in self._threads:
                    self._over(message.worker)
                return
            straggler = self._stragglers.pop(message.worker, None)
            if straggler is not None:
                self._forget_group(straggler[0])
                return
        elif isinstance(message, LeftBehind):
            self._left_behind = message.threads
            self._answer_by = None
        else:
            raise ChannelError(f"{type(message).__name__} from a thread host")
        self.peer.count(" that nobody waits for")

    def _on_exit(self) -> None:
        self.child.unwatch()
        self.peer.hear_last_words()
        self.kill()  # what its apps started; nobody has reaped it
        is_wanted = self.state is HostState.LEAVING
        self._become(HostState.GONE)
        self.child.shut()
        self._reaping = self._loop.create_task(self._reap(is_wanted))

    async def _reap(self, is_wanted: bool) -> None:
        why_killed = await self.child.why_killed()
        self.status = await self.child.reap()
        self.child.close_pidfd()
        if not is_wanted:
            how = "an unknown status" if self.status is None else processes.describe_exit(self.status)
            error = why_killed or f"crashed: {how}"
            log.error("thread host died with all its workers", pid=self.pid, workers=len(self._threads), error=error)
            self._on_crash(self)
        self._stragglers.clear()
        for worker in list(self._threads):
            self._over(worker)
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(SpawnError("spawn-failed", "its thread host died"))
        await self.child.confinement.remove()
        if self._scratch is not None:
            scratch.discard(self._scratch)
        self.gone.set()
