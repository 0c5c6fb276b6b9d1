"""Taking a prefix off the path leaves what it leaves in a stock Caddy, and loses nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.caddies import caddy
from support.heads import head, request
from support.oracle import Oracle, oracle, respond

from caddysnake.placeholders import template, uris
from caddysnake.placeholders.request import Request

SEEN = "{http.request.uri.path} {http.request.uri} {http.request.orig_uri} {http.request.uri.path.0}"
PREFIXES = ("/app", "app", "/foo//x", "/%C3%A9", "/\u00e9", "/a/", "/a%2Fb", "/{http.request.uri.query.p}")
TARGETS = (
    *(
        "/app",
        "/app/",
        "/app/x",
        "/app%2Fx",
        "/app%2fx%2Fy",
        "/apple",
        "/app%6ce",
        "/app//x",
        "/app%2F%2Fx",
        "/app/%2Fx",
    ),
    *(
        "/APP/x",
        "/%61pp/x",
        "/app/x%2Fy",
        "/app/x%20y",
        "/app%20y",
        "/app/../app/x",
        "/x/../app/x",
        "/app\u00e9",
        "/ap",
    ),
    *(
        "/app/\u00e9%2Fx",
        "/app/x?a",
        "/app?a",
        "/other//x/..%2F",
        "/app/a%2525",
        "/app/a/%2e%2e/x",
        "/app/%2e/x",
        "/%61p",
    ),
    *(
        "/app/a/.%2e/x%2Fy",
        "/app/a%2F%2e%2e/x",
        "/app/%2E%2E%2Fx",
        "/app/x%2e%2ey",
        "/app/%2e%2e",
        "/app/%2e%2e/%2e%2e/x",
    ),
    *(
        "/app/x%2Fy/%2e%2e/z%20",
        "/%2e%2e/app/x",
        "/x/%2e%2e/app/y",
        "/app/a/..%2Fb",
        "/app//a%2F%2Fb//c",
        "/app/a%2F/b",
    ),
    *(
        "/app/%2fx/../y",
        "/app/a%2Fb/../../c",
        "/app/.%2F./c",
        "/app/%ff//%ff",
        "/app/a//../b",
        "/app/%C3%A9%2e%2e/..%2f",
    ),
    *("/foo//x//y", "/foo///x/y", "/foo/x", "/foo//x/../y", "/%C3%A9/x", "/%c3%a9/x", "/\u00e9/x", "/a/x", "/a", "/a/"),
    *("/a%2Fb/c", "/a%2fb/c", "/a/b/c", "/q?p=/q", "/q/r/s?p=/Q/R", "/q/r?p=", "/q?p=/x", "/", "//", "//app/x"),
)


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Oracle]:
    servers = {
        prefix: {"routes": [{"handle": [{"handler": "rewrite", "strip_path_prefix": prefix}, respond(SEEN)]}]}
        for prefix in PREFIXES
    }
    with oracle(caddy("current"), tmp_path_factory.mktemp("caddy"), servers) as running:
        yield running


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_is_taken_off_as_caddy_takes_it_off(judge: Oracle, prefix: str) -> None:
    for target in TARGETS:
        judged = Request(head(request(target)))
        judged.strip(template.compile(prefix).expand(judged))
        ours = template.compile(SEEN).expand(judged)
        assert (target, ours) == (target, judge.ask(request(target), prefix).text)


PATHS = st.lists(st.sampled_from(["/", "app", "a", ".", "..", "%2e", "%2F", "%2f", "%61", "\u00e9", "%ff", "//"])).map(
    lambda parts: "/" + "".join(parts)
)


@given(PATHS, st.sampled_from(["/app", "/a", "/", "/a//app"]))
def test_what_is_left_never_leads_back_up(path: str, prefix: str) -> None:
    judged = Request(head(request(path)))
    judged.strip(prefix)
    assert judged.path.startswith("/")
    if judged.prefix:
        assert not {".", ".."} & set(judged.path.split("/"))
        # What was taken off was there.
        assert uris.clean(judged.prefix.decode()) in ("/", judged.prefix.decode())


@given(PATHS)
def test_a_cleaned_path_is_clean(path: str) -> None:
    cleaned = uris.clean(path)
    assert uris.clean(cleaned) == cleaned
    assert cleaned.startswith("/")
    assert "//" not in cleaned
    assert not {".", ".."} & set(cleaned.split("/"))
