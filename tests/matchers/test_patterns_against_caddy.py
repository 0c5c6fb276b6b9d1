"""What a regular expression finds and captures is what it finds and captures in a stock Caddy."""

from __future__ import annotations

import random
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from support.caddies import caddy
from support.heads import request
from support.oracle import Oracle, oracle, respond

from caddysnake.matchers.patterns import Pattern

SEPARATOR = "\n<|>\n"
ATOMS = (
    "a",
    "b",
    "c",
    ".",
    "[ab]",
    "[^a]",
    "(?i:B)",
    "\\b",
    "^",
    "$",
    "()",
    "\\n",
    "\u00e9",
    "\\w",
    "(?m:^)",
    "(?s:.)",
)
REPEATS = ("*", "+", "?", "*?", "+?", "??", "{2}", "{1,2}", "{0,1}?", "{2,}")


def odd_pattern(chance: random.Random, depth: int = 0) -> str:
    kind = chance.randrange(6) if depth < 4 else 0
    if kind == 1:
        return f"({odd_pattern(chance, depth + 1)})"
    if kind == 2:
        return f"(?:{odd_pattern(chance, depth + 1)}){chance.choice(REPEATS)}"
    if kind == 3:
        return f"({odd_pattern(chance, depth + 1)}){chance.choice(REPEATS)}"
    if kind == 4:
        return f"(?:{odd_pattern(chance, depth + 1)}|{odd_pattern(chance, depth + 1)})"
    if kind == 5:
        return odd_pattern(chance, depth + 1) + odd_pattern(chance, depth + 1)
    return chance.choice(ATOMS)


PATTERNS = (
    *(
        "a|ab",
        "(a+?)(a*)",
        "(?U)(a+)(a*)",
        "^a$",
        "(?m)^b$",
        "a.b",
        "(?s)a.b",
        "(a)|(b)",
        "(?:(a)|b)*",
        "(a*)*",
        "(a*)+",
    ),
    *("(|a)+", "(a|)+", "(|a)*", "(a|b)*?c", "(a??)*", "(?:a?)*?b", "((a)|b)+", "(a*?)*?", "\\bfoo\\b", "\\Bo", "\\w+"),
    *(
        "[[:upper:]]+",
        "\\s",
        "\\d",
        "(?i)stra\u00dfe",
        "(?i)k",
        "(?i)[^k]",
        "(?i)[j-l]",
        "(?i)\u00e9+",
        "\\pL+",
        "\\p{^Lu}",
        "\\p{Greek}+",
        "(?i)\\p{Cyrillic}",
    ),
    *(
        "\\Qa.b\\E+",
        "\\x41\\101\\x{00e9}",
        "[\\d\\-x]+",
        "[]a]+",
        "a{2,3}?",
        "a{,2}",
        "x{0}y",
        "",
        "^[^\\x00-\\x7F]$",
        "\\x{FFFD}",
    ),
    *(
        "(?P<x>a)(?<x>b)",
        "(?i)\u01c6",
        "(?i)\u03c3",
        "[\u00e0-\u00fe]",
        "(?i)[\u00e0-\u00fe]",
        "\\PN",
        "[^[:^alpha:]]",
        ".\\z",
    ),
    *(odd_pattern(random.Random(seed)) for seed in range(250)),
)
TEXTS = (
    *(
        "",
        "a",
        "ab",
        "aab",
        "aaa",
        "aabb",
        "abc",
        "ba",
        "cab",
        "abab",
        "a\n",
        "a\nb\nc",
        "\n",
        "b\n\na",
        "a foo.",
        "foo",
    ),
    *(
        "\u00e9",
        "\u00c9a\u00e9",
        "K\u212ax",
        "STRA\u1e9eE",
        "a.bbb",
        "AA\u00e9",
        "1\u00e9\u4e2d2",
        "a{,2}",
        "xy",
        "y",
        "]a",
    ),
    *(
        "\u00a0\u000b \t",
        "\u0661",
        "abCDe",
        "1-x",
        "\u01c5",
        "\u03c2\u03a3",
        "\u00fe\u00de\u00d7",
        "a\u2028b",
        "aaab\u00e9c" * 3,
    ),
    *("\udcff", "a\udcffb", "\udcc3", "\udced\udca0\udc80"),
)


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Oracle]:
    routes = [
        {"match": [{"vars_regexp": {"{http.request.uri.query.q}": {"pattern": pattern, "name": f"p{number}"}}}]}
        for number, pattern in enumerate(PATTERNS)
    ]
    body = SEPARATOR.join(
        f"{{http.regexp.p{number}.{group}}}"
        for number, pattern in enumerate(PATTERNS)
        for group in range(len(Pattern(pattern).groups) + 1)
    )
    with oracle(
        caddy("current"), tmp_path_factory.mktemp("caddy"), {"it": {"routes": [*routes, {"handle": [respond(body)]}]}}
    ) as running:
        yield running


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: ascii(text)[:30])
def test_a_pattern_finds_and_captures_what_it_does_in_caddy(judge: Oracle, text: str) -> None:
    asked = request(f"/?q={quote(text.encode('utf-8', 'surrogateescape'))}")
    theirs = iter(judge.ask(asked, "it").text.split(SEPARATOR))
    for number, source in enumerate(PATTERNS):
        pattern = Pattern(source)
        found = [next(theirs) for _ in range(len(pattern.groups) + 1)]
        unknown = [f"{{http.regexp.p{number}.{group}}}" for group in range(len(found))]
        assert (source, pattern.search(text) or unknown) == (source, found)
