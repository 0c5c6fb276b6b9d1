from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from caddysnake.daemon.system.backoff import FACTOR, FIRST_S, HEALTHY_S, INTENSITY, LONGEST_S, Backoff


class Worst(random.Random):
    """All or nothing of the jitter."""

    def __init__(self, value: float) -> None:
        super().__init__(0)
        self.value = value

    def random(self) -> float:
        return self.value


def test_the_first_failure_costs_nothing() -> None:
    assert Backoff().pause_after(0.0) == 0.0


def test_pauses_double_up_to_the_longest() -> None:
    backoff = Backoff(Worst(0.0))
    pauses = [backoff.pause_after(0.0) for _ in range(12)]
    expected = [0.0] + [min(LONGEST_S, FIRST_S * FACTOR**power) for power in range(11)]
    assert pauses == expected
    assert pauses[-1] == LONGEST_S


@given(st.lists(st.floats(0, 60), max_size=60), st.integers())
def test_a_pause_is_never_negative_nor_longer_than_the_longest(lives: list[float], seed: int) -> None:
    backoff = Backoff(random.Random(seed))
    for life in lives:
        assert 0.0 <= backoff.pause_after(life) <= LONGEST_S


def test_an_app_that_fails_for_days_is_still_tried_again() -> None:
    backoff = Backoff(Worst(0.0))
    assert {backoff.pause_after(0.0) for _ in range(5000)} >= {LONGEST_S}
    assert backoff.pause_after(0.0) == LONGEST_S


def test_jitter_only_shortens_a_pause() -> None:
    without, most = Backoff(Worst(0.0)), Backoff(Worst(0.999))
    for _ in range(20):
        longest, shortest = without.pause_after(0.0), most.pause_after(0.0)
        assert longest * 0.7 <= shortest <= longest


def test_a_healthy_spell_forgives_what_was_before() -> None:
    backoff = Backoff(Worst(0.0))
    for _ in range(INTENSITY):
        backoff.pause_after(0.0)
    assert backoff.exhausted
    assert backoff.pause_after(HEALTHY_S) == 0.0
    assert not backoff.exhausted


def test_a_short_life_forgives_nothing() -> None:
    backoff = Backoff(Worst(0.0))
    for _ in range(4):
        backoff.pause_after(0.0)
    assert backoff.pause_after(HEALTHY_S - 0.1) > 0.0


def test_it_is_exhausted_after_so_many_failures_in_a_row_and_no_earlier() -> None:
    backoff = Backoff()
    for count in range(1, INTENSITY + 3):
        backoff.pause_after(0.0)
        assert backoff.exhausted is (count >= INTENSITY)


def test_workers_that_serve_and_die_are_started_again_soon_however_many() -> None:
    backoff = Backoff(Worst(0.0))
    pauses = [backoff.pause_after(0.2, has_served=True) for _ in range(100)]
    assert pauses == [0.0] + [FIRST_S] * 99
    assert not backoff.exhausted


def test_one_that_has_served_forgives_those_that_have_not() -> None:
    backoff = Backoff(Worst(0.0))
    for _ in range(INTENSITY):
        backoff.pause_after(0.0)
    assert backoff.pause_after(0.2, has_served=True) == FIRST_S
    assert not backoff.exhausted
