"""Where the workers of one pool come from: their launcher, their folder, their ``TMPDIR``."""

from __future__ import annotations

import asyncio
import os
import secrets
import time

from ...channel.messages import MOVES
from ...channel.settings import RelaySettings, Settings
from ...config.plan.fence import Fence, FenceError
from ...sandbox import denials
from ..commands.surroundings import STORE_URL, store_environ
from ..system.log.fields import FieldLog
from ..system.log.process import logger
from ..system.signing import bell_name
from ..system.state import PoolSnapshot, ThreadPlacementSnapshot
from ..workers.child.child import Launcher
from ..workers.child.launcher import Plot, SpawnError
from ..workers.forking.interpreter import not_passed
from ..workers.launchers import Launchers
from ..workers.lifecycle import Reason
from ..workers.sink import WorkerSink
from ..workers.threads.placement import Placement
from ..workers.worker import Worker
from .folder import PrivateFolder
from .generation import Generation
from .spec import PoolSpec

log = FieldLog("caddysnake.app")


METRICS = "PROMETHEUS_MULTIPROC_DIR"
"""The variable by which prometheus-client finds where to count for several processes."""

_NEARLY = 0.9
"""Of the time after which a start is slow: who is asked then has begun a little later than the pool."""


def share(whole: int, place: int, workers: int) -> int:
    """What of ``whole`` is for the worker at ``place``: at least one."""
    return max(1, whole // workers + (place < whole % workers))


class WorkerSource:
    """Forks workers of ``spec``."""

    _numbers = iter(range(1, 1 << 31))

    def __init__(self, spec: PoolSpec, launchers: Launchers, folder: PrivateFolder) -> None:
        self._spec = spec
        self._launchers = launchers
        self._folder = folder
        self._build = secrets.token_hex(4)
        self._threads: Placement | None = None

    async def _settings_of(self, place: int) -> Settings | RelaySettings:
        """The settings of the worker at ``place``, its code located as things are now. Raises ``OSError``."""
        spec = self._spec
        count = max(spec.workers, spec.most, place + 1)
        settings = spec.settings._replace(worker_index=place, workers=count)
        if not isinstance(settings, Settings):
            return settings
        environ = dict(settings.environ)
        if not settings.shares_process:
            environ["CADDYSNAKE_WORKER_ID"] = str(place)
        if STORE_URL not in environ and (not settings.shares_process or settings.store is not None):
            environ["CADDYSNAKE_STORE_BELL"] = f"{bell_name()[1:]}#{settings.app}"
        build = self._build if settings.development else ""
        slow_at = time.monotonic() + spec.slow_start_s * _NEARLY
        settings = settings._replace(environ=environ, build=build, slow_at=slow_at, marks_traces=logger.unmarks)
        if settings.max_in_flight is not None:
            settings = settings._replace(
                max_in_flight=share(settings.max_in_flight, place, count),
                max_waiting=share(settings.max_waiting, place, count),
            )
        return self._with_temporary(await self._located(settings))

    async def _located(self, settings: Settings) -> Settings:
        """Follow the links on the way to the code, and to its Python, now and once: what the worker imports later is
        of the same release, wherever ``current`` leads by then.
        """
        settings = await self._walled(settings, self._spec.fence)
        if settings.sandbox is not None or settings.store is not None:
            settings = self._with_temporary(settings)
        found = await asyncio.to_thread(os.path.realpath, settings.working_dir)
        launcher = self.launcher() if settings.shares_process else None
        if isinstance(launcher, Placement):
            found = launcher.folder(found)
            launcher.surround(settings)
        return settings._replace(working_dir=found)

    async def _walled(self, settings: Settings, fence: Fence | None) -> Settings:
        """``settings`` with its sandbox, if it is in one. Raises ``OSError``."""
        key = self._spec.key
        walls = await self._launchers.look(key, None if fence is None else Plot(fence, self._folder.path(key.account)))
        return settings if walls is None else settings._replace(sandbox=walls._asdict())

    def _worker(self, settings: Settings | RelaySettings, sink: WorkerSink[Worker]) -> Worker:
        """The next worker, which has not been started."""
        spec, timings = self._spec, self._launchers.timings
        return Worker(next(self._numbers), settings, spec.start_timeout_s, spec.grace_s, sink, timings=timings)

    def _with_temporary(self, settings: Settings) -> Settings:
        """``settings`` with ``TMPDIR``, and where the app counts, unless it names them. Raises ``OSError``."""
        if settings.app_metrics and METRICS not in settings.environ and not settings.shares_process:
            settings = settings._replace(metrics_dir=self._folder.metrics(self._spec.key.account, self._build))
        if settings.store is not None:
            environ = store_environ(settings, self._folder.path(self._spec.key.account))
            settings = settings._replace(environ={**settings.environ, **environ})
        if "TMPDIR" in settings.environ or (settings.shares_process and self._spec.fence is None):
            return settings
        folder = self._folder.temporary(self._spec.key.account)
        return settings._replace(environ={**settings.environ, "TMPDIR": folder})

    def launcher(self) -> Launcher:
        """Who forks its workers, or starts them as threads."""
        settings = self._spec.settings
        if not isinstance(settings, Settings) or not settings.shares_process:
            return self._launchers.get(self._spec.key)
        if self._threads is None:
            # What limits one app's use of memory can be kept for a whole process only.
            is_limited = bool(settings.limits) or self._spec.limits.memory_bytes is not None
            has_own = self._spec.fence is not None or settings.store is not None  # no two apps have the same folders
            self._threads = self._launchers.seat(self._spec.key, settings, is_limited or has_own)
        return self._threads

    async def spawn(self, place: int, generation: Generation[Worker], sink: WorkerSink[Worker]) -> Reason | None:
        """Fork a worker for ``place``; why it is not, if it is not."""
        spec = self._spec
        try:
            worker = self._worker(await self._settings_of(place), sink)
        except FenceError as exc:
            return Reason("setup-failed", f"{exc} ({exc.hint})")
        except OSError as exc:
            return Reason("resources", f"no room for another worker: {exc}")
        except Exception as exc:
            return self._failed_of_us(place, exc)
        try:
            launcher = self.launcher()
            generation.begun(place, worker)
            await worker.start(launcher)
        except BaseException as exc:
            generation.not_begun(place, worker)
            worker.discard()
            if isinstance(exc, SpawnError):
                if exc.fatal:
                    self._launchers.discard(spec.key)
                return Reason(exc.code, str(exc))
            if isinstance(exc, Exception):
                return self._failed_of_us(place, exc)
            raise
        return None

    async def rehearse(self, fence: Fence, sink: WorkerSink[Worker]) -> Worker:
        """Return one more worker, started to be watched. Raises ``SpawnError``, ``FenceError``, ``OSError``."""
        spec = self._spec
        assert isinstance(spec.settings, Settings)
        settings = spec.settings._replace(worker_index=spec.workers, shares_process=False, rehearses=True)
        settings = await self._walled(settings, fence)
        found = await asyncio.to_thread(os.path.realpath, settings.working_dir)
        worker = self._worker(self._with_temporary(settings._replace(working_dir=found)), sink)
        try:
            await worker.start(self._launchers.get(spec.key))
        except BaseException:
            worker.discard()
            raise
        return worker

    def _failed_of_us(self, place: int, exc: Exception) -> Reason:
        """For a reason that nobody has thought of: it has failed all the same, and whoever waits must hear of it."""
        log.error("worker cannot be started", exc_info=exc, app=self._spec.name, worker=place)
        return Reason("internal", f"{type(exc).__name__}: {exc}")

    def hint(self, text: str) -> str:
        """What may help against a failure that says ``text``; empty when nothing is known."""
        settings = self._spec.settings
        if self._spec.fence is not None and (found := denials.hint(text)):
            return f"\n{found}"
        missed = not_passed(os.environ, settings.environ, text) if isinstance(settings, Settings) else []
        if not missed:
            return ""
        names = " ".join(missed)
        return f"\n({names}: set for caddysnake, not passed to the app. Add `pass_env {names}` to its python block.)"

    @classmethod
    def numbered(cls) -> int:
        """The number that the next worker gets."""
        number = next(cls._numbers)
        cls.number_from(number)
        return number

    @classmethod
    def number_from(cls, number: int) -> None:
        """Workers get numbers from ``number`` on."""
        cls._numbers = iter(range(number, 1 << 31))

    # -- threads -------------------------------------------------------------------------------------------------

    def is_doomed(self, worker: Worker) -> bool:
        """``worker`` is a thread of a host that is to be replaced."""
        return self._threads is not None and self._threads.is_doomed(worker.number)

    def move_out(self, worker: Worker) -> None:
        """Let the successor of ``worker`` be a thread of another host."""
        if self._threads is not None:
            self._threads.move_out(worker.number)

    def is_better_alone(self, worker: Worker, code: str) -> bool:
        """Move it to a host of its own: it cannot share one, or it failed before it was ready, which another app may
        have caused: its host crashed, or what a library remembers of others keeps it from being imported. False where
        that is no help.
        """
        if self._threads is None:
            return False
        if code in ("crashed", "import-failed") and worker.ready_at is None:
            return self._threads.needs_own_host(worker.number, for_good=False)
        return code == MOVES and self._threads.needs_own_host(worker.number, for_good=True)

    # -- going on in another image of the daemon -----------------------------------------------------------------

    def snapshot(self) -> ThreadPlacementSnapshot | None:
        """The place among threads, for whoever goes on with it."""
        return self._threads.snapshot() if self._threads is not None else None

    def restore(self, saved: PoolSnapshot) -> Placement | None:
        """Go on where ``saved`` says; the launcher of its threads, if they are."""
        launcher = self.launcher() if saved.seat is not None else None
        if not isinstance(launcher, Placement) or saved.seat is None:
            return None
        launcher.restore(saved.seat)
        return launcher
