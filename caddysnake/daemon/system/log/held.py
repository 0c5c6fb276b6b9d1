"""What a process says while it starts waits in its pipes, so that its last words can be told should it end early."""

from __future__ import annotations

import asyncio
import math
from typing import Any

from .pipes import OutputPipes
from .process import logger

_LOOK_S = 0.1


class HeldOutput:
    """The pipes of one process at a time; none where it has our own output."""

    def __init__(self) -> None:
        self._pipes: OutputPipes | None = None
        self._held_for = 0
        self._look: asyncio.TimerHandle | None = None

    def open(self, name: str, fields: dict[str, Any], streams: tuple[str, ...]) -> list[int | None]:
        """What the next process is to have as ``streams``; None: ours. Raises ``OSError``."""
        self.end()
        self._pipes = logger.outlets(name, fields, streams)
        return [None] * len(streams) if self._pipes is None else [*self._pipes.writers]

    def hold(self, pid: int, patience_s: float = math.inf) -> None:
        """``pid`` has them. What it says is held back until ``release``, for ``patience_s``, or until there is much."""
        if self._pipes is not None:
            self._pipes.handed()
            self._held_for = pid
            self._look_at(asyncio.get_running_loop().time() + patience_s)

    def _look_at(self, until: float) -> None:
        loop = asyncio.get_running_loop()
        if self._pipes is not None and not self._pipes.is_filling and loop.time() < until:
            self._look = loop.call_later(_LOOK_S, self._look_at, until)
        else:
            self.release()

    def release(self) -> None:
        """Have it read from now on."""
        pid, self._held_for = self._held_for, 0
        if self._look is not None:
            self._look.cancel()
            self._look = None
        if pid and self._pipes is not None:
            self._pipes.begin(pid)

    def said(self, stream: str) -> str:
        """What it has said on ``stream``, as far as it is held back."""
        if self._pipes is None or not self._held_for:
            return ""
        return self._pipes.held(stream).decode("utf-8", "replace")

    def forget(self) -> None:
        """It has ended, and what is held back has been told otherwise."""
        self._held_for = 0
        self.end()

    def end(self) -> None:
        """It has ended, and what it has said is read."""
        self.release()
        if self._pipes is not None:
            self._pipes.end()
            self._pipes = None

    def snapshot(self) -> dict[str, Any] | None:
        """For another image of the daemon."""
        self.release()
        return None if self._pipes is None else self._pipes.state()

    def restore(self, saved: dict[str, Any] | None) -> bool:
        """Go on where ``saved`` says; False when nobody would read that."""
        self._pipes = logger.adopt_outlets(saved)
        return self._pipes is not None
