"""KeptTasks that are kept until they end, since the loop itself keeps none."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

_Result = TypeVar("_Result")


class KeptTasks(set["asyncio.Task[Any]"]):
    """Those that run."""

    def begin(self, work: Coroutine[Any, Any, _Result]) -> asyncio.Task[_Result]:
        """Run ``work``."""
        task = asyncio.get_running_loop().create_task(work)
        self.add(task)
        task.add_done_callback(self.discard)
        return task


async def cancelled(task: asyncio.Task[Any] | None) -> None:
    """Cancel ``task``, if it runs still, and wait until it has ended."""
    if task is not None and not task.done():
        task.cancel()
        await asyncio.wait((task,))
