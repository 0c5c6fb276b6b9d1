"""Each matcher matches what it matches in a stock Caddy, and captures the same."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from support.caddies import caddy
from support.heads import REQUESTS, head, request
from support.oracle import Oracle, oracle, respond

from caddysnake.matchers import matcher
from caddysnake.placeholders import template
from caddysnake.placeholders.request import Request

SEPARATOR = "\n<|>\n"

PATHS = (
    *("/", "*", "/*", "/foo", "/foo/", "/foo/*", "/foo*", "*foo", "*.php", "*oo*", "/foo/*/baz", "/*/bar", "/foo?bar"),
    *(
        "/fo[ob]",
        "/fo[^a]",
        "/fo[a-z]*",
        "/[",
        "/[]",
        "/[a-]",
        "/[^]x]",
        "/[a-z][a-z]*/*",
        "/f\\oo",
        "/a\\",
        "**",
        "*/*",
    ),
    *(
        "/a//b",
        "/a///b//",
        "//",
        "//*",
        "/foo//*",
        "*//*",
        "/foo%2fbar",
        "/foo%2Fbar",
        "/foo%2f*",
        "/bands/%*",
        "/%*/x",
    ),
    *(
        "/bands/*/t.n.t",
        "/bands/%*/t.n.t",
        "/a%2",
        "/a%25*",
        "/%61pp/*",
        "/%00",
        "/%c3%a9",
        "/%*",
        "%*",
        "/foo/%62ar",
        "%",
    ),
    *(
        "/\u00e9",
        "/\u00c9",
        "/%C3%89",
        "/?",
        "/??",
        "/f?o",
        "/f\u00d6o",
        "/\u212a",
        "/i\u0307",
        "/i",
        "foo",
        "foo*",
        "",
        "/a/../b",
    ),
    *(
        "/admin%2f*",
        "/admin%2f%*",
        "/%41dmin",
        "/ad%6din/*",
        "/admin/%*",
        "/admin/%*/x",
        "/%c3%a9x",
        "/%C3%89x",
        "/adm\u00e9%2fx",
        "/foo/%*bar",
        "/f?o%2fb",
        "/\u00c9%*",
    ),
    *(
        "/{http.request.uri.query.p}",
        "{http.request.uri.query.p}",
        "/{http.request.uri.query.P}",
        "/{env.MARK}",
        "/{env.mark}",
    ),
    *(
        "/\\{x\\}",
        "/api/v*/users*",
        "/api/*",
        "*/users",
        "*/v1/*",
        "/x*y",
        "/*.gz",
        "/*.*.gz",
        "/.hidden",
        "/...",
        "/a/b",
    ),
)
EXPRESSIONS = (
    *(
        "^/api/v([0-9]+)/(?P<rest>.*)$",
        "foo",
        "(?i)FOO",
        "/(foo|foobar)",
        "^/([^/]+)/([^/]+)/(.*)",
        "\\.(php|gz)$",
        "^$",
        "",
    ),
    *(
        "^/(a*)*b",
        "(/[a-z]+)+$",
        "(a|b)*?c",
        "^/(?:(foo)|(bar))",
        "\\bbar\\b",
        "(?s)^/.$",
        "(?m)^$",
        "^/\\p{L}+$",
        "^/\\pL",
    ),
    *(
        "^/[[:alpha:]]+$",
        "^/[^[:^lower:]/]+",
        "\\x2f\\Qa+b\\E",
        "^/(.{1,3}?)(.*)",
        "\\d+",
        "\\D\\d\\S",
        "[\\d\\-a]+",
        "a{2,3}",
    ),
    *(
        "(?U)/(.*)/",
        "(/.*?)(/.*)?$",
        "[^\\x00-\\x7F]",
        "^.{2}$",
        "(?i)\u00c9",
        "(?i)[k]",
        "(?i)\u212a",
        "()",
        "(|a)+",
        "(a|)+b",
    ),
    *("/([a-z]*)([a-z]+)", "(?:/(\\w+)){2}", "/(?:(a)|(f)|o)+", "^/([^/]*)/?$", "(?i:F)oo", "(?i)f(?-i)oo", "\\z"),
)
HOSTS = (
    *(
        "ok.test",
        "OK.TEST",
        "ok.test.",
        "*.test",
        "*.*.test",
        "*.ok.test",
        "*",
        "*.*",
        "a*.test",
        "ok.*",
        "[::1]",
        "::1",
    ),
    *(
        "a",
        "a:80",
        "*.b.c.d",
        "..",
        "*.",
        "127.0.0.1",
        "fe80::1%25eth0",
        "b\u00fccher.test",
        "{http.request.header.X-A}",
    ),
    *("{http.request.uri.query.a}.test", "*.{env.MARK}", "one.ok.test", "a..b", "~", "[a]b", "a%2fb", ""),
)
SETS: tuple[dict[str, Any], ...] = (
    *({"path": [path]} for path in PATHS),
    {"path": ["/foo", "/a/*"]},
    {"path": ["/FOO", "*"]},
    *({"path_regexp": {"pattern": pattern, "name": f"p{at}"}} for at, pattern in enumerate(EXPRESSIONS)),
    {"path_regexp": {"pattern": "^/(f)oo"}},
    {"path_regexp": {"pattern": "{env.MARK}"}},
    *({"host": [host]} for host in HOSTS),
    {"host": ["a", "b", "*.ok.test"]},
    {"host": [f"h{number}.test" for number in range(150)] + ["One.OK.test", "*.c.d"]},
    *({"method": [method]} for method in ("GET", "get", "Get", "PURGE", "M-SEARCH", "post", "")),
    {"method": ["POST", "PUT"]},
    {"query": {}},
    {"query": {"": []}},
    *(
        {"query": {name: values}}
        for name, values in (
            *(
                ("a", ["1"]),
                ("a", ["*"]),
                ("a", [""]),
                ("a", []),
                ("a", ["1", "2"]),
                ("a", ["1*"]),
                ("A", ["*"]),
                ("b", [" "]),
            ),
            *(
                ("a", ["+"]),
                ("a", [" +"]),
                ("", ["1"]),
                ("", ["*"]),
                ("a", ["1&b"]),
                ("a", ["{http.request.uri.query.A}"]),
            ),
            *(("{env.MARK}", ["*"]), ("a.b", ["1"]), ("a[]", ["2"]), ("\u00e9", ["1"]), ("p", ["/foo*"]), ("b", ["3"])),
        )
    ),
    {"query": {"a": ["1"], "A": ["3"]}},
    {"query": {"a": ["1"], "nope": ["*"]}},
    *(
        {"header": {name: values}}
        for name, values in (
            *(
                ("X-A", ["foo"]),
                ("x-a", ["foo"]),
                ("X-A", ["foo*"]),
                ("X-A", ["*bar"]),
                ("X-A", ["*o*"]),
                ("X-A", ["*"]),
            ),
            *(
                ("X-A", [""]),
                ("X-A", []),
                ("X-A", None),
                ("X-A", ["a*b"]),
                ("X-A", ["FOO"]),
                ("X-A", ["1", "bar"]),
                ("X-A", ["**"]),
            ),
            *(("Host", ["ok.test"]), ("Host", ["*.test"]), ("host", None), ("Host", []), ("Transfer-Encoding", None)),
            *(("User-Agent", ["*Firefox*"]), ("X-A", ["{http.request.header.X-A}"]), ("X-Nope", ["*"])),
            *(
                ("X_U", ["1"]),
                ("Content-Length", ["0"]),
                ("X-A", ["{env.MARK}"]),
                ("X A", None),
                ("Connection", ["close"]),
            ),
        )
    ),
    {"header": {"X-A": ["foo"], "X-B": None}},
    {"header": {"X-A": ["*"], "Cookie": ["*"]}},
    {"header_regexp": {"X-A": {"pattern": "^(f)(o+)$", "name": "h"}}},
    {"header_regexp": {"x-a": {"pattern": "", "name": "h0"}}},
    {"header_regexp": {"X-A": {"pattern": "r$"}, "X-B": {"pattern": "."}}},
    {"header_regexp": {"Host": {"pattern": "^([^.]+)\\.ok\\.test", "name": "hh"}}},
    *(
        {"protocol": name}
        for name in ("http", "https", "grpc", "http/1", "http/1.0", "http/1.0+", "http/1.1", "http/1.1+")
    ),
    *({"protocol": name} for name in ("http/2", "http/2+", "http/3", "HTTP", "http/4", "", "http/1+")),
    *(
        {"remote_ip": {"ranges": [text]}}
        for text in ("127.0.0.1", "127.0.0.0/8", "127.0.0.9/8", "10.0.0.0/8", "::1", "0.0.0.0/0")
    ),
    *({"remote_ip": {"ranges": [text]}} for text in ("::/0", "::ffff:127.0.0.1", "127.0.0.1%eth0", "{env.RANGE}")),
    {"remote_ip": {"ranges": ["10.0.0.0/8", "127.0.0.0/8"]}},
    {"remote_ip": {"ranges": []}},
    {"client_ip": {"ranges": ["9.9.9.9/32"]}},
    {"client_ip": {"ranges": ["127.0.0.1"]}},
    {"client_ip": {"ranges": ["2001:db8::/32"]}},
    {"vars": {}},
    {"vars": {"nope": [""]}},
    {"vars": {"nope": ["x"]}},
    {"vars": {"client_ip": ["127.0.0.1"]}},
    {"vars": {"{http.request.method}": ["GET"]}},
    {"vars": {"{http.request.host}": ["{http.request.header.X-A}", "ok.test"]}},
    {"vars": {"{http.request.header.X-A}": [""], "{http.request.method}": ["PUT"]}},
    {"vars": {"{http.request.host}{http.request.port}": [""]}},
    {"vars": {"{http.request.uri.query.a}": ["{env.MARK}", "1"]}},
    {"vars_regexp": {"{http.request.uri}": {"pattern": "^/(foo.*)", "name": "v"}}},
    {"vars_regexp": {"nope": {"pattern": "^$", "name": "v0"}}},
    {"vars_regexp": {"{http.request.header.X-A}": {"pattern": "a"}, "{http.request.uri}": {"pattern": "zz"}}},
    {"tls": {}},
    {"not": []},
    {"not": [{}]},
    {"not": [{"path": ["/foo*"]}]},
    {"not": [{"path": ["/foo*"]}, {"method": ["POST"]}]},
    {"not": [{"path": ["/foo*"], "method": ["GET"]}]},
    {"not": [{"not": [{"host": ["ok.test"]}]}]},
    {"not": [{"path_regexp": {"pattern": "^/(x)(.*)", "name": "n"}}]},
    {"path": ["/foo*"], "method": ["GET"], "host": ["ok.test"]},
    {"path": ["/foo*"], "header": {"X-A": ["foo"]}, "query": {"a": ["1"]}, "host": ["one.ok.test"]},
    {},
)
CAPTURES = tuple(dict.fromkeys(name for matchers in SETS for name in sorted(matcher.captures(matchers))))
ENVIRON = {"MARK": "foo", "RANGE": "127.0.0.0/16"}

CASES = (
    *("/FOO%2Fbar", "/foo%2fBAR", "/Foo%2fBar", "/ADMIN%2fSECRET", "/Admin%2Fx", "/ADMIN/x", "/Admin/X/x"),
    *("/%41dmin", "/%41DMIN", "/ADMIN", "/admin", "/AD%4din/x", "/AD%6Din/X", "/%C3%89X", "/%C3%A9X", "/%c3%89x"),
    *("/ADM%C3%89%2fX", "/adm%C3%A9%2fx", "/FOO/zzBAR", "/foo/%42AR", "/X%2FBAR", "/FOO%2FB", "/%C3%89%2Fx"),
    *("/ADMIN/y/X", "/?p=/FOO%25*", "/FOO?p=foo%252fBAR", "/foo%2fBAR?p=foo%252fBAR"),
)
ODD_PARTS = ("f", "o", "/", ".", "%", "*", "?", "a", "b", "%2f", "%2e", "/foo", "/..", "F", "%4F", "O")
ODD = tuple(request("/" + "".join(random.Random(number).choices(ODD_PARTS, k=9))) for number in range(120))


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Oracle]:
    routes = [
        {
            "match": [matchers] if matchers else [],
            "handle": [{"handler": "headers", "response": {"add": {"X-Matched": [str(number)]}}}],
        }
        for number, matchers in enumerate(SETS)
    ]
    captures = SEPARATOR.join(f"{{{name}}}" for name in CAPTURES)
    servers = {"it": {"routes": [*routes, {"handle": [respond(captures)]}]}}
    with oracle(caddy("current"), tmp_path_factory.mktemp("caddy"), servers, ENVIRON) as running:
        yield running


@pytest.fixture(scope="module")
def predicates() -> Iterator[list[matcher.Predicate | None]]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRON.items():
            patch.setenv(name, value)
        yield [matcher.compile_set(matchers) for matchers in SETS]


def shown(raw: bytes) -> str:
    return repr(raw.removesuffix(b"\r\n\r\n"))[2:-1][:70]


@pytest.mark.parametrize("raw", [*REQUESTS, *map(request, CASES), *ODD], ids=shown)
def test_each_matcher_matches_what_it_matches_in_caddy(
    judge: Oracle, predicates: list[matcher.Predicate | None], raw: bytes
) -> None:
    answer = judge.ask(raw, "it")
    if answer.status == 400:
        return  # Caddy lets no such request through
    judged = Request(head(raw), peer="127.0.0.1")
    ours = [number for number, matches in enumerate(predicates) if matches is None or matches(judged)]
    theirs = [int(number) for number in answer.fields.get("x-matched", ())]
    assert [SETS[number] for number in ours] == [SETS[number] for number in theirs]
    found = [judged.captures.get(name, f"{{{name}}}") for name in CAPTURES]
    assert dict(zip(CAPTURES, found, strict=True)) == dict(zip(CAPTURES, answer.text.split(SEPARATOR), strict=True))


def test_the_words_of_the_environment_can_be_settled_beforehand() -> None:
    assert template.settle("/{env.MARK}/{http.request.host}", ENVIRON) == "/foo/{http.request.host}"
