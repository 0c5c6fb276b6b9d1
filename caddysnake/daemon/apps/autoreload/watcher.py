"""Who wants to know which changes: watches on roots, told when the changes have come to an end. ``scout`` sees them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable

from ....logs.records import printable
from .scout import Scout
from .trees import Root

log = logging.getLogger("caddysnake.autoreload")

_PATIENCE_S = 5.0
_AT_MOST = 10
"""Changes that do not end are told after this many debounce times."""
_TOLD_MAX = 1000
"""So many paths of a change are kept."""

Paths = frozenset[str]
Tell = Callable[[Paths], None]


class Debounce:
    """Tells once when ``quiet_s`` seconds have passed without another change."""

    def __init__(self, loop: asyncio.AbstractEventLoop, quiet_s: float, tell: Tell) -> None:
        self._loop = loop
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
        """Forget what is not told yet."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self.since = None

    def _fire(self) -> None:
        self._timer = None
        self.told_from, self.since = self.since or time.time(), None
        paths, self._paths = frozenset(self._paths), set()
        self._tell(paths)


class Watch:
    """Somebody's interest in a root, until ``cancel``."""

    def __init__(self, watching: Watching, root: Root, debounce: Debounce) -> None:
        self.root = root
        self.debounce = debounce
        self._watching = watching

    def cancel(self) -> None:
        """No longer interested; ``tell`` is not called after this. No harm twice."""
        self.debounce.cancel()
        self._watching.unwatch(self)


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
        watch = Watch(self, root, Debounce(self._loop, quiet_s, tell))
        known = self._watches.get(root)
        if known is not None:
            known.add(watch)
            if self._told_at.get(root, since) > since:
                watch.debounce.note([root.folder])
            return watch
        self._watches[root] = {watch}
        if self._scout is None:
            self._scout = Scout(self._report, self._complain, self._leave_out)
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

    # -- called in the scout's thread --------------------------------------------------------------------------

    def _report(self, root: Root, paths: set[str]) -> None:
        self._in_loop(self._reported, root, paths)

    def _complain(self, trouble: str) -> None:
        self._in_loop(self._troubled, trouble)

    def _leave_out(self, root: Root, why: str, pause_s: float) -> None:
        self._in_loop(self._left_out, root, why, pause_s)

    def _in_loop(self, call: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody wants to know any more
            self._loop.call_soon_threadsafe(call, *arguments)

    # -- called in the loop ------------------------------------------------------------------------------------

    def _reported(self, root: Root, paths: set[str]) -> None:
        self._told_at[root] = time.time()
        for watch in self._watches.get(root, ()):
            watch.debounce.note(paths)

    def _troubled(self, trouble: str) -> None:
        hint = "the kernel's limits are fs.inotify.max_user_watches and max_user_instances"
        fields = {"error": trouble, "hint": hint}
        log.error("files cannot be watched; trying again", extra={"fields": fields})

    def _left_out(self, root: Root, why: str, pause_s: float) -> None:
        fields = {"folder": printable(root.folder), "error": printable(why), "again_in_s": round(pause_s)}
        log.warning("a folder is not watched for now: its app is not reloaded", extra={"fields": fields})
