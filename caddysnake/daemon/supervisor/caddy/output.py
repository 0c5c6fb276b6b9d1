"""What a Caddy writes to its standard error: records of our log.

While it starts, what it says waits in the pipe, so that its last words can be told if it ends.
"""

from __future__ import annotations

import asyncio
from typing import Any

from ...system.log.pipes import OutputPipes
from ...system.log.process import adopt_outlets, outlets

_LOOK_S = 0.1


class Output:
    """The pipe of one Caddy at a time; none where it has our own standard error."""

    def __init__(self) -> None:
        self._pipes: OutputPipes | None = None
        self._held_for = 0
        self._look: asyncio.TimerHandle | None = None

    def open(self) -> int | None:
        """What the next Caddy is to have as standard error; None: ours. Raises ``OSError``."""
        self.end()
        self._pipes = outlets("caddy", {"process": "caddy"}, ("caddy",))
        return self._pipes.writers[0] if self._pipes is not None else None

    def handed(self, pid: int) -> None:
        """``pid`` has it. What it says is held back until ``release``, or until there is much of it."""
        if self._pipes is not None:
            self._pipes.handed()
            self._held_for = pid
            self._look_at()

    def _look_at(self) -> None:
        if self._pipes is not None and not self._pipes.is_filling:
            self._look = asyncio.get_running_loop().call_later(_LOOK_S, self._look_at)
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

    def said(self) -> str:
        """What it has said, as far as it is held back."""
        if self._pipes is None or not self._held_for:
            return ""
        return self._pipes.held("caddy").decode("utf-8", "replace")

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

    def restore(self, saved: dict[str, Any] | None) -> None:
        """Go on where ``saved`` says."""
        self._pipes = adopt_outlets(saved)
