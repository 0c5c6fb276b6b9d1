"""``stop_first``: the old build of an app ends before the new one starts, for what only one may have at a time.

Requests wait meanwhile. A new build that does not come up is followed by the old one: by its code, wherever links lead
by then, unless that was overwritten in place.
"""

from __future__ import annotations

import asyncio

from ...channel.settings import Settings
from ..system.log.fields import FieldLog
from ..workers.forking.start_limiter import StartLimiter
from .owner import Owner
from .pool import Pool
from .spec import PoolSpec, StartFailed

log = FieldLog("caddysnake.app")


class Exchange:
    """Of one app; one at a time."""

    def __init__(self, app: Owner) -> None:
        self._app = app
        self._is_running = False
        self._back: asyncio.Task[None] | None = None

    @property
    def is_under_way(self) -> bool:
        """The old has been told to go, and nothing serves in its place yet."""
        return self._is_running or (self._back is not None and not self._back.done())

    async def settled(self) -> None:
        """Wait until the old is back, if it is on its way back."""
        if self._back is not None and not self._back.done():
            await asyncio.wait((self._back,))

    async def renew(self, spec: PoolSpec, starts: StartLimiter | None = None) -> float:
        """Let the old go, and start ``spec``; the seconds. Raises ``StartFailed``: the old serves, or has fallen."""
        app, takeover = self._app, self._app.takeover
        await self.settled()
        begun = asyncio.get_running_loop().time()
        former = as_it_ran(takeover.present)
        self._is_running = True
        try:
            app.carry_out(takeover.suspend())
            await self._all_ended()
            if takeover.is_stopping:
                raise StartFailed(spec.name, "stopping", "it was told to go while it started")
            self._is_running = False  # what `prepare` forks tells that it is not settled
            await app.prepare(spec, starts)
            app.swap()
        except BaseException:
            if not takeover.is_stopping:
                self._back = asyncio.get_running_loop().create_task(self._bring_back(former))
                self._is_running = False
                await self.settled()  # whoever cancels this once more does not wait
            raise
        finally:
            self._is_running = False
        return asyncio.get_running_loop().time() - begun

    async def _all_ended(self) -> None:
        takeover = self._app.takeover
        await asyncio.gather(*(pool.ended() for pool in [takeover.present, *takeover.former]))

    async def _bring_back(self, former: PoolSpec) -> None:
        app = self._app
        await self._all_ended()  # one that did not come up may hold for a moment what only one can have
        coming = app.begin_generation(former)
        try:
            await coming.start()
        except StartFailed as exc:
            app.discard()
            if not app.takeover.is_stopping:
                log.error("the old build does not come back", app=exc.app, error=str(exc))
                app.fallen(exc)
        else:
            app.carry_out(app.takeover.swap(is_growing=False))


def as_it_ran(pool: Pool) -> PoolSpec:
    """Return the spec of ``pool`` with the folder that its workers were started in, wherever links lead by now."""
    spec = pool.spec
    settings = next((worker.settings for worker in pool.workers.values()), None)
    if not isinstance(settings, Settings) or not isinstance(spec.settings, Settings):
        return spec
    return spec._replace(settings=spec.settings._replace(working_dir=settings.working_dir))
