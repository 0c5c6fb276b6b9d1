"""Links to apps: which are free, who waits for one, and what has been asked of the daemon.

Pure bookkeeping: links and waiters are opaque, commands come back as return values. A link is used by one app only, by
one request at a time, and goes to whoever has waited longest; free ones are taken newest first, so that what a burst
left over falls idle and is closed. An app of which nothing is known any more leaves no trace here.

Needs and waiters are counted, not paired: a waiter may be served by a link that became free, and then the link that was
asked for on its behalf serves the next one, or falls idle.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

TiedId = tuple[int, str, int]
"""As ``AppId``, with the number of a worker that links are to."""

AppId = tuple[int, str] | TiedId
"""Route and key: what names an app to the daemon."""

_NEED_MAX = 2**32 - 1

L = TypeVar("L", bound=Hashable)
W = TypeVar("W", bound=Hashable)


class Wanted(NamedTuple):
    """Ask the daemon for a link."""

    need: int
    app: AppId


class _App(Generic[L, W]):
    """What is known of one app. The dicts are ordered sets."""

    __slots__ = ("idle", "links", "name", "needs", "waiting")

    def __init__(self, name: AppId) -> None:
        self.name = name
        self.idle: dict[L, None] = {}
        self.waiting: dict[W, None] = {}
        self.needs: dict[int, None] = {}
        self.links = 0
        """How many there are, idle or not."""


class Links(Generic[L, W]):
    """All links of one relay. ``idle_s``: how long one is kept without a request."""

    def __init__(self, max_needs: int, max_idle: int, max_idle_total: int, idle_s: float) -> None:
        self._max_needs = max_needs
        self._max_idle = max_idle
        self._max_idle_total = max_idle_total
        self._idle_s = idle_s
        self._apps: dict[AppId, _App[L, W]] = {}
        self._app_of: dict[L, _App[L, W]] = {}
        self._idle_since: dict[L, float] = {}  # oldest first
        self._needs: dict[int, AppId] = {}
        self._last_need = 0

    def __repr__(self) -> str:
        waiting = sum(len(app.waiting) for app in self._apps.values())
        return (
            f"<Links of {len(self._apps)} apps: {len(self._app_of)} links, {len(self._idle_since)} idle, "
            f"{waiting} waiting, {len(self._needs)} needed>"
        )

    # For a request

    def take(self, app_id: AppId) -> L | None:
        """A free link to the app, now in use; None when there is none."""
        app = self._apps.get(app_id)
        if app is None or not app.idle:
            return None
        link, _ = app.idle.popitem()
        del self._idle_since[link]
        return link

    @property
    def is_full(self) -> bool:
        """So many needs are open that nobody else may wait."""
        return len(self._needs) >= self._max_needs

    def wait(self, app_id: AppId, waiter: W) -> Wanted | None:
        """Let ``waiter`` wait for a link; what to ask for, None when one that nobody else will get is on its way."""
        app = self._apps.get(app_id)
        if app is None:
            app = self._apps[app_id] = _App(app_id)
        app.waiting[waiter] = None
        if len(app.needs) >= len(app.waiting):
            return None
        need = self._next_need()
        app.needs[need] = None
        self._needs[need] = app_id
        return Wanted(need, app_id)

    def leave(self, app_id: AppId, waiter: W) -> int | None:
        """``waiter`` waits no more: the need that nobody has any longer, if there is one."""
        app = self._apps.get(app_id)
        if app is None or waiter not in app.waiting:
            return None
        del app.waiting[waiter]
        if len(app.needs) <= len(app.waiting):
            return None
        need, _ = app.needs.popitem()
        del self._needs[need]
        self._forget(app)
        return need

    # What the daemon says

    def app_needed(self, need: int) -> AppId | None:
        """Which app ``need`` is for; None when nobody needs it any more."""
        return self._needs.get(need)

    def arrived(self, need: int, link: L, owner: AppId | None = None) -> W | None:
        """The link for ``need`` is there, and in use; who gets it. None: nobody, and ``release`` it.

        ``owner``: whose it is, if not whose it was asked for.

        Raises ``KeyError`` for a need that is none.
        """
        app_id = self._needs.pop(need)
        app = self._apps[app_id]
        del app.needs[need]
        theirs = app
        if owner is not None and owner != app_id:
            theirs = self._apps.get(owner) or _App(owner)
            self._apps[owner] = theirs
        theirs.links += 1
        self._app_of[link] = theirs
        waiter = self._next_waiter(app)
        if theirs is not app:
            self._forget(app)
        return waiter

    def refused(self, need: int) -> W | None:
        """There will be no link for ``need``: who is to be told so, if anybody is."""
        app_id = self._needs.pop(need, None)
        if app_id is None:
            return None
        app = self._apps[app_id]
        app.needs.pop(need)
        # As long as there are needs for all who wait, this one was one too many.
        waiter = self._next_waiter(app) if len(app.waiting) > len(app.needs) else None
        self._forget(app)
        return waiter

    # What becomes of links

    def release(self, link: L, now: float) -> W | None:
        """``link`` is clean and free: who gets it; None when it is idle now. ``surplus`` may want it closed."""
        app = self._app_of[link]
        if app.waiting:
            return self._next_waiter(app)
        app.idle[link] = None
        self._idle_since[link] = now
        return None

    def surplus(self, link: L) -> L | None:
        """After ``link`` was released: the oldest where there are too many; it is forgotten here, close it."""
        app = self._app_of[link]
        if len(app.idle) > self._max_idle:
            oldest = next(iter(app.idle))
        elif len(self._idle_since) > self._max_idle_total:
            oldest = next(iter(self._idle_since))
        else:
            return None
        self.closed(oldest)
        return oldest

    def closed(self, link: L) -> None:
        """``link`` is no more, or no more to be used."""
        app = self._app_of.pop(link, None)
        if app is None:
            return
        app.links -= 1
        if link in app.idle:
            del app.idle[link]
            del self._idle_since[link]
        self._forget(app)

    def idle_of(self, worker: int) -> list[L]:
        """Those that are idle, of one worker; a copy."""
        return [link for app in self._apps.values() if app.name[2:] == (worker,) for link in app.idle]

    def expired(self, now: float) -> list[L]:
        """What has been idle for too long, and has been forgotten here: close it."""
        found = []
        for link, since in self._idle_since.items():
            if now - since < self._idle_s:
                break
            found.append(link)
        for link in found:
            self.closed(link)
        return found

    def idle(self) -> list[L]:
        """All that are idle, of all apps; a copy."""
        return list(self._idle_since)

    def give_up(self) -> list[W]:
        """The daemon is gone: forget all needs, and who waits for them."""
        waiters = [waiter for app in self._apps.values() for waiter in app.waiting]
        for app in list(self._apps.values()):
            app.waiting.clear()
            app.needs.clear()
            self._forget(app)
        self._needs.clear()
        return waiters

    def _next_need(self) -> int:
        while True:
            self._last_need = self._last_need % _NEED_MAX + 1
            if self._last_need not in self._needs:
                return self._last_need

    def _next_waiter(self, app: _App[L, W]) -> W | None:
        if not app.waiting:
            return None
        waiter = next(iter(app.waiting))
        del app.waiting[waiter]
        return waiter

    def _forget(self, app: _App[L, W]) -> None:
        if not app.links and not app.waiting and not app.needs:
            del self._apps[app.name]
