"""The life of a worker as a table."""

from __future__ import annotations

import itertools

import pytest

from caddysnake.channel import messages
from caddysnake.channel.messages import Drained, Failed, Ready, Returned
from caddysnake.daemon.workers.lifecycle import MAY_SAY, TRANSITIONS, Action, Event, WorkerState, next_state

LIVE = [state for state in WorkerState if state is not WorkerState.EXITED]

# Pairs that cannot happen, with the reason. A new state or event must find its place here or in the table.
ABSENT = {
    (WorkerState.STARTING, Event.DRAINED): "not a thing it may say then",
    (WorkerState.STARTING, Event.DEADLINE): "its timer is the start timeout",
    (WorkerState.READY, Event.READY): "not a thing it may say then",
    (WorkerState.READY, Event.DRAINED): "not a thing it may say then",
    (WorkerState.READY, Event.DEADLINE): "no timer runs",
    (WorkerState.STARTING, Event.HUNG): "only ready ones are watched",
    (WorkerState.KEEPING, Event.READY): "not a thing it may say then",
    (WorkerState.KEEPING, Event.START_TIMEOUT): "that timer ended when it became ready",
    (WorkerState.DRAINING, Event.READY): "not a thing it may say then",
    (WorkerState.DRAINING, Event.START_TIMEOUT): "that timer ended when it became ready",
    (WorkerState.ENDING, Event.READY): "what it says is not listened to",
    (WorkerState.ENDING, Event.FAILED): "what it says is not listened to",
    (WorkerState.ENDING, Event.DRAINED): "what it says is not listened to",
}


@pytest.mark.parametrize("state", LIVE)
def test_every_live_state_knows_what_an_exit_means(state: WorkerState) -> None:
    after, actions = next_state(state, Event.EXIT)
    assert after is WorkerState.EXITED
    assert actions[-1] is Action.REAP


@pytest.mark.parametrize("state", LIVE)
def test_a_breach_ends_it_in_every_state(state: WorkerState) -> None:
    after, actions = next_state(state, Event.BREACH)
    assert after is WorkerState.ENDING
    assert Action.KILL in actions


@pytest.mark.parametrize("state", WorkerState)
def test_any_worker_may_be_asked_to_drain(state: WorkerState) -> None:
    """Its pool does not know in which state it is, nor whether it has just died."""
    for event in (Event.DRAIN, Event.KEEP):
        after, _ = next_state(state, event)
        assert after is not WorkerState.READY


def test_websockets_may_stay_until_it_is_told_that_nothing_may() -> None:
    kept, asked = next_state(WorkerState.READY, Event.KEEP)
    assert Action.LET_STAY in asked
    assert next_state(kept, Event.KEEP) == (kept, ())
    assert next_state(kept, Event.DRAIN) == (WorkerState.DRAINING, (Action.LET_NOTHING_STAY,))
    assert next_state(WorkerState.DRAINING, Event.KEEP) == (WorkerState.DRAINING, ())


def test_elsewhere_a_worker_that_keeps_websockets_is_draining() -> None:
    assert {state.told for state in WorkerState} == {state.value for state in WorkerState} - {"keeping"}


def test_every_absent_pair_has_a_reason() -> None:
    pairs = set(itertools.product(LIVE, Event))
    assert pairs - TRANSITIONS.keys() == ABSENT.keys()


def test_nothing_is_done_to_a_worker_that_has_exited() -> None:
    assert {actions for (state, _), (_, actions) in TRANSITIONS.items() if state is WorkerState.EXITED} <= {()}
    ends = {after for (state, _), (after, _) in TRANSITIONS.items() if state is WorkerState.EXITED}
    assert ends <= {WorkerState.EXITED}


def test_a_worker_enters_the_rotation_when_it_becomes_ready_and_only_then() -> None:
    entering = {pair for pair, (_, actions) in TRANSITIONS.items() if Action.ADMIT in actions}
    assert entering == {(WorkerState.STARTING, Event.READY)}


def test_whatever_takes_a_ready_worker_elsewhere_takes_it_out_of_the_rotation() -> None:
    for (state, _), (after, actions) in TRANSITIONS.items():
        assert (Action.WITHDRAW in actions) is (state is WorkerState.READY and after is not WorkerState.READY)


def test_a_worker_is_reported_once_on_any_way_to_its_end() -> None:
    def reports(state: WorkerState, seen: frozenset[WorkerState]) -> set[int]:
        if state is WorkerState.EXITED:
            return {0}
        totals = set()
        for (before, _), (after, actions) in TRANSITIONS.items():
            if before is state and after not in seen | {state}:
                totals |= {actions.count(Action.REPORT) + more for more in reports(after, seen | {state})}
        return totals

    assert reports(WorkerState.STARTING, frozenset()) <= {0, 1}


def test_no_way_leads_back() -> None:
    order = list(WorkerState)
    for (before, _), (after, _) in TRANSITIONS.items():
        assert order.index(after) >= order.index(before)


def test_what_a_worker_may_say_is_stated_for_every_state() -> None:
    assert MAY_SAY.keys() == set(WorkerState)
    assert MAY_SAY[WorkerState.EXITED] == frozenset()


def test_a_worker_may_say_only_what_is_a_workers_to_say() -> None:
    assert frozenset().union(*MAY_SAY.values()) == {Ready, Failed, Returned, Drained}
    outward = {messages.Configure, messages.Take, messages.Drain, messages.Spawn}
    assert not outward & frozenset().union(*MAY_SAY.values())


EVENT_OF = {Ready: Event.READY, Failed: Event.FAILED, Drained: Event.DRAINED}


@pytest.mark.parametrize("state", [WorkerState.STARTING, WorkerState.READY, WorkerState.KEEPING, WorkerState.DRAINING])
def test_what_it_may_say_has_a_transition(state: WorkerState) -> None:
    for kind in MAY_SAY[state]:
        if kind in EVENT_OF:
            assert (state, EVENT_OF[kind]) in TRANSITIONS


def test_a_pair_that_cannot_happen_is_a_loud_bug() -> None:
    with pytest.raises(KeyError):
        next_state(WorkerState.READY, Event.DRAINED)
