"""The life of one worker, without any I/O: events in, actions out.

The supervisor feeds events and carries the actions out. A pair that is absent from the table is a bug in the
supervisor, never in the worker: what a worker may *say* in which state is ``MAY_SAY``, and saying anything else is the
event BREACH.
"""

from __future__ import annotations

import os
import signal
from enum import Enum
from typing import NamedTuple

from ...channel.messages import Drained, Failed, Lost, Need, Ready, Returned, Seek, Unneed
from ..system.processes import describe_exit


class WorkerState(Enum):
    """How far a worker is."""

    STARTING = "starting"  # spawned or about to be; the app is being imported
    READY = "ready"  # may be given connections
    KEEPING = "keeping"  # drains, and its WebSockets may stay for longer than the grace
    DRAINING = "draining"  # gives idle connections back, finishes the others
    ENDING = "ending"  # has been told by a signal, or has said its last word
    EXITED = "exited"

    @property
    def told(self) -> str:
        """How it is called elsewhere: that something is kept while it drains is nobody else's business."""
        return WorkerState.DRAINING.value if self is WorkerState.KEEPING else self.value

    @property
    def is_serving(self) -> bool:
        """It has begun to serve, and goes on with what it was given."""
        return self in (WorkerState.READY, WorkerState.KEEPING, WorkerState.DRAINING)


class Event(Enum):
    """What happens to a worker."""

    READY = "ready"
    FAILED = "failed"  # it told why it could not become ready, or drains although nobody of ours has asked for it
    START_TIMEOUT = "start timeout"
    DRAIN = "drain"  # we want it gone, orderly
    KEEP = "keep"  # the same, but its WebSockets may stay for a while
    DRAINED = "drained"
    DEADLINE = "deadline"  # what we waited for did not happen in time
    HUNG = "hung"  # nothing in it runs, and a request's time is over
    BREACH = "breach"  # it broke a rule of the channel
    EXIT = "exit"  # its pidfd says so


class Action(Enum):
    """What the daemon is to do about it, in the order given."""

    ADMIT = "admit"  # into the rotation
    WITHDRAW = "withdraw"  # out of the rotation
    ASK_TO_DRAIN = "ask to drain"
    LET_STAY = "let stay"  # its WebSockets, and look at what is left
    LET_NOTHING_STAY = "let nothing stay"  # wait for DEADLINE
    TERMINATE = "terminate"  # SIGTERM, then wait for DEADLINE
    KILL = "kill"  # SIGKILL to its group
    REPORT = "report"  # it ended, or will end, against our will: tell the pool, which may start another
    REAP = "reap"  # rescue its connections, learn how it ended, forget it


class Reason(NamedTuple):
    """Why a worker ends against our will."""

    code: str
    """A stable word, as in ``channel.messages.Failed``."""
    text: str


def reason_of_end(status: int | None, for_memory: str, was_ready: bool) -> Reason:
    """Return why a worker ended that said nothing. ``for_memory``: why the kernel killed it, if for want of that."""
    if for_memory and status is not None and os.WIFSIGNALED(status):
        return Reason("memory", for_memory)
    how = "an unknown status" if status is None else describe_exit(status)
    if status is not None and os.WIFSIGNALED(status) and os.WTERMSIG(status) in _FAULTS:
        how += ", and its Python stack is in the log"
    return Reason("crashed", f"worker crashed{'' if was_ready else ' while starting'}: {how}")


_FAULTS = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT})
"""What ``faulthandler`` hears."""

_S, _E, _A = WorkerState, Event, Action

