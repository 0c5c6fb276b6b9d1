"""Who may call the admin API."""

from __future__ import annotations

import pytest

from caddysnake.admin.access import Access, parse_host, parse_origin
from caddysnake.config.language.values import socket_address
from caddysnake.config.plan.admin import AdminEndpoint


def access(listen: str, *origins: str, enforce_origin: bool = False) -> Access:
    return Access(AdminEndpoint(socket_address(listen), origins, enforce_origin))


def code(rules: Access, **headers: str) -> str:
    fields = {name.replace("_", "-").lower(): value for name, value in headers.items()}
    denial = rules.denial(fields)
    return "" if denial is None else denial.code


@pytest.mark.parametrize(
    ("listen", "host", "expected"),
    [
        ("localhost:2020", "localhost:2020", ""),
        ("localhost:2020", "127.0.0.1:2020", ""),
        ("localhost:2020", "[::1]:2020", ""),
        ("localhost:2020", "localhost:2021", "forbidden-host"),
        ("localhost:2020", "localhost", "forbidden-host"),
        ("localhost:2020", "rebound.example:2020", "forbidden-host"),
        ("localhost:2020", "192.168.0.7:2020", "forbidden-host"),
        ("localhost:2020", "", "forbidden-host"),
        ("localhost:2020", "localhost:x", "forbidden-host"),
        ("localhost:2020", "me@localhost:2020", "forbidden-host"),
        ("10.0.0.5:2020", "10.0.0.5:2020", ""),
        ("10.0.0.5:2020", "localhost:2020", "forbidden-host"),
        (":2020", "10.0.0.5:2020", ""),
        (":2020", "localhost:2020", ""),
        (":2020", "rebound.example:2020", "forbidden-host"),
        ("unix//run/admin.sock", "localhost", ""),
        ("unix//run/admin.sock", "localhost:8080", ""),
        ("unix//run/admin.sock", "", ""),
        ("unix//run/admin.sock", "rebound.example", "forbidden-host"),
    ],
)
def test_only_names_of_the_address_are_accepted(listen: str, host: str, expected: str) -> None:
    assert code(access(listen), Host=host) == expected


@pytest.mark.parametrize(
    ("origins", "host", "expected"),
    [
        (["admin.example.com"], "admin.example.com", ""),
        (["admin.example.com"], "admin.example.com:444", ""),
        (["https://admin.example.com"], "admin.example.com", ""),
        (["admin.example.com:444"], "admin.example.com:444", ""),
        (["admin.example.com:444"], "admin.example.com", "forbidden-host"),
        (["admin.example.com"], "evil.admin.example.com", "forbidden-host"),
    ],
)
def test_other_names_can_be_given(origins: list[str], host: str, expected: str) -> None:
    assert code(access("localhost:2020", *origins), Host=host) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Origin": "http://localhost:2020"}, ""),
        ({"Referer": "http://localhost:2020/page"}, ""),
        ({"Origin": "https://evil.example"}, "forbidden-origin"),
        ({"Origin": "http://localhost:3000"}, "forbidden-origin"),
        ({"Origin": "null"}, "forbidden-origin"),
        ({"Referer": "https://evil.example/"}, "forbidden-origin"),
        ({"Sec_Fetch_Site": "cross-site"}, "forbidden-origin"),
        ({"Sec_Fetch_Site": "same-site"}, "forbidden-origin"),
        ({"Sec_Fetch_Site": "none"}, ""),
        ({"Sec_Fetch_Site": "same-origin"}, ""),
    ],
)
def test_a_page_elsewhere_may_not_call(headers: dict[str, str], expected: str) -> None:
    assert code(access("localhost:2020"), Host="localhost:2020", **headers) == expected


def test_an_origin_can_be_asked_for() -> None:
    rules = access("localhost:2020", enforce_origin=True)
    assert code(rules, Host="localhost:2020") == "forbidden-origin"
    assert code(rules, Host="localhost:2020", Origin="http://localhost:2020") == ""
    assert rules.denial({"host": "localhost:2020"}, is_page=True) is None


@pytest.mark.parametrize("text", ["a/b", "a?b", "a#b", "[::1", "a:99999", "a:b:c"])
def test_what_is_no_host_is_none(text: str) -> None:
    assert parse_host(text) is None


@pytest.mark.parametrize("text", ["", "null", "file:///x", "localhost", "http://", "http://[::1"])
def test_what_is_no_origin_is_none(text: str) -> None:
    assert parse_origin(text) is None
