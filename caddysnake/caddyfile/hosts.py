"""Hosts, ports and IP addresses, taken apart as Go's net and net/netip do."""

from __future__ import annotations

import ipaddress
import re

_INTEGER = re.compile(r"[+-]?[0-9]+")
_IPV4_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def split_host_port(text: str) -> tuple[str, str] | None:
    """Host and port (perhaps empty) of ``host:port`` or ``[host]:port``, as net.SplitHostPort; ``None``."""
    colon = text.rfind(":")
    if colon < 0:
        return None
    if text[0] == "[":
        end = text.find("]")
        if end < 0 or end + 1 != colon or "[" in text[1:] or "]" in text[end + 1 :]:
            return None
        return text[1:end], text[colon + 1 :]
    host = text[:colon]
    if ":" in host or "[" in text or "]" in text:
        return None
    return host, text[colon + 1 :]


def split_port(authority: str) -> tuple[str, str]:
    """``host:port`` in two, the port empty where there is none. What Go's net.SplitHostPort refuses is all host."""
    return split_host_port(authority) or split_host_port(f"{authority}:") or (authority, "")


def without_port(text: str) -> str:
    """The host of ``host:port``; all of *text* when it is no such thing, or has no port."""
    split = split_host_port(text)
    return text if split is None else split[0]


def integer(text: str) -> int | None:
    """The number that *text* is to strconv.Atoi; ``None`` when it is none, or does not fit into 64 bits."""
    if not _INTEGER.fullmatch(text) or len(text) > 4000:
        return None
    number = int(text)
    return number if -(2**63) <= number < 2**63 else None


def parse_address(text: str) -> tuple[Address, str] | None:
    """An IP address, and its zone or an empty text; ``None`` when *text* is none."""
    bare, percent, zone = text.partition("%")
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return None
    if percent and (address.version == 4 or not zone):
        return None
    return address, zone


def address_text(address: Address) -> str:
    """*address* as Go writes it. Python's own spelling of an IPv4 address in IPv6 differs from version to version."""
    if isinstance(address, ipaddress.IPv6Address) and address in _IPV4_MAPPED:
        return f"::ffff:{ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)}"
    return str(address)


def prefix(address: Address, bits: int) -> str:
    """The network of *bits* bits that *address* is in; empty when there is none with so many."""
    if not 0 <= bits <= address.max_prefixlen:
        return ""
    network = ipaddress.ip_network((address, bits), strict=False)
    return f"{address_text(network.network_address)}/{bits}"
