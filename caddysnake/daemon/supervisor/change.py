"""A change of what runs, as a whole: each participant prepares beside what runs; then all commit, or all roll back.

Nothing that runs hears of a change before all of it is prepared (sockets open, new workers ready). If any part of it
fails, all of it is taken back, and the old code keeps serving.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import NamedTuple, Protocol

from ...channel.settings import RelaySettings
from ...matchers.table import Table
from ..apps.app import App
from ..apps.spec import PoolSpec
from ..sockets.listeners import Opened
from .desired import Desired, ListenerSpec
from .running import Running

_NOTHING: Table = {"sites": [], "templates": {}, "variables": {}}


class Participant(Protocol):
    """A part of what a change is about."""

    async def prepare(self) -> None:
        """Make ready what shall be, beside what is. Raises; ``rollback`` is called then, too."""

    def commit(self) -> None:
        """Let what was prepared be. Nothing can fail here."""

    def rollback(self) -> None:
        """Give up what was prepared, and be as before."""


async def _nothing() -> None:
    """There is nothing to prepare."""


class Step(NamedTuple):
    """A participant made of functions."""

    prepare: Callable[[], Coroutine[object, object, None]] = _nothing
    commit: Callable[[], None] = lambda: None
    rollback: Callable[[], None] = lambda: None


async def carry_out(stages: Iterable[Sequence[Participant]]) -> None:
    """Have each stage's participants prepare side by side; then all commit. Raises a failure, rolled back."""
    prepared: list[Participant] = []
    try:
        for stage in stages:
            prepared += stage
            await side_by_side(each.prepare() for each in stage)
    except BaseException:
        for each in reversed(prepared):
            each.rollback()
        raise
    for each in prepared:
        each.commit()


async def side_by_side(work: Iterable[Coroutine[object, object, None]]) -> None:
    """Wait for all of ``work``: begin in their order; when one fails, cancel the others, and raise what it raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for each in work:
                group.create_task(each)
    except BaseExceptionGroup as problems:
        raise problems.exceptions[0] from None


class ListenersChange:
    """Opens the listeners that are new, and lets the connections of all go where ``desired`` has them go."""

    def __init__(self, running: Running, desired: Desired) -> None:
        self._running = running
        self._desired = desired
        self.opened: Opened = {}

    async def prepare(self) -> None:
        """Raises ``ListenError``."""
        self.opened = self._running.listeners.open(binding.address for binding in self._desired.bindings)

    def bind(self, apps: dict[str, App]) -> None:
        """Let connections go to the relays, or to one of ``apps``."""
        relays = self._running.relays
        owners = {each.address: relays if each.app is None else apps[each.app] for each in self._desired.bindings}
        self._running.listeners.bind(owners, self.opened)

    def commit(self) -> None:
        """``AppsChange`` binds them."""

    def rollback(self) -> None:
        """Close what was opened."""
        self._running.listeners.give_up(self.opened)

    def names_of(self, bindings: Iterable[ListenerSpec]) -> list[str]:
        """Return what the listeners of ``bindings`` are called."""
        return [self._running.listeners.find(each.address, self.opened).listener.name for each in bindings]

    def arranged(self, relay: PoolSpec) -> PoolSpec:
        """Return ``relay`` with its tables under the numbers of the listeners."""
        assert isinstance(relay.settings, RelaySettings)
        listeners = self._running.listeners
        tables: list[Table] = [_NOTHING] * listeners.numbers
        for binding, table in zip(self._desired.bindings, relay.settings.listeners, strict=True):
            tables[listeners.find(binding.address, self.opened).number] = table
        return relay._replace(settings=relay.settings._replace(listeners=tables))
