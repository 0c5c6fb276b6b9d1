from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from caddysnake.daemon.apps.spec import Identity
from caddysnake.daemon.supervisor.desired import successors

BLOG, SHOP = Identity("blog", None), Identity("shop", None)
APPS = st.dictionaries(st.sampled_from("abcd"), st.builds(Identity, st.sampled_from("xyz"), st.sampled_from("uv")))


def test_the_same_code_goes_on_under_another_name() -> None:
    assert successors({"main:app": BLOG}, {"blog/main:app": BLOG, "shop/main:app": SHOP}) == {
        "blog/main:app": "main:app"
    }


def test_other_code_of_the_same_name_and_user_follows_it() -> None:
    assert successors({"main:app": BLOG}, {"main:app": SHOP}) == {"main:app": "main:app"}


def test_nobody_follows_another_user() -> None:
    assert successors({"main:app": BLOG}, {"main:app": Identity("blog", "www-data")}) == {}


def test_names_that_change_places_follow_their_code() -> None:
    assert successors({"a": BLOG, "b": SHOP}, {"b": BLOG, "a": SHOP}) == {"b": "a", "a": "b"}


def test_of_two_that_are_alike_each_goes_on() -> None:
    assert successors({"a": BLOG, "a#2": BLOG}, {"a": BLOG, "a#2": BLOG}) == {"a": "a", "a#2": "a#2"}


@given(APPS, APPS)
def test_nobody_has_two_successors_nor_one_of_another_user(
    running: dict[str, Identity], wanted: dict[str, Identity]
) -> None:
    found = successors(running, wanted)
    assert len(set(found.values())) == len(found)
    assert all(running[former].user == wanted[name].user for name, former in found.items())
    assert set(found) >= {name for name in wanted if running.get(name) == wanted[name]}
