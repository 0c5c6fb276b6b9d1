"""The daemon: signals, the order of starting and stopping, and reloads.

Nothing is started before the whole plan is valid, and every listener is open before the first worker is spawned: what
fails, fails before anything has changed. Connections that come before their app is ready wait.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable

from . import processes
from .apps import App
from .builds import Builds
from .companion import Companion
from .composition import Composition
from .listeners import ListenError
from .logs import close_quietly, printable, tell
from .pools import StartFailed
from .serving import Serving

log = logging.getLogger("caddysnake.daemon")

_SWEEP_S = 1.0
_SAME_SIGNAL_S = 0.25
"""make, timeout and their like signal a child and then its whole group: that is one wish, not two."""
EXIT_OK, EXIT_FAILED, EXIT_FORCED = 0, 1, 2  # as Caddy's


class ReloadFailed(Exception):
    """The new configuration cannot be run; the text says why. The old one goes on."""


Reread = Callable[[], Composition]
"""Reads the configuration again. Raises ``ReloadFailed``."""


class Daemon:
    """``run`` runs the composition until a signal ends it."""

    def __init__(
        self, composition: Composition, companion: Companion | None = None, reread: Reread | None = None
    ) -> None:
        self.serving = Serving(composition)
        self._companion = companion or Companion()
        self._reread = reread
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._forced = False
        self._told_at = 0.0
        self._reload: asyncio.Task[None] | None = None
        self.builds = Builds()
        """Which configuration runs since when, and which was refused; each app has its own."""

    @property
    def apps(self) -> dict[str, App]:
        """The static apps, by name."""
        return self.serving.apps

    async def run(self, on_ready: Callable[[float], None] | None = None) -> int:
        """Start, serve, stop; the process's exit status. ``on_ready(seconds)`` is called when all apps serve."""
        begun = time.monotonic()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._on_signal, number)
        self._loop.add_signal_handler(signal.SIGHUP, self._on_reload_signal)
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            self._loop.add_signal_handler(number, self._on_unserved_signal, number)
        self._sweeping = self._loop.call_later(_SWEEP_S, self._sweep)
        try:
            if await self._first_of_stop_and(self._start_all()):
                if on_ready is not None:
                    on_ready(time.monotonic() - begun)
                await self._stop.wait()
            await self._stop_all()
            return EXIT_FORCED if self._forced else EXIT_OK
        except (ListenError, StartFailed) as exc:
            _complain(exc)
            self._companion.kill()
            await self.serving.abandon()
            return EXIT_FAILED
        finally:
            self._sweeping.cancel()

    async def _start_all(self) -> None:
        await self.serving.start()
        self.builds.accepted()
        await self._companion.start()

    async def _first_of_stop_and(self, work: Awaitable[None]) -> bool:
        """True when ``work`` was done before somebody asked to stop. Raises what ``work`` raised."""
        task = asyncio.ensure_future(work)
        stopped = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))
            return False
        task.result()
        return True

    # -- reloading --------------------------------------------------------------------------------------------

    async def reload(self, changed_only: bool = False) -> None:
        """Run what the configuration says now, with new workers for every app. Raises ``ReloadFailed``.

        ``changed_only``: for apps whose definition has changed. A failure changes nothing, and is kept in ``builds``.
        A supervised Caddy is not told: what it must know is its own file's business.
        """
        if self._reread is None:
            raise ReloadFailed("there is no file to read again")
        try:
            composition = self._reread()
        except ReloadFailed as exc:
            self.builds.was_refused("configuration", str(exc))
            raise
        await self.change(composition, changed_only)

    async def change(self, composition: Composition, changed_only: bool = False) -> None:
        """Run ``composition``, as ``reload`` does. Raises ``ReloadFailed``."""
        begun = time.monotonic()
        try:
            await self.serving.change(composition, changed_only)
        except (ListenError, StartFailed) as exc:
            why = _why(exc)
            self.builds.was_refused(exc.code if isinstance(exc, StartFailed) else "listener", why)
            raise ReloadFailed(why) from None
        self.builds.accepted()
        log.info("reloaded", extra={"fields": {"ms": round((time.monotonic() - begun) * 1000)}})

    def _on_reload_signal(self) -> None:
        if self._reload is not None and not self._reload.done():
            log.warning("already reloading")
            return
        self._reload = self._loop.create_task(self._reload_and_tell())

    async def _reload_and_tell(self) -> None:
        log.info("reloading")
        try:
            await self.reload()
        except ReloadFailed as exc:
            log.error("reload refused; what ran goes on", extra={"fields": {"error": str(exc)}})

    # -- stopping ---------------------------------------------------------------------------------------------

    def _on_signal(self, number: signal.Signals) -> None:
        if not self._stop.is_set():
            fields = {"signal": number.name, "grace_s": self.serving.composition.grace_s}
            log.info("stopping", extra={"fields": fields})
            self._stop.set()
            self._told_at = self._loop.time()
        elif self._loop.time() - self._told_at >= _SAME_SIGNAL_S:
            log.warning("stopping at once", extra={"fields": {"signal": number.name}})
            self._forced = True
            self._companion.kill()
            self.serving.kill()

    def _on_unserved_signal(self, number: signal.Signals) -> None:
        log.warning("signal ignored: it means nothing here", extra={"fields": {"signal": number.name}})

    async def _stop_all(self) -> None:
        if self._reload is not None:
            self._reload.cancel()
            await asyncio.wait((self._reload,))
        # Caddy first: what it has in flight needs the apps.
        await self._companion.stop(self.serving.composition.grace_s)
        await self.serving.stop()
        log.info("stopped")

    def _sweep(self) -> None:
        self.serving.sweep()
        processes.reap_strays(self.serving.pids() | self._companion.pids())
        self._sweeping = self._loop.call_later(_SWEEP_S, self._sweep)


def _why(exc: ListenError | StartFailed) -> str:
    if isinstance(exc, StartFailed):
        indented = "\n".join(f"  {line}" for line in str(exc).splitlines())
        what = "caddy does not start" if exc.code == "caddy" else f"app {exc.app} does not start ({exc.code})"
        return f"{what}:\n{indented}"
    return str(exc)


def _complain(exc: ListenError | StartFailed) -> None:
    """Tell the person who started us, not the log alone, why nothing runs."""
    tell(f"Error: {printable(_why(exc))}")


def run(
    composition: Composition,
    companion: Callable[[], Companion] | None = None,
    on_ready: Callable[[float], None] | None = None,
    reread: Reread | None = None,
) -> int:
    """Run a daemon in this process until it is told to stop; the exit status."""
    import uvloop

    soft, hard = processes.become_supervisor()
    log.debug("descriptor limit raised", extra={"fields": {"from": soft, "to": hard, "pid": os.getpid()}})

    async def main() -> int:
        daemon = Daemon(composition, companion() if companion is not None else None, reread)
        return await daemon.run(on_ready)

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(main())
    finally:
        close_quietly()
