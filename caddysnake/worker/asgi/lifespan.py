"""The lifespan of one ASGI app: startup before the first connection, shutdown after the last (ASGI lifespan 2.0)."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from enum import Enum
from typing import Any

from ...channel.records import say
from ..app.loader import foreign_traceback

Message = MutableMapping[str, Any]


class LifespanError(Exception):
    """The app did not start, or did not stop; the text says why, with the app's traceback if there is one."""


class LifespanPhase(Enum):
    """How far a lifespan is, by what the app was told and has answered."""

    NEW = "new"
    STARTING = "starting"  # the app has been called; it has not answered startup
    RUNNING = "running"
    UNSUPPORTED = "unsupported"  # it raised or returned without answering: it knows no lifespan
    STOPPING = "stopping"  # it was told, and has not answered shutdown
    STOPPED = "stopped"
    FAILED = "failed"  # it said so


# What the app may send in which phase, and where that leads. A pair that is absent is the app's error.
TRANSITIONS: dict[tuple[LifespanPhase, str], LifespanPhase] = {
    (LifespanPhase.STARTING, "lifespan.startup.complete"): LifespanPhase.RUNNING,
    (LifespanPhase.STARTING, "lifespan.startup.failed"): LifespanPhase.FAILED,
    (LifespanPhase.STOPPING, "lifespan.shutdown.complete"): LifespanPhase.STOPPED,
    (LifespanPhase.STOPPING, "lifespan.shutdown.failed"): LifespanPhase.FAILED,
}


class Lifespan:
    """Runs ``app`` for one lifespan scope. ``mode`` is ``auto``, ``on`` or ``off``."""

    def __init__(self, app: Any, mode: str) -> None:
        self._app = app
        self._mode = mode
        self.phase = LifespanPhase.NEW
        self.state: dict[str, Any] = {}
        self._task: asyncio.Task[None] | None = None
        self._told = 0  # how many events the app has received
        self._changed = asyncio.Event()
        self._stopping = asyncio.Event()
        self._reason = ""
        self._raised: BaseException | None = None

    @property
    def is_supported(self) -> bool:
        """Whether the app has answered startup, so that it is owed a shutdown and requests get its ``state``."""
        return self.phase in (LifespanPhase.RUNNING, LifespanPhase.STOPPING, LifespanPhase.STOPPED)

    async def startup(self) -> None:
        """Wait until the app has started. Raises ``LifespanError`` when it said it cannot, or must and does not."""
        if self._mode == "off":
            self.phase = LifespanPhase.UNSUPPORTED
            return
        self.phase = LifespanPhase.STARTING
        self._task = asyncio.get_running_loop().create_task(self._run(), name="lifespan")
        await self._changed.wait()
        if self.phase is LifespanPhase.FAILED:
            await self._end(1.0)
            raise LifespanError(self._failure("the app's lifespan startup failed"))
        if self.phase is LifespanPhase.UNSUPPORTED:
            if self._mode == "on":
                raise LifespanError(self._failure("`lifespan on`, but the app did not answer lifespan.startup"))
            if self._raised is not None and self._told:
                # It took the event, so it does know the protocol: carry on, as the specification has it, but not
                # silently. An app that never asked for an event simply has no lifespan.
                say(
                    "warn",
                    "the app raised in its lifespan startup and runs without one",
                    foreign_traceback(self._raised),
                )

    async def shutdown(self, timeout_s: float) -> None:
        """Tell the app to stop and wait for it, ``timeout_s`` at most. Raises ``LifespanError``."""
        if self.phase is not LifespanPhase.RUNNING:
            await self._end(0.0)
            return
        self.phase = LifespanPhase.STOPPING
        self._changed.clear()
        self._stopping.set()
        if self._task is not None and self._task.done():
            return  # it has left already, so there is nobody to tell
        try:
            await asyncio.wait_for(self._changed.wait(), timeout_s)
        except asyncio.TimeoutError:
            await self._end(0.0)
            raise LifespanError(f"the app's lifespan shutdown did not end within {timeout_s:g}s") from None
        await self._end(1.0)
        if self.phase is LifespanPhase.FAILED or self._raised is not None:
            raise LifespanError(self._failure("the app's lifespan shutdown failed"))

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self._app(scope, self._receive, self._send)
        except BaseException as exc:
            # Whatever it is, SystemExit included, it ends this task and not the loop.
            if not (isinstance(exc, asyncio.CancelledError) and self.phase is not LifespanPhase.STARTING):
                self._raised = exc
        finally:
            if self.phase is LifespanPhase.STARTING:
                self.phase = LifespanPhase.UNSUPPORTED
            self._changed.set()

    async def _receive(self) -> Message:
        self._told += 1
        if self._told == 1:
            return {"type": "lifespan.startup"}
        await self._stopping.wait()
        if self._told > 2:
            await asyncio.get_running_loop().create_future()  # nothing comes after shutdown
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        after = TRANSITIONS.get((self.phase, kind))
        if after is None:
            raise RuntimeError(f"{kind!r} cannot be sent while the lifespan is {self.phase.value}")
        self._reason = str(message.get("message", ""))
        self.phase = after
        self._changed.set()

    async def _end(self, patience_s: float) -> None:
        task = self._task
        if task is None or task.done():
            return
        await asyncio.wait([task], timeout=patience_s)
        if not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=1.0)

    def _failure(self, what: str) -> str:
        if self._reason:
            return f"{what}: {self._reason}"
        return what if self._raised is None else f"{what}:\n{foreign_traceback(self._raised)}"
