"""What becomes of an app's builds beside the one that serves: the one that is tried, and the one before."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from ...config.language.models import Canary
from ..commands.release import Tell
from ..system.log.fields import FieldLog
from ..system.state import AppSnapshot, KeptBuildSnapshot, PoolSnapshot
from .builds import TEXT_MAX
from .generation import PoolState
from .owner import Owner
from .pool import Pool
from .spec import StartFailed
from .trial import Trial

log = FieldLog("caddysnake.app")

_SHED_S, _LOOK_S = 0.05, 1.0
"""How often it is asked for its connections, and is looked at when it has none."""


class Shelf:
    """Of one app."""

    def __init__(self, app: Owner) -> None:
        self._app = app
        self._timer: asyncio.TimerHandle | None = None
        self.build = 0
        """The number of its build."""
        self.until = 0.0
        """``time.time()`` when it goes."""

    @property
    def pool(self) -> Pool | None:
        """The generation that is kept."""
        kept = self._app.takeover.kept
        return kept if kept is not None and kept.ready else None

    def keep_until(self, pool: Pool, until: float, build: int) -> None:
        """Have connections come back from ``pool``, which serves nothing more, and keep it until a ``time.time()``."""
        self.build, self.until = build, until
        if self._timer is not None:
            self._timer.cancel()
        self._look(pool)

    def _look(self, pool: Pool) -> None:
        app = self._app
        self._timer = None
        if app.takeover.kept is not pool:
            return
        if time.time() >= self.until or not pool.workers:
            log.info("the build before is let go", app=pool.spec.name, build=self.build)
            app.carry_out(app.takeover.drop_kept())
            return
        holding = [worker for worker in pool.ready if worker.slots.connections]
        for worker in holding:
            worker.shed(worker.slots.connections)
        pause_s = _SHED_S if holding else min(_LOOK_S, max(0.01, self.until - time.time()))
        self._timer = asyncio.get_running_loop().call_later(pause_s, self._look, pool)


class Deploys:
    """Of one app."""

    def __init__(self, app: Owner) -> None:
        self._app = app
        self.trial: Trial | None = None
        """Of the generation that comes, while it has its share of the requests."""
        self.shelf = Shelf(app)

    @property
    def is_other_on_disk(self) -> bool:
        """What a new worker of the present build would find may be a build that is tried, or was returned."""
        refused = self._app.builds.refused
        return self.trial is not None or (refused is not None and refused.code == "canary-failed")

    def keeps(self) -> bool:
        """Whether the present generation stays behind the one that comes."""
        takeover = self._app.takeover
        coming, present = takeover.coming, takeover.present
        may = coming is not None and coming.spec.keep_s > 0 and self._app.builds.running is not None
        return may and bool(present.ready) and not present.core.is_growing

    def try_out(self, canary: Canary, tell: Tell | None = None) -> Trial:
        """Let the generation that was prepared have its share of the requests until it is judged."""
        self.trial = Trial(self._app, self.returned, canary, tell)
        self._app.next_side = self.trial.next_side
        self._app.choose_for_clients()
        return self.trial

    def end_trial(self, why: str) -> None:
        """Give up what is being tried, if anything is."""
        if self.trial is not None:
            self.trial.end(why)

    def returned(self, failure: StartFailed) -> None:
        """What was tried is not wanted: its connections go back, its requests in flight finish. More may follow."""
        builds = self._app.builds
        if self.trial is not None:
            self.trial_is_over("returned")
            builds.was_refused(failure.code, str(failure))
            self._app.carry_out(self._app.takeover.return_())
        elif builds.refused is not None and builds.refused.code == failure.code:
            builds.refused = builds.refused._replace(text=str(failure)[-TEXT_MAX:])

    def trial_is_over(self, how: str) -> None:
        """One build serves from now on."""
        if self.trial is not None:
            self._app.builds.verdicts[how] += 1
        self.trial = self._app.next_side = None

    def shelve(self, pool: Pool) -> None:
        """Let ``pool``, which another has followed, serve nothing more, and keep it."""
        pool.wind_down()
        build = self._app.builds.running  # the one that follows is not accepted yet
        self.shelf.keep_until(pool, time.time() + self._app.spec.keep_s, 0 if build is None else build.number)

    def roll_back(self) -> int | None:
        """Let the build that was kept serve again; its number, or None when there is none."""
        if self.shelf.pool is None:
            return None
        orders, number = self._app.takeover.roll_back(), self.shelf.build
        self._app.builds.rolled_back(number)
        self._app.carry_out(orders)
        return number

    # -- going on in another image of the daemon -------------------------------------------------------------

    def snapshot(self, saved: AppSnapshot) -> None:
        """Put what is tried, and what is kept, into ``saved``."""
        if self.trial is not None:
            saved.trial = self.trial.snapshot()
        kept = self._app.takeover.kept
        if kept is not None:
            saved.kept = KeptBuildSnapshot(pool=kept.snapshot(), until=self.shelf.until, build=self.shelf.build)

    def restore(self, saved: AppSnapshot, restored: Callable[[PoolSnapshot], Pool]) -> None:
        """Go on where ``saved`` says; ``restored`` makes a generation of a carried one."""
        takeover = self._app.takeover
        if saved.kept is not None:
            takeover.kept = restored(saved.kept.pool)
            takeover.kept.core.state = PoolState.WINDING_DOWN
            self.shelf.keep_until(takeover.kept, saved.kept.until, saved.kept.build)
        if saved.trial is not None:
            takeover.coming = restored(saved.trial.pool)
            self.trial = Trial(self._app, self.returned, Canary(*saved.trial.canary), None, saved.trial)
            self._app.next_side = self.trial.next_side
