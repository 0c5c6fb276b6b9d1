from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caddysnake.daemon.workers.balancer import Load, choose, excess

LOADS = st.lists(st.builds(Load, st.integers(0, 1 << 62), st.integers(0, 20_000), st.booleans()), max_size=20)


def test_without_workers_there_is_no_choice() -> None:
    assert choose([], 3) is None


def test_the_least_busy_is_chosen() -> None:
    assert choose([Load(3, 0, False), Load(1, 9, False), Load(2, 0, False)], 0) == 1


def test_among_the_equally_busy_the_one_with_fewer_connections_is_chosen() -> None:
    assert choose([Load(1, 5, False), Load(1, 4, False), Load(1, 6, False)], 7) == 1


def test_a_saturated_one_is_not_chosen_however_idle_it_looks() -> None:
    assert choose([Load(0, 0, True), Load(50, 50, False)], 0) == 1


def test_when_all_are_saturated_nobody_is_chosen() -> None:
    assert choose([Load(0, 0, True), Load(1, 0, True)], 5) is None


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_equals_take_turns(count: int) -> None:
    loads = [Load(2, 3, False)] * count
    chosen = Counter(choose(loads, turn) for turn in range(10 * count))
    assert chosen == dict.fromkeys(range(count), 10)


@given(LOADS, st.integers(0, 10**9))
def test_no_better_worker_is_passed_over(loads: list[Load], turn: int) -> None:
    index = choose(loads, turn)
    free = [load for load in loads if not load.saturated]
    if index is None:
        assert not free
    else:
        assert not loads[index].saturated
        assert loads[index][:2] == min(load[:2] for load in free)


def test_who_holds_far_more_than_the_others_gives_up_what_is_above_the_mean() -> None:
    assert excess([20, 0]) == [10, 0]
    assert excess([9, 1, 2]) == [5, 0, 0]


def test_a_little_unevenness_is_left_alone() -> None:
    assert excess([12, 8]) == [0, 0]
    assert excess([2, 0]) == [0, 0]
    assert excess([7]) == [0]
    assert excess([]) == []


@given(st.lists(st.integers(0, 20_000), max_size=20))
def test_giving_up_leaves_nobody_below_the_mean(held: list[int]) -> None:
    for count, surplus in zip(held, excess(held), strict=True):
        assert surplus >= 0
        assert not surplus or count - surplus >= sum(held) / len(held)
