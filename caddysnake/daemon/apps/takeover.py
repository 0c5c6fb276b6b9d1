"""Which generation of an app serves, which comes, and which leave, without any I/O: events in, orders out.

Says also what becomes of a connection that its worker gave back, or left behind.
"""

from __future__ import annotations

from collections.abc import Hashable
from enum import Enum
from typing import Generic, NamedTuple, TypeVar

from ..sockets.refusals import STOPPING, Refusal, of_broken, of_failure, of_unstarted
from .spec import StartFailed

G = TypeVar("G", bound=Hashable)


class Fate(Enum):
    """What becomes of a connection that nobody serves."""

    PLACE = "place"  # with a worker, or in the queue
    PARK = "park"  # it is idle: its next request decides
    REOPEN = "reopen"  # the successor has it, and what has come on it
    PASS_ON = "pass on"  # it is another app's by now, or nobody's
    END = "end"


class Do(Enum):
    """What is to be done to a generation, or for the app."""

    WIND_DOWN = "wind down"
    DRAIN_ONE = "drain one"
    GROW = "grow"  # the present one, one worker at a time; each takes the place of one of that generation, then retired
    RETIRE = "retire"  # drain it, and wait for its end
    DRAIN = "drain"
    STOP = "stop"  # drain it, and let it keep nothing
    SHELVE = "shelve"  # let it serve nothing, and keep it
    REVIVE = "revive"  # let what was shelved serve again
    KILL = "kill"
    END_GROWTH = "end growth"
    SERVE_WAITING = "serve waiting"
    PLACE_AGAIN = "place again"  # what waits in the queue
    PART_WITH_QUEUE = "part with queue"


class Act(NamedTuple, Generic[G]):
    """``do`` it to ``generation``."""

    do: Do
    generation: G | None = None


class TellWaiters(NamedTuple):
    """There will be no worker for now: ``refusal`` says why."""

    refusal: Refusal


Order = Act[G] | TellWaiters


class BuildState(Enum):
    """How far a build is, whose generation of workers has processes."""

    STARTING = "starting"  # beside the one that serves
    TRIAL = "trial"  # has its share of the requests, until it is judged
    SERVING = "serving"
    KEPT = "kept"  # the one before, idle; can serve again
    LEAVING = "leaving"  # finishes what it has begun


