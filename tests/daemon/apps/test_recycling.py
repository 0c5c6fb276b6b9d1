from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from caddysnake.daemon.apps.recycling import SETTLED_S, RecycleLimit, RestartLimits, WorkerReading

HUGE = WorkerReading(1 << 40, 1e9, 1 << 50)


def test_without_limits_a_worker_goes_on_for_ever() -> None:
    assert not RestartLimits().is_any
    assert RecycleLimit(RestartLimits()).over(HUGE) is None


def test_a_worker_that_has_done_its_requests_is_over() -> None:
    lease = RecycleLimit(RestartLimits(requests=10))
    assert lease.over(WorkerReading(9, 0.0, 0)) is None
    assert lease.over(WorkerReading(10, 0.0, 0)) == "max_requests"


@given(st.integers(0, 1000), st.integers())
def test_the_jitter_adds_requests_and_no_more_than_it_says(jitter: int, seed: int) -> None:
    lease = RecycleLimit(RestartLimits(requests=10, requests_jitter=jitter), random.Random(seed))
    assert lease.over(WorkerReading(9, 0.0, 0)) is None
    assert lease.over(WorkerReading(10 + jitter, 0.0, 0)) == "max_requests"


@given(st.floats(1, 1e6), st.integers())
def test_a_lifetime_is_a_promise_that_is_kept_a_little_early(lifetime: float, seed: int) -> None:
    lease = RecycleLimit(RestartLimits(lifetime_s=lifetime), random.Random(seed))
    assert lease.over(WorkerReading(0, lifetime * 0.89, 0)) is None
    assert lease.over(WorkerReading(0, lifetime, 0)) == "max_lifetime"


def test_a_large_worker_is_over_but_not_at_once() -> None:
    lease = RecycleLimit(RestartLimits(memory_bytes=1000))
    assert lease.over(WorkerReading(0, SETTLED_S, 1000)) is None
    assert lease.over(WorkerReading(0, SETTLED_S - 0.1, 1001)) is None
    assert lease.over(WorkerReading(0, SETTLED_S, 1001)) == "max_memory"
