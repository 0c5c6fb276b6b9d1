"""The workers of one generation, without any I/O: events in, orders out.

A pool feeds events and carries the orders out in the order given. What holds a place is opaque here, so that any order
of events can be tried in no time: failed before gone, drained while starting, killed while draining.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from enum import Enum
from typing import Generic, NamedTuple, TypeVar

from ..system.backoff import Backoff
from .spec import StartFailed

W = TypeVar("W", bound=Hashable)


class PoolState(Enum):
    """How far a generation is."""

    NEW = "new"
    STARTING = "starting"  # its first workers are on their way, and somebody waits for them
    SERVING = "serving"  # each place is kept: whoever fails is started again
    WINDING_DOWN = "winding down"  # those that are ready serve on, and none is started any more
    REVIVED = "revived"  # serves again: only who would be missed altogether is started again
    FAILED = "failed"  # its first start: nothing more is started
    DRAINING = "draining"  # all were told to go


class PoolEvent(Enum):
    """What happens to a generation as a whole."""

    START = "start"
    UP = "up"  # as many are ready as were to be at first
    ABANDONED = "abandoned"  # nobody waits for the start any more
    FAILED = "failed"  # a worker ended against our will
    WIND_DOWN = "wind down"
    REVIVE = "revive"
    DRAIN = "drain"


_S, _E = PoolState, PoolEvent

TRANSITIONS: dict[tuple[PoolState, PoolEvent], PoolState] = {
    (_S.NEW, _E.START): _S.STARTING,
    (_S.NEW, _E.FAILED): _S.FAILED,  # it cannot be started as things are
    (_S.STARTING, _E.UP): _S.SERVING,
    (_S.STARTING, _E.ABANDONED): _S.SERVING,
    (_S.STARTING, _E.FAILED): _S.FAILED,
    **{(state, _E.FAILED): state for state in (_S.SERVING, _S.WINDING_DOWN, _S.REVIVED, _S.FAILED, _S.DRAINING)},
    (_S.WINDING_DOWN, _E.REVIVE): _S.REVIVED,
    **{(state, _E.WIND_DOWN): _S.WINDING_DOWN for state in _S},
    **{(state, _E.WIND_DOWN): state for state in (_S.FAILED, _S.DRAINING)},
    **{(state, _E.DRAIN): _S.DRAINING for state in _S},
}
"""What an event makes of a state. A pair that is absent cannot happen."""


class Spawn(NamedTuple):
    """Start a worker at ``place`` after ``pause_s``; ``in_turn``: when it is its turn among others."""

    place: int
    pause_s: float = 0.0
    in_turn: bool = False


class TellFailed(NamedTuple):
    """A worker failed, and there is none now that is ready: ``is_hopeless`` after many times in a row."""

    failure: StartFailed
    is_hopeless: bool


class Drain(NamedTuple, Generic[W]):
    """Let ``worker`` go. ``keeps``: another takes over, so its WebSockets may stay."""

    worker: W
    keeps: bool


class NotStarted(NamedTuple):
    """Tell who waits why the start is not done; ``failure`` None: it was told to go."""

    failure: StartFailed | None


class PoolOrder(Enum):
    """What is done to no worker in particular."""

    TELL_STARTED = "tell started"  # whoever waits for the start
    CANCEL_STARTS = "cancel starts"  # of those that are on their way
    SERVE_WAITING = "serve waiting"  # there is a worker for what waits


Order = Spawn | TellFailed | Drain[W] | NotStarted | PoolOrder


class Generation(Generic[W]):
    """Which worker is at which place, who serves, and who leaves. ``size``: how many there are to be."""

    def __init__(self, size: int, backoff: Backoff | None = None) -> None:
        self.size = size
        self.state = PoolState.NEW
        self.goal = size
        """How many there should be by now."""
        self.workers: dict[int, W] = {}
        """All that live, by their place, which a replacement takes over."""
        self.awaited: set[int] = set()
        """Places for which one has been ordered that is not there yet."""
        self.ready: list[W] = []
        self.leaving: set[W] = set()
        """Those that are gone from their place, and have not ended."""
        self.replacing: dict[int, W] = {}
        """Workers that serve until the one that takes their place is ready."""
        self.backoff = backoff or Backoff()
        self.last_failure: StartFailed | None = None
        self.restarts = 0
        self.crashes = 0
        """Workers that ended against our will, restarted or not."""

    @property
    def is_kept(self) -> bool:
        """Whoever fails is started again."""
        return self.state in (PoolState.STARTING, PoolState.SERVING)

    @property
    def is_growing(self) -> bool:
        """Fewer workers have been started than there should be."""
        return self.goal < self.size

    @property
    def is_whole(self) -> bool:
        """All that there are to be are ready, and none is being replaced."""
        return self.may_replace and len(self.ready) >= self.size

    @property
    def may_replace(self) -> bool:
        """A worker may be replaced now: one at a time."""
        return self.is_kept and not self.replacing

    def everyone(self) -> set[W]:
        """Every worker that has, or may have, a process."""
        return {*self.workers.values(), *self.leaving, *self.ready, *self.replacing.values()}

    def _feed(self, event: PoolEvent) -> PoolState:
        """The state before."""
        before, self.state = self.state, TRANSITIONS[self.state, event]
        return before

    # -- starting ------------------------------------------------------------------------------------------------

    def start(self, first: int = 0) -> list[Order[W]]:
        """Start all, or the ``first`` so many; the rest by ``grow``, or ``resize``."""
        if self.state is not PoolState.NEW:  # it was told to go before
            return [NotStarted(None)]
        self._feed(PoolEvent.START)
        self.goal = min(first or self.size, self.size)
        self.awaited.update(range(self.goal))
        return [Spawn(place, in_turn=True) for place in range(self.goal)]

    def refuse(self) -> None:
        """It cannot be started as things are."""
        self._feed(PoolEvent.FAILED)

    def abandon_start(self) -> None:
        """Nobody waits for the start any more; each place is kept."""
        if self.state is PoolState.STARTING:
            self._feed(PoolEvent.ABANDONED)

    def grow(self) -> list[Order[W]]:
        """Start one more; nothing when there are as many as there are to be."""
        if not self.is_growing or not self.is_kept:
            return []
        self.goal += 1
        self.awaited.add(self.goal - 1)
        return [Spawn(self.goal - 1, in_turn=True)]

    def resize(self, size: int, first: Callable[[list[W]], list[W]] = list) -> list[Order[W]]:
        """Have ``size`` workers. ``first``: those that serve, in the order in which they go; the last of it first."""
        if self.state is PoolState.STARTING:
            size = max(size, self.goal)  # who waits for the start waits for those that have begun
        elif self.state is not PoolState.SERVING:
            self.size = self.goal = size
            return []
        orders: list[Order[W]] = []
        taken = self.awaited | self.workers.keys()
        free = [place for place in range(size + len(taken)) if place not in taken][: max(0, size - self.goal)]
        self.awaited.update(free)
        orders += map(Spawn, free)
        orders += [Drain(worker, keeps=True) for worker in first(self.ready)[: max(0, self.goal - size)]]
        self.size = self.goal = size
        return orders

    def begun(self, place: int, worker: W) -> None:
        """``worker`` is being forked. Whoever had its place has said that it failed, and may not be gone yet."""
        former = self.workers.get(place)
        if former is not None:
            self.leaving.add(former)
        self.workers[place] = worker
        self.awaited.discard(place)

    def not_begun(self, place: int, worker: W) -> None:
        """``worker`` was not forked."""
        if self.workers.get(place) is worker:
            del self.workers[place]

    # -- what workers say ----------------------------------------------------------------------------------------

    def admitted(self, place: int, worker: W) -> list[Order[W]]:
        """``worker`` is ready; the one that it replaces is let go."""
        self.ready.append(worker)
        orders: list[Order[W]] = []
        if self.state is PoolState.STARTING and len(self.ready) >= self.goal:
            self._feed(PoolEvent.UP)
            orders.append(PoolOrder.TELL_STARTED)
        former = self.replacing.pop(place, None)
        if former is not None:
            orders.append(Drain(former, keeps=True))
        return [*orders, PoolOrder.SERVE_WAITING]

    def withdrawn(self, worker: W) -> None:
        """``worker`` gets no more connections."""
        if worker in self.ready:
            self.ready.remove(worker)

    def exited(self, place: int, worker: W) -> None:
        """``worker`` is gone, but not reaped yet."""
        self.withdrawn(worker)
        self.leaving.add(worker)
        self.not_begun(place, worker)

    def ended(self, worker: W) -> None:
        """Nothing is left of ``worker``."""
        self.leaving.discard(worker)
        for place in [place for place, each in self.workers.items() if each is worker]:
            del self.workers[place]

    def was_superseded(self, place: int, worker: W) -> bool:
        """Whether ``worker``, which failed, was being replaced: its successor is on the way already."""
        if self.replacing.get(place) is not worker:
            return False
        del self.replacing[place]
        return True

    def failed(
        self, place: int, failure: StartFailed, ready_for_s: float = 0.0, has_served: bool = False
    ) -> list[Order[W]]:
        """Whoever was, or was to be, at ``place`` ended against our will."""
        self.last_failure = failure
        self.crashes += 1
        before = self._feed(PoolEvent.FAILED)
        if before is PoolState.STARTING:
            return [NotStarted(failure)]  # the whole of it has failed
        if before is not PoolState.SERVING and not (before is PoolState.REVIVED and not self.ready):
            return []
        pause_s = self.backoff.pause_after(ready_for_s, has_served)
        self.restarts += 1
        self.awaited.add(place)
        return [Spawn(place, pause_s), TellFailed(failure, self.backoff.exhausted)]

    # -- letting go ----------------------------------------------------------------------------------------------

    def replace(self, place: int, worker: W) -> list[Order[W]]:
        """Start another in the place of ``worker``, which serves until that is ready."""
        self.replacing[place] = worker
        return [Spawn(place)]

    def revive(self) -> list[Order[W]]:
        """Let those serve again that were wound down."""
        self._feed(PoolEvent.REVIVE)
        return [PoolOrder.SERVE_WAITING]

    def wind_down(self) -> list[Order[W]]:
        """Those that are ready serve on for now, but none is started again."""
        return self._end_start(self._feed(PoolEvent.WIND_DOWN))

    def drain(self, keeps: bool) -> list[Order[W]]:
        """Let all go. ``keeps``: others take over. May be called again without."""
        orders = self._end_start(self._feed(PoolEvent.DRAIN))
        orders += [Drain(worker, keeps) for worker in {*self.workers.values(), *self.replacing.values(), *self.leaving}]
        self.replacing.clear()
        return orders

    def drain_one(self) -> list[Order[W]]:
        """Let one that serves go."""
        return [Drain(self.ready[0], keeps=True)] if self.ready else []

    def _end_start(self, before: PoolState) -> list[Order[W]]:
        refused: list[Order[W]] = [NotStarted(None)] if before is PoolState.STARTING else []
        return [*refused, PoolOrder.CANCEL_STARTS]