class Takeover(Generic[G]):
    """The generations of one app."""

    def __init__(self, present: G) -> None:
        self.present = present
        self.coming: G | None = None
        self.kept: G | None = None
        """The one before the present one, which has nothing to do and can take over again."""
        self.former: set[G] = set()
        """Drained, or about to be, and not gone yet."""
        self.is_stopping = False
        self.is_succeeded = False
        """Another follows the app: that has its idle connections."""
        self.broken: StartFailed | None = None
        """Its new code does not start, and the old is not wanted."""
        self.attempts = 0
        """How often it has failed to start since the daemon has; 0 once it was up."""
        self.retry_after_s = 1

    def all(self) -> list[G]:
        """Every generation that has a process."""
        beside = [each for each in (self.coming, self.kept) if each is not None]
        return [self.present, *self.former, *beside]

    def states(self, is_tried: bool) -> list[tuple[G, BuildState]]:
        """Every generation that has a process, and how far it is. ``is_tried``: the coming one has requests."""
        coming = BuildState.TRIAL if is_tried else BuildState.STARTING
        named = [(self.present, BuildState.SERVING), (self.coming, coming), (self.kept, BuildState.KEPT)]
        leaving = [(each, BuildState.LEAVING) for each in self.former]
        return [(each, state) for each, state in named if each is not None] + leaving

    # -- generations ---------------------------------------------------------------------------------------------

    def swap(self, is_growing: bool, keeps: bool = False) -> list[Order[G]]:
        """The coming generation takes over. ``is_growing``: worker by worker. ``keeps``: the former stays, idle."""
        assert self.coming is not None
        former, self.present, self.coming = self.present, self.coming, None
        self.broken = None
        self.attempts = 0
        orders: list[Order[G]] = [Act(Do.END_GROWTH), *self.drop_kept()]
        if keeps and not is_growing:
            self.kept = former
            orders += [Act(Do.SHELVE, former)]
        elif is_growing:
            self.former.add(former)
            orders += [Act(Do.WIND_DOWN, former), Act(Do.DRAIN_ONE, former), Act(Do.GROW, former)]
        else:
            orders += self.retire(former)
        return [*orders, Act(Do.SERVE_WAITING)]

    def suspend(self) -> list[Order[G]]:
        """End the present generation before there is another: what comes waits."""
        dropped = self.drop_kept()
        stops = [Act(Do.STOP, generation) for generation in [self.present, *self.former]]
        return [Act(Do.END_GROWTH), *dropped, *stops]

    def discard(self) -> list[Order[G]]:
        """Give up the coming generation."""
        coming, self.coming = self.coming, None
        return [] if coming is None else [*self.retire(coming), Act(Do.KILL, coming)]

    def return_(self) -> list[Order[G]]:
        """The coming generation has served, and is not wanted: its connections go back to the present one."""
        coming, self.coming = self.coming, None
        return [] if coming is None else [*self.retire(coming), Act(Do.SERVE_WAITING)]

    def drop_kept(self) -> list[Order[G]]:
        """Keep no former generation any more."""
        kept, self.kept = self.kept, None
        return [] if kept is None else self.retire(kept)

    def roll_back(self) -> list[Order[G]]:
        """The generation that was kept takes over again."""
        assert self.kept is not None
        former, self.present, self.kept = self.present, self.kept, None
        self.broken = None
        revived: Order[G] = Act(Do.REVIVE, self.present)
        return [Act(Do.END_GROWTH), revived, *self.retire(former), Act(Do.SERVE_WAITING)]

    def gone(self, generation: G) -> None:
        """No worker of ``generation`` is left."""
        self.former.discard(generation)

    def retire(self, generation: G) -> list[Order[G]]:
        """``generation`` goes whole."""
        self.former.add(generation)
        return [Act(Do.RETIRE, generation)]

    # -- failures, and the end -----------------------------------------------------------------------------------

    def fail(self, failure: StartFailed) -> list[Order[G]]:
        """Its code does not start, and what serves is not wanted: requests are told so until the next swap."""
        self.broken = failure
        refusal = self._refusal_of(failure)
        return [Act(Do.END_GROWTH), Act(Do.DRAIN, self.present), TellWaiters(refusal), Act(Do.PLACE_AGAIN)]

    def not_started(self, failure: StartFailed, retry_after_s: int) -> list[Order[G]]:
        """It has not come up since the daemon started, and is tried again."""
        self.attempts += 1
        self.retry_after_s = retry_after_s
        return self.fail(failure)

    def worker_failed(self, failure: StartFailed, is_hopeless: bool, has_ready: bool) -> list[Order[G]]:
        """A worker ended against our will, ``is_hopeless`` after many times in a row; ``has_ready``: others serve."""
        if not is_hopeless or has_ready:
            return []
        return [TellWaiters(of_failure(failure)), Act(Do.PLACE_AGAIN)]

    def refusal(self, hopeless: StartFailed | None) -> Refusal | None:
        """Why there will be no worker; None: one may come. ``hopeless``: why starts have failed many times."""
        if self.is_stopping:
            return STOPPING
        if self.broken is not None:
            return self._refusal_of(self.broken)
        return None if hopeless is None else of_failure(hopeless)

    def _refusal_of(self, failure: StartFailed) -> Refusal:
        return of_unstarted(failure, self.retry_after_s) if self.attempts else of_broken(failure)

    def stop(self, is_succeeded: bool = False) -> list[Order[G]]:
        """It is told to go. ``is_succeeded``: another follows it."""
        self.is_stopping = True
        self.is_succeeded |= is_succeeded
        return [
            Act(Do.PART_WITH_QUEUE),
            TellWaiters(STOPPING),
            *self.discard(),
            Act(Do.END_GROWTH),
            *(Act(Do.STOP, generation) for generation in self.all()),
        ]

    # -- connections ---------------------------------------------------------------------------------------------

    def placed(self, is_foreign: bool) -> Fate:
        """It has something to read, or is new. ``is_foreign``: its listener is another app's by now, or nobody's."""
        if self.is_stopping:
            return Fate.REOPEN if self.is_succeeded else Fate.PASS_ON
        return Fate.PASS_ON if is_foreign else Fate.PLACE

    def idle(self) -> Fate:
        """The app was told to go, and it is idle, as far as anybody knows."""
        return Fate.PARK if self.is_succeeded else Fate.PASS_ON

    def returned(self, is_ready: bool) -> Fate:
        """A worker gave it back at a request boundary. ``is_ready``: because it is busy, not because it leaves."""
        if self.is_stopping:
            return self.idle()
        # The next request on it, not an idle connection, decides who gets it.
        return Fate.PARK if is_ready else Fate.PLACE

    def orphaned(self, is_untouched: bool) -> Fate:
        """Its worker is dead. ``is_untouched``: that had not begun to read from it, so it is as good as new."""
        if not is_untouched:
            return Fate.END
        return self.idle() if self.is_stopping else Fate.PLACE
