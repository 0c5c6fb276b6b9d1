"""A new build that gets its share of the requests beside the old one, until it is judged (a canary)."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from ...config.language.models import Canary
from ..commands.release import Tell
from ..sockets.connections import Connection
from ..system.log.fields import FieldLog
from ..system.log.process import logger
from ..system.state import TrialSnapshot
from ..system.tasks import cancelled
from ..workers.worker import Worker
from .judging import Figures, Judgement, Ruling, figures_of, judge, late_s
from .owner import Owner
from .pool import Pool
from .spec import StartFailed

TURNS_MAX = 1000
_MADE_UP_FOR = 4
"""What the new build has missed beyond this, while connections had not come back yet, it does not get at once."""


class Rota:
    """``share``: of the requests, for the new build."""

    def __init__(self, share: float) -> None:
        self.share = share
        self._given = 0.0
        """Requests that the new build got, or gets on what it was given."""
        self._seen = self._told = 0
        """``total`` when it last changed, and by how much: workers tell of many requests together."""

    def turns_of_new(self, total: int) -> int:
        """Return 1 when the next request is for the new build, 0 when it is for the old. ``total``: that have come."""
        if total != self._seen:
            self._told, self._seen = total - self._seen, total
        due = self.share * (total + 1)
        self._given = max(self._given, due - _MADE_UP_FOR - self.share * self._told)
        if self._given < due:
            self._given += 1
            return 1
        return 0

    def turns_of_old(self, total: int) -> int:
        """Return for how many requests a connection stays with the old build."""
        until_due = math.ceil((self._given + 1) / self.share) - total - 1
        usual = math.ceil((1 - self.share) / self.share)
        return min(max(1, min(until_due, usual)), TURNS_MAX)


log = FieldLog("caddysnake.app")

_LOOK_S = 0.1
_AHEAD = 4
"""So many requests more than its share still let the new build have clients: each worker tells in its time."""
_TELL_S = 2.0
_COMPLETE_S = 120.0
"""How long the rest of the workers of a build that was found good may take."""


class Compared(NamedTuple):
    """What both builds have done since the trial began."""

    new: Figures
    old: Figures


class Trial:
    """Of the generation that comes, which is ready. ``result``: the verdict, once it is carried out."""

    def __init__(
        self,
        app: Owner,
        returned: Callable[[StartFailed], None],
        canary: Canary,
        tell: Tell | None = None,
        saved: TrialSnapshot | None = None,
    ) -> None:
        """``returned(why)`` has it given up, and may be told more of why later. ``tell`` hears how both builds do."""
        coming = app.takeover.coming
        assert coming is not None
        self.canary = canary
        self.pool = coming
        self.old = app.takeover.present
        self.began_at = time.time()
        """``time.time()``."""
        self.result: asyncio.Future[Judgement] = asyncio.get_running_loop().create_future()
        self._app = app
        self._returned = returned
        self._verdict: Compared | None = None
        """What it was judged by."""
        self._tell = tell
        self._told_at = 0.0
        self._begun = time.monotonic()
        self._base = Compared(_figures(self.pool), _figures(self.old))
        if saved is not None:
            self.began_at, self._begun = saved.began_at, saved.begun
            self._base = Compared(*(Figures(*each) for each in saved.base))
        self.ends_at = self.began_at + canary.for_s
        """``time.time()`` by which it is judged."""
        workers = canary.workers
        share = workers / (len(self.old.ready) + workers) if workers else canary.share
        self.share = min(max(share, 0.001), 0.99)
        """Of the requests, for the new build."""
        self._rota, self._rota_of_clients = Rota(self.share), Rota(self.share)
        self._clients = 0
        """So many have been given to a worker, to stay with it."""
        self._since: dict[tuple[Connection, float], float] = {}
        """Requests of the new build that have no answer, and since when that was seen."""
        self._turn = 0
        self._task = asyncio.get_running_loop().create_task(self._watch())

    def compared(self) -> Compared:
        """What both have done so far, or had when the trial ended."""
        new, old = self._base
        return self._verdict or Compared(_figures(self.pool).since(new), _figures(self.old).since(old))

    def next_side(self, is_client: bool = False) -> tuple[list[Worker], int]:
        """Return who may get the next request, and after how many a connection comes back; or who gets a client
        (``is_client``), whose requests will all go there: none, while the new build has more than its share.
        """
        new, old = self.pool.ready, self.old.ready
        if not old:
            return new, 1
        now = self.compared()
        total = now.new.total + now.old.total
        if is_client:  # they are counted here: of what has been answered workers tell a little later
            self._clients += 1
            has_room = now.new.total <= self.share * total + _AHEAD
            return (new if new and has_room and self._rota_of_clients.turns_of_new(self._clients - 1) else old), 1
        return (new, 1) if new and self._rota.turns_of_new(total) else (old, self._rota.turns_of_old(total))

    # -- watching ------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        app, for_s = self._app.spec.name, self.canary.for_s
        log.info("the new build is on trial", app=app, share=f"{self.share:.1%}", for_s=for_s)
        while True:
            self._shed()
            await asyncio.sleep(_LOOK_S)
            now, figures = time.monotonic(), self.compared()
            verdict = judge(self.canary, now - self._begun, *figures, self._unanswered(now, figures.old))
            if verdict is not None:
                break
            self._tell_progress()
        if verdict.ruling is Ruling.PROMOTE:
            verdict = await self._completed(verdict)
        await self._carry_out(verdict)

    def _unanswered(self, now: float, old: Figures) -> int:
        """How many requests of the new build have been without an answer for too long. One that is looked at twice has
        its connection for one request.
        """
        held = {each for worker in self.pool.ready for each in worker.slots.unanswered() if each.turns}
        self._since = {(each, each.since): self._since.get((each, each.since), now) for each in held}
        limit_s = late_s(self.canary, old)
        return sum(now - at > limit_s for at in self._since.values())

    def _tell_progress(self) -> None:
        now = time.monotonic()
        if self._tell is not None and now - self._told_at >= _TELL_S:
            self._told_at = now
            new, old = self.compared()
            left = max(0, round(self.canary.for_s - (now - self._begun)))
            self._tell(self.pool.spec.name, f"canary, {left}s left: new {new}; old {old}")

    def _shed(self) -> None:
        """Have connections come back that the old build was given before the trial: they are not counted."""
        for worker in [] if self.old.spec.ties else self.old.ready:
            if count := worker.slots.uncounted:
                worker.shed(count)

    async def _completed(self, verdict: Judgement) -> Judgement:
        """Start the rest of its workers, where they are not to come one by one; what becomes of the verdict."""
        pool = self.pool
        if pool.spec.strategy == "rolling" or not pool.core.is_growing:
            return verdict
        pool.resize(pool.core.size)
        until = time.monotonic() + min(pool.spec.start_timeout_s or _COMPLETE_S, _COMPLETE_S)
        while len(pool.ready) < pool.core.size:
            if time.monotonic() > until or pool.is_hopeless:
                return Judgement(Ruling.RETURN, "the rest of its workers did not come up")
            await asyncio.sleep(_LOOK_S / 4)
        return verdict

    async def _carry_out(self, verdict: Judgement) -> None:
        new, old = self._verdict = self.compared()
        fields: dict[str, Any] = {"app": self._app.spec.name, "why": verdict.why, "new": str(new), "old": str(old)}
        if verdict.ruling is Ruling.PROMOTE:
            log.info("the new build is promoted", **fields)
            self._app.swap()
        else:
            pids = [worker.pid for worker in self.pool.everyone()]
            self._returned(self._failure(verdict))
            times, traceback = await logger.trouble_of(self.pool.spec.name, pids)
            if times:
                verdict = verdict._replace(why=f"{verdict.why}\n{times} times:\n{traceback}")
                self._returned(self._failure(verdict))
            log.error("the new build is returned", **fields, error=verdict.why)
        self._conclude(verdict)

    # -- its end by others ---------------------------------------------------------------------------------------

    async def promote(self, why: str) -> Judgement:
        """Let it take over now."""
        await cancelled(self._task)
        if not self.result.done():
            await self._carry_out(await self._completed(Judgement(Ruling.PROMOTE, why)))
        return self.result.result()

    def end(self, why: str) -> None:
        """Give it up: something else is to run, or somebody does not want it."""
        self._task.cancel()
        if not self.result.done():
            new, old = self._verdict = self.compared()
            verdict = Judgement(Ruling.RETURN, why)
            log.warning("the new build is returned", app=self._app.spec.name, why=why, new=str(new), old=str(old))
            self._returned(self._failure(verdict))
            self._conclude(verdict)

    def _conclude(self, verdict: Judgement) -> None:
        if not self.result.done():
            self.result.set_result(verdict)

    def outcome(self) -> StartFailed | None:
        """Why it was returned, as a start that has failed; None when it was promoted, or is not judged yet."""
        if not self.result.done() or self.result.result().ruling is Ruling.PROMOTE:
            return None
        return self._failure(self.result.result())

    def _failure(self, verdict: Judgement) -> StartFailed:
        (new, old), (why, _, traceback) = self.compared(), verdict.why.partition("\n")
        text = f"returned: {why}\n  new build: {new}\n  old build: {old}\n{traceback}".rstrip()
        return StartFailed(self.pool.spec.name, "canary-failed", text)

    # -- going on in another image of the daemon -------------------------------------------------------------

    def snapshot(self) -> TrialSnapshot:
        """For another image of the daemon."""
        return TrialSnapshot(
            pool=self.pool.snapshot(),
            canary=self.canary,
            began_at=self.began_at,
            begun=self._begun,
            base=list(self._base),
        )


def _figures(pool: Pool) -> Figures:
    """All that a build has done since it began."""
    cells = pool.ledger.cells
    living = [worker.gauges.cells() for worker in pool.everyone() if not worker.gauges.is_over]
    sums = [sum(column) for column in zip(*living, *([cells] if cells else []), strict=True)]
    return figures_of(sums, pool.ledger.refusals.total() + pool.ledger.relayed, pool.core.crashes)
