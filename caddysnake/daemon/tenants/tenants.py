"""The dynamic apps of one template at work: carries out what ``tenants`` decides.

A key that is new is first looked at on disk, in a thread, before it may wait for a start: an unknown tenant costs no
process, and is told so as quickly as a known one would be.

An app that is let go takes no request with it. Its idle connections are not ended (whoever is about to write to one
could not know), but wait; a request that comes on one asks for the key anew, and is served by the app's successor.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Coroutine, Hashable
from typing import NamedTuple

from ...channel.settings import Settings
from ...channel.throttle import Throttle
from ..apps.app import App
from ..apps.autoreload.renewal import Watcher
from ..apps.counters import Counters
from ..apps.spec import Identity, PoolSpec, StartFailed
from ..sockets.connections import Connection, Connections, answer, has_input
from ..sockets.refusals import CAPACITY, STOPPING, Refusal, of_failure
from ..system.state import CarriedApp, CarriedEstate, CarriedTenant
from ..workers.child.launcher import NO_ROOM, ForkServerKey, SpawnError
from ..workers.forking.start_limiter import FRESH, LONGEST_S, SLICE_S, Starting, StartLimiter
from ..workers.threads.host import WorkerOrigins
from .policy import REMEMBERED_MAX, Answer, TenantPolicy, TenantStage

log = logging.getLogger("caddysnake.tenants")

_PROMISE_S = 0.3
"""How long after it was given an app counts as busy without a request: its own is on the way."""

_PATIENCE_S = 0.4
"""How long somebody waits for room: an app is idle as soon as its request is answered, and may be just about to be."""

_LOOK_AGAIN_S = 0.05

_LATE_S = 60.0
"""So long who has failed to start, or used up its time, goes behind those who have not."""
_USUAL_OF, _USUAL_FACTOR = 9, 1.5
"""A start may take this many times what is usual here, the median of so many, before it has used up its time."""

_ROOM_PATIENCE_S = 5.0
"""How long an app that needs a spawner of its own waits for another's to leave, when there are ``max_spawners``."""

Told = Callable[["App | Refusal"], None]


class TemplateSpec(NamedTuple):
    """What ``Tenants`` need to know. ``resolve(key)`` runs in a thread: it looks at the file system."""

    name: str
    resolve: Callable[[str], PoolSpec | Refusal]
    capacity: int
    max_queue: int
    idle_timeout_s: float | None
    identity: Identity
    warm: ForkServerKey | None = None
    """What all its apps are forked from, if that is one: prepared before the first of them is asked for."""


class _Asker(NamedTuple):
    """Who waits while a key is looked at, and until when there may be room for it yet."""

    tell: Told
    patient_until: float


