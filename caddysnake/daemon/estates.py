"""The dynamic apps of one template at work: carries out what ``tenants`` decides.

A key that is new is first looked at on disk, in a thread, before it may wait for a start: an unknown tenant costs no
process, and is told so as quickly as a known one would be.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Hashable
from typing import NamedTuple

from .apps import App
from .connections import Connections
from .pools import PoolSpec, StartFailed
from .refusals import Refusal, of_failure
from .spawners import Forkers
from .tenants import Answer, Stage, Tenants

log = logging.getLogger("caddysnake.tenants")

_LOGGED_AGAIN_S = 60.0
_LOGGED_MAX = 1024

Told = Callable[["App | Refusal"], None]


class EstateSpec(NamedTuple):
    """What an estate needs to know. ``resolve(key)`` runs in a thread: it looks at the file system."""

    name: str
    resolve: Callable[[str], PoolSpec | Refusal]
    capacity: int
    max_queue: int
    idle_timeout_s: float | None


class Starts:
    """At most ``limit`` apps start at a time, over all estates, first come first served."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._running = 0
        self._queue: deque[Estate] = deque()

    def want(self, estate: Estate) -> None:
        """``estate`` has put one more app into its queue."""
        self._queue.append(estate)
        self._go_on()

    def _go_on(self) -> None:
        while self._running < self._limit and self._queue:
            work = self._queue.popleft().start_next()
            if work is not None:
                self._running += 1
                work.add_done_callback(self._done)

    def _done(self, _: asyncio.Task[None]) -> None:
        self._running -= 1
        self._go_on()


