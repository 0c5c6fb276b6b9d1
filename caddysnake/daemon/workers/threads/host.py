"""A thread host, seen from the daemon: a process in which workers of several apps run as threads.

A host leaves as soon as it has no worker.

A thread cannot be ended by force. One that does not end is let go: its connections are ended, it is given none, and its
host takes no further app. With two such the host is doomed: its workers are replaced, one after the other, by others in
another host, and then it is killed.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable
from typing import NamedTuple

from ....channel.endpoint import ChannelClosed, ChannelError, Endpoint, pair
from ....channel.messages import Cancel, Join, LeftBehind, Reaped, Spawned
from ....channel.settings import Settings
from ....channel.throttle import TokenBucket
from ...system import cgroups, processes
from ...system import tempdirs as scratch
from ...system.log.pipes import OutputPipes
from ...system.log.process import adopt_outlets
from ...system.state import CarriedHost, plain
from ..child.equipment import configure, new_page, outlets_for, socket_of, without_memory
from ..child.launcher import ForkServerKey, Launcher, SpawnError
from ..forking.fork_server import UNASKED_A_SECOND

log = logging.getLogger("caddysnake.host")

LOST_MAX = 2
"""Threads that do not end, after which a host is replaced."""

_JOIN_TIMEOUT_S = 30.0
_ANSWER_S = 5.0
"""Within which a host must say that it has heard; its main thread does nothing else, and needs the GIL for it."""
_LEAVE_S = 15.0
_GRACE_S = 30.0


class Place(NamedTuple):
    """What decides whether apps may be in one host, as far as the daemon knows it."""

    spawner: ForkServerKey
    """Without the interface, which does not matter."""
    environ: tuple[tuple[str, str], ...]
    limits: tuple[tuple[str, int], ...]
    folder: str = ""
    """The only working directory, where threads cannot have one each."""


class ThreadHost:
    """One process. ``join`` has a worker run there."""

    def __init__(
        self, place: Place, spawner: Launcher, on_crash: Callable[[ThreadHost], None], number: int, lost_s: float
    ) -> None:
        """``equip`` or ``resume`` it next. ``lost_s``: as in ``Timings``."""
        self.place = place
        self.spawner = spawner
        """What it is forked from."""
        self.pid = 0
        self.groups: dict[int, tuple[str, str]] = {}
        """Working directory and top-level module of each group that has a worker here."""
        self.is_open = True
        """It takes apps that are new to it."""
        self.is_private = False
        """For one app."""
        self.is_gone = False
        self.gone: asyncio.Event = asyncio.Event()
        self.status: int | None = None
        self.number = number
        self._lost_s = lost_s
        self._loop = asyncio.get_running_loop()
        self._threads: dict[int, tuple[int, int]] = {}  # worker's number -> its group, and what tells of its end
        self._ended: dict[int, int] = {}  # their exit statuses, until asked for
        self._stragglers: dict[int, tuple[int, float]] = {}  # let go -> their group, and when
        self._answers: dict[int, asyncio.Future[int]] = {}
        self._allowance = TokenBucket(UNASKED_A_SECOND)
        self._answer_by: float | None = None
        self._left_behind = 0
        self._idle_since: float | None = None
        self._told_doomed = False
        self._is_released = False
        self._reaping: asyncio.Task[None] | None = None
        self.pidfd = -1
        self._on_crash = on_crash
        self._scratch: str | None = None
        self._theirs: socket.socket | None = None
        self._endpoint: Endpoint
        self._outlets: OutputPipes | None = None
        self.why_killed = ""
        """Why the kernel has killed it, if it was for want of memory."""
        self._group: cgroups.Group | None = None
        self._confining: asyncio.Task[None] | None = None
        self._settings: Settings | None = None  # what it is told once it is in its cgroup

    def equip(self, settings: Settings) -> None:
        """``settings``: those of its first app. Raises ``OSError``: there are no descriptors, or no memory, for it."""
        environ = settings.environ
        account = self.place.spawner.account
        if account is not None and "TMPDIR" not in environ:
            self._scratch = scratch.make("thread host", account.uid, account.gid)
            environ = {**environ, "TMPDIR": self._scratch}
        ours, theirs = pair()
        self._theirs = theirs
        self._endpoint = Endpoint(ours, takes_descriptors=False)
        try:
            self._outlets = outlets_for(self._endpoint, "host", {"app": "thread host"})
            own = Settings("thread host", "host", "", "", "/", environ, limits=settings.limits)
            if cgroups.limit_of(own.limits) is None:
                self._configure(own)
            else:
                self._settings = own
        except BaseException:
            self._end_outlets()
            self._endpoint.close()
            theirs.close()
            raise

    def _configure(self, settings: Settings) -> None:
        """Raises ``OSError``."""
        page, page_fd = new_page()
        try:
            configure(self._endpoint, settings, page_fd)
        finally:
            page.close()
            os.close(page_fd)

    @property
    def is_settled(self) -> bool:
        """It is there, and not being forked or reaped just now."""
        is_confined = self._confining is None or self._confining.done()
        return self.pid > 0 and is_confined and not self.is_gone

    @property
    def is_grouped(self) -> bool:
        """A cgroup limits its memory."""
        return self._group is not None

    def carry(self) -> CarriedHost:
        """All that whoever goes on with it must know. It must be settled."""
        now = self._loop.time()
        return CarriedHost(
            number=self.number,
            pid=self.pid,
            pidfd=self.pidfd,
            channel=self._endpoint.fileno(),
            place=plain(self.place),
            spawner=self.spawner.pid,
            groups=self.groups,
            is_private=self.is_private,
            threads=self._threads,
            ended=self._ended,
            stragglers={worker: (group, now - since) for worker, (group, since) in self._stragglers.items()},
            left_behind=self._left_behind,
            is_doomed=self._told_doomed,
            scratch=self._scratch,
            group=self._group.carry() if self._group is not None else None,
            outlets=self._outlets.state() if self._outlets is not None else None,
            outbox=list(self._endpoint.outbox),
        )

    def resume(self, carried: CarriedHost) -> None:
        """Go on where ``carried`` says. It holds the code of another image of the daemon, so it takes no more apps."""
        now = self._loop.time()
        self.is_open = False
        self.pid, self.pidfd = carried.pid, carried.pidfd
        self.groups, self.is_private = carried.groups, carried.is_private
        self._threads, self._ended = carried.threads, carried.ended
        self._stragglers = {worker: (group, now - age_s) for worker, (group, age_s) in carried.stragglers.items()}
        self._left_behind, self._told_doomed = carried.left_behind, carried.is_doomed
        self._scratch = carried.scratch
        self._group = cgroups.Group(*carried.group) if carried.group is not None else None
        self._outlets = adopt_outlets(carried.outlets)
        self._endpoint = Endpoint(socket_of(carried.channel), takes_descriptors=False)
        self._endpoint.outbox.extend(carried.outbox)
        self._loop.add_reader(self.pidfd, self._on_exit)
        if carried.channel >= 0:
            self._loop.add_reader(carried.channel, self._on_message)
        else:
            self._is_released = True
            self._endpoint.close()
            self._loop.call_later(_LEAVE_S, self.kill)

    def sources(self) -> list[tuple[int, Callable[[], None]]]:
        """Its channel, with what to call when there is something to read."""
        return [(self._endpoint.fileno(), self._on_message)] if self.is_usable else []

    async def begin(self) -> None:
        """Raises ``SpawnError``."""
        assert self._theirs is not None
        try:
            self.pid, self.pidfd = await self.spawner.fork(self.number, self._theirs.fileno(), _GRACE_S)
        except BaseException:
            self._end_outlets()
            self._endpoint.close()
            self.is_open = False
            self.is_gone = True
            self.gone.set()
            raise
        finally:
            self._theirs.close()
        if self._outlets is not None:
            self._outlets.begin(self.pid)
        self._loop.add_reader(self.pidfd, self._on_exit)
        self._loop.add_reader(self._endpoint.fileno(), self._on_message)
        log.debug("thread host started", extra={"fields": {"pid": self.pid}})
        if self._settings is not None:
            self._confining = self._loop.create_task(self._confine(self._settings))

    async def confined(self) -> None:
        """Wait until it knows what to run: nothing else may be sent before."""
        if self._confining is not None:
            await asyncio.shield(self._confining)

    async def _confine(self, settings: Settings) -> None:
        self._settings = None
        memory_bytes = cgroups.limit_of(settings.limits)
        if memory_bytes is not None:
            self._group = await cgroups.Group.of("thread host", self.number, self.pid, memory_bytes)
        try:
            if self.is_usable:
                self._configure(settings if self._group is None else without_memory(settings))
        except OSError as exc:  # ChannelClosed among them
            log.error("thread host cannot be told what to run", extra={"fields": {"pid": self.pid, "error": str(exc)}})
            self.is_open = False
            self.kill()

    def _end_outlets(self) -> None:
        if self._outlets is not None:
            self._outlets.end()

    @property
    def workers(self) -> int:
        """How many workers run in it."""
        return len(self._threads)

    @property
    def is_usable(self) -> bool:
        """It runs, and its channel is open: it can be asked, though perhaps for no more workers."""
        return self._endpoint.fileno() >= 0 and not self.is_gone

    async def join(self, worker: int, group: int, root: str, module: str, channel: int, grace_s: float) -> int | None:
        """Have worker number ``worker`` run here: a descriptor that can be read once it has ended; the caller's.

        None when its modules collide with those of other apps. Raises ``SpawnError``.
        """
        answer: asyncio.Future[int] = self._loop.create_future()
        self._answers[worker] = answer
        try:
            if not self._endpoint.hand_over(Join(worker, group, grace_s, root), [channel]):
                raise SpawnError("host", "the channel of its thread host is full")
            result = await asyncio.wait_for(answer, _JOIN_TIMEOUT_S)
        except OSError as exc:  # ChannelClosed and TimeoutError among them
            self.is_open = False  # whoever comes next gets another
            raise SpawnError("host", f"its thread host does not answer: {exc!r}") from None
        finally:
            self._answers.pop(worker, None)
        if result == -errno.EEXIST:
            return None
        if result < 0:
            raise SpawnError("resources", f"no room for another thread: {os.strerror(-result)}")
        fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.groups[group] = (root, module)
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
            log.error("thread host hangs and is killed: a thread in it lets no other run",
                      extra={"fields": {"pid": self.pid, "apps": len(self.groups)}})  # fmt: skip
            self.is_open = False
            self._answer_by = None
            self.kill()
        lost = self.lost(now)
        if lost:
            self.is_open = False
        if lost >= LOST_MAX and not self._told_doomed:
            self._told_doomed = True
            fields = {"pid": self.pid, "threads": lost, "apps": len(self.groups)}
            log.warning("thread host is replaced: threads in it do not end", extra={"fields": fields})
        if self._threads or self._answers:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
        elif now - self._idle_since >= 1.0:
            self.close()

    @property
    def is_doomed(self) -> bool:
        """Its workers are to move to another: too many of its threads do not end, or it is gone."""
        return self._told_doomed or not self.is_usable

    def close(self) -> None:
        """Let it leave; kill it when it does not."""
        self._is_released = True
        self._hang_up()

    def _hang_up(self) -> None:
        self.is_open = False
        if self._endpoint.fileno() >= 0:
            self._loop.remove_reader(self._endpoint.fileno())
            self._endpoint.close()
            self._loop.call_later(_LEAVE_S, self.kill)

    def kill(self) -> None:
        """SIGKILL to its process group; every worker in it ends."""
        if self.pid and not self.gone.is_set():
            processes.kill_group(self.pidfd, self.pid)

    def _over(self, worker: int) -> None:
        group, fd = self._threads.pop(worker)
        os.eventfd_write(fd, 1)
        self._forget_group(group)

    def _forget_group(self, group: int) -> None:
        staying = {each for each, _ in self._threads.values()} | {each for each, _ in self._stragglers.values()}
        if group not in staying:
            self.groups.pop(group, None)

    def _send_cancel(self, worker: int) -> None:
        try:
            self._endpoint.send(Cancel(worker))
        except (ChannelClosed, OSError):
            return
        if self._answer_by is None:
            self._answer_by = self._loop.time() + _ANSWER_S

    def _on_message(self) -> None:
        try:
            received = self._endpoint.receive()
            if received is not None:
                self._dispatch(received[0])
        except ChannelClosed:
            self._hang_up()
        except ChannelError as exc:
            log.error("thread host broke a rule of the channel", extra={"fields": {"pid": self.pid, "error": str(exc)}})
            self._hang_up()
            self.kill()

    def _dispatch(self, message: object) -> None:
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
        if not self._allowance.spend(self._loop.time()):
            raise ChannelError(f"more than {UNASKED_A_SECOND} messages a second that nobody waits for")

    def _on_exit(self) -> None:
        self._loop.remove_reader(self.pidfd)
        self._end_outlets()
        while self._endpoint.fileno() >= 0:  # its last words
            before = len(self._threads), len(self._ended)
            self._on_message()
            if before == (len(self._threads), len(self._ended)):
                break
        self.kill()  # what its apps started; nobody has reaped it
        self.is_open = False
        self.is_gone = True
        self._hang_up()
        self._reaping = self._loop.create_task(self._reap())

    async def _reap(self) -> None:
        await self.confined()
        if self._group is not None:
            self.why_killed = await self._group.why_killed()
        self.status = await self.spawner.reap(self.number, self.pidfd)
        os.close(self.pidfd)
        self.pidfd = -1
        if not self._is_released:
            how = "an unknown status" if self.status is None else processes.describe_exit(self.status)
            error = self.why_killed or f"it ended unasked with {how}"
            fields = {"pid": self.pid, "workers": len(self._threads), "error": error}
            log.error("thread host died with all its workers", extra={"fields": fields})
            self._on_crash(self)
        self._stragglers.clear()
        for worker in list(self._threads):
            self._over(worker)
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(SpawnError("host", "its thread host died"))
        if self._group is not None:
            await self._group.remove()
        if self._scratch is not None:
            scratch.discard(self._scratch)
        self.gone.set()
