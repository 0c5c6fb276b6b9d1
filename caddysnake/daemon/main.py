"""The daemon: configuration in, running parts out; signals; the order of stopping.

Nothing is started before the whole plan is valid, and every listener is open before the first worker is spawned: what
fails, fails before anything has changed. Connections that come before their app is ready wait.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address, ip_network

from ..channel.messages import TAKE_LISTENER_SHIFT, TAKE_TRUSTED
from ..config.plan import usable_cores
from . import processes
from .apps import App
from .companion import Companion
from .composition import Composition, FdAddress, UnixAddress
from .connections import Connection, Connections
from .desk import Desk
from .estates import Estate, Starts
from .listeners import Listener, ListenError, open_inherited, open_tcp, open_unix
from .logs import printable
from .pools import StartFailed
from .relays import Relays, RelayStarter
from .spawners import Spawners

log = logging.getLogger("caddysnake.daemon")

_SWEEP_S = 1.0
_PROGRESS_S = 2.0
_SAME_SIGNAL_S = 0.25
"""make, timeout and their like signal a child and then its whole group: that is one wish, not two."""
_AFTER_GRACE_S = 5.0  # TERM, then KILL, and the reaping
EXIT_OK, EXIT_FAILED, EXIT_FORCED = 0, 1, 2  # as Caddy's


class Daemon:
    """``run`` runs the composition until a signal ends it."""

    def __init__(self, composition: Composition, companion: Companion | None = None) -> None:
        self._composition = composition
        self._companion = companion or Companion()
        self._loop = asyncio.get_running_loop()
        self._connections = Connections(self._loop, self._over, self._requested)
        self._spawners = Spawners()
        self._listeners: list[Listener] = []
        self._trusted = [ip_network(text, strict=False) for text in composition.trusted_proxies]
        self._stop = asyncio.Event()
        self._forced = False
        self._told_at = 0.0
        self._relays_started = False
        self._starter = RelayStarter()
        apps = {number: App(spec, self._spawners, self._connections) for number, spec in composition.apps.items()}
        starts = Starts(usable_cores())
        self.estates = {
            number: Estate(spec, self._spawners, self._connections, starts)
            for number, spec in composition.estates.items()
        }
        self._desk = Desk(self._connections, apps, self.estates, composition.max_queue)
        self.relays: Relays | None = None
        if composition.relay is not None:
            self.relays = Relays(composition.relay, self._starter, self._connections, self._desk.asked)
        self.apps: dict[str, App] = {app.name: app for app in apps.values()}
        for app in apps.values():
            app.lend = self._lend

    async def run(self, on_ready: Callable[[float], None] | None = None) -> int:
        """Start, serve, stop; the process's exit status. ``on_ready(seconds)`` is called when all apps serve."""
        begun = time.monotonic()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._on_signal, number)
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            self._loop.add_signal_handler(number, self._on_unserved_signal, number)
        self._sweeping = self._loop.call_later(_SWEEP_S, self._sweep)
        try:
            self._open_listeners()
            started = await self._first_of_stop_and(self._start_all())
            if started:
                if on_ready is not None:
                    on_ready(time.monotonic() - begun)
                await self._stop.wait()
            await self._stop_all()
            return EXIT_FORCED if self._forced else EXIT_OK
        except (ListenError, StartFailed) as exc:
            _complain(exc)
            await self._abandon()
            return EXIT_FAILED
        finally:
            self._sweeping.cancel()

    # -- starting ---------------------------------------------------------------------------------------------

    def _open_listeners(self) -> None:
        for binding in self._composition.bindings:
            address = binding.address
            if isinstance(address, UnixAddress):
                opened = open_unix(*address)
            elif isinstance(address, FdAddress):
                opened = open_inherited(*address)
            else:
                opened = open_tcp(*address)
            self._listeners.append(opened)
        for listener, binding in zip(self._listeners, self._composition.bindings, strict=True):
            local = listener.sock.family == socket.AF_UNIX
            app = self.relays if binding.app is None else self.apps[binding.app]
            assert app is not None
            number = self._composition.bindings.index(binding)
            listener.accept_into(self._loop, self._acceptor(app, local, number << TAKE_LISTENER_SHIFT))

    async def _start_all(self) -> None:
        log.info("starting", extra={"fields": {"apps": len(self.apps), "workers": self._workers_planned()}})
        progress = asyncio.create_task(self._tell_progress())
        try:
            async with asyncio.TaskGroup() as group:
                for app in self.apps.values():
                    group.create_task(self._start_app(app))
                if self.relays is not None and any(binding.app is None for binding in self._composition.bindings):
                    group.create_task(self._start_relays(self.relays))
        finally:
            progress.cancel()
        await self._companion.start()

    def _workers_planned(self) -> int:
        return sum(spec.workers for spec in self._composition.apps.values())

    async def _start_relays(self, relays: Relays) -> None:
        self._relays_started = True
        took = await relays.start()
        names = [
            listener.name
            for listener, binding in zip(self._listeners, self._composition.bindings, strict=True)
            if binding.app is None
        ]
        templates = ", ".join(estate.spec.name for estate in self.estates.values())
        fields = {"listener": ", ".join(names) or "none", "mode": "relay", "relays": relays.spec.workers}
        log.info("relay ready", extra={"fields": {**fields, "templates": templates, "ms": round(took * 1000)}})

    def _lend(self, connection: Connection) -> bool:
        """Let a relay wait, or answer, for an app that is not up. Relays are started when first needed."""
        if self.relays is None or self._stop.is_set():
            return False
        if self._relays_started:
            return self.relays.borrow(connection)
        self._late_start = self._loop.create_task(self._start_relays_late(self.relays))
        return False

    async def _start_relays_late(self, relays: Relays) -> None:
        try:
            await self._start_relays(relays)
        except StartFailed as exc:
            log.error("no relay", extra={"fields": {"code": exc.code, "error": str(exc)}})
            return
        for app in self.apps.values():
            app.place_waiting_again()

    async def _tell_progress(self) -> None:
        begun = time.monotonic()
        while True:
            await asyncio.sleep(_PROGRESS_S)
            missing = [name for name, app in self.apps.items() if len(app.pool.ready) < app.spec.workers]
            ready = sum(len(app.pool.ready) for app in self.apps.values())
            fields = {
                "waiting_for": ", ".join(missing),
                "workers_ready": f"{ready}/{self._workers_planned()}",
                "seconds": round(time.monotonic() - begun),
            }
            log.info("still starting", extra={"fields": fields})

    async def _start_app(self, app: App) -> None:
        took = await app.start()
        bound = [
            listener.name
            for listener, binding in zip(self._listeners, self._composition.bindings, strict=True)
            if binding.app == app.name
        ]
        fields = {
            "app": app.name,
            "listener": ", ".join(bound) or "none",
            "mode": "direct",
            "workers": app.spec.workers,
            "ms": round(took * 1000),
        }
        log.info("app ready", extra={"fields": fields})

    async def _first_of_stop_and(self, work: Awaitable[None]) -> bool:
        """True when ``work`` was done before somebody asked to stop. Raises what ``work`` raised, ungrouped."""
        task = asyncio.ensure_future(work)
        stopped = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))
            return False
        try:
            task.result()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        return True

    # -- connections ------------------------------------------------------------------------------------------

    def _acceptor(self, app: App, local: bool, listener: int) -> Callable[[socket.socket], None]:
        def accepted(sock: socket.socket) -> None:
            flags = TAKE_TRUSTED if local or self._is_trusted_proxy(sock) else 0
            connection = Connection(sock.detach(), flags | listener, app)
            self._connections.adopt(connection)
            app.place(connection)

        return accepted

    def _is_trusted_proxy(self, sock: socket.socket) -> bool:
        if not self._trusted:
            return False
        try:
            peer = ip_address(sock.getpeername()[0].partition("%")[0])
        except (OSError, ValueError):
            return False
        peer = getattr(peer, "ipv4_mapped", None) or peer  # ::ffff:10.0.0.1, on a listener for both families
        return any(peer in network for network in self._trusted)

    def _over(self, connection: Connection) -> None:
        connection.app.over(connection)

    def _requested(self, connection: Connection) -> None:
        connection.app.place(connection)

    # -- stopping ---------------------------------------------------------------------------------------------

    def _on_signal(self, number: signal.Signals) -> None:
        if not self._stop.is_set():
            log.info("stopping", extra={"fields": {"signal": number.name, "grace_s": self._composition.grace_s}})
            self._stop.set()
            self._told_at = self._loop.time()
        elif self._loop.time() - self._told_at >= _SAME_SIGNAL_S:
            log.warning("stopping at once", extra={"fields": {"signal": number.name}})
            self._forced = True
            self._kill_all()

    def _on_unserved_signal(self, number: signal.Signals) -> None:
        fields = {"signal": number.name}
        log.warning("signal ignored: this version does not reload; restart instead", extra={"fields": fields})

    def _served(self) -> list[App | Estate]:
        return [*self.apps.values(), *self.estates.values()]

    def _kill_all(self) -> None:
        self._companion.kill()
        if self.relays is not None:
            self.relays.kill()
        for served in self._served():
            served.kill()

    async def _stop_all(self) -> None:
        grace_s = self._composition.grace_s
        # Caddy first, then the relays: what they have in flight needs the apps.
        await self._companion.stop(grace_s)
        for listener in self._listeners:
            listener.close()
        await self._end_relays(grace_s + _AFTER_GRACE_S)
        for served in self._served():
            served.stop()
        longest = max((app.spec.grace_s for app in self.apps.values()), default=grace_s)
        await self._end_workers(longest + _AFTER_GRACE_S)
        self._connections.close()
        log.info("stopped")

    async def _end_relays(self, patience_s: float) -> None:
        if self.relays is not None and self._relays_started:
            self.relays.stop()
            await self._until_ended([self.relays], patience_s)

    async def _end_workers(self, patience_s: float) -> None:
        await self._until_ended(self._served(), patience_s)
        await self._spawners.close(patience_s=2.0)

    async def _until_ended(self, what: Sequence[App | Estate], patience_s: float) -> None:
        for attempt in (patience_s, _AFTER_GRACE_S):
            try:
                async with asyncio.timeout(attempt):
                    await asyncio.gather(*(each.ended() for each in what))
                break
            except TimeoutError:
                self._kill_all()

    async def _abandon(self) -> None:
        """Leave nothing behind of a start that failed."""
        for listener in self._listeners:
            listener.close()
        self._companion.kill()
        if self.relays is not None and self._relays_started:
            self.relays.stop()
            self.relays.kill()
            await self._until_ended([self.relays], _AFTER_GRACE_S)
        for served in self._served():
            served.stop()
            served.kill()
        await self._end_workers(_AFTER_GRACE_S)
        self._connections.close()

    def _sweep(self) -> None:
        for estate in self.estates.values():
            estate.sweep()
        pools = [pool for app in self._all_apps() for pool in app.pools()]
        known = {worker.pid for pool in pools for worker in (*pool.workers.values(), *pool.leaving)}
        processes.reap_strays(known | self._spawners.pids() | self._starter.pids() | self._companion.pids())
        self._sweeping = self._loop.call_later(_SWEEP_S, self._sweep)

    def _all_apps(self) -> list[App]:
        tenants = [app for estate in self.estates.values() for app in (*estate.apps.values(), *estate.leaving)]
        return [*self.apps.values(), *tenants]


def _complain(exc: ListenError | StartFailed) -> None:
    """Tell the person who started us, not the log alone, why nothing runs."""
    if isinstance(exc, StartFailed):
        indented = "\n".join(f"  {line}" for line in str(exc).splitlines())
        text = f"app {exc.app} does not start ({exc.code}):\n{indented}"
    else:
        text = str(exc)
    print(f"Error: {printable(text)}", file=sys.stderr, flush=True)


def run(
    composition: Composition,
    companion: Callable[[], Companion] | None = None,
    on_ready: Callable[[float], None] | None = None,
) -> int:
    """Run a daemon in this process until it is told to stop; the exit status."""
    import uvloop

    soft, hard = processes.become_supervisor()
    log.debug("descriptor limit raised", extra={"fields": {"from": soft, "to": hard, "pid": os.getpid()}})

    async def main() -> int:
        daemon = Daemon(composition, companion() if companion is not None else None)
        return await daemon.run(on_ready)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())

