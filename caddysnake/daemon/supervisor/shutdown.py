"""The end of what runs: within the grace period, in an order in which no request is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ...channel.farewell import AFTER_END_S, END_S
from ...channel.messages import TAKE_LAST
from ..apps.app import App
from ..system import tempdirs
from ..tenants.tenants import Tenants
from .oneoff import OneOffs
from .running import ASKING_LOOK_S, Running, until_asked

_AFTER_GRACE_S = END_S + AFTER_END_S
_READ_S = 0.05
"""What has been sent on a connection by the time that it is accepted, or right after, is with a worker by then."""
_LAST_CALL_S = 0.25
"""So long before workers are told to go, idle connections bring one more request each, which ends them."""
_SERVE_WAITING_S = 5.0
"""How long a stop goes on giving what waits to workers that are busy, if the grace period is not shorter."""
_REMOVAL_S = 5.0
"""How long a stop waits for the removal of what apps have left."""


class Shutdown:
    """Ends ``running``, once."""

    def __init__(self, running: Running) -> None:
        self._running = running

    async def stop(self) -> None:
        """End everything, within the grace period: what the relays have in flight needs the apps.

        The apps are told once no relay has a request that may still ask for one: their WebSockets, which go through
        the relays, are closed by them.
        """
        running, relays = self._running, self._running.relays
        await self._end_changes()
        grace_s = running.desired.grace_s
        running.oneoffs.stop(grace_s)
        for app in running.served_apps():
            app.background.end()
        for tenants in running.templates.values():
            tenants.schedules.end()
        running.listeners.leave()
        await self._last_call(min(grace_s / 2, _LAST_CALL_S))
        await self._serve_accepted(min(grace_s, _SERVE_WAITING_S))
        if relays.pool.is_started:
            relays.stop()
            asking = [worker for pool in relays.pools() for worker in pool.everyone()]
            await until_asked(asking, grace_s / 2)
            self._stop_served()
            await self._until_ended([relays], grace_s + _AFTER_GRACE_S)
        else:
            self._stop_served()
        graces = [max(app.spec.grace_s, app.background.longest_stop_s) for app in running.served_apps()]
        longest = max(graces, default=grace_s)
        await self._end(longest + _AFTER_GRACE_S)

    async def abandon(self) -> None:
        """Leave nothing behind of a start that failed."""
        running = self._running
        await self._end_changes()
        running.listeners.close()
        everything = [*running.served(), running.relays]
        for each in everything:
            each.stop()
            each.kill()
        await self._until_ended(everything, AFTER_END_S)
        await self._end(AFTER_END_S)

    async def _end_changes(self) -> None:
        self._running.is_stopping = True
        self._running.bell.close()
        await self._running.beginnings.close()
        await self._running.autoreload.close()

    async def _last_call(self, patience_s: float) -> None:
        """Nobody can connect any more, but Caddy keeps connections, and sends requests on them. While all workers are
        still there, each of these answers one, with ``Connection: close``; the next goes to another sidecar.
        """
        running = self._running
        for connection in running.connections:
            if connection.bound is not None:
                connection.flags |= TAKE_LAST
        for _ in range(round(patience_s / ASKING_LOOK_S)):
            idle = [(worker, worker.slots.idle) for worker in running.workers() if not worker.gauges.is_over]
            for worker, count in idle:
                if count:
                    worker.shed(count)  # it was given them as ones that stay
            parked = any(each.parked for each in running.connections)
            if running.is_hurried or not (parked or any(count for _, count in idle)):
                break
            await asyncio.sleep(ASKING_LOOK_S)

    async def _serve_accepted(self, patience_s: float) -> None:
        """Let workers begin with what has been accepted, before they are told to go."""
        if not self._running.connections or self._running.is_hurried:
            return
        await asyncio.sleep(min(_READ_S, patience_s))
        for _ in range(round(patience_s / ASKING_LOOK_S)):
            if self._running.is_hurried or not self._is_behind():
                break
            await asyncio.sleep(ASKING_LOOK_S)

    def _is_behind(self) -> bool:
        """Connections wait, and there are workers to serve them."""
        return any(
            app.pool.ready and (app.waiting or any(worker.slots.is_behind for worker in app.pool.ready))
            for app in self._running.all_apps()
        )

    def _stop_served(self) -> None:
        for each in self._running.served():
            each.stop()

    async def _end(self, patience_s: float) -> None:
        running = self._running
        await self._until_ended([*running.served(), running.oneoffs], patience_s)
        running.fallback.drain_out_rest()
        await running.origins.close(patience_s=2.0)
        await tempdirs.settle(_REMOVAL_S)
        running.connections.close()

    async def _until_ended(self, what: Sequence[App | Tenants | OneOffs], patience_s: float) -> None:
        for attempt in (patience_s, AFTER_END_S):
            try:
                async with asyncio.timeout(attempt):
                    await asyncio.gather(*(each.ended() for each in what))
                break
            except TimeoutError:
                self._running.kill()
