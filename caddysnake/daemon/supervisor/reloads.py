"""Reloads: another configuration, or the same file read again, in the place of the one that runs."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from ..apps.builds import Builds
from ..apps.spec import StartFailed
from ..sockets.addresses import address_name
from ..sockets.socket_file import ListenError
from ..system.log import records as logs
from ..system.log.fields import FieldLog
from ..system.service import Service
from ..system.tasks import KeptTasks
from ..tenants.lookup import UnknownApp
from .app_changes import AS_USUAL, Manner, Outcome
from .beside import ControlEndpoint, FrontProxy
from .change import Step, side_by_side
from .document import Configuration, ConfigurationReader, Document, ReloadFailed
from .supervisor import Supervisor

log = FieldLog("caddysnake.daemon")

_WAITING_MAX = 8
"""How many reloads may wait, the one that runs among them."""


class ReloadResult(NamedTuple):
    """What a reload came to."""

    configuration: Configuration
    outcomes: list[Outcome]
    """Of each static app."""


class Reloads:
    """One after the other, in the order in which they were asked for. ``reader``: who reads the file again."""

    def __init__(
        self,
        configuration: Configuration,
        serving: Supervisor,
        control_endpoints: Sequence[ControlEndpoint],
        front_proxy: FrontProxy,
        service: Service,
        reader: ConfigurationReader,
    ) -> None:
        self.configuration = configuration
        """What runs."""
        self.builds = Builds()
        """Which configuration runs since when, and which was refused; each app has its own."""
        self._serving = serving
        self._control_endpoints = control_endpoints
        self._front_proxy = front_proxy
        self._service = service
        self.reader = reader
        self._is_up = asyncio.Event()
        self._is_stopping = False
        self._turn = asyncio.Lock()
        self._coming: Configuration | None = None  # of the reload whose turn it is, or of the last
        self._loop = asyncio.get_running_loop()
        self.under_way = KeptTasks()
        self._unasked = KeptTasks()

    def begin(self) -> None:
        """Carry out what waits, and what comes: the start is over."""
        self._is_up.set()

    def refuse(self) -> None:
        """Take no more: the daemon stops."""
        self._is_stopping = True

    async def reload(
        self, document: Document | None = None, manner: Manner = AS_USUAL, waits: bool = False
    ) -> ReloadResult:
        """Run ``document``, or what the file says now, with new workers for every app. Raises ``ReloadFailed``.

        One app that does not start keeps its old build, as ``outcomes`` say, and the others go on, unless ``manner``
        says otherwise. A failure of the whole changes nothing, and is kept in ``builds``.
        A supervised Caddy gets its part of the file once our side of it is ready, and before anything that it used
        goes. ``waits``: for the reload that is under way, also where both only bring new code.
        """
        if self._is_stopping:
            raise ReloadFailed("the daemon is stopping", "busy")
        if len(self.under_way) >= _WAITING_MAX:
            raise ReloadFailed(f"{_WAITING_MAX} reloads are waiting already", "busy")
        task = self.under_way.begin(self._reload(document, manner, waits))
        try:
            # Whoever asked may leave; what was begun is carried out.
            done = await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise ReloadFailed("the daemon is stopping", "busy") from None
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            raise
        # Builds that are tried hold up neither the next reload nor an upgrade.
        return done._replace(outcomes=[await each.judged() for each in done.outcomes])

    def reload_soon(self) -> None:
        """Reload, as on a signal: what comes of it is in the log alone."""
        if len(self.under_way) > 1:  # the one that waits will read what there is now
            log.warning("already reloading")
            return
        self._unasked.begin(self._reload_unasked())

    async def _reload_unasked(self) -> None:
        with contextlib.suppress(ReloadFailed):  # it is in the log
            await self.reload(waits=True)

    async def _reload(self, document: Document | None, manner: Manner, waits: bool) -> ReloadResult:
        await self._is_up.wait()
        begun = time.monotonic()
        try:
            done = None if waits else await self._beside(document, manner)
            if done is None:
                async with self._turn:
                    log.info("reloading")
                    begun = time.monotonic()
                    with self._service.reloading():
                        done = await self._change(document, manner)
        except (Exception, asyncio.CancelledError) as exc:
            if isinstance(exc, asyncio.CancelledError) and self._is_stopping:
                raise
            refused = exc if isinstance(exc, ReloadFailed) else _unforeseen(exc)
            self.builds.was_refused(refused.detail or refused.code, str(refused))
            log.error("reload refused; the old code keeps serving", error=str(refused))
            raise refused from None
        self.builds.accepted()
        refusals = [each.app for each in done.outcomes if each.failure is not None]
        told: dict[str, Any] = {"refused": ", ".join(refusals)} if refusals else {}
        log.info("reloaded", ms=round((time.monotonic() - begun) * 1000), **told)
        return done

    async def _beside(self, document: Document | None, manner: Manner) -> ReloadResult | None:
        """Reload each app by itself beside the reload that is under way, where neither changes what is in the file."""
        if manner.changed_only or manner.all_or_nothing or not self._turn.locked():
            return None
        wanted = await self._read(document)
        if self._coming is None or not (_is_same(wanted, self._coming) and _is_same(wanted, self.configuration)):
            return None
        log.info("reloading, beside another reload")
        running = self._serving.running
        running.origins.outdate(None)
        outcomes: list[Outcome] = []
        await side_by_side(self._by_itself(name, manner, outcomes) for name in list(running.apps))
        if not outcomes and running.apps:
            raise asyncio.CancelledError  # each of them was
        for tenants in running.templates.values():
            tenants.renew(tenants.spec, canary=manner.canary)
        return ReloadResult(self.configuration, outcomes)

    async def _by_itself(self, name: str, manner: Manner, outcomes: list[Outcome]) -> None:
        begun = time.monotonic()
        outcome = Outcome(name, "reloaded")
        try:
            await self._serving.reload_app(name, tell=manner.tell, canary=manner.canary)
        except UnknownApp:
            return  # yet another reload has taken it away
        except StartFailed as exc:
            app = self._serving.running.apps.get(name)
            outcome = Outcome(name, "refused", failure=exc, serves=app is not None and bool(app.pool.ready))
        outcomes.append(outcome._replace(seconds=time.monotonic() - begun))

    async def _read(self, document: Document | None) -> Configuration:
        if document is None:
            document = await asyncio.to_thread(self.reader.read, self.configuration.document.file)
        return await asyncio.to_thread(self.reader.understand, document)

    async def _change(self, document: Document | None, manner: Manner) -> ReloadResult:
        self._coming = None
        self._coming = configuration = await self._read(document)
        await self._front_proxy.check(configuration.caddy)
        desired = configuration.composition

        async def prepare(endpoint: ControlEndpoint) -> None:
            endpoint.prepare(configuration)

        first = [Step(partial(prepare, each), each.commit, each.revert) for each in self._control_endpoints]
        # A supervised Caddy may use at once what it is told last: all of that is ready.
        caddy = Step(partial(self._front_proxy.change, configuration.caddy))
        last = [caddy, Step(commit=partial(logs.restyle, desired.log))]
        try:
            is_same = configuration.caddy == self.configuration.caddy
            outcomes = await self._serving.change(desired, manner._replace(swaps_early=is_same), first, last)
        except (ListenError, StartFailed) as exc:
            raise _refused(exc) from None
        closed = _closed(self.configuration, configuration)
        self.configuration = configuration = configuration._replace(warnings=(*configuration.warnings, *closed))
        for warning in configuration.warnings:
            log.warning("configuration", warning=warning)
        return ReloadResult(configuration, outcomes)


def _is_same(one: Configuration, other: Configuration) -> bool:
    """Whether both want the same apps at the same places: what of them has changed is their code."""
    ours, theirs = one.composition, other.composition
    same = (ours.apps, ours.bindings, ours.relay) == (theirs.apps, theirs.bindings, theirs.relay)
    return same and one.document == other.document and one.caddy.is_same(other.caddy)


def _closed(old: Configuration, new: Configuration) -> list[str]:
    """What to say of sockets that ``new`` has no more: a Caddy that nobody tells of it still connects to them."""
    if new.caddy.text:
        return []
    had, has = ({address_name(each.address) for each in one.composition.bindings} for one in (old, new))
    return [
        f"{each} is closed. Where Caddy's file still names it, Caddy answers 502: take that site out there, or write "
        f"that file anew with `caddysnake caddyfile --config {new.document.file}`"
        for each in sorted(had - has)
    ]


def why(exc: ListenError | StartFailed) -> str:
    """Return for people why something does not start."""
    if isinstance(exc, StartFailed):
        if exc.code == "caddy":
            return str(exc)
        indented = "\n".join(f"  {line}" for line in str(exc).splitlines())
        return f"app {exc.app} does not start ({exc.code}):\n{indented}"
    return str(exc)


def _refused(exc: ListenError | StartFailed) -> ReloadFailed:
    if isinstance(exc, StartFailed):
        return ReloadFailed(why(exc), "start", app=exc.app, detail=exc.code)
    return ReloadFailed(str(exc), "listen")


def _unforeseen(exc: BaseException) -> ReloadFailed:
    """It was cancelled, or nobody has thought of it; whoever asked is told all the same, and so is the log."""
    if isinstance(exc, asyncio.CancelledError):
        return ReloadFailed("the reload was cancelled; the old code keeps serving", "cancelled")
    log.error("a reload has met what it was not made for", exc_info=exc)
    return ReloadFailed(f"{type(exc).__name__}: {exc}", "internal")
