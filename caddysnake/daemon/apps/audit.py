"""One more worker of a build, which is watched for what it would miss in a sandbox, and serves nobody
(``sandbox audit``)."""

from __future__ import annotations

import asyncio

from ...config.plan.fence import Fence, FenceError
from ..sockets.connections import Connection
from ..system.log.fields import FieldLog
from ..workers.child.launcher import SpawnError
from ..workers.lifecycle import Reason
from ..workers.sink import WorkerSink
from ..workers.warmup import warm_up
from ..workers.worker import Worker
from .source import WorkerSource
from .spec import PoolSpec

log = FieldLog("caddysnake.app")


class Audit(WorkerSink[Worker]):
    """Of the build that ``spec`` is of. ``begin`` once."""

    def __init__(self, spec: PoolSpec, source: WorkerSource) -> None:
        self._spec = spec
        self._source = source
        self._is_begun = False
        self._news = asyncio.Event()
        self._reason: Reason | None = None
        self.is_under_way = False

    def begins(self) -> bool:
        """It is to be run, and has not been."""
        is_first, self._is_begun = not self._is_begun, True
        return is_first and self._spec.rehearsal is not None

    async def run(self, fence: Fence) -> None:
        """Have it imported and warmed up, and let it go: then it tells, in the log."""
        self.is_under_way = True
        worker: Worker | None = None
        try:
            worker = await self._source.rehearse(fence, self)
            await self._news.wait()
            if (
                self._reason is None
                and self._spec.warmup is not None
                and (why := await warm_up(worker, self._spec.warmup))
            ):
                self._reason = Reason("warmup-failed", why)
            worker.drain()
            await worker.ended.wait()
            if self._reason is not None:
                self._tell(self._reason.text)
        except (SpawnError, FenceError, OSError) as exc:
            self._tell(str(exc))
        finally:
            self.is_under_way = False
            if worker is not None and not worker.ended.is_set():
                worker.kill()

    def _tell(self, why: str) -> None:
        log.warning("a worker that was watched for its sandbox did not come up", app=self._spec.name, error=why)

    # -- what it says (WorkerSink): it has no connections ----------------------------------------------------------

    def admitted(self, worker: Worker) -> None:
        """It is imported."""
        self._news.set()

    def withdrawn(self, worker: Worker) -> None:
        """It was told to go."""

    def failed(self, worker: Worker, reason: Reason) -> None:
        """It does not come up."""
        self._reason = reason
        self._news.set()

    def exited(self, worker: Worker, orphans: list[tuple[Connection, int]]) -> None:
        """It is gone."""
        self._news.set()

    def reaped(self, worker: Worker, reason: Reason | None) -> None:
        """It is known how."""
        self._reason = self._reason or reason
        self._news.set()
