"""Regular expressions: RE2's syntax, the same match whoever runs them, and no text that takes for ever."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.caddies import caddy
from support.heads import head

from caddysnake.matchers.patterns import TEXT_MAX, Pattern, Regexp
from caddysnake.matchers.table import MatcherError
from caddysnake.placeholders.request import ROUTING_UNITS, Request, RoutingLimit

REFUSED = {
    "a**": "bad repetition operator: \\*\\*",
    "a{2}{3}": "bad repetition operator",
    "*a": "no argument for repetition operator",
    "(|+)": "no argument for repetition operator",
    "a{1001}": "invalid repetition size",
    "a{2,1}": "invalid repetition size",
    "((a{10}){10}){11}": "invalid repetition size",
    "(a": "missing \\)",
    "a)": "unexpected \\)",
    "[a": "missing ]",
    "[z-a]": "invalid character class range",
    "[[:nope:]]": "invalid character class range",
    "(?=a)": "invalid perl operator",
    "(?!a)": "invalid perl operator",
    "(?<=a)b": "invalid perl operator",
    "(?<!a)b": "invalid perl operator",
    "(?>a)": "invalid perl operator",
    "(?P=x)": "invalid perl operator",
    "(?P<a-b>x)": "invalid named capture group",
    "(a)\\1": "invalid escape sequence",
    "a\\Z": "invalid escape sequence",
    "a\\C": "invalid escape sequence",
    "\\c": "invalid escape sequence",
    "\\": "trailing",
    "\\x{110000}": "invalid escape",
    "\\p{Nope}": "invalid character class range",
}


@pytest.mark.parametrize(("pattern", "reason"), REFUSED.items(), ids=list(REFUSED))
def test_what_is_not_in_the_syntax_is_refused_with_the_reason(pattern: str, reason: str) -> None:
    with pytest.raises(MatcherError, match=reason):
        Pattern(pattern)


def test_look_around_is_refused_with_what_to_do_instead() -> None:
    with pytest.raises(MatcherError) as caught:
        Pattern("(?=a)")
    assert "look-around" in (caught.value.hint or "")


def test_where_there_is_no_re2_a_pattern_is_refused_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "re2", None)
    with pytest.raises(MatcherError, match="needs RE2, which is not installed") as caught:
        Pattern("a")
    assert f"{sys.executable}: pip install 'caddysnake-sidecar[regexp]'" in (caught.value.hint or "")


SAMPLE = ("a**", "a{1001}", "(?=a)", "(a)\\1", "a\\Z", "[[:nope:]]", "((a{10}){10}){11}", "a)", "a\\C", "\\p{Nope}")


@pytest.mark.parametrize("pattern", SAMPLE)
def test_caddy_refuses_it_too(pattern: str, tmp_path: Path) -> None:
    routes = [{"match": [{"path_regexp": {"pattern": pattern}}]}]
    server = {"listen": ["127.0.0.1:1"], "automatic_https": {"disable": True}, "routes": routes}
    (tmp_path / "c.json").write_text(json.dumps({"apps": {"http": {"servers": {"it": server}}}}))
    command = [caddy("current"), "validate", "--config", str(tmp_path / "c.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "regexp" in done.stderr


# What RE2 finds in which text, with all groups.
FOUND: tuple[tuple[str, str, list[str] | None], ...] = (
    ("a|ab", "ab", ["a"]),
    ("(a+?)(a*)", "aaa", ["aaa", "a", "aa"]),
    ("(?U)(a+)(a*)", "aaa", ["a", "a", ""]),
    ("^a$", "a\n", None),
    ("(?m)^b$", "a\nb\nc", ["b"]),
    ("a.b", "a\nb", None),
    ("(?s)a.b", "a\nb", ["a\nb"]),
    ("(a)|(b)", "b", ["b", "", "b"]),
    ("(?:(a)|b)*", "ab", ["ab", "a"]),
    ("(a*)*", "b", ["", ""]),
    ("(a*)+", "aab", ["aa", "aa"]),
    ("(|a)+", "aaa", ["", ""]),
    ("\\bfoo\\b", "a foo.", ["foo"]),
    ("\\Bo", "foo", ["o"]),
    ("\\w+", "\u00e9ab_1", ["ab_1"]),
    ("[[:upper:]]+", "abCDe", ["CD"]),
    ("\\s", "\u00a0\u000b \t", [" "]),
    ("\\d", "\u0661", None),
    ("(?i)stra\u00dfe", "STRA\u1e9eE", ["STRA\u1e9eE"]),
    ("(?i)k", "\u212a", ["\u212a"]),
    ("(?i)[^k]", "K\u212ax", ["x"]),
    ("\\Qa.b\\E+", "a.bbb", ["a.bbb"]),
    ("\\x41\\101\\x{00e9}", "AA\u00e9", ["AA\u00e9"]),
    ("\\pL+", "1\u00e9\u4e2d2", ["\u00e9\u4e2d"]),
    ("\\p{^Lu}", "Aa", ["a"]),
    ("[\\d\\-x]+", "a1-x", ["1-x"]),
    ("[]a]+", "]a", ["]a"]),
    ("a{2,3}?", "aaaa", ["aa"]),
    ("a{,2}", "a{,2}", ["a{,2}"]),
    ("x{0}y", "xy", ["y"]),
    ("", "abc", [""]),
    ("^[^\\x00-\\x7F]$", "\udcff", ["\udcff"]),
    ("(?P<x>a)(?<y>b)", "ab", ["ab", "a", "b"]),
)


@pytest.mark.parametrize(("pattern", "text", "found"), FOUND)
def test_a_match_is_the_one_that_re2_finds(pattern: str, text: str, found: list[str] | None) -> None:
    assert Pattern(pattern).search(text) == found


CATASTROPHES = (
    ("(a+)+$", "a" * 4000 + "b"),
    ("(?:a|a)*$", "a" * 4000 + "b"),
    ("^(.*)(.*)(.*)(.*)x$", "a" * 4000),
    ("(.*a){10}$", "a" * 2000 + "b"),
    ("([a-z]+)*\\d", "a" * 4000),
    ("^/(.*)/(.*)/(.*)/x$", "/" * 4000),
    ("(a?){30}a{30}", "a" * 30),
    (f"{'(a|a)' * 60}b", "a" * 60),
    ("(x+x+)+y", "x" * 4000),
)


@pytest.mark.parametrize(("pattern", "text"), CATASTROPHES)
def test_no_text_takes_longer_than_its_length_warrants(pattern: str, text: str) -> None:
    # With a plain backtracking search none of these would end.
    found = Pattern(pattern).search(text)
    assert found is None or found[0] in ("", text)


def judged(**fields: str) -> Request:
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return Request(head(f"GET /?q=a HTTP/1.1\r\nHost: a\r\n{lines}\r\n".encode()))


def test_a_text_that_is_too_long_is_not_looked_at() -> None:
    assert Regexp("b$").matches("a" * (TEXT_MAX - 1) + "b", judged())
    with pytest.raises(RoutingLimit, match="16384 are the most"):
        Regexp("b$").matches("a" * TEXT_MAX + "b", judged())


def test_one_request_is_looked_at_by_so_many_patterns_and_no_more() -> None:
    request = judged(X="a" * 10_000)
    regexp = Regexp("b$")
    with pytest.raises(RoutingLimit):
        all(regexp.matches("a" * 10_000, request) or True for _ in range(ROUTING_UNITS // 300))
    usual = judged(X="a" * 100)
    for _ in range(5000):  # a file may have many
        assert not regexp.matches("a" * 100, usual)


def test_a_query_or_cookies_that_would_take_long_to_read_are_not_read() -> None:
    with pytest.raises(RoutingLimit):
        _ = Request(head(b"GET /?" + b"a&" * 15_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n")).pairs
    with pytest.raises(RoutingLimit):
        _ = judged(Cookie="a=b;" * 30_000).cookies


def test_captures_go_by_the_name_of_the_expression_its_groups_and_their_numbers() -> None:
    regexp = Regexp("^/(?P<first>[^/]*)/(.*)", "it")
    assert dict(regexp.captures) == {
        "http.regexp.0": 0,
        "http.regexp.1": 1,
        "http.regexp.2": 2,
        "http.regexp.first": 1,
        "http.regexp.it.0": 0,
        "http.regexp.it.1": 1,
        "http.regexp.it.2": 2,
        "http.regexp.it.first": 1,
    }


def test_a_name_with_odd_characters_is_refused() -> None:
    with pytest.raises(MatcherError, match="name of a regular expression"):
        Regexp("a", "a.b")
