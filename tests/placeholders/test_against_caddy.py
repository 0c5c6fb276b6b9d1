"""What a stock Caddy makes of the same placeholders and the same requests is what we make of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

import pytest
from support.caddies import caddy
from support.heads import FIELDS, HOSTS, METHODS, REQUESTS, TARGETS, head, request
from support.oracle import Oracle, echo, oracle, proxy, respond

from caddysnake.placeholders import template
from caddysnake.placeholders.names import PlaceholderError
from caddysnake.placeholders.request import Request
from caddysnake.placeholders.template import Template

SEPARATOR = "\n<|>\n"
MARKS = {"MARK_BRACES": "{http.request.host}", "MARK_PLAIN": "plain"}

_OF_REQUESTS = """
    host hostport port method scheme proto proto_name uri uri_escaped uri.path uri.path.dir uri.path.file
    uri.path.file.base uri.path.file.ext uri.path_escaped uri.query uri.query_escaped uri.prefixed_query orig_method
    orig_uri orig_uri.path orig_uri.path.dir orig_uri.path.file orig_uri.query orig_uri.prefixed_query remote.host
    remote.host/24 remote.host/0 remote.host/33 remote.host/x remote.host/8,64 remote.host/ host.labels.0 host.labels.1
    host.labels.2 host.labels.3 host.labels.00 host.labels.+1 host.labels.-1 host.labels.x host.labels. host.labels
    host.labels.99999999999999999999 uri.path.0 uri.path.1 uri.path.2 uri.path.00 uri.path.-1 uri.path.x uri.path.
    orig_uri.path.0 orig_uri.path.1 uri.query.a uri.query.A uri.query.b uri.query. uri.query.a.b uri.query.a[]
    header.X-A header.x-a header.Host header.Transfer-Encoding header.Content-Length header.Cookie header.User-Agent
    header.Connection header.X_U header.nope header. cookie.s cookie.S cookie.a cookie.b cookie.nope cookie. nope Host
    uri.path.file.nope
