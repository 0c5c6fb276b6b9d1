from __future__ import annotations

from caddysnake.channel.allowance import TokenBucket


def spent(allowance: TokenBucket, now: float, most: int = 10_000) -> int:
    """How many messages pass at ``now``."""
    return next((count for count in range(most) if not allowance.spend(now)), most)


def test_a_second_s_worth_may_come_at_once() -> None:
    assert spent(TokenBucket(100), 5.0) == 100


def test_a_steady_stream_at_the_limit_passes_for_ever() -> None:
    allowance = TokenBucket(100)
    assert all(allowance.spend(number / 100) for number in range(100_000))


def test_a_stream_above_the_limit_ends() -> None:
    allowance = TokenBucket(100)
    assert not all(allowance.spend(number / 150) for number in range(1000))


def test_quiet_time_earns_no_more_than_one_second_s_worth() -> None:
    allowance = TokenBucket(100)
    assert spent(allowance, 1.0) == 100
    assert spent(allowance, 10_000.0) == 100


def test_an_overdraft_lets_a_burst_through_and_is_made_good_afterwards() -> None:
    allowance = TokenBucket(100, overdraft=400)
    assert spent(allowance, 0.0) == 500
    assert spent(allowance, 1.0) < 101
    assert spent(allowance, 100.0) == 500
