"""What becomes of a build that is tried: by figures alone."""

from __future__ import annotations

import random

import pytest

from caddysnake.channel.vitals import CELL_LATENCY, latency_cell
from caddysnake.config.language.models import Canary
from caddysnake.daemon.apps.judging import Figures, Ruling, judge
from caddysnake.daemon.apps.trial import Rota

CANARY = Canary(for_s=60.0)


def figures(durations: list[float], errors: int = 0, lost: int = 0, crashes: int = 0) -> Figures:
    latencies = [0] * 12
    for each in durations:
        latencies[latency_cell(each) - CELL_LATENCY] += 1
    return Figures(len(durations), errors, lost, crashes, sum(durations), tuple(latencies))


def steady(seconds: float, count: int = 200) -> list[float]:
    return [seconds] * count


GOOD = figures(steady(0.02, 1000))


@pytest.mark.parametrize(
    ("new", "old", "elapsed_s", "ruling", "why"),
    [
        (figures(steady(0.02)), GOOD, 1.0, None, ""),
        (figures(steady(0.02)), GOOD, 60.0, Ruling.PROMOTE, "no worse in 60s"),
        (figures(steady(0.02, 50), errors=5), GOOD, 1.0, Ruling.RETURN, "10.0% of its requests failed"),
        (figures(steady(0.02, 49), errors=49), GOOD, 1.0, None, ""),
        (figures(steady(0.02, 45), lost=5), GOOD, 1.0, Ruling.RETURN, "of its requests failed"),
        (figures(steady(0.02), errors=1), GOOD, 1.0, None, "0.5% is within max_errors"),
        (figures(steady(0.02), errors=20), figures(steady(0.02, 1000), errors=200), 1.0, None, "the old one is worse"),
        (figures(steady(0.06)), GOOD, 1.0, Ruling.RETURN, "its p95 is"),
        (figures(steady(0.003)), figures(steady(0.001, 1000)), 1.0, Ruling.RETURN, "its mean is 3.0 times"),
        (figures(steady(0.033, 50)), figures(steady(0.011, 500)), 1.0, Ruling.RETURN, "its mean is 3.0 times"),
        (figures(steady(0.09, 50)), figures(steady(0.03, 500)), 1.0, Ruling.RETURN, "its mean is 3.0 times"),
        (figures(steady(0.0501, 50)), figures(steady(0.026, 500)), 1.0, None, "1.9 times, in the next bucket"),
        (figures([*steady(0.004, 49), 0.5]), figures(steady(0.004, 500)), 1.0, None, "one may be chance"),
        (figures(steady(12.0, 50)), figures(steady(4.0, 500)), 1.0, Ruling.RETURN, "its mean is 3.0 times"),
        (figures(steady(0.0008)), figures(steady(0.0002, 1000)), 1.0, None, "less than a millisecond"),
        (figures([*steady(0.02, 95), *steady(0.3, 6)]), GOOD, 1.0, None, "six of a hundred may be chance"),
        (figures([*steady(0.03, 55), *steady(0.07, 5)]), figures(steady(0.011, 500)), 1.0, Ruling.RETURN, "mean"),
        (figures(steady(0.06)), figures(steady(0.02, 9)), 1.0, None, "nothing to compare with"),
        (figures(steady(0.02, 3), errors=3), GOOD, 60.0, Ruling.PROMOTE, "only 3 of 50 requests came in 60s"),
        (figures([], crashes=2), GOOD, 1.0, Ruling.RETURN, "2 of its workers crashed"),
        (figures([], crashes=1), GOOD, 1.0, None, "one that was killed"),
        (figures([]), figures([]), 60.0, Ruling.PROMOTE, "its warm-up has decided"),
    ],
)
def test_a_build_is_judged_by_what_it_did_beside_the_old_one(
    new: Figures, old: Figures, elapsed_s: float, ruling: Ruling | None, why: str
) -> None:
    verdict = judge(CANARY, elapsed_s, new, old)
    assert (None if verdict is None else verdict.ruling) == ruling
    if verdict is not None:
        assert why in verdict.why


@pytest.mark.parametrize(
    ("unanswered", "new", "old", "is_returned"),
    [
        (1, [], steady(0.02), False),
        (2, [], steady(0.02), True),
        (2, [], [], True),
        (2, steady(0.02, 100), steady(0.02), False),
        (8, steady(0.02, 100), steady(0.02), True),
        (8, steady(0.02, 100), [*steady(0.02, 180), *steady(8.0, 9)], False),
    ],
)
def test_a_build_that_does_not_answer_is_returned_before_it_has_answered_many(
    unanswered: int, new: list[float], old: list[float], is_returned: bool
) -> None:
    verdict = judge(CANARY, 1.0, figures(new), figures(old), unanswered)
    assert (verdict is not None) == is_returned


def test_a_good_build_is_hardly_ever_returned_by_chance() -> None:
    """Looked at after every request, with durations as a busy machine has them."""
    chance, returned = random.Random(1), 0

    def durations(count: int) -> list[float]:
        return [chance.lognormvariate(-4.0, 0.8) for _ in range(count)]

    for _ in range(40):
        all_new, old = durations(300), figures(durations(2000))
        for count in range(50, 300, 5):
            verdict = judge(CANARY, 1.0, figures(all_new[:count]), old)
            if verdict is not None:
                returned += 1
                break
    assert returned == 0


@pytest.mark.parametrize("share", [0.01, 0.1, 0.33, 0.5, 0.9])
@pytest.mark.parametrize("connections", [1, 7])
def test_the_share_holds_with_one_connection_as_with_several(share: float, connections: int) -> None:
    shares, chance = Rota(share), random.Random(2)
    left, side = [0] * connections, ["old"] * connections
    total = new = 0
    for _ in range(5000):
        number = chance.randrange(connections)
        if not left[number]:
            side[number] = "new" if shares.turns_of_new(total) else "old"
            left[number] = 1 if side[number] == "new" else shares.turns_of_old(total)
        left[number] -= 1
        total += 1
        new += side[number] == "new"
        assert new <= share * total + 1
    assert new == pytest.approx(share * total, rel=0.1, abs=connections + 1)
