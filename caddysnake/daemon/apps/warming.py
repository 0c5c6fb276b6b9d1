"""Workers of one pool that are ready, and answer their warm-up before they count as such."""

from __future__ import annotations

from collections.abc import Callable

from ..system.log.process import logger
from ..workers.lifecycle import Reason, WorkerState
from ..workers.warmup import WarmUp, warm_up
from ..workers.worker import Worker


class Warming:
    """``admit(worker)`` has one that answered well, ``failed(worker, reason)`` one that did not."""

    def __init__(self, app: str, admit: Callable[[Worker], None], failed: Callable[[Worker, Reason], None]) -> None:
        self._app = app
        self._admit = admit
        self._failed = failed
        self.workers: set[Worker] = set()

    async def warm(self, worker: Worker, asked: WarmUp) -> None:
        """See whether ``worker`` answers."""
        self.workers.add(worker)
        try:
            why = await warm_up(worker, asked)
            if worker.state is not WorkerState.READY:
                return  # it ended, or was told to
            if why is None:
                self._admit(worker)
                return
            _, traceback = await logger.trouble_of(self._app, [worker.pid])
            self._failed(worker, Reason("warmup-failed", f"{why}\n{traceback}".rstrip()))
            worker.drain()
        finally:
            self.workers.discard(worker)
