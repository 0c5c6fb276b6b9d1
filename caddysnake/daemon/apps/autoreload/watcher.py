"""Who wants to know which changes: watches on roots, told when the changes have come to an end. ``scout`` sees them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from typing import ParamSpec

from ....logs.records import printable
from ...system.log.fields import FieldLog
from .scout import Scout
from .trees import Root

log = FieldLog("caddysnake.autoreload")

_PATIENCE_S = 5.0
_AT_MOST = 10
"""Changes that do not end are told after this many debounce times."""
_TOLD_MAX = 1000
"""So many paths of a change are kept."""

P = ParamSpec("P")
Paths = frozenset[str]
Tell = Callable[[Paths], None]


class Watch:
    """Somebody's interest in a root, until ``cancel``: told once when ``quiet_s`` seconds pass without a change."""

    def __init__(self, watching: Watching, root: Root, quiet_s: float, tell: Tell) -> None:
        self.root = root
        self._watching = watching
        self._loop = asyncio.get_running_loop()
        self._quiet_s = quiet_s
        self._tell = tell
        self._paths: set[str] = set()
        self._latest = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.since: float | None = None
        """``time.time()`` of the first change that is not told yet."""
        self.told_from = 0.0
        """``time.time()`` of the first change of those told last."""

    def note(self, paths: Iterable[str]) -> None:
        """``paths`` have changed. Told later: ``quiet_s`` after the last, and within a bound after the first."""
        if self._timer is None:
            self._latest = self._loop.time() + self._quiet_s * _AT_MOST
            self.since = time.time()
        else:
            self._timer.cancel()
        for path in paths:
            if len(self._paths) >= _TOLD_MAX:
                break
            self._paths.add(path)
        self._timer = self._loop.call_at(min(self._loop.time() + self._quiet_s, self._latest), self._fire)

    def cancel(self) -> None:
        """No longer interested; ``tell`` is not called after this. No harm twice."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self.since = None
        self._watching.unwatch(self)

    def _fire(self) -> None:
        self._timer = None
        self.told_from, self.since = self.since or time.time(), None
        paths, self._paths = frozenset(self._paths), set()
        self._tell(paths)


class Watching:
    """All that is watched. The thread lives as long as there is anything."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._watches: dict[Root, set[Watch]] = {}
        self._told_at: dict[Root, float] = {}
        self._scout: Scout | None = None
        self._leaving: list[Scout] = []

    def watch(self, root: Root, quiet_s: float, tell: Tell, since: float) -> Watch:
        """Call ``tell`` with the paths that change from ``since`` (``time.time()``) on, ``quiet_s`` after the last."""
        watch = Watch(self, root, quiet_s, tell)
        known = self._watches.get(root)
        if known is not None:
            known.add(watch)
            if self._told_at.get(root, since) > since:
                watch.note([root.folder])
            return watch
        self._watches[root] = {watch}
        if self._scout is None:
            in_loop = self._in_loop
            self._scout = Scout(in_loop(self._reported), in_loop(self._troubled), in_loop(self._left_out))
            self._scout.start()
        self._scout.want(root, since)
        return watch

    def unwatch(self, watch: Watch) -> None:
        """Forget ``watch``. The thread leaves when it was the last."""
        known = self._watches.get(watch.root, set())
        known.discard(watch)
        if known or watch.root not in self._watches:
            return
        del self._watches[watch.root]
        self._told_at.pop(watch.root, None)
        if self._scout is not None:
            self._scout.unwant(watch.root)
            if not self._watches:
                self._scout.end()
                self._leaving = [*(scout for scout in self._leaving if scout.is_alive()), self._scout]
                self._scout = None

    async def close(self) -> None:
        """End all watches, and wait until the thread has left."""
        for watches in list(self._watches.values()):
            for watch in list(watches):
                watch.cancel()
        for scout in self._leaving:
            await asyncio.to_thread(scout.join, _PATIENCE_S)

    def _in_loop(self, call: Callable[P, None]) -> Callable[P, None]:
        """``call``, for the scout's thread."""

        def soon(*args: P.args, **_: P.kwargs) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody wants to know any more
                self._loop.call_soon_threadsafe(call, *args)

        return soon

    def _reported(self, root: Root, paths: set[str]) -> None:
        self._told_at[root] = time.time()
        for watch in self._watches.get(root, ()):
            watch.note(paths)

    def _troubled(self, trouble: str) -> None:
        hint = "the kernel's limits are fs.inotify.max_user_watches and max_user_instances"
        log.error("files cannot be watched; trying again", error=trouble, hint=hint)

    def _left_out(self, root: Root, why: str, pause_s: float) -> None:
        folder, error, again_in_s = printable(root.folder), printable(why), round(pause_s)
        what = "a folder is not watched for now: its app is not reloaded"
        log.warning(what, folder=folder, error=error, again_in_s=again_in_s)
