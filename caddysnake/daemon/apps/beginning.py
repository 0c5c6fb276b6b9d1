"""An app's first start, tried again until it is up: what does not come up harms nobody else, and is not given up.

The first attempt is the app's own first generation, and may take what it takes. Each further one is a generation beside
it, of what the file means by then: a folder, a virtual environment, a user or an env file may have come back.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

from ..system.backoff import Backoff
from ..system.log.fields import FieldLog
from ..system.tasks import cancelled
from ..workers.forking.start_limiter import StartLimiter
from .app import App
from .spec import PoolSpec, StartFailed, looked_at

log = FieldLog("caddysnake.app")

_LEAST_S = 1.0
"""The shortest pause before another attempt."""


class Beginning:
    """Brings ``app`` up. ``again()``, in a thread, says what is to run by now; ``is_up(app, took)`` hears it.
    ``ends_all(self)``: whether the daemon ends when this one fails, and says why.
    """

    def __init__(
        self,
        app: App,
        again: Callable[[], PoolSpec],
        starts: StartLimiter,
        is_up: Callable[[App, float], None],
        ends_all: Callable[[Beginning], bool],
    ) -> None:
        self.app = app
        self.decided = asyncio.Event()
        """It is up, or has failed once."""
        self.was_up = False
        self.has_ended_all = False
        """Its failure was the daemon's."""
        self._again = again
        self._starts = starts
        self._is_up = is_up
        self._ends_all = ends_all
        self._loop = asyncio.get_running_loop()
        self._backoff = Backoff(first_s=_LEAST_S)
        self._pool = app.pool
        self._first: asyncio.Task[None] | None = None
        self._retrying: asyncio.Task[None] | None = None
        self._pauses = 0
        self._is_over = self._is_hurried = False
        self._is_releasing = False
        self._is_released = False
        """Its release commands have done what they do: what fails afterwards does not have them run again."""
        self._told = ""
        app.hurry = self.hurry

    def begin(self) -> None:
        """Start it."""
        self._first = self._loop.create_task(self._begin())

    def go_on(self) -> None:
        """It has failed in another image of the daemon: try again."""
        self.decided.set()
        self._retry(_LEAST_S)

    async def spec(self) -> PoolSpec:
        """What is to run by now. Raises ``StartFailed``."""
        try:
            return await looked_at(self.app.name, self._again)
        except OSError as exc:
            raise StartFailed(self.app.name, "resources", str(exc)) from None

    async def _begin(self) -> None:
        try:
            await self._release(self.app.spec)
            took = await self.app.start()
        except StartFailed as exc:
            if self._is_over or self.app.is_stopping or self.app.pool is not self._pool:
                return  # a reload was quicker
            if self._is_hurried:
                self._retry(0.0)
                return
            self.app.builds.was_refused(exc.code, str(exc))
            pause_s = self._failed(exc)
            if not self._pauses:
                self._retry(pause_s)
        else:
            if self._is_hurried:  # in the moment in which it came up: its workers are being ended
                self._retry(0.0)
            else:
                self._done(took)
        finally:
            self.decided.set()

    def _retry(self, pause_s: float) -> None:
        self._retrying = self._loop.create_task(self._try_until_up(pause_s, self._retrying))

    async def _try_until_up(self, pause_s: float, former: asyncio.Task[None] | None) -> None:
        await cancelled(former)
        while True:
            await asyncio.sleep(pause_s)
            try:
                spec = await self.spec()
                await self._release(spec)
                took = await self.app.prepare(spec, self._starts, first=1)
            except StartFailed as exc:
                pause_s = self._failed(exc)
            else:
                self.app.swap()
                self._done(took)
                return

    async def _release(self, spec: PoolSpec) -> None:
        """Raises ``StartFailed``."""
        if self._is_released:
            return
        self._is_releasing = True
        try:
            await self.app.surroundings.release(spec)
        finally:
            self._is_releasing = False
        self._is_released = not spec.cannot

    def _done(self, took: float) -> None:
        self.was_up = True
        self.end()
        self._is_up(self.app, took)

    def _failed(self, failure: StartFailed) -> float:
        """The seconds until the next attempt."""
        pause_s = max(_LEAST_S, self._backoff.pause_after(0.0))
        self.app.not_started(failure, math.ceil(pause_s))
        self.has_ended_all = self._ends_all(self)
        if self.has_ended_all:
            return pause_s
        fields: dict[str, Any] = {"app": self.app.name, "code": failure.code, "attempts": self.app.attempts}
        if self._told == str(failure):
            log.warning(f"app still does not start; next try in {pause_s:.0f}s", **fields)
        else:
            self._told = str(failure)
            what = f"app does not start, and requests get 503; next try in {pause_s:.0f}s"
            log.error(what, **fields, error=self._told)
        return pause_s

    def hurry(self) -> None:
        """Its code has changed: what is being tried is given up, and the next attempt begins now."""
        if self._is_over or self._pauses:
            return
        if self._first is not None and not self._first.done():
            self._is_hurried = True
            self._pool.drain()
            self._pool.kill()
        else:
            self._retry(0.0)

    async def pause(self) -> None:
        """Try no more until ``resume``; what is being tried is given up, but for the workers of the first attempt."""
        self._pauses += 1
        await cancelled(self._first if self._is_releasing and self._retrying is None else self._retrying)

    def resume(self) -> None:
        """Undo ``pause``."""
        self._pauses = max(0, self._pauses - 1)
        if not self._is_over and not self._pauses and (self._first is None or self._first.done()):
            self._retry(_LEAST_S)

    def end(self) -> None:
        """It is up, or somebody else sees to it."""
        self._is_over = True
        self.decided.set()
        self.app.hurry = None
        current = asyncio.current_task()
        for task in (self._first, self._retrying):
            if task is not None and task is not current:
                task.cancel()
