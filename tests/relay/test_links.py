from __future__ import annotations

import random

import pytest

from caddysnake.relay.link_pool import AppId, Links, Wanted

A: AppId = (0, "a")
B: AppId = (1, "b")


def links(**limits: float) -> Links[str, str]:
    given = {"max_needs": 100, "max_idle": 100, "max_idle_total": 100, "idle_s": 60.0, **limits}
    return Links(int(given["max_needs"]), int(given["max_idle"]), int(given["max_idle_total"]), given["idle_s"])


def need(wanted: Wanted | None) -> int:
    assert wanted is not None
    return wanted.need


def with_idle(*names: str, app: AppId = A, **limits: float) -> Links[str, str]:
    """Links of which these are idle, the first for the longest."""
    it = links(**limits)
    for name in names:
        wanted = it.wait(app, f"for {name}")
        assert it.arrived(need(wanted), name) == f"for {name}"
    for at, name in enumerate(names):
        assert it.release(name, float(at)) is None
    return it


def test_nothing_is_free_before_something_was_released() -> None:
    it = links()
    assert it.take(A) is None
    wanted = it.wait(A, "x")
    assert wanted == Wanted(1, A)
    assert it.arrived(1, "link") == "x"
    assert it.take(A) is None
    assert it.release("link", 0.0) is None
    assert it.take(A) == "link"


def test_a_link_is_never_used_for_another_app() -> None:
    it = with_idle("link", app=A)
    assert it.take(B) is None
    assert it.take((0, "b")) is None
    assert it.take((1, "a")) is None
    assert it.take(A) == "link"


def test_the_newest_is_taken_first() -> None:
    it = with_idle("old", "new")
    assert it.take(A) == "new"


def test_whoever_waited_longest_is_served_first() -> None:
    it = links()
    for waiter in ("x", "y"):
        it.wait(A, waiter)
    assert it.arrived(2, "second") == "x"
    assert it.release("second", 0.0) == "y"
    assert it.arrived(1, "first") is None  # its need outlived its waiters: it falls idle
    assert it.release("first", 0.0) is None
    assert it.take(A) == "first"


def test_a_link_on_its_way_for_nobody_is_not_asked_for_twice() -> None:
    it = links()
    it.wait(A, "x")
    assert it.arrived(1, "link") == "x"
    it.wait(A, "y")
    assert it.release("link", 0.0) == "y"
    assert it.wait(A, "z") is None
    assert it.arrived(2, "other") == "z"


def test_who_leaves_takes_a_need_along() -> None:
    it = links()
    it.wait(A, "x")
    it.wait(A, "y")
    assert it.leave(A, "x") == 2
    assert it.app_needed(2) is None
    assert it.leave(A, "x") is None
    assert it.arrived(1, "link") == "y"
    with pytest.raises(KeyError):
        it.arrived(2, "late")


def test_a_refusal_meets_the_first_who_has_no_other_need() -> None:
    it = links()
    it.wait(A, "x")
    it.wait(A, "y")
    assert it.refused(2) == "x"
    assert it.refused(2) is None
    assert it.refused(1) == "y"


def test_a_refusal_of_what_nobody_waits_for_meets_nobody() -> None:
    it = with_idle("link")
    it.take(A)
    it.wait(A, "x")
    assert it.release("link", 0.0) == "x"
    assert it.refused(2) is None


def test_no_more_wait_than_may() -> None:
    it = links(max_needs=2)
    it.wait(A, "x")
    assert not it.is_full
    it.wait(B, "y")
    assert it.is_full
    it.leave(A, "x")
    assert not it.is_full


def test_too_many_idle_ones_lose_the_oldest() -> None:
    it = with_idle("a", "b", "c", max_idle=2)
    assert it.surplus("c") == "a"
    assert it.surplus("c") is None
    assert it.idle() == ["b", "c"]


def test_too_many_of_all_apps_lose_the_oldest_of_all() -> None:
    it = with_idle("a", max_idle_total=1)
    wanted = it.wait(B, "x")
    it.arrived(need(wanted), "b")
    it.release("b", 9.0)
    assert it.surplus("b") == "a"
    assert it.idle() == ["b"]


def test_idle_links_expire_and_busy_ones_do_not() -> None:
    it = with_idle("a", "b", "c", idle_s=10.0)
    assert it.take(A) == "c"
    assert it.expired(9.0) == []
    assert it.expired(10.5) == ["a"]
    assert it.expired(100.0) == ["b"]
    assert it.expired(1000.0) == []


def test_the_daemons_end_is_told_to_all_who_wait() -> None:
    it = links()
    it.wait(A, "x")
    it.wait(B, "y")
    assert it.give_up() == ["x", "y"]
    assert repr(it) == repr(links())


def test_needs_are_numbered_anew_after_the_last_number_and_never_alike() -> None:
    it = links()
    it._last_need = 2**32 - 2
    assert [need(it.wait(A, waiter)) for waiter in "xyz"] == [2**32 - 1, 1, 2]
    it._last_need = 0
    assert need(it.wait(A, "w")) == 3


EVENTS = ["request", "request", "arrive", "refuse", "release", "release", "close", "leave", "tick"]


@pytest.mark.parametrize("seed", range(50))
def test_whatever_happens_nothing_is_forgotten_and_nothing_stays(seed: int) -> None:
    """Any order of events: each link is in one place, each waiter is served once, and in the end all is empty."""
    chance = random.Random(seed)
    it = links(max_idle=3, max_idle_total=5, idle_s=5.0)
    waiting: dict[str, AppId] = {}
    needs: set[int] = set()
    busy: dict[str, AppId] = {}
    home: dict[str, AppId] = {}

    def served(link: str, waiter: str | None) -> None:
        if waiter is not None:
            assert waiting.pop(waiter) == home[link]
            busy[link] = home[link]
        elif (closed := it.surplus(link)) is not None:
            del home[closed]

    for number in range(400):
        now = float(number)
        app = chance.choice([A, B, (2, "c")])
        event = chance.choice(EVENTS)
        if event == "request":
            link = it.take(app)
            if link is not None:
                assert home[link] == app
                assert link not in busy
                busy[link] = app
            else:
                waiting[f"w{number}"] = app
                wanted = it.wait(app, f"w{number}")
                needs |= {wanted.need} if wanted else set()
        elif event == "arrive" and needs:
            which = chance.choice(sorted(needs))
            needs.discard(which)
            needed = it.app_needed(which)
            assert needed is not None
            name = f"l{number}"
            home[name] = needed
            waiter = it.arrived(which, name)
            served(name, waiter if waiter is not None else it.release(name, now))
        elif event == "refuse" and needs:
            which = chance.choice(sorted(needs))
            needs.discard(which)
            refused = it.refused(which)
            if refused is not None:
                del waiting[refused]
        elif event == "release" and busy:
            link = chance.choice(sorted(busy))
            del busy[link]
            served(link, it.release(link, now))
        elif event == "close" and home:
            link = chance.choice(sorted(home))
            busy.pop(link, None)
            del home[link]
            it.closed(link)
        elif event == "leave" and waiting:
            waiter = chance.choice(sorted(waiting))
            gone = it.leave(waiting.pop(waiter), waiter)
            needs -= {gone}
        elif event == "tick":
            for link in it.expired(now):
                del home[link]
        assert set(it.idle()) == home.keys() - busy.keys()
        assert len(needs) >= len(waiting)
    for link in list(home):
        it.closed(link)
    for waiter, app in waiting.items():
        gone = it.leave(app, waiter)
        needs -= {gone}
    for which in needs:
        assert it.refused(which) is None
    assert repr(it) == repr(links())
