"""The build before the present one, kept without connections for as long as ``keep_previous`` says.

Its workers stay as they are: one that ends is not replaced, since a new one could be of new code, where files were
overwritten in place.
"""

from __future__ import annotations

import asyncio
import logging
import time

from .owner import Owner
from .pool import Pool

log = logging.getLogger("caddysnake.app")

_SHED_S, _SHED_SELDOM_S, _OFTEN = 0.02, 1.0, 100
"""How often it is asked for connections that have become idle, and how many times often."""


class Shelf:
    """Of one app."""

    def __init__(self, app: Owner) -> None:
        self._app = app
        self._pool: Pool | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._sheds = 0
        self._build = 0
        self._until = 0.0

    @property
    def pool(self) -> Pool | None:
        """The generation that is kept."""
        kept = self._app.takeover.kept
        return kept if kept is not None and kept.ready else None

    @property
    def build(self) -> int:
        """The number of its build."""
        return self._build

    @property
    def until(self) -> float:
        """``time.time()`` when it goes."""
        return self._until

    def keep(self, pool: Pool, seconds: float, build: int) -> None:
        """Have connections come back from ``pool``, which serves nothing more, and keep it for so long."""
        self.keep_until(pool, time.time() + seconds, build)

    def keep_until(self, pool: Pool, until: float, build: int) -> None:
        """The same, until a moment of ``time.time()``."""
        self._pool, self._build, self._until = pool, build, until
        self._sheds = 0
        if self._timer is not None:
            self._timer.cancel()
        self._look()

    def _look(self) -> None:
        app, pool = self._app, self._pool
        self._timer = None
        if pool is None or app.takeover.kept is not pool:
            self._pool = None
            return
        if time.time() >= self._until or not pool.workers:
            log.info("the build before is let go", extra={"fields": {"app": pool.spec.name, "build": self._build}})
            self._pool = None
            app.carry_out(app.takeover.drop_kept())
            return
        for worker in pool.ready:
            if worker.slots.connections:
                worker.shed(worker.slots.connections)
        self._sheds += 1
        pause_s = _SHED_S if self._sheds < _OFTEN else min(_SHED_SELDOM_S, max(0.01, self._until - time.time()))
        self._timer = asyncio.get_running_loop().call_later(pause_s, self._look)
