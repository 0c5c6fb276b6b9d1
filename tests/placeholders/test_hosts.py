"""Hosts and addresses: what no request over the loopback can show."""

from __future__ import annotations

import pytest
from support.heads import head, request

from caddysnake.caddyfile import hosts
from caddysnake.placeholders import template
from caddysnake.placeholders.request import Request

NETWORKS = (
    ("203.0.113.77", "24", "203.0.113.0/24"),
    ("203.0.113.77", "24,56", "203.0.113.0/24"),
    ("2001:db8:1:2:3::4", "24,56", "2001:db8:1::/56"),
    ("2001:db8:1:2:3::4", "64", "2001:db8:1:2::/64"),
    ("::ffff:1.2.3.4", "120", "::ffff:1.2.3.0/120"),
    ("fe80::1%eth0", "64", "fe80::/64"),
    ("1.2.3.4", "33", ""),
    ("1.2.3.4", "-1", ""),
    ("1.2.3.4", "a", ""),
    ("not an address", "24", "not an address"),
)


@pytest.mark.parametrize(("address", "bits", "network"), NETWORKS)
def test_the_network_of_the_browser_is_as_wide_as_asked_for(address: str, bits: str, network: str) -> None:
    asked = Request(head(request("/", f"X-Forwarded-For: 9.9.9.9, {address}")), is_trusted=True)
    assert template.compile(f"{{http.request.remote.host/{bits}}}").expand(asked) == network


def test_forwarded_fields_count_only_when_they_are_caddys() -> None:
    fields = ("X-Forwarded-For: 9.9.9.9, 8.8.8.8", "X-Forwarded-Proto: https", "Via: 3.0 Caddy")
    text = "{http.request.remote.host} {http.vars.client_ip} {http.request.scheme} {http.request.proto_name}"
    asked = head(request("/", *fields))
    assert template.compile(text).expand(Request(asked, is_trusted=True)) == "8.8.8.8 9.9.9.9 https HTTP/3"
    assert template.compile(text).expand(Request(asked, peer="127.0.0.1")) == "127.0.0.1 127.0.0.1 http HTTP/1.1"


def test_a_line_of_via_that_is_not_caddys_tells_nothing() -> None:
    asked = Request(head(request("/", "Via: 2.0 proxy")), is_trusted=True)
    assert asked.protocol == "HTTP/1.1"


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("a:80", ("a", "80")),
        ("a:", ("a", "")),
        (":80", ("", "80")),
        ("[::1]:80", ("::1", "80")),
        ("[::1]", None),
        ("::1", None),
        ("a", None),
        ("", None),
        ("[a]b:80", None),
        ("a]:80", None),
        ("[", None),
        ("[:", None),
    ],
)
def test_a_port_is_what_go_takes_for_one(text: str, split: tuple[str, str] | None) -> None:
    assert hosts.split_host_port(text) == split
