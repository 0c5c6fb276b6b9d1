"""The order of directives and sites, apart from what the tables show."""

from __future__ import annotations

import functools
import random
from typing import Any

import pytest
from support.outline import most_specific_first

from caddysnake.caddyfile.ordering import DIRECTIVE_ORDER, sort_routes
from caddysnake.caddyfile.parser import parse
from caddysnake.caddyfile.structure import build_sites


def described(route: tuple[str, dict[str, Any] | None]) -> tuple[str, dict[str, Any] | None]:
    return route


@pytest.mark.parametrize("count", [1, 2, 19, 20, 21, 40, 41, 63, 100, 257])
def test_comparable_routes_are_sorted_whatever_their_number(count: int) -> None:
    paths = [f"/{'x' * (index % 11)}{index}" for index in range(count)]
    wanted = sorted(paths, key=functools.cmp_to_key(lambda a, b: len(b) - len(a) or (a > b) - (a < b)))
    random.Random(count).shuffle(paths)

    routes = sort_routes([("respond", {"path": [path]}) for path in paths], DIRECTIVE_ORDER, described)

    assert [matcher["path"][0] for _, matcher in routes if matcher] == wanted


def test_equal_routes_keep_the_order_of_the_text() -> None:
    routes: list[tuple[str, dict[str, Any] | None]] = [("respond", {"method": [str(index)]}) for index in range(50)]

    assert sort_routes(routes, DIRECTIVE_ORDER, described) == routes


def test_python_stands_between_handle_and_route() -> None:
    place = DIRECTIVE_ORDER.index

    assert place("handle_path") < place("python") < place("route") < place("respond")


def test_sites_are_tried_from_the_most_specific_to_the_one_for_every_host() -> None:
    text = "".join(
        f"http://{host} {{\n}}\n"
        for host in ("", "*.example", "a.example", "*.long.example", "b.a.example", "a.example/path", "*", "{env.HOST}")
    )
    sites, errors = build_sites(parse(text.encode(), "Caddyfile", {}))

    assert not errors
    assert [site.addresses[0].key.removeprefix("http://") for site in most_specific_first(sites)] == [
        "b.a.example",
        "a.example/path",
        "a.example",
        "*.long.example",
        "*.example",
        "",
        "*",
        "{env.HOST}",
    ]
