"""The daemon: signals, the order of starting and stopping, and reloads.

Nothing is started before the whole plan is valid, and every listener is open before the first worker is spawned: what
fails, fails before anything has changed. Connections that come before their app is ready wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import Enum
from typing import Any, TypeVar

from .. import __version__
from .apps.spec import StartFailed
from .sockets.opener import ListenerOpener, forsake
from .sockets.socket_file import ListenError
from .supervisor.beside import ControlEndpoint, FrontProxy
from .supervisor.document import Configuration, ConfigurationReader
from .supervisor.reloads import Reloads, why
from .supervisor.supervisor import Supervisor
from .system import cgroups, processes, tempdirs
from .system.log import records as logs
from .system.log.fields import FieldLog
from .system.log.process import logger
from .system.log.records import close_quietly, tell
from .system.notify import Notifier
from .system.service import Service
from .system.state import DaemonSnapshot, SourceSnapshot
from .system.tasks import KeptTasks, cancelled
from .upgrade.handover import Inheritance, let_signals_in
from .upgrade.restore import Resumption, differences
from .upgrade.upgrade import Upgrade, UpgradeRefused

log = FieldLog("caddysnake.daemon")

_SWEEP_S = 1.0
_SAME_SIGNAL_S = 0.25
"""make, timeout and their like signal a child and then its whole group: that is one wish, not two."""
EXIT_OK, EXIT_FAILED, EXIT_FORCED = 0, 1, 2  # as Caddy's
_ANSWER_S = 0.05
"""So long after a rehearsal the upgrade begins."""
_ATTEND_AFTER_S = 1.0
"""When apps take longer to start, the admin API answers before they are up."""
_LAST_S = 2.0
"""So long the line that says that all is ready waits to be the last one, where somebody reads it."""
_SWITCH_S = 0.0005
"""How long a thread of ours that computes (reads a configuration, imports) may keep the loop waiting each time it comes
back from the kernel. A hand-over is a dozen system calls, and 5 ms for each, as Python has it, is a stall.
"""


Ready = Callable[[float, Mapping[str, str]], None]
"""Hears after how many seconds apps serve, and which do not, each with a word why."""
_Done = TypeVar("_Done")


class DaemonPhase(Enum):
    """What the daemon is at."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"


