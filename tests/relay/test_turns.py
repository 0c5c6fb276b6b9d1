"""Whose work is done in which turn: no app takes the others' time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from caddysnake.relay.turns import APP_UNITS, QUEUE_UNITS, TURN_UNITS, Turns


class Loop:
    """A loop of which the test makes the turns."""

    def __init__(self) -> None:
        self._soon: list[Callable[[], None]] = []
        self.turns: Turns[str] = Turns(self._soon.append)

    def turn(self) -> bool:
        """Make one; False when nothing was to be done."""
        soon = self._soon.copy()
        self._soon.clear()
        for callback in soon:
            callback()
        return bool(soon)


def test_an_app_that_has_had_its_share_waits_for_the_next_turn_and_others_do_not() -> None:
    loop = Loop()
    assert loop.turns.may("a")
    loop.turns.spend("a", APP_UNITS)
    assert not loop.turns.may("a")
    assert loop.turns.may("b")
    assert loop.turn()
    assert loop.turns.may("a")


def test_many_apps_together_have_a_bound_too() -> None:
    loop = Loop()
    for number in range(TURN_UNITS // APP_UNITS + 1):
        loop.turns.spend(f"{number}", APP_UNITS)
    assert not loop.turns.may("another")


def test_what_was_put_off_is_done_an_app_at_a_time_and_some_of_it_each_turn() -> None:
    loop = Loop()
    done: list[str] = []

    def step(app: str, size: int) -> Callable[[], None]:
        def work() -> None:
            done.append(app)
            loop.turns.spend(app, size)

        return work

    for _ in range(20):
        loop.turns.later("greedy", step("greedy", QUEUE_UNITS // 4))
    loop.turns.later("modest", step("modest", 1))
    assert not loop.turns.may("modest")  # nothing overtakes what came before
    loop.turn()
    assert done[:2] == ["greedy", "modest"]
    assert len(done) == 5
    for _ in range(10):
        loop.turn()
    assert len(done) == 21
    assert not loop.turn()


def test_work_that_fails_leaves_the_others_their_turns() -> None:
    loop = Loop()
    done: list[str] = []

    def fail() -> None:
        raise RuntimeError("an error of ours")

    loop.turns.later("a", fail)
    loop.turns.later("b", lambda: done.append("b"))
    with contextlib.suppress(RuntimeError):
        loop.turn()
    loop.turn()
    assert done == ["b"]
