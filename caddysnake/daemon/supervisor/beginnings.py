"""The first starts of apps that have not come up since the daemon started, each tried again until it has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..apps.app import App
from ..apps.beginning import Beginning
from ..apps.spec import PoolSpec, StartFailed
from ..workers.forking.start_limiter import StartLimiter


class Beginnings(dict[App, Beginning]):
    """Each by its app. ``is_up(app, took)`` hears of each app that has come up, after how many seconds. ``again(app)``
    returns what says what is to run by now, in a thread.
    """

    def __init__(
        self, starts: StartLimiter, is_up: Callable[[App, float], None], again: Callable[[App], Callable[[], PoolSpec]]
    ) -> None:
        self._starts = starts
        self._again = again
        self._is_up = is_up
        self.deciding: asyncio.Future[None] | None = None
        """Until each of the first start is up, or has failed once; raises ``StartFailed`` if the start has."""
        self.hopes: list[Beginning] = []
        """Those of a first start that fails where none of them comes up."""

    def add(self, app: App) -> Beginning:
        """Return a beginning of ``app``, which is to be told to begin, or to go on."""
        beginning = self[app] = Beginning(app, self._again(app), self._starts, self.came_up, self._is_last_hope)
        return beginning

    def try_again(self, app: App, failure: StartFailed) -> None:
        """Go on trying to start ``app``, which does not serve because of ``failure``."""
        self.end(app)
        app.not_started(failure, 1)
        self.add(app).go_on()

    def came_up(self, app: App, took: float) -> None:
        """Know that ``app`` is up for the first time."""
        self.pop(app, None)
        self._is_up(app, took)

    def _is_last_hope(self, beginning: Beginning) -> bool:
        is_lost = [each.decided.is_set() and not each.was_up for each in self.hopes if each is not beginning]
        return beginning in self.hopes and all(is_lost)

    async def pause(self) -> None:
        """Try none again until ``resume``."""
        for each in list(self.values()):  # some of them end meanwhile
            await each.pause()

    def resume(self) -> None:
        """Undo ``pause``."""
        for each in list(self.values()):
            each.resume()

    def end(self, app: object) -> None:
        """Let somebody else see to ``app``, if there is a beginning of it."""
        beginning = self.pop(app, None) if isinstance(app, App) else None
        if beginning is not None:
            beginning.end()

    async def close(self) -> None:
        """End all of them."""
        self.overtake()
        await self.pause()
        for each in self.values():
            each.end()
        self.clear()

    def overtake(self) -> None:
        """Decide nothing any more about the first start: something else runs instead."""
        self.hopes = []
        if self.deciding is not None:
            self.deciding.cancel()

    async def none_comes_up(self) -> StartFailed:
        """Wait until the first start has failed after all; for ever, if it does not."""
        if self.deciding is not None:
            await asyncio.wait((self.deciding,))
            failure = None if self.deciding.cancelled() else self.deciding.exception()
            if isinstance(failure, StartFailed):
                return failure
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]