"""
TEXTS = (
    *(f"{{http.request.{name}}}" for name in _OF_REQUESTS.split()),
    *(
        "{http.vars.client_ip}",
        "{http.vars.nope}",
        "{http.regexp.x.1}",
        "{env.HOME}",
        "{env.MARK_BRACES}",
        "{env.NOPE}",
    ),
    *("{env.}", "{system.os}", "{system.arch}", "{system.slash}", "{system.wd}", "{system.hostname}", "{system.nope}"),
    *(
        "{file.marks}",
        "{file.nope}",
        "{time.nope}",
        "{nope}",
        "{}",
        "{http}",
        "{http.request}",
        "{ http.request.host }",
    ),
    *("{nope{http.request.host}}", "{{http.request.host}}", "{{http.request.host}", "\\{http.request.host\\}"),
    *(
        "\\{http.request.host}",
        "{http.request.host\\}}",
        "{http.request.host\\} }x",
        "a}b",
        "a\\b",
        "a\\\\{http.request.host}",
    ),
    *("{HTTP.REQUEST.HOST}", "{http.request.host:x}", "{http.request.host|x}", "x{http.regexp.a{http.request.host}y"),
    *("\\", "\\}", "{http.request.header.X-Brace}", "<{http.request.uri.query.p}{http.request.uri.query.P}>"),
    # What does not close takes what follows along, so it comes last.
    *("{http.request.host\\}", "{" * 50 + "{http.request.host}", "{" * 120 + "}", "a{b"),
)


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Oracle]:
    folder = tmp_path_factory.mktemp("caddy")
    (folder / "marks").write_bytes(b"marks\r\n\n")
    variables = {f"k{number}": text for number, text in enumerate(TEXTS)}
    expanded = SEPARATOR.join(f"{{http.vars.{name}}}" for name in variables)
    trust = {"trusted_proxies": {"source": "static", "ranges": ["127.0.0.1/32"]}}
    answer = [{"handle": [{"handler": "vars", **variables}, respond(expanded)]}]
    forward = [{"handle": [proxy(folder / "echo.sock")]}]
    servers = {
        "answer": {"routes": answer},
        "forward": {"routes": forward},
        "trusting": {"routes": answer, **trust},
        "trusting_forward": {"routes": forward, **trust},
        "clock": {"routes": [{"handle": [respond(SEPARATOR.join(CLOCKS))]}]},
    }
    with echo(folder / "echo.sock"), oracle(caddy("current"), folder, servers, MARKS) as running:
        yield running


@pytest.fixture
def place(judge: Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caddy's environment and working directory."""
    folder = judge.process.log_path.parent
    for name, value in {**MARKS, "HOME": str(folder)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(folder)


@cache
def compiled(text: str) -> Template | None:
    """None: it is refused."""
    try:
        return template.compile(text)
    except PlaceholderError:
        return None


def values(judged: Request) -> dict[str, str]:
    return {text: found.expand(judged) for text in TEXTS if (found := compiled(text)) is not None}


def shown(raw: bytes) -> str:
    return repr(raw.removesuffix(b"\r\n\r\n"))[2:-1][:70]


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("raw", REQUESTS, ids=shown)
def test_each_placeholder_has_the_value_that_caddy_gives_it(judge: Oracle, raw: bytes) -> None:
    answer = judge.ask(raw, "answer")
    if answer.status == 400:
        return  # Caddy lets no such request through
    assert answer.status == 200
    ours = values(Request(head(raw), peer="127.0.0.1"))
    theirs = dict(zip(TEXTS, answer.text.split(SEPARATOR), strict=True))
    assert ours == {text: theirs[text] for text in ours}
    refused = [text for text in TEXTS if re.fullmatch(r"\{[^{}]*\}", text) and text not in ours]
    assert len(refused) > 20
    assert not any(theirs[text] for text in refused)  # nor does Caddy know them


# What Caddy changes on the way: hop-by-hop fields, and the form of the target.
_CHANGED = re.compile(r"header\.(Connection|Content-Length)|orig_uri\}")
# Caddy forwards a host without its zone and a path that is not empty; a proxy that it trusts may speak of https.
_ALTERED = (b"%25eth0", b"http://other?q", b"http://other ", b"Proto: https")
FORWARDED = (
    *(request(host=host) for host in HOSTS[::3]),
    *(request(target) for target in TARGETS[::2]),
    *(request("/", *fields) for fields in FIELDS),
    *(request(method=method) for method in METHODS),
)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("server", ["forward", "trusting_forward"])
@pytest.mark.parametrize("raw", [raw for raw in FORWARDED if not any(part in raw for part in _ALTERED)], ids=shown)
def test_behind_caddy_each_placeholder_has_the_value_that_caddy_itself_would_give_it(
    judge: Oracle, raw: bytes, server: str
) -> None:
    answer = judge.ask(raw, "trusting" if server == "trusting_forward" else "answer")
    forwarded = judge.ask(raw, server)
    if answer.status == 400:
        assert forwarded.status == 400
        return
    assert forwarded.status == 200, raw
    theirs = dict(zip(TEXTS, answer.text.split(SEPARATOR), strict=True))
    ours = values(Request(head(forwarded.body), is_trusted=True))
    compared = [text for text in ours if not _CHANGED.search(text)]
    assert {text: ours[text] for text in compared} == {text: theirs[text] for text in compared}


CLOCKS = {
    "{time.now}": r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,9})? [+-]\d{4} [A-Z0-9+-]+ m=\+\d+\.\d{9}",
    "{time.now.http}": r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z][a-z] \d{4} \d\d:\d\d:\d\d GMT",
    "{time.now.common_log}": r"\d\d/[A-Z][a-z][a-z]/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}",
    "{time.now.year}": r"\d{4}",
    "{time.now.unix}": r"\d{10}",
    "{time.now.unix_ms}": r"\d{13}",
    "{http.request.uuid}": r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
}


def test_what_is_new_each_time_has_the_form_that_caddy_gives_it(judge: Oracle) -> None:
    theirs = dict(zip(CLOCKS, judge.ask(request(), "clock").text.split(SEPARATOR), strict=True))
    judged = Request(head(request()))
    for name, form in CLOCKS.items():
        assert re.fullmatch(form, theirs[name]), name
        assert re.fullmatch(form, template.compile(name).expand(judged)), name


def test_the_uuid_is_the_same_for_the_whole_request() -> None:
    judged = Request(head(request()))
    twice = template.compile("{http.request.uuid} {http.request.uuid}").expand(judged).split()
    assert twice[0] == twice[1] != template.compile("{http.request.uuid}").expand(Request(head(request())))
