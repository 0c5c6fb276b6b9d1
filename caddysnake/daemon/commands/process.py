"""A process beside an app's workers: started, watched, started again with back-off, and let go at its own pace."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Sequence
from enum import Enum
from typing import Any

from ...channel.throttle import Throttle
from ..system.as_json import plain
from ..system.backoff import Backoff
from ..system.log.fields import FieldLog
from ..system.snapshots import ProcessSnapshot
from .execution import Ending, Execution, NotExecuted
from .spec import ProcessSpec
from .store import trouble
from .surroundings import BuildSurroundings, store_socket

log = FieldLog("caddysnake.app")


class ProcessState(Enum):
    """How far it is."""

    WAITING = "waiting"  # for the one of the build before to end
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"  # it has ended, and is started again in a while
    STOPPING = "stopping"
    ENDED = "ended"  # and is not started again


def pause_after(restart: str, ending: Ending, backoff: Backoff) -> float | None:
    """Return for how many seconds to wait before what ended so is started again; None: it is not."""
    if restart == "never" or (restart == "on_failure" and ending.is_good):
        return None
    return backoff.pause_after(ending.duration_s)


class SupervisedProcess:
    """One of the copies of a ``ProcessSpec``. ``surroundings``: of its build."""

    def __init__(self, app: str, spec: ProcessSpec, index: int, surroundings: BuildSurroundings) -> None:
        self.app = app
        self.spec = spec
        self.index = index
        self.label = spec.name if spec.copies == 1 else f"{spec.name}.{index + 1}"
        """Its name, with its number where there are several."""
        self.state = ProcessState.WAITING
        self.since = time.time()
        """When it came into its state."""
        self.restarts = 0
        self.last_end: tuple[float, str] | None = None
        """``time.time()`` of its last end, and how that was."""
        self.ended = asyncio.Event()
        """Nothing of it is left, and nothing more is started."""
        self.is_full = False
        """It is a store that refuses writes."""
        self._surroundings = surroundings
        self._execution: Execution | None = None
        self._pid = 0
        """Of its last process."""
        self._backoff = Backoff()
        self._told = Throttle()
        self._leaving = asyncio.Event()
        self._renewing = asyncio.Event()
        self._stop_by: float | None = None
        self._due: float | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """Its process; 0 while there is none."""
        return self._execution.pid if self._execution is not None else 0

    @property
    def socket(self) -> str:
        """Where it listens, if it is a store that runs."""
        return store_socket(self._surroundings.known.private) if self._surroundings.known is not None else ""

    @property
    def is_leaving(self) -> bool:
        """It was told to go."""
        return self._leaving.is_set()

    @property
    def has_failed(self) -> bool:
        """It has ended many times in a row, or is not started again though it failed."""
        return self._backoff.exhausted

    def begin(self, after: Sequence[SupervisedProcess] = ()) -> None:
        """Start it, once those of ``after`` have ended."""
        self._task = asyncio.get_running_loop().create_task(self._run(after))

    def stop(self) -> None:
        """Let it go: it gets its signal and its time."""
        self._leaving.set()
        if self._task is None:
            self.ended.set()

    def renew(self) -> None:
        """Have it end, and started again at once."""
        self._renewing.set()

    def kill(self) -> None:
        """End it by force, and start it no more."""
        self.stop()
        if self._execution is not None:
            self._execution.kill()

    # -- its life ------------------------------------------------------------------------------------------------

    async def _run(self, after: Sequence[SupervisedProcess], pause_s: float = 0.0) -> None:
        try:
            await self._first(asyncio.gather(*(each.ended.wait() for each in after)))
            while self._execution is not None or not self._leaving.is_set():
                if pause_s > 0.0 and self._execution is None:
                    self._enter(ProcessState.PAUSED)
                    self._due = time.monotonic() + pause_s
                    await self._first(asyncio.sleep(pause_s))
                    self._due = None
                    if self._leaving.is_set():
                        break
                ending = await self._lived()
                is_asked = self._renewing.is_set() or self._leaving.is_set()
                self._renewing.clear()
                next_pause_s = self._ended_as_asked(ending) if is_asked else self._ended(ending)
                if next_pause_s is None:
                    break
                pause_s = next_pause_s
                self.restarts += not self._leaving.is_set()
        finally:
            self._enter(ProcessState.ENDED)
            self.ended.set()

    async def _first(self, work: Awaitable[object]) -> None:
        """Wait until ``work`` is done, or it is to leave, or to be renewed."""
        done = asyncio.ensure_future(work)
        asked = [asyncio.ensure_future(event.wait()) for event in (self._leaving, self._renewing)]
        try:
            await asyncio.wait((done, *asked), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (done, *asked):
                task.cancel()
            await asyncio.wait((done, *asked))
            if not done.cancelled():
                done.exception()  # a gather that is cancelled has one, of which asyncio complains if nobody asks

    async def _lived(self) -> Ending:
        """Start it, unless it runs, and wait for its end."""
        if self._execution is None:
            self._enter(ProcessState.STARTING)
            self._renewing.clear()
            spec, begun = self.spec, time.time()
            try:
                environ = {**dict(spec.environ), "CADDYSNAKE_PROCESS": self.label}
                around = await self._surroundings.get()
                if spec.stays and (why := await asyncio.to_thread(trouble, spec.command[0])):
                    raise NotExecuted(why)
                self._execution = await Execution.begin(
                    around, spec.command, self.label, death_signal=spec.stop_signal, environ=environ
                )
            except NotExecuted as exc:
                return Ending(None, time.time() - begun, str(exc))
            except Exception as exc:
                log.error("process cannot be started", exc_info=exc, **self._fields())
                return Ending(None, time.time() - begun, f"{type(exc).__name__}: {exc}")
            self._pid = self._execution.pid
            self._enter(ProcessState.RUNNING)
            level = logging.INFO if self._backoff.failures <= 1 else logging.DEBUG
            log.log(level, "process started", **self._fields())
        self.is_full = False
        execution = self._execution
        if self._stop_by is None:
            await self._first(asyncio.shield(execution.ending))
        if not execution.ending.done():
            self._enter(ProcessState.STOPPING)
            patience_s = self.spec.stop_timeout_s
            if self._stop_by is None:
                self._stop_by = time.monotonic() + patience_s
                execution.signal(self.spec.stop_signal)
            await asyncio.wait((execution.ending,), timeout=max(0.0, self._stop_by - time.monotonic()))
            if not execution.ending.done():
                what = "process did not end in its stop_timeout, and is killed"
                log.warning(what, **self._fields(), stop_timeout=patience_s)
                execution.kill()
        ending = await asyncio.shield(execution.ending)
        self._stop_by = None
        self._execution = None
        self.last_end = (time.time(), ending.reason)
        return ending

    def _ended_as_asked(self, ending: Ending) -> float:
        log.info("process has ended, as it was told", **self._fields(), reason=ending.reason)
        self._backoff.failures = 0
        return 0.0

    def _ended(self, ending: Ending) -> float | None:
        """It has ended by itself: for how long to wait before the next start, None for good."""
        self.last_end = (time.time(), ending.reason)
        was_failed = self._backoff.exhausted
        pause_s = pause_after(self.spec.restart, ending, self._backoff)
        fields = {**self._fields(), "reason": ending.reason, "duration": round(ending.duration_s, 3)}
        if pause_s is None:
            tell = log.info if ending.is_good else log.error
            tell(f"process ended, and is not started again: restart {self.spec.restart}", **fields)
            return None
        if self._backoff.exhausted and not was_failed:
            hint = "see what it wrote; a process has to stay in the foreground"
            fields |= {"failures_in_a_row": self._backoff.failures, "hint": hint}
            log.error("process has failed: it ends again and again, and is tried on", **fields)
        elif self._told.is_due(ending.reason, time.monotonic()):
            if untold := self._told.take_untold():
                fields["untold"] = str(untold)
            log.warning(f"process ended; it is started again in {pause_s:.1f}s", **fields)
        return pause_s

    def _enter(self, state: ProcessState) -> None:
        if state is not self.state:
            self.state, self.since = state, time.time()

    def _fields(self) -> dict[str, Any]:
        return {"app": self.app, "process": self.label, "pid": self._pid}

    # -- going on in another image of the daemon -----------------------------------------------------------------

    @property
    def is_settled(self) -> bool:
        """It is not being started or reaped just now."""
        return self.state is not ProcessState.STARTING and (self._execution is None or self._execution.is_settled)

    def snapshot(self) -> ProcessSnapshot:
        """Return what ``restored`` needs in another image of the daemon."""
        now = time.monotonic()
        return ProcessSnapshot(
            spec=plain(self.spec),
            index=self.index,
            state=self.state.value,
            since=self.since,
            restarts=self.restarts,
            last_end=self.last_end,
            failures=self._backoff.failures,
            is_leaving=self.is_leaving,
            stop_in_s=None if self._stop_by is None else max(0.0, self._stop_by - now),
            pause_s=0.0 if self._due is None else max(0.0, self._due - now),
            execution=None if self._execution is None else self._execution.snapshot(),
        )

    def restore(self, saved: ProcessSnapshot, after: Sequence[SupervisedProcess] = ()) -> None:
        """Go on where ``saved`` says."""
        if saved.execution is not None:
            self._execution = Execution.restored(self.app, saved.execution)
            self._pid = self._execution.pid
        self.state, self.since, self.restarts = ProcessState(saved.state), saved.since, saved.restarts
        self.last_end, self._backoff.failures = saved.last_end, saved.failures
        if saved.stop_in_s is not None:
            self._stop_by = time.monotonic() + saved.stop_in_s
        if saved.is_leaving:
            self._leaving.set()
        if self.state is ProcessState.ENDED:
            self.ended.set()
            return
        waits = after if self.state is ProcessState.WAITING else ()
        self._task = asyncio.get_running_loop().create_task(self._run(waits, saved.pause_s))
