from __future__ import annotations

import pytest

from caddysnake.channel.throttle import AGAIN_S, LINES_MAX, Throttle, TokenBucket


def spent(bucket: TokenBucket, now: float, most: int = 10_000) -> int:
    """How many messages pass at ``now``."""
    return next((count for count in range(most) if not bucket.spend(now)), most)


def test_a_second_s_worth_may_come_at_once() -> None:
    assert spent(TokenBucket(100), 5.0) == 100


def test_a_steady_stream_at_the_limit_passes_for_ever() -> None:
    bucket = TokenBucket(100)
    assert all(bucket.spend(number / 100) for number in range(100_000))


def test_a_stream_above_the_limit_ends() -> None:
    bucket = TokenBucket(100)
    assert not all(bucket.spend(number / 150) for number in range(1000))


def test_quiet_time_earns_no_more_than_one_second_s_worth() -> None:
    bucket = TokenBucket(100)
    assert spent(bucket, 1.0) == 100
    assert spent(bucket, 10_000.0) == 100


def test_an_overdraft_lets_a_burst_through_and_is_made_good_afterwards() -> None:
    bucket = TokenBucket(100, overdraft=400)
    assert spent(bucket, 0.0) == 500
    assert spent(bucket, 1.0) < 101
    assert spent(bucket, 100.0) == 500


def test_a_bucket_lets_a_burst_through_and_then_so_much_a_second() -> None:
    bucket = TokenBucket(10, burst=100)
    now = 1000.0
    spent = 0
    while bucket.left(now) > 0:
        bucket.charge(1)
        spent += 1
    assert spent == 100
    assert bucket.left(now + 1) == pytest.approx(10)
    assert bucket.left(now + 1000) == 100


def test_each_thing_is_told_once_a_minute() -> None:
    complaints = Throttle()
    assert complaints.is_due("a", 0.0)
    assert complaints.is_due("b", 30.0)
    assert not complaints.is_due("a", AGAIN_S - 1)
    assert complaints.is_due("a", AGAIN_S)
    assert not complaints.is_due("b", AGAIN_S)
    assert complaints.take_untold() == 0


def test_of_very_many_things_the_number_is_told() -> None:
    complaints = Throttle()
    assert sum(complaints.is_due(number, 0.0) for number in range(10_000)) == LINES_MAX
    assert len(complaints) == LINES_MAX
    assert complaints.is_due("a", AGAIN_S)
    assert complaints.take_untold() == 10_000 - LINES_MAX
    assert complaints.take_untold() == 0


def test_any_number_of_things_that_strangers_think_of_takes_a_bounded_memory() -> None:
    throttle = Throttle(1024)
    told = sum(throttle.is_due(("http.request.host", f"x{number}/"), number / 1000) for number in range(20_000))
    assert told <= 1024
    assert len(throttle) <= 1024
    assert throttle.is_due(("http.request.host", "later"), 200.0)