TRANSITIONS: dict[tuple[WorkerState, Event], tuple[WorkerState, tuple[Action, ...]]] = {
    (_S.STARTING, _E.READY): (_S.READY, (_A.ADMIT,)),
    (_S.STARTING, _E.FAILED): (_S.ENDING, (_A.REPORT,)),
    (_S.STARTING, _E.START_TIMEOUT): (_S.ENDING, (_A.REPORT, _A.KILL)),
    (_S.STARTING, _E.DRAIN): (_S.ENDING, (_A.KILL,)),  # nobody reads its channel yet, and it holds nothing
    (_S.STARTING, _E.KEEP): (_S.ENDING, (_A.KILL,)),
    (_S.STARTING, _E.BREACH): (_S.ENDING, (_A.REPORT, _A.KILL)),
    (_S.STARTING, _E.EXIT): (_S.EXITED, (_A.REPORT, _A.REAP)),
    (_S.READY, _E.DRAIN): (_S.DRAINING, (_A.WITHDRAW, _A.ASK_TO_DRAIN, _A.LET_NOTHING_STAY)),
    (_S.READY, _E.KEEP): (_S.KEEPING, (_A.WITHDRAW, _A.ASK_TO_DRAIN, _A.LET_STAY)),
    (_S.READY, _E.FAILED): (_S.DRAINING, (_A.WITHDRAW, _A.REPORT, _A.LET_NOTHING_STAY)),
    (_S.READY, _E.HUNG): (_S.DRAINING, (_A.WITHDRAW, _A.REPORT, _A.ASK_TO_DRAIN, _A.LET_NOTHING_STAY)),
    (_S.READY, _E.BREACH): (_S.ENDING, (_A.WITHDRAW, _A.REPORT, _A.KILL)),
    (_S.READY, _E.EXIT): (_S.EXITED, (_A.WITHDRAW, _A.REPORT, _A.REAP)),
    (_S.READY, _E.START_TIMEOUT): (_S.READY, ()),  # the timer raced with its word
    (_S.KEEPING, _E.DRAIN): (_S.DRAINING, (_A.LET_NOTHING_STAY,)),
    (_S.KEEPING, _E.KEEP): (_S.KEEPING, ()),
    (_S.KEEPING, _E.HUNG): (_S.KEEPING, ()),
    (_S.KEEPING, _E.FAILED): (_S.DRAINING, (_A.LET_NOTHING_STAY,)),
    (_S.KEEPING, _E.DRAINED): (_S.ENDING, ()),
    (_S.KEEPING, _E.DEADLINE): (_S.ENDING, (_A.TERMINATE,)),
    (_S.KEEPING, _E.BREACH): (_S.ENDING, (_A.KILL,)),
    (_S.KEEPING, _E.EXIT): (_S.EXITED, (_A.REAP,)),
    (_S.DRAINING, _E.DRAIN): (_S.DRAINING, ()),
    (_S.DRAINING, _E.KEEP): (_S.DRAINING, ()),  # what was let go without WebSockets does not get them back
    (_S.DRAINING, _E.HUNG): (_S.DRAINING, ()),
    (_S.DRAINING, _E.FAILED): (_S.DRAINING, ()),  # it was told twice
    (_S.DRAINING, _E.DRAINED): (_S.ENDING, ()),
    (_S.DRAINING, _E.DEADLINE): (_S.ENDING, (_A.TERMINATE,)),
    (_S.DRAINING, _E.BREACH): (_S.ENDING, (_A.KILL,)),
    (_S.DRAINING, _E.EXIT): (_S.EXITED, (_A.REAP,)),
    (_S.ENDING, _E.HUNG): (_S.ENDING, ()),
    (_S.ENDING, _E.DRAIN): (_S.ENDING, ()),
    (_S.ENDING, _E.KEEP): (_S.ENDING, ()),
    (_S.ENDING, _E.START_TIMEOUT): (_S.ENDING, ()),
    (_S.ENDING, _E.BREACH): (_S.ENDING, (_A.KILL,)),
    (_S.ENDING, _E.DEADLINE): (_S.ENDING, (_A.KILL,)),
    (_S.ENDING, _E.EXIT): (_S.EXITED, (_A.REAP,)),
    (_S.EXITED, _E.HUNG): (_S.EXITED, ()),
    (_S.EXITED, _E.KEEP): (_S.EXITED, ()),
    (_S.EXITED, _E.DRAIN): (_S.EXITED, ()),  # asked in the moment between its exit and its reaping
}

MAY_SAY: dict[WorkerState, frozenset[type]] = {
    WorkerState.STARTING: frozenset({Ready, Failed}),
    WorkerState.READY: frozenset({Returned, Failed}),
    WorkerState.KEEPING: frozenset({Returned, Failed, Drained}),
    WorkerState.DRAINING: frozenset({Returned, Failed, Drained}),
    # Told to end while its last words were on their way: they mean nothing any more.
    WorkerState.ENDING: frozenset({Ready, Failed, Returned, Drained}),
    WorkerState.EXITED: frozenset(),
}
LEAVES_FOR = frozenset({"stopping", "resources"})
"""For what a worker that serves may be ``Failed``: somebody told it to end, or it can take no more connections."""


RELAY_MAY_SAY: dict[WorkerState, frozenset[type]] = {
    state: said | {Need, Seek, Unneed, Lost} if state.is_serving or state is WorkerState.ENDING else said
    for state, said in MAY_SAY.items()
}
"""A relay asks for links, and tells what it has answered, as well, also for what it finishes while it drains."""


def next_state(state: WorkerState, event: Event) -> tuple[WorkerState, tuple[Action, ...]]:
    """What ``event`` makes of ``state``, and what must be done. Raises ``KeyError`` for a pair that cannot happen."""
    return TRANSITIONS[state, event]
