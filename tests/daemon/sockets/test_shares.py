"""Who may have how many descriptors."""

from __future__ import annotations

import os
import resource

import pytest

from caddysnake.daemon.sockets.shares import Shares, is_scarce, reserve

LIMIT = 1024


class Holder:
    def __init__(self, weight: int = 1) -> None:
        self.held = 0
        self.weight = weight


@pytest.fixture
def shares(monkeypatch: pytest.MonkeyPatch) -> Shares:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (LIMIT, LIMIT))
    return Shares(lambda: LIMIT)  # so that nothing else counts


def fill(shares: Shares, holder: Holder) -> int:
    while shares.has_room(holder):
        shares.change(holder, 1)
        assert holder.held <= LIMIT
    return holder.held


def entered(shares: Shares, *weights: int) -> list[Holder]:
    holders = [Holder(weight) for weight in weights]
    for holder in holders:
        shares.enter(holder)
    return holders


def test_the_only_listener_may_have_all_but_what_is_kept_back(shares: Shares) -> None:
    (only,) = entered(shares, 1)
    assert fill(shares, only) == LIMIT - reserve(LIMIT)


@pytest.mark.parametrize("weight", [1, 2])
def test_each_listener_gets_what_is_promised_to_it_whatever_the_others_have(shares: Shares, weight: int) -> None:
    greedy, *others = entered(shares, weight, 1, 1, 1)
    assert fill(shares, greedy) * weight >= (LIMIT - reserve(LIMIT)) // 2
    for other in others:
        assert fill(shares, other) >= (LIMIT - reserve(LIMIT)) // 8
    assert greedy.held * weight + sum(other.held for other in others) <= LIMIT - reserve(LIMIT)


def test_a_listener_that_comes_later_gets_its_part_of_what_ends(shares: Shares) -> None:
    (first,) = entered(shares, 1)
    fill(shares, first)
    (second,) = entered(shares, 1)
    for _ in range(10):
        shares.change(first, -1)
    assert not shares.has_room(first)
    assert shares.has_room(second)


def test_what_a_listener_has_left_behind_counts_until_it_ends(shares: Shares) -> None:
    first, second = entered(shares, 1, 1)
    fill(shares, first)
    shares.leave(first)
    half = fill(shares, second)
    while first.held:
        shares.change(first, -1)
    assert fill(shares, second) == LIMIT - reserve(LIMIT)
    assert half < second.held


def test_what_is_open_beside_connections_counts() -> None:
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(50)]
    try:
        connections = [0]
        shares = Shares(lambda: connections[0])
        (only,) = entered(shares, 1)
        assert shares.has_room(only)
        before = shares._base
        assert before >= 50
        connections[0] = 20
        shares.sweep()
        assert shares._base == before - 20
    finally:
        for fd in held:
            os.close(fd)


def test_when_a_reload_makes_a_listener_relayed_its_connections_count_twice(shares: Shares) -> None:
    holder, other = entered(shares, 1, 1)
    for _ in range(300):
        shares.change(holder, 1)
    holder.weight = 2
    shares.sweep()
    assert shares._taken == 600
    assert fill(shares, other) < LIMIT - reserve(LIMIT) - 500


def test_the_last_descriptors_are_scarce(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (LIMIT, LIMIT))
    assert not is_scarce(LIMIT - reserve(LIMIT))
    assert is_scarce(LIMIT - 1)
