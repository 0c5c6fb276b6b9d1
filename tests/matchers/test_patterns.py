"""Regular expressions: RE2's syntax, the same match whoever runs them, and no text that takes for ever."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.caddies import caddy

from caddysnake.matchers.errors import MatcherError
from caddysnake.matchers.patterns import Pattern, Regexp

REFUSED = {
    "a**": "invalid nested repetition operator \\*\\*",
    "a{2}{3}": "invalid nested repetition operator",
    "*a": "nothing before \\* to repeat",
    "(|+)": "nothing before \\+ to repeat",
    "a{1001}": "invalid repeat count",
    "a{2,1}": "invalid repeat count",
    "((a{10}){10}){11}": "multiply to more than 1000",
    "(a": "a parenthesis is not closed",
    "a)": "unexpected \\)",
    "[a": "a bracket is not closed",
    "[z-a]": "invalid range z-a",
    "[[:nope:]]": "invalid character class",
    "(?=a)": "look-around is not part of RE2",
    "(?!a)": "look-around is not part of RE2",
    "(?<=a)b": "look-around is not part of RE2",
    "(?<!a)b": "look-around is not part of RE2",
    "(?>a)": "unsupported Perl syntax",
    "(?P=x)": "unsupported Perl syntax",
    "(?P<a-b>x)": "cannot be the name of a group",
    "(a)\\1": "invalid escape sequence",
    "a\\Z": "invalid escape sequence",
    "\\c": "invalid escape sequence",
    "\\": "a backslash stands at the end",
    "\\x{110000}": "invalid escape",
    "\\p{Nope}": "not known here",
}


@pytest.mark.parametrize(("pattern", "reason"), REFUSED.items(), ids=list(REFUSED))
def test_what_is_not_in_the_syntax_is_refused_with_the_reason(pattern: str, reason: str) -> None:
    with pytest.raises(MatcherError, match=reason):
        Pattern(pattern)


def test_scripts_of_unicode_are_refused_though_caddy_knows_them() -> None:
    with pytest.raises(MatcherError, match="not known here") as caught:
        Pattern("\\p{Greek}")
    assert "scripts" in (caught.value.hint or "")


SAMPLE = ("a**", "a{1001}", "(?=a)", "(a)\\1", "a\\Z", "[[:nope:]]", "((a{10}){10}){11}", "a)", "\\p{Nope}")


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


ATOMS = st.sampled_from(["a", "b", ".", "[ab]", "[^a]", "(?i:B)", "\\b", "^", "$", "()", "\\n", "\u00e9", "\\w"])
REPEATS = st.sampled_from(["*", "+", "?", "*?", "+?", "??", "{2}", "{1,2}"])
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.lists(inner, min_size=2, max_size=3).map("|".join).map("(?:{})".format),
        inner.map("({})".format),
        st.tuples(inner.map("(?:{})".format), REPEATS).map("".join),
    ),
    max_leaves=8,
)


@given(PATTERNS, st.text("ab\n\u00e9B", max_size=12))
def test_both_ways_to_run_a_pattern_find_the_same(source: str, text: str) -> None:
    pattern = Pattern(source)
    safely = pattern.search_safely(text)
    if pattern.cost is not None:
        assert pattern.search_fast(text) == safely
    if safely is None:
        assert pattern.search(text) is None


@given(PATTERNS, st.text("ab\n\u00e9B", max_size=8))
def test_whether_there_is_a_match_is_what_python_says(source: str, text: str) -> None:
    # Up to what the two mean by the end of a text and by a word, their syntax is the same here.
    python = source.replace("$", "\\Z").replace("\\w", "[0-9A-Za-z_]").replace("\\b", "(?a:\\b)")
    theirs = re.search(python, text)
    ours = Pattern(source).search_safely(text)
    assert (ours is None) == (theirs is None)
    if ours is not None and theirs is not None:
        assert ours[0] == theirs.start()


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


def test_a_pattern_that_would_be_too_large_is_refused() -> None:
    with pytest.raises(MatcherError, match="too large"):
        Pattern("(?:abcdefghijklmnopqrstuvwxyz){1000}")


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