class Tenants:
    """``need`` answers who asks for an app of this template."""

    def __init__(
        self, spec: TemplateSpec, spawners: WorkerOrigins, connections: Connections, starts: StartLimiter
    ) -> None:
        self.spec = spec
        self.apps: dict[str, App] = {}
        self.starting: dict[str, App] = {}
        self.leaving: set[App] = set()
        self.guard: Watcher | None = None
        self.ledger = Counters()
        """Of all its apps."""
        self._outdated: set[str] = set()
        self._spawners = spawners
        self._connections = connections
        self._starts = starts
        self._loop = asyncio.get_running_loop()
        policy = TenantPolicy[str](spec.capacity, spec.max_queue, spec.idle_timeout_s, self._is_idle)
        self._tenants = policy
        self._resolved: dict[str, PoolSpec] = {}
        self._checking: dict[str, dict[Hashable, _Asker]] = {}
        self._told: dict[str, dict[Hashable, Told]] = {}
        self._requests: dict[str, int] = {}
        self._promised: dict[str, float] = {}
        self._complaints = Throttle()
        self._late: OrderedDict[str, float] = OrderedDict()
        """Until when those go behind that have failed, or used up their time."""
        self._took: deque[float] = deque(maxlen=_USUAL_OF)
        """How long the last starts took that came up."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._renewing: asyncio.Task[None] | None = None
        self._due: dict[str, bool] = {}  # apps to renew, each with whether it is even if it runs what it should
        self._stopping = False
        self._spawn(self._warm_up())

    def all_apps(self) -> list[App]:
        """Every app that has, or may have, a process."""
        return [*self.apps.values(), *self.starting.values(), *self.leaving]

    # -- whoever asks ------------------------------------------------------------------------------------------

    def need(self, key: str, token: Hashable, tell: Told) -> None:
        """Call ``tell`` with the app of ``key`` once it is live, or with why it will not be."""
        now = self._loop.time()
        if self._stopping:
            tell(STOPPING)
        elif self._tenants.stage(key) is not None or self._tenants.refusal(key, now) is not None:
            self._need_known(key, token, _Asker(tell, now + _PATIENCE_S))
        else:
            self._look_at(key, {token: _Asker(tell, now + _PATIENCE_S)})

    def never_mind(self, key: str, token: Hashable) -> None:
        """Whoever asked has left."""
        if token in self._checking.get(key, {}):
            del self._checking[key][token]
        elif token in self._told.get(key, {}):
            del self._told[key][token]
            self._tenants.unneed(key)
            if not self._told[key]:
                del self._told[key]
                if self._tenants.stage(key) is TenantStage.QUEUED:
                    self._resolved.pop(key, None)  # perhaps nobody comes; and if somebody does, it is looked at again

    def _need_known(self, key: str, token: Hashable, asker: _Asker) -> None:
        now = self._loop.time()
        is_new = self._tenants.stage(key) is None
        if is_new and self._tenants.is_full:
            self._see_who_is_used()
        answer = self._tenants.need(key, now)
        for evicted in self._tenants.take_evicted():
            log.info("app makes room for another", extra={"fields": {"app": self.apps[evicted].name}})
            self._let_go(evicted)
        if answer is CAPACITY and now < asker.patient_until:
            if key not in self._checking:
                self._checking[key] = {}
                self._loop.call_later(_LOOK_AGAIN_S, self._look_again, key)
            self._checking[key][token] = asker
        elif isinstance(answer, Refusal):
            self._resolved.pop(key, None) if is_new else None
            asker.tell(answer)
        elif answer is Answer.USE:
            self._promise(key)
            asker.tell(self.apps[key])
        else:
            self._told.setdefault(key, {})[token] = asker.tell
            if is_new:
                self._starts.want(self)

    # -- is there such an app ----------------------------------------------------------------------------------

    def _look_at(self, key: str, askers: dict[Hashable, _Asker]) -> None:
        waiting = self._checking.get(key)
        if waiting is not None:
            waiting.update(askers)
            return
        self._checking[key] = askers
        self._spawn(self._check(key))

    def _look_again(self, key: str) -> None:
        for token, asker in self._checking.pop(key, {}).items():
            self._need_known(key, token, asker)

    async def _resolve(self, key: str) -> PoolSpec | Refusal:
        """What ``key`` is; whatever goes wrong as it is looked at, whoever asks is answered."""
        try:
            return await asyncio.to_thread(self.spec.resolve, key)
        except Exception as exc:
            return self._failed_of_us(key, exc)

    def _failed_of_us(self, key: str, exc: Exception) -> Refusal:
        fields = {"template": self.spec.name, "key": key[:200]}
        log.error("app cannot be looked at, or started", exc_info=exc, extra={"fields": fields})
        return of_failure(StartFailed(self.spec.name, "internal", f"{type(exc).__name__}: {exc}"))

    async def _check(self, key: str) -> None:
        resolved = await self._resolve(key)
        waiting = self._checking.pop(key, {})
        if isinstance(resolved, Refusal):
            self._complain(key, resolved)
            self._tenants.absent(key, resolved, self._loop.time())
        elif waiting and self._tenants.stage(key) is None:
            self._resolved[key] = resolved
        for token, asker in waiting.items():
            self._need_known(key, token, asker)

    def _complain(self, key: str, refusal: Refusal) -> None:
        if self._complaints.is_due(key, self._loop.time()):
            fields = {"template": self.spec.name, "key": key[:200], "code": refusal.code, "error": refusal.text}
            if untold := self._complaints.take_untold():
                fields["untold"] = str(untold)
            log.warning("no app for this request", extra={"fields": fields})

    # -- starting ----------------------------------------------------------------------------------------------

    def start_next(self) -> Starting | None:
        """Start the app that is next in the queue here; None when nobody waits for one any more."""
        key = None if self._stopping else self._tenants.next_start(self._ranking())
        if key is None:
            return None
        usual_s = sorted(self._took)[len(self._took) // 2] if self._took else 0.0
        slice_s = min(max(SLICE_S, _USUAL_FACTOR * usual_s), LONGEST_S)
        return Starting(self._spawn(self._start(key)), lambda: self._pids_of(key), slice_s, lambda: self._is_late(key))

    def rank(self) -> tuple[int, int]:
        """Of the app that is next in the queue here."""
        return min(map(self._ranking(), self._tenants.queued()), default=FRESH)

    def _ranking(self) -> Callable[[str], tuple[int, int]]:
        """Who lately failed, or used up its time, goes behind; among equals, whose user has fewer starts under way."""
        now = self._loop.time()
        shares = Counter(app.account for app in self.starting.values() if app.account is not None)

        def rank(key: str) -> tuple[int, int]:
            resolved = self._resolved.get(key)
            account = None if resolved is None else resolved.key.account
            return int(self._late.get(key, now) > now), 0 if account is None else shares[account]

        return rank

    def _is_late(self, key: str) -> None:
        """It has failed, or used up its time."""
        self._late.pop(key, None)
        self._late[key] = self._loop.time() + _LATE_S
        if len(self._late) > REMEMBERED_MAX:
            self._late.popitem(last=False)

    def _pids_of(self, key: str) -> list[int]:
        app = self.starting.get(key)
        return [worker.pid for worker in app.pool.workers.values() if worker.pid] if app is not None else []

    async def _start(self, key: str) -> None:
        spec = self._resolved.pop(key, None)
        if spec is None:  # whoever asked first has left, and its folder may have changed since
            resolved = await self._resolve(key)
            if isinstance(resolved, Refusal):
                self._fail(key, resolved)
                return
            spec = resolved
        if self.guard is not None and isinstance(spec.settings, Settings):
            self.guard.begins(key, spec.settings.working_dir)
        self._outdated.discard(key)
        app = self.starting[key] = App(spec, self._spawners, self._connections, Counters(self.ledger))
        try:
            took = await self._start_app(key, app)
        except StartFailed as exc:
            log.error("app does not start", extra={"fields": {"app": spec.name, "code": exc.code, "error": str(exc)}})
            self._fail(key, of_failure(exc))
            return
        except Exception as exc:
            self._fail(key, self._failed_of_us(key, exc))
            return
        finally:
            if self.apps.get(key) is not self.starting[key]:
                self._discard(self.starting[key])
            del self.starting[key]
        isolated = "yes" if spec.isolated else "no"
        fields = {"app": spec.name, "mode": "relay", "isolated": isolated, "ms": round(took * 1000)}
        log.info("app ready", extra={"fields": fields})
        self._tenants.started(key, self._loop.time())
        self._took.append(took)
        for tell in self._told.pop(key, {}).values():
            self._promise(key)
            tell(self.apps[key])
        if key in self._outdated:
            self.outdated(key)

    async def _start_app(self, key: str, app: App) -> float:
        """Into ``apps``; the seconds it took. Raises ``StartFailed``."""
        patient_until = self._loop.time() + _ROOM_PATIENCE_S
        again = 1
        while True:
            try:
                took = await app.start()
            except StartFailed as exc:
                if exc.code == NO_ROOM and self._loop.time() < patient_until:
                    self._make_room_for_a_spawner()
                    await asyncio.sleep(_LOOK_AGAIN_S)
                elif exc.code in ("spawner", "host", "crashed") and again:
                    # What it was to be forked from has died; or somebody, or the want of memory, has killed it. Both
                    # say little about this app, and people wait for it.
                    again -= 1
                else:
                    raise
                self._discard(app)
                app = self.starting[key] = App(app.spec, self._spawners, self._connections, app.ledger)
            else:
                self.apps[key] = app
                return took

    def _make_room_for_a_spawner(self) -> None:
        """Let an app go that has nothing to do, the one that was used longest ago; its spawner makes room then."""
        if self.leaving - set(self.starting.values()):
            return  # somebody is on the way out
        self._see_who_is_used()
        key = self._tenants.idlest()
        if key is not None:
            log.info("app makes room for another interpreter", extra={"fields": {"app": self.apps[key].name}})
            self._tenants.let_go(key)
            self._let_go(key)

    def _fail(self, key: str, refusal: Refusal) -> None:
        self._is_late(key)
        self._tenants.failed(key, refusal, self._loop.time())
        if key in self._outdated:
            self._tenants.forgive(key)
        for tell in self._told.pop(key, {}).values():
            tell(refusal)

    async def _warm_up(self) -> None:
        """The first tenant is not to wait for an interpreter and its preloads."""
        key = self.spec.warm
        if key is None:
            return
        try:
            await self._spawners.get(key).prepared()
        except SpawnError as exc:
            fields = {"template": self.spec.name, "code": exc.code, "error": str(exc)}
            log.error("apps of this template cannot be started", extra={"fields": fields})
            self._spawners.discard(key)

    # -- letting go --------------------------------------------------------------------------------------------

    def sweep(self) -> None:
        """To be called every second or so: apps that nobody asks for, and those that do not stay up, are let go."""
        self._see_who_is_used()
        for key, app in list(self.apps.items()):
            if app.is_hopeless and app.pool.last_failure is not None:
                self._tenants.failed(key, of_failure(app.pool.last_failure), self._loop.time())
                self._let_go(key)
        for key in self._tenants.expired(self._loop.time()):
            log.info("app is idle and put to sleep", extra={"fields": {"app": self.apps[key].name}})
            self._tenants.let_go(key)
            self._let_go(key)
        if self.guard is not None:
            now = self._loop.time()
            watched = self.guard.keys()
            known = {key for key in watched if self._tenants.stage(key) or self._tenants.refusal(key, now)}
            self.guard.forget(watched - known)

    def outdated(self, key: str) -> str | None:
        """Its code has changed: it leaves, and the next request starts it afresh. Its name, if it was there."""
        self._tenants.forgive(key)
        if key in self.starting:
            self._outdated.add(key)  # it may have the old code, or some of each
        app = self.apps.get(key)
        if app is None or self._stopping:
            return None
        self._tenants.let_go(key)
        self._let_go(key)
        return app.name

    def _see_who_is_used(self) -> None:
        """Requests over connections that an app has already are not asked for here."""
        now = self._loop.time()
        for key, app in self.apps.items():
            begun, known = app.requests_begun(), self._requests.get(key, 0)
            if begun >= known:
                self._promised.pop(key, None)
            if begun > known or app.has_open_ends:
                self._tenants.touch(key, now)
            if begun > known or begun < known - 1:  # fewer: a worker was replaced
                self._requests[key] = begun
        for key in [key for key, since in self._promised.items() if now - since >= _PROMISE_S]:
            del self._promised[key]

    def _promise(self, key: str) -> None:
        """Somebody is about to be told of a live app, and to use it."""
        self._requests[key] = self.apps[key].requests_begun() + 1
        self._promised[key] = self._loop.time()

    def _is_idle(self, key: str) -> bool:
        app = self.apps.get(key)
        return app is not None and app.is_idle and not app.hopeful and key not in self._promised

    def _let_go(self, key: str) -> None:
        """Drain an app that ``tenants`` knows no more."""
        app = self.apps.pop(key)
        self._requests.pop(key, None)
        self._promised.pop(key, None)
        app.heir = Reopener(self, key, self._connections)
        self._discard(app)

    def _discard(self, app: App) -> None:
        app.stop()
        self._see_off(app)

    def _see_off(self, app: App) -> None:
        self.leaving.add(app)
        task = self._loop.create_task(app.ended())
        task.add_done_callback(lambda _: self.leaving.discard(app))

    # -- another configuration ---------------------------------------------------------------------------------

    def renew(self, spec: TemplateSpec, changed_only: bool = False) -> None:
        """Run what ``spec`` says from now on: live apps get new workers one after the other, and serve on meanwhile.

        ``changed_only``: those of which ``spec`` says nothing new keep theirs.
        """
        self.spec = spec
        self._resolved.clear()
        self._tenants.limit(spec.capacity, spec.max_queue, spec.idle_timeout_s)
        self._tenants.forgive_all()
        self._spawn(self._warm_up())
        for key in self.apps:
            self._due[key] = self._due.get(key, False) or not changed_only
        if self._renewing is not None:
            self._renewing.cancel()
        self._renewing = self._spawn(self._renew_due())

    async def _renew_due(self) -> None:
        while self._due:
            key, even_unchanged = next(iter(self._due.items()))
            await self._renew_one(key, even_unchanged)
            del self._due[key]  # not before: whoever cancels this wants it done again

    async def _renew_one(self, key: str, even_unchanged: bool) -> None:
        app = self.apps.get(key)
        if app is None:
            return
        resolved = await self._resolve(key)
        if self.apps.get(key) is not app or (resolved == app.spec and not even_unchanged):
            return
        if isinstance(resolved, Refusal):
            self._complain(key, resolved)
            self._tenants.let_go(key)
            self._let_go(key)
            return
        try:
            await app.renew(resolved)
        except StartFailed as exc:
            if not app.is_stopping:
                fields = {"app": app.name, "code": exc.code, "error": str(exc)}
                log.error("new code does not start; the old serves on", extra={"fields": fields})

    async def reload(self, key: str) -> float:
        """Give the live app of ``key`` new workers; the seconds that took.

        Raises ``StartFailed``, and the old ones serve on; ``KeyError`` when there is no such live app: the next request
        starts it with what is there then, and whatever failed is forgiven.
        """
        self._tenants.forgive(key)
        app = self.apps[key]
        resolved = await self._resolve(key)
        if isinstance(resolved, Refusal):
            app.builds.was_refused(resolved.code, resolved.text)
            raise StartFailed(app.name, resolved.code, resolved.text)
        self._spawners.outdate(resolved.key)
        return await app.renew(resolved)

    async def evict(self, key: str) -> bool:
        """Let the app of ``key`` go, and wait until its workers have; False when there is none.

        Its requests in flight finish, none is refused: the next one starts it afresh.
        """
        app = self.apps.get(key) or self.starting.get(key)
        self.outdated(key)
        if app is not None and app.is_stopping:
            await app.ended()
        return app is not None

    # -- going on in another image of the daemon --------------------------------------------------------------

    def carry(self, carried: Callable[[App], CarriedApp]) -> CarriedEstate:
        """All that whoever goes on with it must know; ``carried`` carries one app. What is starting is left out."""
        apps = [
            CarriedTenant(key=key, app=carried(self.apps[key]), idle_s=idle_s, is_due=key in self._due)
            for key, idle_s in self._tenants.ages(self._loop.time())
        ]
        leaving = [(app.heir.key if isinstance(app.heir, Reopener) else None, carried(app)) for app in self.leaving]
        return CarriedEstate(name=self.spec.name, apps=apps, leaving=leaving, ledger=self.ledger.carry())

    def resume(self, carried: CarriedEstate, resumed: Callable[[CarriedApp], App]) -> None:
        """Go on where ``carried`` says; ``resumed`` makes one app. Not watched yet: ``watch_from``."""
        now = self._loop.time()
        for each in carried.apps:
            app = self.apps[each.key] = resumed(each.app)
            self._requests[each.key] = app.requests_begun()
            self._tenants.revive(each.key, now, each.idle_s)
        for key, left in carried.leaving:
            app = resumed(left)
            app.heir = None if key is None else Reopener(self, key, self._connections)
            self._see_off(app)
        self._due = {each.key: True for each in carried.apps if each.is_due}
        if self._due:
            self._renewing = self._spawn(self._renew_due())

    def watch_from(self, since: float) -> None:
        """Code of live apps that has changed from ``since`` (``time.time()``) on is a change."""
        for key, app in self.apps.items():
            if self.guard is not None and isinstance(app.spec.settings, Settings):
                self.guard.begins(key, app.spec.settings.working_dir, since)

    async def hold_renewals(self) -> None:
        """Renew no live app until ``release_renewals``. One that is being renewed is as it was."""
        if self._renewing is not None and not self._renewing.done():
            self._renewing.cancel()
            await asyncio.wait((self._renewing,))

    def release_renewals(self) -> None:
        """Undo ``hold_renewals``: what is still due is renewed now."""
        if self._due and not self._stopping:
            self._renewing = self._spawn(self._renew_due())

    def heir_key(self, app: App) -> str | None:
        """The key by which connections of ``app``, which was told to go, ask anew; None when they do not ask here."""
        return app.heir.key if isinstance(app.heir, Reopener) and app.heir.tenants is self else None

    # -- the end -----------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Drain all apps; whoever waits for one is refused with ``STOPPING``. ``ended`` next."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        for askers in self._checking.values():
            for asker in askers.values():
                asker.tell(STOPPING)
        for told in self._told.values():
            for tell in told.values():
                tell(STOPPING)
        self._checking.clear()
        self._told.clear()
        for app in self.apps.values():
            app.stop()

    def kill(self) -> None:
        """End all workers of all its apps by force."""
        for app in self.all_apps():
            app.kill()

    async def ended(self) -> None:
        """Wait until nothing of it runs: no worker, no start, no renewal."""
        if self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.gather(*(app.ended() for app in self.all_apps()))

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class Reopener:
    """Has the connections of an app that was let go: a request on one is the successor's."""

    def __init__(self, tenants: Tenants, key: str, connections: Connections) -> None:
        self.tenants = tenants
        self.key = key
        self._connections = connections

    def take(self, connection: Connection) -> None:
        """There is something to read, if only its end."""
        if not has_input(connection.fd):
            self._connections.end(connection)
            return
        self._connections.hold(connection)
        self.tenants.need(self.key, connection, lambda found: self._found(connection, found))

    def left(self, connection: Connection) -> None:
        """Its other side has left."""
        self.tenants.never_mind(self.key, connection)

    def _found(self, connection: Connection, found: App | Refusal) -> None:
        if isinstance(found, Refusal):
            self._refuse(connection, found)
        else:
            connection.app = found
            found.place(connection)

    def _refuse(self, connection: Connection, refusal: Refusal) -> None:
        """A relay waits for the response to what it sent over this link, of which nobody has read a byte."""
        answer(connection.fd, refusal)
        self._connections.end(connection)