class Estate:
    """``need`` answers who asks for an app of this template."""

    def __init__(self, spec: EstateSpec, spawners: Forkers, connections: Connections, starts: Starts) -> None:
        self.spec = spec
        self.apps: dict[str, App] = {}
        self.leaving: set[App] = set()
        self._spawners = spawners
        self._connections = connections
        self._starts = starts
        self._loop = asyncio.get_running_loop()
        self._tenants: Tenants[str] = Tenants(spec.capacity, spec.max_queue, spec.idle_timeout_s, self._is_idle)
        self._resolved: dict[str, PoolSpec] = {}
        self._checking: dict[str, dict[Hashable, Told]] = {}
        self._told: dict[str, dict[Hashable, Told]] = {}
        self._requests: dict[str, int] = {}
        self._logged: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    def need(self, key: str, token: Hashable, tell: Told) -> None:
        """Call ``tell`` with the app of ``key`` once it is live, or with why it will not be."""
        if self._tenants.stage(key) is None and not self._tenants.is_remembered(key, self._loop.time()):
            waiting = self._checking.setdefault(key, {})
            waiting[token] = tell
            if len(waiting) == 1:
                self._spawn(self._check(key))
            return
        self._need_known(key, token, tell)

    def never_mind(self, key: str, token: Hashable) -> None:
        """Whoever asked has left."""
        if token in self._checking.get(key, {}):
            del self._checking[key][token]
        elif token in self._told.get(key, {}):
            del self._told[key][token]
            self._tenants.unneed(key)

    def sweep(self) -> None:
        """To be called every second or so: apps that nobody asks for are let go."""
        now = self._loop.time()
        for key, app in self.apps.items():
            requests = app.requests_begun()
            if requests != self._requests.get(key):
                self._requests[key] = requests
                self._tenants.touch(key, now)
        for key in self._tenants.expired(now):
            log.info("app is idle and put to sleep", extra={"fields": {"app": self.apps[key].name}})
            self._tenants.leave(key)
            self._let_go(key)

    def renew(self, spec: EstateSpec) -> None:
        """Run what ``spec`` says from now on: live apps get new workers one after the other, and serve on meanwhile."""
        self.spec = spec
        self._resolved.clear()
        self._spawn(self._renew_all(list(self.apps)))

    async def _renew_all(self, keys: list[str]) -> None:
        for key in keys:
            app = self.apps.get(key)
            if app is None:
                continue
            resolved = await asyncio.to_thread(self.spec.resolve, key)
            if isinstance(resolved, Refusal):
                self._log_once(key, resolved)
                if self.apps.get(key) is app:
                    self._tenants.leave(key)
                    self._let_go(key)
                continue
            try:
                await app.prepare(resolved)
            except StartFailed as exc:
                fields = {"app": app.name, "code": exc.code, "error": str(exc)}
                log.error("new code does not start; the old serves on", extra={"fields": fields})
            else:
                app.swap()

    def stop(self) -> None:
        self._stopping = True
        for task in list(self._tasks):
            task.cancel()
        for app in self.apps.values():
            app.stop()

    def kill(self) -> None:
        for app in (*self.apps.values(), *self.leaving):
            app.kill()

    async def ended(self) -> None:
        await asyncio.gather(*(app.ended() for app in (*self.apps.values(), *self.leaving)))

    def _is_idle(self, key: str) -> bool:
        app = self.apps.get(key)
        return app is not None and app.is_idle

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- is there such an app ----------------------------------------------------------------------------------

    async def _check(self, key: str) -> None:
        resolved = await asyncio.to_thread(self.spec.resolve, key)
        waiting = self._checking.pop(key, {})
        if isinstance(resolved, Refusal):
            self._log_once(key, resolved)
            self._tenants.failed(key, resolved, self._loop.time())
        elif waiting and self._tenants.stage(key) is None:
            self._resolved[key] = resolved
        for token, tell in waiting.items():
            self._need_known(key, token, tell)

    def _log_once(self, key: str, refusal: Refusal) -> None:
        now = self._loop.time()
        if now - self._logged.get(key, -_LOGGED_AGAIN_S) < _LOGGED_AGAIN_S:
            return
        if len(self._logged) >= _LOGGED_MAX:
            self._logged.clear()
        self._logged[key] = now
        fields = {"template": self.spec.name, "key": key[:200], "code": refusal.code, "error": refusal.text}
        log.warning("no app for this request", extra={"fields": fields})

    # -- starting and letting go -------------------------------------------------------------------------------

    def _need_known(self, key: str, token: Hashable, tell: Told) -> None:
        is_new = self._tenants.stage(key) is None
        answer = self._tenants.need(key, self._loop.time())
        for evicted in self._tenants.take_evicted():
            log.info("app makes room for another", extra={"fields": {"app": self.apps[evicted].name}})
            self._let_go(evicted)
        if isinstance(answer, Refusal):
            self._resolved.pop(key, None) if is_new else None
            tell(answer)
        elif answer is Answer.USE:
            tell(self.apps[key])
        else:
            self._told.setdefault(key, {})[token] = tell
            if is_new:
                self._starts.want(self)

    def start_next(self) -> asyncio.Task[None] | None:
        """Start the app that is next in this estate's queue; None when nobody waits for one any more."""
        key = None if self._stopping else self._tenants.next_start()
        return None if key is None else self._spawn(self._start(key))

    async def _start(self, key: str) -> None:
        spec = self._resolved.pop(key, None)
        if spec is None:  # it was live before, and its folder may have changed since
            resolved = await asyncio.to_thread(self.spec.resolve, key)
            if isinstance(resolved, Refusal):
                self._fail(key, resolved)
                return
            spec = resolved
        app = App(spec, self._spawners, self._connections)
        try:
            took = await app.start()
        except StartFailed as exc:
            fields = {"app": spec.name, "code": exc.code, "error": str(exc)}
            log.error("app does not start", extra={"fields": fields})
            self._discard(app)
            self._fail(key, of_failure(exc))
            return
        except asyncio.CancelledError:
            self._discard(app)
            raise
        log.info("app ready", extra={"fields": {"app": spec.name, "mode": "relay", "ms": round(took * 1000)}})
        self.apps[key] = app
        self._tenants.started(key, self._loop.time())
        for tell in self._told.pop(key, {}).values():
            tell(app)

    def _fail(self, key: str, refusal: Refusal) -> None:
        self._tenants.failed(key, refusal, self._loop.time())
        for tell in self._told.pop(key, {}).values():
            tell(refusal)

    def _let_go(self, key: str) -> None:
        """Drain an app that ``tenants`` has marked as leaving."""
        app = self.apps.pop(key)
        self._requests.pop(key, None)
        self._discard(app)
        self._spawn(self._gone(key, app))

    async def _gone(self, key: str, app: App) -> None:
        await app.ended()
        self._tenants.gone(key)
        if self._tenants.stage(key) is Stage.QUEUED:
            self._starts.want(self)

    def _discard(self, app: App) -> None:
        app.stop()
        self.leaving.add(app)
        task = self._loop.create_task(app.ended())
        task.add_done_callback(lambda _: self.leaving.discard(app))