class Daemon:
    """``run`` runs the configuration until a signal ends it. ``reader``: who reads it again."""

    def __init__(
        self,
        configuration: Configuration,
        front_proxy: FrontProxy,
        reader: ConfigurationReader,
        notifier: Notifier,
        inheritance: Inheritance | None,
        control_endpoints: Callable[[Daemon], Sequence[ControlEndpoint]],
    ) -> None:
        """``inheritance``: what runs already, to go on with."""
        self._inheritance = inheritance
        self.upgrades = 0
        """How often this process has replaced itself."""
        self.upgrade_refused = ""
        """Why, when the last one was."""
        self._upgrading: asyncio.Task[str] | None = None
        self._exchanging: asyncio.Task[None] | None = None
        self.serving = Supervisor(configuration.composition, ListenerOpener.from_environ(os.environ, notifier))
        self.running = self.serving.running
        self._upgrade = Upgrade(self.serving, self.state, lambda: self.phase is DaemonPhase.STOPPING)
        self._service = Service.from_environ(os.environ, notifier, self.serving.summary)
        self._control_endpoints = control_endpoints(self)
        self.phase = DaemonPhase.STARTING
        self.started_at = time.time()
        self._front_proxy = front_proxy
        self.reloads = Reloads(
            configuration, self.serving, self._control_endpoints, self._front_proxy, self._service, reader
        )
        self._loop = asyncio.get_running_loop()
        notifier.attach(self._loop)
        self._stop = asyncio.Event()
        self._forced = False
        self._told_at = 0.0
        self._control_task: asyncio.Task[None] | None = None
        self._has_served = asyncio.Event()
        self._signalled = KeptTasks()

    async def run(self, on_ready: Ready) -> int:
        """Start, serve, stop; the process's exit status. ``on_ready`` hears that apps serve."""
        begun = time.monotonic()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._on_signal, number)
        self._loop.add_signal_handler(signal.SIGHUP, self.reloads.reload_soon)
        self._loop.add_signal_handler(signal.SIGUSR1, self._on_unserved_signal, signal.SIGUSR1)
        self._loop.add_signal_handler(signal.SIGUSR2, self._on_upgrade_signal)
        let_signals_in()
        self._sweeping = self._loop.call_later(_SWEEP_S, self._sweep)
        logs.restyle(self.running.desired.log)
        left = self._inheritance
        if left is None:
            cgroups.begin()
        else:
            cgroups.restore(left.state.cgroup)
        if left is not None and not left.state.is_afresh and left.state.log is not None:
            logger.restore(left.state.log)
        else:
            logger.start()
        try:
            if await self._first_of_stop_and(self._start_all()) is not None:
                self.phase = DaemonPhase.READY
                self.reloads.begin()
                if not self.upgrades:
                    took = time.monotonic() - begun
                    if logs.is_on_terminal() and self._control_task is not None:
                        await asyncio.wait((self._control_task,), timeout=_LAST_S)
                    late = dict.fromkeys(self.running.undecided, "still starting")
                    on_ready(took, self.serving.failed() | late)
                self._service.ready()
                if (failure := await self._first_of_stop_and(self.running.beginnings.none_comes_up())) is not None:
                    raise failure
            await self._stop_all()
            return EXIT_FORCED if self._forced else EXIT_OK
        except (ListenError, StartFailed) as exc:
            await cancelled(self._control_task)  # what comes up meanwhile would say so behind this
            named = {"app": exc.app, "code": exc.code} if isinstance(exc, StartFailed) else {}
            tell(f"Error: {why(exc)}", "error", **named)  # to the person who started us, not to the log alone
            self._service.failed(why(exc))
            self._front_proxy.kill()
            await self.serving.abandon()
            return EXIT_FAILED
        finally:
            self._sweeping.cancel()
            await cancelled(self._control_task)
            for each in self._control_endpoints:
                await each.stop()
            await logger.close()

    async def _start_all(self) -> bool:
        left = self._inheritance
        if left is not None and not left.state.is_afresh:
            self._go_on(left)
            return True
        if left is not None:
            tempdirs.start_afresh(left.state.scratch)
            self.running.listeners.adopt(left.state.listeners)
        for each in self._control_endpoints:
            each.adopt([] if left is None else left.state.attended)
            each.prepare(self.reloads.configuration)
            each.commit()
        self._control_task = self._loop.create_task(self._attend())
        try:
            await self.serving.start()
        finally:
            self._has_served.set()
        self.reloads.builds.accepted()
        if left is not None and left.state.caddy is not None:
            self._front_proxy.restore(left.state.caddy)
        else:
            await self._front_proxy.start()
        return True

    async def _attend(self) -> None:
        """What it imports would hold the apps up; but an app may take long, and somebody may want to know."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ATTEND_AFTER_S):
                await self._has_served.wait()
        await self._start_control_endpoints()

    async def _start_control_endpoints(self) -> None:
        await asyncio.gather(*(each.start() for each in self._control_endpoints))

    async def _first_of_stop_and(self, work: Awaitable[_Done]) -> _Done | None:
        """What came of ``work``; None when somebody asked to stop before. Raises what ``work`` raised."""
        task = asyncio.ensure_future(work)
        stopped = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))
            return None
        return task.result()

    # -- going on in another image of this process ------------------------------------------------------------

    def state(self) -> DaemonSnapshot:
        """Everything but what ``serving`` runs, for the next image."""
        document = self.reloads.configuration.document
        return DaemonSnapshot(
            release=__version__,
            source=SourceSnapshot(
                content=document.content,
                file=document.file,
                folder=self.reloads.reader.base,
            ),
            attended=[listener for each in self._control_endpoints for listener in each.snapshot()],
            memory="".join(each.memory() for each in self._control_endpoints),
            builds=self.reloads.builds.snapshot(),
            caddy=self._front_proxy.snapshot(),
            log=logger.snapshot(),
            cgroup=cgroups.root(),
            started_at=self.started_at,
            upgrades=self.upgrades,
            is_reload_wanted=not all(each.done() for each in self.reloads.under_way),
        )

    def _go_on(self, inheritance: Inheritance) -> None:
        """Nothing gives way here: nobody but us reads what is sent."""
        asked = time.monotonic()
        state = inheritance.settle()
        try:
            resumption = Resumption(self.running, state)
            resumption.run()
            resumption.serve()
            self._front_proxy.restore(state.caddy)
            self._loop.run_in_executor(None, cgroups.tidy)
            for each in self._control_endpoints:
                each.adopt(state.attended)
                each.recall(state.memory)
                each.prepare(self.reloads.configuration)
        except Exception:
            log.exception("what runs cannot be taken over: everything is started afresh")
            inheritance.abandon()
        for each in self._control_endpoints:
            each.commit()
        self._control_task = self._loop.create_task(self._start_control_endpoints())
        self.reloads.builds.restore(state.builds)
        self.upgrades = state.upgrades
        self.started_at = state.started_at
        now = time.monotonic()
        fields: dict[str, Any] = {"version": __version__, "before": state.release, "upgrades": state.upgrades}
        took = {"stalled_ms": round((now - state.begun_at) * 1000), "took_over_ms": round((now - asked) * 1000)}
        log.info("upgraded", **fields | took)
        changed = differences(state, self.running.desired)
        if changed:
            log.warning("the configuration has changed meanwhile", it="; ".join(changed))
        if changed or state.is_reload_wanted:
            self.reloads.reload_soon()

    def _on_upgrade_signal(self) -> None:
        if self.is_upgrading:
            log.warning("already upgrading")
            return
        task = self._signalled.begin(self.upgrade())
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # it is in the log

    @property
    def is_upgrading(self) -> bool:
        """It is about to become another version, or looks whether it can."""
        return any(task is not None and not task.done() for task in (self._upgrading, self._exchanging))

    async def upgrade(self) -> str:
        """Rehearse the version that is installed now, and become it in a moment: who asks can still be answered.

        The version. Raises ``UpgradeRefused``; nothing has changed then. What is refused later is in
        ``upgrade_refused``; if nothing is, ``upgrades`` has grown.
        """
        if self.phase is not DaemonPhase.READY or self.is_upgrading:
            raise UpgradeRefused("it is upgrading already" if self.is_upgrading else f"it is {self.phase.value}")
        self.upgrade_refused = ""
        log.info("rehearsing an upgrade")
        self._upgrading = self._loop.create_task(self._upgrade.rehearse())
        try:
            version = await asyncio.shield(self._upgrading)
        except UpgradeRefused as exc:
            self._refuse_upgrade(exc)
            raise
        log.info("upgrading", from_=__version__, to=version)
        self._exchanging = self._loop.create_task(self._exchange())
        return version

    async def _exchange(self) -> None:
        await asyncio.sleep(_ANSWER_S)
        try:
            await self._upgrade.run()
        except UpgradeRefused as exc:
            self._refuse_upgrade(exc)

    def _refuse_upgrade(self, exc: UpgradeRefused) -> None:
        self.upgrade_refused = str(exc)
        log.error("upgrade refused; the old version keeps running", error=str(exc))

    # -- stopping ---------------------------------------------------------------------------------------------

    def stop(self, asked_by: str) -> None:
        """Begin to stop, as on SIGTERM; ``asked_by`` is for the log."""
        if not self._stop.is_set():
            log.info("stopping", asked_by=asked_by, grace_s=self.running.desired.grace_s)
            self.phase = DaemonPhase.STOPPING
            self.reloads.refuse()
            self._service.stopping()
            self._stop.set()
            self._told_at = self._loop.time()

    def _on_signal(self, number: signal.Signals) -> None:
        if not self._stop.is_set():
            self.stop(number.name)
        elif self._loop.time() - self._told_at >= _SAME_SIGNAL_S:
            log.warning("stopping at once", signal=number.name)
            self._forced = True
            self._front_proxy.kill()
            self.running.kill()

    def _on_unserved_signal(self, number: signal.Signals) -> None:
        log.warning("signal ignored: it means nothing here", signal=number.name)

    async def _stop_all(self) -> None:
        self.phase = DaemonPhase.STOPPING
        self.reloads.refuse()
        under_way: list[asyncio.Task[Any]] = [*self.reloads.under_way]
        under_way += [task for task in (self._upgrading, self._exchanging) if task is not None]
        if under_way:
            for task in under_way:
                task.cancel()
            await asyncio.wait(under_way)
        # Caddy first: what it has in flight needs the apps.
        await self._front_proxy.stop(self.running.desired.grace_s)
        await self.serving.stop()
        log.info("stopped")

    def _sweep(self) -> None:
        pause_s = min(_SWEEP_S, (self._service.watchdog_s or _SWEEP_S * 4) / 4)
        self._sweeping = self._loop.call_later(pause_s, self._sweep)
        self._front_proxy.sweep()
        self.serving.sweep()
        for each in self._control_endpoints:
            each.sweep()
        known = self.running.pids() | self._front_proxy.pids() | logger.pids() | self._upgrade.pids()
        processes.reap_strays(known)
        logger.beat()
        self._service.beat()  # last: a daemon that cannot do the above is not well


def not_started(why: str) -> None:
    """Tell the service manager, if there is one, of a start that failed before there was a daemon."""
    notifier = Notifier.from_environ(os.environ)
    forsake(os.environ, notifier)
    Service(notifier).failed(why)
    notifier.close()


def run(
    configuration: Configuration,
    front_proxy: Callable[[], FrontProxy],
    on_ready: Ready,
    reader: ConfigurationReader,
    control_endpoints: Callable[[Daemon], Sequence[ControlEndpoint]],
    inheritance: Inheritance | None,
) -> int:
    """Run a daemon in this process until it is told to stop; the exit status."""
    import uvloop

    sys.setswitchinterval(_SWITCH_S)
    # What is there now stays. Looking through all of it for garbage takes longer than any request should wait.
    gc.freeze()
    soft, hard = processes.become_supervisor()
    log.debug("descriptor limit raised", from_=soft, to=hard, pid=os.getpid())

    notifier = Notifier.from_environ(os.environ)

    async def main() -> int:
        daemon = Daemon(configuration, front_proxy(), reader, notifier, inheritance, control_endpoints)
        return await daemon.run(on_ready)

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(main())
    finally:
        notifier.close()
        close_quietly()
