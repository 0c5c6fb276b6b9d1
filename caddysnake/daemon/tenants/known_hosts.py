"""Answers whether a host is served here, for Caddy's on-demand TLS, however many ask for whatever names.

Every look at the disk runs in one of a few threads, is bounded in time, and is shared by all who ask for the same host
meanwhile. Answers are remembered for some seconds, so asking again and again for one name costs nothing, and asking for
ever new ones pushes out what was remembered but never grows it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from typing import Final

from ..system.timings import TIMINGS, Timings

REMEMBERED_S: Final = 5.0
"""How long an answer holds. So long may a tenant that was just made have to wait for its certificate."""

REMEMBERED_MAX: Final = 4096
PENDING_MAX: Final = 256
_THREADS: Final = 2


class HostAnswer(Enum):
    """What Caddy is told. Only ``YES`` lets it get a certificate."""

    YES = "yes"
    NO = "no"
    BUSY = "busy"  # too many ask, or the disk does not answer: it may ask again


class KnownHosts:
    """Answers for one configuration at a time. ``serves`` looks at the disk and may take its time."""

    def __init__(
        self,
        serves: Callable[[str], bool],
        timings: Timings = TIMINGS,
        pending_max: int = PENDING_MAX,
        remembered_max: int = REMEMBERED_MAX,
    ) -> None:
        self._serves = serves
        self._timings = timings
        self._pending_max = pending_max
        self._remembered_max = remembered_max
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(_THREADS, "on-demand")
        self._remembered: OrderedDict[str, tuple[float, bool]] = OrderedDict()
        self._pending: dict[str, asyncio.Future[bool]] = {}

    def __len__(self) -> int:
        """How many answers are remembered."""
        return len(self._remembered)

    def change(self, serves: Callable[[str], bool]) -> None:
        """Another configuration holds from now on."""
        self._serves = serves
        self._remembered.clear()
        self._pending.clear()

    def close(self) -> None:
        """Nobody asks any more. A look that is under way is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def answer(self, host: str) -> HostAnswer:
        """Whether ``host`` is served here."""
        name = host.lower()
        until, known = self._remembered.get(name, (0.0, False))
        if self._loop.time() < until:
            return HostAnswer.YES if known else HostAnswer.NO
        pending = self._pending.get(name)
        if pending is None:
            if len(self._pending) >= self._pending_max:
                return HostAnswer.BUSY
            pending = self._look(name)
        try:
            # Whoever gives up must not end the look for the others.
            is_served = await asyncio.wait_for(asyncio.shield(pending), self._timings.lookup_s)
        except (TimeoutError, OSError):
            return HostAnswer.BUSY
        return HostAnswer.YES if is_served else HostAnswer.NO

    def _look(self, name: str) -> asyncio.Future[bool]:
        pending = self._pending[name] = self._loop.run_in_executor(self._threads, self._serves, name)
        pending.add_done_callback(lambda done: self._found(name, done))
        return pending

    def _found(self, name: str, done: asyncio.Future[bool]) -> None:
        if self._pending.get(name) is not done:  # asked of a configuration that holds no more
            return
        del self._pending[name]
        if done.cancelled() or done.exception() is not None:
            return
        self._remembered.pop(name, None)
        self._remembered[name] = (self._loop.time() + REMEMBERED_S, done.result())
        if len(self._remembered) > self._remembered_max:
            self._remembered.popitem(last=False)
