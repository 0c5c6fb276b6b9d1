"""Apps start afresh when their code changes: what becomes of a change that ``watching`` tells.

A static app gets a new generation beside the old one, which serves until the new one is ready. A change that comes
meanwhile gives up what is starting: it is old already, and may hang. Code that does not start leaves the app broken
(every request is told why) or, with ``on_error keep``, the old code serving; the next change tries again.

A dynamic app is drained, and the next request for it starts it afresh.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from ....config.language.models import Autoreload as Options
from ....logs.records import printable
from ...system.log.fields import FieldLog
from ...system.tasks import cancelled
from ...workers.forking.fork_servers import ForkServers
from ..app import App
from ..spec import PoolSpec, StartFailed, looked_at
from .trees import Root
from .watcher import Paths, Watch, Watching

log = FieldLog("caddysnake.autoreload")

_NAMED_MAX = 3
_NOTICE_S = 2.0
"""So much later than it happens a change is noticed at most."""


class Renewals:
    """All that is to be started afresh when it changes."""

    def __init__(self, fork_servers: ForkServers) -> None:
        self._fork_servers = fork_servers
        self._watching = Watching()
        self._renewals: dict[App, Renewal] = {}
        self._guards: dict[Watched, Guard] = {}

    def cover(
        self, apps: Mapping[App, Options], since: float, again: Mapping[App, Callable[[], PoolSpec]] | None = None
    ) -> None:
        """Renew these apps, and no others, when they change from ``since`` (``time.time()``) on. ``again``: what each
        comes to by then, in a thread; the same as ever, if nobody says.
        """
        for app, renewal in list(self._renewals.items()):
            if app not in apps or renewal.what != (root_of(app, apps[app]), apps[app]):
                self._renewals.pop(app).end()
        for app, options in apps.items():
            if app not in self._renewals:
                self._renewals[app] = Renewal(app, options, self._watching, self._fork_servers, since)
            self._renewals[app].again = (again or {}).get(app)

    def guard(self, templates: Mapping[Watched, Options]) -> None:
        """Let go of apps of these templates, and of no others, when they change."""
        for tenants, guard in list(self._guards.items()):
            if templates.get(tenants) != guard.options:
                self._guards.pop(tenants).end()
        for tenants, options in templates.items():
            if tenants not in self._guards:
                self._guards[tenants] = Guard(tenants, options, self._watching)

    async def pause(self, app: App | None = None) -> None:
        """``app``, or everything, is about to be renewed anyway: nothing starts, or is starting, until ``resume``."""
        await asyncio.gather(*(renewal.pause() for renewal in self._renewals_of(app)))

    def resume(self, app: App | None = None) -> None:
        """Undo ``pause``, for ``app`` or for everything; what changed meanwhile is seen to now."""
        for renewal in self._renewals_of(app):
            renewal.resume()

    def _renewals_of(self, app: App | None) -> list[Renewal]:
        return [renewal for each, renewal in self._renewals.items() if app in (None, each)]

    def unheeded_since(self) -> float:
        """``time.time()``: nothing has come yet of changes from then on."""
        pending = [each.pending_since() for each in self._renewals.values()]
        pending += [each.pending_since() for each in self._guards.values()]
        return min([time.time(), *(at for at in pending if at is not None)]) - _NOTICE_S

    async def close(self) -> None:
        """Watch nothing any more."""
        await self.pause()
        self.cover({}, 0.0)
        self.guard({})
        await self._watching.close()


class Watched(Protocol):
    """The dynamic apps of a template: whoever has them is told which are out of date."""

    guard: Guard | None

    def outdated(self, key: str) -> str | None:
        """The code of the app of ``key`` has changed. Its name, if it was there."""


class Renewal:
    """One app, and what it gets when its folder changes. At most one new generation is on its way."""

    def __init__(self, app: App, options: Options, watching: Watching, fork_servers: ForkServers, since: float) -> None:
        root = root_of(app, options)
        self.what = (root, options)
        self._app = app
        self._options = options
        self._fork_servers = fork_servers
        self.again: Callable[[], PoolSpec] | None = None
        """What it comes to by now, looked at anew: an env file may be what has changed."""
        self._loop = asyncio.get_running_loop()
        self._paths: set[str] = set()
        self._since: float | None = None  # when those began to change
        self._pauses = 0
        self._task: asyncio.Task[None] | None = None
        self._watch = watching.watch(root, options.debounce_s, self._changed, since)

    def end(self) -> None:
        """Watch no more, and give up a new generation that is on its way. The app serves on as it is."""
        self._watch.cancel()
        if self._task is not None:
            self._task.cancel()

    async def pause(self) -> None:
        """Start no generation until ``resume``; one that is starting is given up, and is gone when this returns."""
        self._pauses += 1
        await cancelled(self._task)

    def pending_since(self) -> float | None:
        """``time.time()`` when something began to change of which nothing has come yet."""
        known = [at for at in (self._since, self._watch.since) if at is not None]
        return min(known, default=None)

    def resume(self) -> None:
        """Undo ``pause``; what changed meanwhile is seen to now, when nobody else has paused it."""
        self._pauses = max(0, self._pauses - 1)
        if self._paths and not self._pauses:
            self._begin()

    def _changed(self, paths: Paths) -> None:
        if len(self._paths) < _NAMED_MAX * 100:
            self._paths |= paths
        if self._since is None:
            self._since = self._watch.told_from
        if not self._pauses:
            self._begin()

    def _begin(self) -> None:
        self._task = self._loop.create_task(self._renew(self._task))

    async def _renew(self, former: asyncio.Task[None] | None) -> None:
        await cancelled(former)
        app = self._app
        fields: dict[str, Any] = {"app": app.name, "changed": _told(self._paths, self._watch.root.folder)}
        log.debug("code has changed", **fields)
        self._fork_servers.outdate(app.spec.key)
        if app.hurry is not None:  # it has not been up yet, and is being tried anyway
            self._heeded()
            app.hurry()
            return
        took, failure = 0.0, None
        try:
            took = await app.renew(app.spec if self.again is None else await looked_at(app.name, self.again))
        except StartFailed as exc:
            failure = exc
        except OSError as exc:  # no descriptor was left, for one
            failure = StartFailed(app.name, "resources", str(exc))
        self._heeded()
        if failure is None:
            log.info("app reloaded", **fields, ms=round(took * 1000))
            return
        if self._options.on_error != "keep":
            app.fail(failure)
        what = "the old code keeps serving" if self._options.on_error == "keep" else "requests get 500 until it does"
        log.error(f"new code does not start; {what}", **fields, code=failure.code, error=str(failure))

    def _heeded(self) -> None:
        """What has changed so far has been seen to."""
        self._paths.clear()
        self._since = None


class Guard:
    """The dynamic apps of one template. A watch begins when one is started, and ends when nothing is known of it."""

    def __init__(self, tenants: Watched, options: Options, watching: Watching) -> None:
        self.options = options
        self._tenants = tenants
        self._watching = watching
        self._watches: dict[str, Watch] = {}
        tenants.guard = self

    def end(self) -> None:
        """Watch none of the apps any more."""
        if self._tenants.guard is self:
            self._tenants.guard = None
        self.forget(set(self._watches))

    def begins(self, key: str, folder: str, since: float | None = None) -> None:
        """An app is about to be started, or was at ``since``; ``folder`` is its working directory."""
        root = Root(folder, self.options.watch)
        former = self._watches.get(key)
        if former is not None:
            if former.root == root:
                return
            former.cancel()
        tell = partial(self._changed, key)
        since = since or time.time()
        self._watches[key] = self._watching.watch(root, self.options.debounce_s, tell, since)

    def pending_since(self) -> float | None:
        """``time.time()`` when something began to change of which nothing has come yet."""
        return min((at for watch in self._watches.values() if (at := watch.since) is not None), default=None)

    def keys(self) -> set[str]:
        """Those that are watched."""
        return set(self._watches)

    def forget(self, keys: set[str]) -> None:
        """Nothing is known of them any more."""
        for key in keys:
            self._watches.pop(key).cancel()

    def _changed(self, key: str, paths: Paths) -> None:
        name = self._tenants.outdated(key)
        if name is not None:
            changed = _told(paths, self._watches[key].root.folder)
            log.info("app leaves: its code has changed", app=name, changed=changed)


def root_of(app: App, options: Options) -> Root:
    """What is watched for ``app``."""
    return Root(getattr(app.spec.settings, "working_dir", "/"), options.watch)


def _told(paths: set[str] | Paths, folder: str) -> str:
    """For the log: which files, or the first of them."""
    resolved = os.path.realpath(folder)
    names = sorted(printable(os.path.relpath(path, resolved)) for path in paths)
    more = len(names) - _NAMED_MAX
    return ", ".join(names[:_NAMED_MAX]) + (f" and {more} more" if more > 0 else "")
