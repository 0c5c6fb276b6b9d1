"""The seams for what runs beside the apps: an admin API, a supervised Caddy. Each does nothing by itself."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Awaitable, Callable

from ..sockets.listener import Listener, restore
from ..system.log.fields import FieldLog
from ..system.state import CaddySnapshot, ListenerSnapshot
from .document import CaddyPart, Configuration

log = FieldLog("caddysnake.daemon")

_AGAIN_S = 1.0
_AGAIN_MAX_S = 30.0


class FrontProxy:
    """Something that runs beside the apps and stops before them: a supervised Caddy."""

    async def start(self) -> None:
        """Bring it up, once the apps are ready. Raises ``StartFailed``."""

    async def check(self, part: CaddyPart) -> None:
        """Look whether it could run ``part`` instead. Raises ``ReloadFailed``."""

    async def change(self, part: CaddyPart) -> None:
        """Run ``part`` instead, once what it needs is there. Raises ``ReloadFailed``; nothing has changed then."""

    async def stop(self, grace_s: float) -> None:
        """End it, and wait for that."""

    def snapshot(self) -> CaddySnapshot | None:
        """What whoever goes on with it must know."""
        return None

    def restore(self, saved: CaddySnapshot | None) -> None:
        """Go on with it in another image of the daemon."""

    def kill(self) -> None:
        """End it at once, by force, without waiting."""

    def pids(self) -> set[int]:
        """Children that it reaps itself."""
        return set()

    def sweep(self) -> None:
        """To be called every second or so."""


class ControlEndpoint:
    """Something that is there before the first app is started, and until the last one has ended."""

    _saved: list[ListenerSnapshot]

    def prepare(self, configuration: Configuration) -> None:
        """Open what ``configuration`` asks for. ``commit`` or ``revert`` next. Raises ``ListenError``: no change."""

    def commit(self) -> None:
        """What was prepared holds from now on."""

    def revert(self) -> None:
        """Give up what was prepared."""

    def snapshot(self) -> list[ListenerSnapshot]:
        """What it listens on, for another image of the daemon."""
        return []

    def adopt(self, saved: list[ListenerSnapshot]) -> None:
        """What was listened on in another image of the daemon: ``prepare`` takes its own out of it."""
        self._saved = saved

    def memory(self) -> str:
        """What it knows that another image of the daemon could not find out."""
        return ""

    def recall(self, memory: str) -> None:
        """Go on with the ``memory`` of another image of the daemon."""

    def sweep(self) -> None:
        """To be called every second or so."""

    async def start(self) -> None:
        """Begin to answer. May import a large library, in a thread."""

    async def stop(self) -> None:
        """Answer no more, and close what is open."""


async def persist(bring_up: Callable[[], Awaitable[None]], what: str) -> None:
    """Call ``bring_up`` until it does not raise; the log hears once of each failure of ``what``."""
    pause_s = _AGAIN_S
    told = ""
    while True:
        try:
            await bring_up()
            return
        except Exception as exc:
            why = f"{type(exc).__name__}: {exc}"
        if why != told:
            told = why
            log.error(f"{what} cannot come up for now, and is tried again", error=why)
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, _AGAIN_MAX_S)
        importlib.invalidate_caches()


def take_saved(saved: list[ListenerSnapshot], key: list[str | int]) -> Listener | None:
    """The one of ``key``, taken out of them. Raises ``OSError``."""
    for each in saved:
        if each.key == key:
            saved.remove(each)
            return restore(each)
    return None
