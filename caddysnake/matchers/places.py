"""Hosts and IP addresses."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ..caddyfile import hosts
from ..placeholders import template
from ..placeholders.request import Request
from .table import MatcherError

Predicate = Callable[[Request], bool]


def host(names: Iterable[str]) -> Predicate:
    """The host is one of *names*, without regard to case, port and brackets; ``*`` stands for one whole label."""
    exact: set[str] = set()
    wildcards: list[list[str]] = []
    templates: list[template.Template] = []
    for name in names:
        ascii_name = to_ascii(name)
        compiled = template.compile(ascii_name)
        if not compiled.is_static:
            templates.append(compiled)
        elif "*" in compiled.constant:
            wildcards.append(compiled.constant.lower().split("."))
        else:
            exact.add(compiled.constant.lower())

    def matches(request: Request) -> bool:
        found = request.bare_host
        if found in exact:
            return True
        if wildcards:
            labels = found.split(".")
            if any(fits(labels, pattern) for pattern in wildcards):
                return True
        return any(is_host(found, compiled.expand(request)) for compiled in templates)

    return matches


def is_host(found: str, pattern: str) -> bool:
    """Whether *found*, in lower case, is *pattern*, a name or one with wildcards."""
    if "*" not in pattern:
        return found == pattern.lower()
    return fits(found.split("."), pattern.lower().split("."))


def fits(labels: list[str], pattern: list[str]) -> bool:
    """Whether the labels of a host are those of *pattern*, in which ``*`` is any one label."""
    return len(labels) == len(pattern) and all(
        wanted in ("*", label) for wanted, label in zip(pattern, labels, strict=True)
    )


def to_ascii(name: str) -> str:
    """*name* with labels beyond ASCII in punycode; nothing else is normalised."""
    if name.isascii():
        return name
    return ".".join(
        label if label.isascii() else "xn--" + label.encode("punycode").decode("ascii") for label in name.split(".")
    )


class _Range(NamedTuple):
    network: ipaddress.IPv4Network | ipaddress.IPv6Network
    zone: str


def remote_ip(ranges: Iterable[str]) -> Predicate:
    """Caddy's peer is in one of *ranges*: addresses or networks, with a zone behind a ``%`` if it matters."""
    known = [_range(text) for text in ranges]
    return lambda request: _is_in(request.remote_host, known)


def client_ip(ranges: Iterable[str]) -> Predicate:
    """The client is in one of *ranges*."""
    known = [_range(text) for text in ranges]
    return lambda request: _is_in(request.client_ip, known)


def _range(text: str) -> _Range:
    compiled = template.compile(text)
    if not compiled.is_static:
        raise MatcherError(f"a range of addresses cannot depend on the request: {text}")
    bare, _, zone = compiled.constant.partition("%")
    try:
        return _Range(ipaddress.ip_network(bare, strict=False), zone)
    except ValueError:
        raise MatcherError(f"{text!r} is neither an IP address nor a network", "such as 10.0.0.0/8 or ::1") from None


def _is_in(text: str, ranges: list[_Range]) -> bool:
    parsed = hosts.parse_address(hosts.without_port(text))
    if parsed is None:
        return False
    address, zone = parsed
    return any(
        address.version == known.network.version and address in known.network and known.zone in ("", zone)
        for known in ranges
    )
