"""Which values of requests may decide what code runs, and where it is looked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.heads import head, request

from caddysnake.placeholders.keys import AppTemplate, Field, UnsafeValue, Use
from caddysnake.placeholders.names import PlaceholderError
from caddysnake.placeholders.request import Request

HOST = "{http.request.host}"
TENANT = AppTemplate(
    3,
    [
        Field("module", Use.MODULE, "{http.request.host.labels.2}.main"),
        Field("working_dir", Use.PATH, "/srv/{http.request.host.labels.2}/site"),
    ],
)


def by_header(use: Use, text: str = "{http.request.header.X-A}") -> AppTemplate:
    return AppTemplate(0, [Field("field", use, text)])


def resolved(use: Use, value: str, text: str = "{http.request.header.X-A}") -> str:
    made = by_header(use, text)
    judged = Request(head(request("/")))
    judged.__dict__["values"] = lambda _name: [value]
    return made.resolve(made.key(judged))["field"]


def test_equal_values_are_the_same_app_and_others_another() -> None:
    keys = {TENANT.key(Request(head(request(host=host)))) for host in ("a.x.y", "A.x.y:80", "b.x.y")}
    assert keys == {"a", "b"}


def test_a_key_resolves_to_the_fields_of_its_app() -> None:
    key = TENANT.key(Request(head(request(host="blog.example.com"))))
    assert TENANT.resolve(key) == {"module": "blog.main", "working_dir": "/srv/blog/site"}


@pytest.mark.parametrize("host", ["example.com", "", "localhost", "..", ".example.com", "..b.c", "[::1]", "%2e%2e.x.y"])
def test_a_host_that_names_no_tenant_has_no_app(host: str) -> None:
    with pytest.raises(UnsafeValue):
        TENANT.key(Request(head(request(host=host))))


SAFE_SEGMENTS = (
    *("a", "A", "a.b", "a b", "-a", "a..b", "a.", "~", "%2e%2e", "a%2fb", "[::1]", "M\u00fcnchen"),
    *("x" * 255, "1", "a:b", "*"),
)
UNSAFE_SEGMENTS = (
    *("", ".", "..", "...", ".hidden", "a/b", "/", "/a", "a/", "a\\b", "a\x00", "a\nb", "a\rb", "a\tb"),
    *("a\x7f", "a\x1b[2J", " a", "a ", "a\u200bb", "a\u202eb", "a\u00a0b", "\udcff", "x" * 256),
    *("\u00e9" * 128,),
)


def shown(value: str) -> str:
    return ascii(value)[:30]


@pytest.mark.parametrize("value", SAFE_SEGMENTS, ids=shown)
def test_a_value_in_a_path_may_be_one_segment(value: str) -> None:
    assert resolved(Use.PATH, value, "/srv/{http.request.header.X-A}/") == f"/srv/{value}/"


@pytest.mark.parametrize("value", UNSAFE_SEGMENTS, ids=shown)
def test_a_value_in_a_path_leads_nowhere_else(value: str) -> None:
    with pytest.raises(UnsafeValue):
        resolved(Use.PATH, value, "/srv/{http.request.header.X-A}/")


SAFE_MODULES = (*("a", "a.b.c", "_a", "A1_b", "os", "__a", "class"),)
UNSAFE_MODULES = (
    *("", "os:system", "a/b", "..", ".a", "a.", "a..b", "a b", "a-b", "1a", "a.1b", "__main__"),
    *("a.__init__", "__main__.x", "a;b", "import os", "a\n", "\u00e9", "x" * 256),
)


@pytest.mark.parametrize("value", SAFE_MODULES, ids=shown)
def test_a_value_that_is_a_module_may_be_dotted_identifiers(value: str) -> None:
    assert resolved(Use.MODULE, value) == value


@pytest.mark.parametrize("value", UNSAFE_MODULES, ids=shown)
def test_a_value_that_is_a_module_is_nothing_else(value: str) -> None:
    with pytest.raises(UnsafeValue):
        resolved(Use.MODULE, value)


def test_what_is_no_identifier_alone_may_be_part_of_one() -> None:
    assert resolved(Use.MODULE, "1", "tenant_{http.request.header.X-A}.app") == "tenant_1.app"
    with pytest.raises(UnsafeValue):
        resolved(Use.MODULE, "_", "_{http.request.header.X-A}main__")


@pytest.mark.parametrize("value", ["", "_app", "a._b", "app()", "a-b", "__class__"])
def test_a_value_that_is_a_variable_is_a_public_name(value: str) -> None:
    with pytest.raises(UnsafeValue):
        resolved(Use.VARIABLE, value)
    assert resolved(Use.VARIABLE, "site.app") == "site.app"
    assert resolved(Use.VARIABLE, "app", "make_{http.request.header.X-A}()") == "make_app()"


@pytest.mark.parametrize("value", ["a\0", "a\nb", "\x1b", "\udcff", "x" * 4097])
def test_a_value_in_an_environment_has_no_control_characters(value: str) -> None:
    with pytest.raises(UnsafeValue):
        resolved(Use.ENVIRONMENT, value)


@pytest.mark.parametrize("value", ["", "a b", "https://x/?a=1", "\u00e9", "{env.HOME}", "../.."])
def test_any_other_value_may_be_in_an_environment(value: str) -> None:
    assert resolved(Use.ENVIRONMENT, value) == value


@pytest.mark.parametrize("value", ["", "root", "0", "1000", "-r", "a b", "a:b", "../x", "a/b", "x" * 33, "\u00e9"])
def test_a_value_is_no_account_that_a_tenant_must_not_be(value: str) -> None:
    with pytest.raises(UnsafeValue):
        resolved(Use.ACCOUNT, value)


def test_a_value_may_be_part_of_the_name_of_an_account() -> None:
    assert resolved(Use.ACCOUNT, "7", "tenant-{http.request.header.X-A}") == "tenant-7"
    with pytest.raises(UnsafeValue):
        resolved(Use.ACCOUNT, "t", "roo{http.request.header.X-A}")


def test_a_value_with_two_uses_must_be_safe_for_both() -> None:
    made = AppTemplate(0, [Field("module", Use.MODULE, HOST), Field("working_dir", Use.PATH, f"/srv/{HOST}")])
    with pytest.raises(UnsafeValue) as caught:
        made.key(Request(head(request(host="a-b"))))
    assert str(caught.value) == "{http.request.host} is 'a-b', which cannot be part of module"


@pytest.mark.parametrize("name", ["time.now", "time.now.unix_ms", "http.request.uuid"])
def test_what_is_new_with_each_request_decides_nothing(name: str) -> None:
    with pytest.raises(PlaceholderError, match="different for every request"):
        by_header(Use.ENVIRONMENT, f"{{{name}}}")


@pytest.mark.parametrize("key", ["..", "a\x1fb", "", "a/b", "\x1f", "blog\0"])
def test_the_daemon_takes_no_key_that_no_request_makes(key: str) -> None:
    with pytest.raises(UnsafeValue):
        TENANT.resolve(key)


def test_the_message_names_the_value_without_what_could_spoil_a_terminal() -> None:
    with pytest.raises(UnsafeValue) as caught:
        resolved(Use.PATH, "\x1b[2J" + "x" * 500)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 200


@given(st.text(), st.sampled_from(Use))
def test_a_value_that_passes_is_found_again_in_its_key(value: str, use: Use) -> None:
    made = AppTemplate(0, [Field("field", use, "a{http.request.header.X-A}"), Field("b", Use.ENVIRONMENT, HOST)])
    judged = Request(head(request()))
    judged.__dict__["values"] = lambda _name: [value]
    try:
        found = made.resolve(made.key(judged))
    except UnsafeValue:
        return
    assert found == {"field": f"a{value}", "b": "ok.test"}
    if use is Use.PATH:
        assert "/" not in found["field"]
