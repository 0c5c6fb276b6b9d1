"""By when the present state of a worker must have ended, and how long WebSockets may keep it from that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ...channel.farewell import CANCEL_S, END_S
from .gauges import Gauges

TURNS_MS = 2000
"""Who has not turned for longer may not come to read a message."""
_KEEPING_LATE_S = CANCEL_S + 2.0
"""After the grace, a worker that keeps WebSockets has ended its requests by itself."""
_KEEPING_STILL_MS = 10_000


class Deadline:
    """Of one worker: one timer at a time. ``on_over`` is called when the time is over."""

    def __init__(self, grace_s: float, gauges: Gauges, on_over: Callable[[], None]) -> None:
        self._grace_s = grace_s
        self._gauges = gauges
        self._on_over = on_over
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._silence: asyncio.TimerHandle | None = None
        self._kept_until = 0.0

    @property
    def left_s(self) -> float | None:
        """For how long the timer still runs; None when none does."""
        return None if self._timer is None else max(0.0, self._timer.when() - self._loop.time())

    @property
    def kept_for_s(self) -> float | None:
        """For how long WebSockets may stay; None when they may not."""
        return self._kept_until - self._loop.time() if self._kept_until else None

    def set(self, seconds: float) -> None:
        """Be over in so many seconds."""
        self._after(seconds, self._on_over)

    def cancel(self) -> None:
        """Wait for nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def of_silence(self, seconds: float, what: Callable[[], None]) -> None:
        """Call ``what`` if a worker whose channel is closed lives on for so long, whatever else is awaited."""
        self._silence = self._loop.call_later(seconds, what)

    def close(self) -> None:
        """Wait for nothing any more, silence included: timers would keep the worker in memory."""
        self.cancel()
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None

    def _after(self, seconds: float, what: Callable[[], None]) -> None:
        self.cancel()
        self._timer = self._loop.call_later(seconds, what)

    def of_drain(self, seconds: float | None = None) -> None:
        """Give a worker that drains its grace, or the ``seconds`` that are left of it."""
        self._kept_until = 0.0
        self._after(self._grace_s if seconds is None else seconds, self._grace_is_over)

    def of_keeping(self, kept_for_s: float, seconds: float | None = None) -> None:
        """Let a worker that drains keep its WebSockets for ``kept_for_s``; look at it in ``seconds``."""
        self._kept_until = self._loop.time() + kept_for_s
        self._after(self._grace_s + _KEEPING_LATE_S if seconds is None else seconds, self._look_at_kept)

    def _grace_is_over(self) -> None:
        """It cancels its requests now, and ends in order, if it can."""
        if self._gauges.still_ms() > TURNS_MS:
            self._on_over()
        else:
            self.set(END_S)

    def _look_at_kept(self) -> None:
        """The grace is over: only WebSockets may be left, for as long as they may stay, and then the grace again."""
        until = self._kept_until + self._grace_s + END_S
        if self._gauges.active or self._gauges.still_ms() > _KEEPING_STILL_MS or self._loop.time() >= until:
            self._on_over()
        else:
            self._after(min(_KEEPING_STILL_MS / 1000, max(0.1, until - self._loop.time())), self._look_at_kept)
