"""Matcher sets: what is refused when they are compiled, and what can be settled before any request."""

from __future__ import annotations

from typing import Any

import pytest
from support.heads import head, request

from caddysnake.matchers import matcher
from caddysnake.matchers.settling import settle
from caddysnake.matchers.table import MatcherError
from caddysnake.placeholders.request import Request

REFUSED: tuple[tuple[dict[str, Any], str], ...] = (
    ({"expression": "path('/a')"}, "expression is not supported here: expressions \\(CEL\\) are evaluated by Caddy"),
    ({"file": {}}, "file is not supported here"),
    ({"url_pattern": {"pattern": "/:a"}}, "url_pattern is not supported here"),
    ({"tls": {"handshake_complete": False}}, "in the matcher tls: only Caddy sees the TLS handshake"),
    ({"pth": ["/a"]}, 'unknown matcher "pth"'),
    ({"path": ["/{nope}"]}, "in the matcher path: unknown placeholder {nope}"),
    ({"path": ["/{http.request.tls.version}"]}, "in the matcher path: .* cannot be known here"),
    ({"host": ["{http.request.remote}"]}, "in the matcher host: .* cannot be known here"),
    ({"remote_ip": {"ranges": ["10.0.0/8"]}}, "in the matcher remote_ip: .* neither an IP address nor a network"),
    ({"client_ip": {"ranges": ["{http.request.host}"]}}, "in the matcher client_ip: .* cannot depend on the request"),
    ({"path_regexp": {"pattern": "(?=a)"}}, "in the matcher path_regexp: .* invalid perl operator"),
    ({"header_regexp": {"X-A": {"pattern": "("}}}, "in the matcher header_regexp: .* missing"),
    ({"not": [{"expression": "true"}]}, "in the matcher not: the matcher expression is not supported here"),
)


@pytest.mark.parametrize(("matchers", "message"), REFUSED, ids=[str(matchers)[:40] for matchers, _ in REFUSED])
def test_what_cannot_be_decided_here_is_refused_by_name(matchers: dict[str, Any], message: str) -> None:
    with pytest.raises(MatcherError, match=message):
        matcher.compile_set(matchers)


def test_a_misspelt_matcher_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(MatcherError) as caught:
        matcher.compile_set({"metod": ["GET"]})
    assert caught.value.hint == 'did you mean "method"?'


def test_a_set_without_matchers_matches_every_request() -> None:
    assert matcher.compile_set({}) is None
    assert matcher.compile_set(None) is None


TRUSTED = ("X-Forwarded-For: 9.9.9.9, 10.0.0.1", "X-Forwarded-Proto: https", "Via: 1.1 other", "Via: 2.0 Caddy")
BEHIND: tuple[tuple[dict[str, Any], bool, bool], ...] = (
    ({"protocol": "https"}, True, False),
    ({"protocol": "http/2+"}, True, False),
    ({"protocol": "http/1.1"}, False, True),
    ({"tls": {}}, True, False),
    ({"remote_ip": {"ranges": ["10.0.0.0/8"]}}, True, False),
    ({"client_ip": {"ranges": ["9.9.9.9"]}}, True, False),
    ({"remote_ip": {"ranges": ["::1"]}}, False, True),
    ({"vars": {"client_ip": ["9.9.9.9"]}}, True, False),
)


@pytest.mark.parametrize(("matchers", "trusted", "not_trusted"), BEHIND, ids=[str(case[0])[:40] for case in BEHIND])
def test_what_caddy_says_of_the_browser_counts_only_when_it_is_caddy(
    matchers: dict[str, Any], trusted: bool, not_trusted: bool
) -> None:
    matches = matcher.compile_set(matchers)
    assert matches is not None
    asked = head(request("/", *TRUSTED))
    assert matches(Request(asked, peer="::1", is_trusted=True)) is trusted
    assert matches(Request(asked, peer="::1", is_trusted=False)) is not_trusted


def test_captures_are_left_with_the_request_whatever_else_does_not_match() -> None:
    matches = matcher.compile_set({"path_regexp": {"pattern": "^/(.)", "name": "it"}, "method": ["POST"]})
    assert matches is not None
    judged = Request(head(request("/x")))
    assert not matches(judged)
    assert judged.captures["http.regexp.it.1"] == "x"


def test_a_settled_set_needs_no_environment() -> None:
    variables: dict[str, str] = {}
    matchers = {
        "path": ["/{env.A}/{http.request.host}", "/{env.a}"],
        "host": ["{env.A}.test"],
        "header": {"X-A": ["{env.A}"], "X-B": None},
        "query": {"{env.A}": ["{env.B}"]},
        "vars": {"{env.A}": ["{env.A}"], "{http.request.method}": ["{env.B}"], "client_ip": ["1.1.1.1"]},
        "vars_regexp": {"{env.B}": {"pattern": "^$"}},
        "remote_ip": {"ranges": ["{env.RANGE}"]},
        "not": [{"path": ["/{env.A}"]}],
        "path_regexp": {"pattern": "{env.A}"},
    }
    assert settle(matchers, {"A": "X*", "a": "y", "RANGE": "::1"}, variables) == {
        # Caddy lowers a path pattern before it expands it.
        "path": ["/y/{http.request.host}", "/y"],
        "host": ["X*.test"],
        "header": {"X-A": ["X*"], "X-B": None},
        "query": {"X*": [""]},
        "vars": {"env.A": ["X*"], "{http.request.method}": [""], "client_ip": ["1.1.1.1"]},
        "vars_regexp": {"env.B": {"pattern": "^$"}},
        "remote_ip": {"ranges": ["::1"]},
        "not": [{"path": ["/y"]}],
        "path_regexp": {"pattern": "{env.A}"},
    }
    assert variables == {"env.A": "X*", "env.B": ""}


def test_a_variable_of_caddys_is_refused() -> None:
    with pytest.raises(MatcherError, match="the variable root is Caddy's own"):
        settle({"vars": {"root": ["/srv"]}}, {}, {})
