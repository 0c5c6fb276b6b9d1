"""Templates: what is refused when they are compiled, and what can be settled before any request."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.heads import head, request

from caddysnake.placeholders import names, template
from caddysnake.placeholders.names import PlaceholderError
from caddysnake.placeholders.request import Request

REFUSED = {
    "{hots}": "did you mean {http.request.host}?",
    "{http.request.hst}": "did you mean {http.request.host}?",
    "{http.request.Host}": "did you mean {http.request.host}?",
    "{http.request.hdr.X-A}": "did you mean {http.request.header.X-A}?",
    "{http.request.headers.X-A}": "did you mean {http.request.header.X-A}?",
    "{http.request.cookies.s}": "did you mean {http.request.cookie.s}?",
    "{http.request.host.label.1}": "did you mean {http.request.host.labels.1}?",
    "{http.request.host.labels.-1}": "labels are numbered from 0, which is the last one",
    "{http.request.uri.qery}": "did you mean {http.request.uri.query}?",
    "{client_ip}": "did you mean {http.vars.client_ip}?",
    "{time.now.unx}": "did you mean {time.now.unix}?",
    "{system.hostnam}": "did you mean {system.hostname}?",
    "{}": "a literal brace is written \\{ or \\}",
    '{"json": 1}': "a literal brace is written \\{ or \\}",
}


@pytest.mark.parametrize(("text", "hint"), REFUSED.items(), ids=list(REFUSED))
def test_an_unknown_name_is_refused_with_the_nearest_known_one(text: str, hint: str) -> None:
    with pytest.raises(PlaceholderError, match="unknown placeholder") as caught:
        template.compile(text)
    assert caught.value.hint == hint
    assert text in str(caught.value)


UNKNOWABLE = {
    "http.request.remote": "port stays with Caddy",
    "http.request.remote.port": "port stays with Caddy",
    "http.request.local": "Caddy's listener",
    "http.request.local.port": "Caddy's listener",
    "http.request.tls.version": "TLS ends at Caddy",
    "http.request.tls.client.subject": "TLS ends at Caddy",
    "http.request.body": "before its body",
    "http.request.body_base64": "before its body",
    "http.request.duration": "only just begun",
    "http.request.duration_ms": "only just begun",
    "http.response.header.X": "no response yet",
    "http.auth.user.id": "Caddy checked who it is",
    "http.vars.root": "the variables are Caddy's own",
    "http.reverse_proxy.upstream.hostport": "one of Caddy's own directives",
    "http.error.status_code": "one of Caddy's own directives",
    "http.intercept.status_code": "one of Caddy's own directives",
    "http.matchers.file.relative": "one of Caddy's own directives",
    "http.shutting_down": "one of Caddy's own directives",
}


@pytest.mark.parametrize(("name", "reason"), UNKNOWABLE.items(), ids=list(UNKNOWABLE))
def test_what_only_caddy_knows_is_refused_with_the_reason_and_a_way_out(name: str, reason: str) -> None:
    with pytest.raises(PlaceholderError, match="cannot be known here") as caught:
        template.compile(f"a{{{name}}}b")
    assert reason in str(caught.value)
    assert "header_up" in (caught.value.hint or "")


def test_every_known_name_compiles() -> None:
    for name in (*names._EXACT, *(f"{start}*" for start in (*names._FAMILIES, *names._PLACES))):
        tail = (
            "1"
            if name.startswith(("http.request.host.labels", "http.request.uri.path.*", "http.request.orig"))
            else "x"
        )
        filled = name.replace("system.*", "system.os").replace("*", tail)
        assert names.find(filled) is not None, filled
        if not filled.startswith("http.vars.x"):
            template.compile(f"{{{filled}}}")


def test_a_template_knows_the_names_of_requests_in_it() -> None:
    compiled = template.compile("{http.request.host}/{env.HOME}/{http.request.host}{http.request.method}")
    assert compiled.names == ("http.request.host", "http.request.method")
    assert not compiled.is_static


def test_a_template_without_names_of_requests_is_static() -> None:
    compiled = template.compile("a\\{b\\}{env.A}", environ={"A": "{http.request.host}"})
    assert compiled.is_static
    assert compiled.constant == "a{b}{http.request.host}"


def test_a_capture_is_unknown_until_a_regular_expression_has_matched() -> None:
    judged = Request(head(request()))
    text = "<{http.regexp.x.1}>"
    assert template.compile(text).expand(judged) == "<>"
    judged.captures["http.regexp.x.1"] = "a"
    assert template.compile(text).expand(judged) == "<a>"


def test_values_can_be_filled_in_by_their_names() -> None:
    compiled = template.compile("/srv/{http.request.host.labels.2}/{http.request.method}")
    assert compiled.fill({"http.request.host.labels.2": "blog"}) == "/srv/blog/"


def test_many_braces_that_are_never_closed_are_refused() -> None:
    with pytest.raises(PlaceholderError, match="never closed"):
        template.compile("{" * 200)


def test_a_file_stands_for_its_content_without_the_last_newline(tmp_path: pytest.TempPathFactory) -> None:
    path = f"{tmp_path}/secret"
    with open(path, "wb") as file:
        file.write(b"s3cret\n")
    assert template.compile(f"{{file.{path}}}").constant == "s3cret"
    assert template.compile(f"{{file.{path}.not}}").constant == ""


def test_what_no_request_can_change_is_settled_and_stays_as_it_is() -> None:
    environ = {"A": "x{y}\\{z", "B": ""}
    text = "{env.A}|{http.request.host}|\\{a\\}|{env.B}{http.request.uri.query.q}"
    settled = template.settle(text, environ)
    judged = Request(head(request("/?q=1")))
    assert template.compile(settled, environ={}).expand(judged) == template.compile(text, environ=environ).expand(
        judged
    )
    assert "env." not in settled


PIECES = st.sampled_from(["{http.request.host}", "{env.A}", "\\{", "\\}", "a", "}", " ", "é", "{http.regexp.x}"])


@given(st.lists(PIECES).map("".join), st.text("{}\\ab"))
def test_settling_changes_no_result(text: str, value: str) -> None:
    # A value that ends in a backslash would take away the meaning of a brace that follows it.
    environ = {"A": value.rstrip("\\")}
    judged = Request(head(request()))
    expected = template.compile(text, environ=environ).expand(judged)
    settled = template.settle(text, environ)
    assert template.compile(settled, environ={}).expand(judged) == expected
    assert template.settle(settled, {}) == settled


@given(st.text("{}\\ab.", max_size=40))
def test_any_text_is_either_compiled_or_refused(text: str) -> None:
    with contextlib.suppress(PlaceholderError):
        template.compile(text).expand(Request(head(request())))
