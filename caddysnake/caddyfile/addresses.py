"""Site addresses: what stands before a site's brace.

``[scheme://]host[:port][/path]`` is Caddy's business and means here only which hosts a site answers. An address that is
a socket in Caddy's network notation (``unix//run/blog.sock|0660``, ``tcp/127.0.0.1:9000``) is our one extension: the
site listens there. Stock Caddy would take it for a host called ``unix``.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from .errors import nearest
from .hosts import integer, split_port
from .tokens import Token

_MAX_LENGTH = 4096  # Caddy cuts longer ones off.
_PLACEHOLDER = re.compile(r"(\{.*?\})")
# What keeps a name out of any certificate; Caddy refuses it on a site that would get one.
_NO_CERTIFICATE = frozenset("()[]{}<> \t\n\"\\!@#$%^&|;'+=")
_FORMS = "write host, host:port, :port, http://host, or a socket such as unix//run/app.sock"
_HTTP_PORT = "80"
_HTTPS_PORT = "443"


class Address(NamedTuple):
    """One address of a site, taken apart and normalised."""

    text: str
    """As it was written."""
    token: Token
    scheme: str = ""
    """``http``, ``https`` or nothing."""
    host: str = ""
    """In lower case, without brackets; nothing means any host."""
    port: str = ""
    path: str = ""
    socket: str = ""
    """The whole text when it is a socket; all but ``text`` and ``token`` are then empty."""

    @property
    def effective_port(self) -> str:
        """The port Caddy listens on for this address."""
        return self.port or (_HTTP_PORT if self.scheme == "http" else _HTTPS_PORT)

    @property
    def key(self) -> str:
        """The normalised text, which no two sites on one listener may share."""
        if self.socket:
            return self.socket
        host = f"[{self.host}]" if ":" in self.host else self.host
        scheme = self.scheme and self.scheme + "://"
        port = self.port and ":" + self.port
        if (self.scheme, self.port) in (("http", _HTTP_PORT), ("https", _HTTPS_PORT)):
            port = ""
        return f"{scheme}{host}{port}{self.path}"


def is_socket(text: str) -> bool:
    """*text* is a socket in Caddy's network notation with the network named: ``unix/…``, ``tcp/…`` or ``fd/…``."""
    return text.startswith(("unix/", "tcp/", "tcp4/", "tcp6/", "fd/"))


def parse_address(token: Token) -> Address:
    """Take one address apart. Raises ``CaddyfileError``: it has no port that could be one, a scheme other than http and
    https, a scheme that contradicts its port, or a host that no certificate can name where the site would need one.
    """
    text = token.text[:_MAX_LENGTH].strip()
    if is_socket(text):
        return Address(text, token, socket=text)
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "", text
    authority, slash, path = rest.partition("/")
    host, port = split_port(authority)
    _check_port(port, token)
    address = Address(text, token, _lower(scheme), _lower(_normal_ip(host.strip())), port, slash + path)
    _check_scheme(address)
    _check_certificate_name(address)
    return address


def parse_addresses(keys: Iterable[Token], directives: Iterable[str]) -> list[Address]:
    """The addresses of one site, without those that repeat an earlier one.

    *directives* are the names that are more likely a directive than a host. Raises ``CaddyfileError``: one of them is
    wrong, or is a directive.
    """
    known = frozenset(directives)
    found: dict[str, Address] = {}
    for key in keys:
        if key.text in known:
            message = f'"{key.text}" is a directive, but stands where a site address is expected'
            raise key.error(message, "put it into a site's block")
        address = parse_address(key)
        found.setdefault(address.key, address)
    return list(found.values())


def host_matchers(addresses: Sequence[Address]) -> list[dict[str, Any]]:
    """The matcher sets of a site with *addresses*, any of which lets a request in; none means every request.

    As in Caddy: an address without a host opens the site for all, and addresses with one path share a set.
    """
    hosts_of_path: dict[str, list[str]] = {}
    any_host = False
    for address in addresses:
        if address.socket:
            continue
        hosts = hosts_of_path.setdefault(address.path, [])
        if not address.host and not any_host:
            hosts.clear()
            any_host = True
        if not any_host and address.host not in hosts:
            hosts.append(address.host)
    sets: list[dict[str, Any]] = []
    for path, hosts in hosts_of_path.items():
        matcher: dict[str, Any] = {}
        if hosts:
            matcher["host"] = hosts
        if path:
            matcher["path"] = [path]
        if matcher:
            sets.append(matcher)
    return sets


def specificity(addresses: Iterable[Address]) -> tuple[int, int, int, int]:
    """A sort key that puts the site whose addresses are the most specific first, as Caddy tries them.

    Sites with a plain host come before those with a wildcard, and those before the ones for any host; within each the
    longest host, then the longest path.
    """
    host = path = ""
    wildcard = False
    for address in addresses:
        wildcard = wildcard or not address.host or "*" in address.host
        host = max(host, address.host, key=_weight)
        path = max(path, address.path, key=_weight)
    if not _weight(host):
        return (1, 0, 0, 0)
    return (0, int(wildcard), -_weight(host), -len(path.encode()))


def _weight(text: str) -> int:
    """How many bytes of *text* say something definite: no wildcards, no placeholders."""
    return len(_PLACEHOLDER.sub("", text).replace("*", "").encode())


def _check_port(port: str, token: Token) -> None:
    if not port:
        return
    number = integer(port)
    if number is None:
        is_range = re.fullmatch(r"[0-9]+-[0-9]+", port)
        hint = "a site listens on one port" if is_range else "write a number from 0 to 65535"
        raise token.error(f'the port "{port}" of the address "{token.text}" is not a number', hint)
    if not 0 <= number <= 65535:
        raise token.error(f"port {port} is out of range", "ports go from 0 to 65535")
    if not port.isdigit():
        raise token.error(f'the port "{port}" has a sign', "write the digits alone")


def _check_scheme(address: Address) -> None:
    scheme, port = address.scheme, address.port
    if scheme not in ("", "http", "https"):
        hint = nearest(scheme, ("http", "https")) or "use http or https"
        raise address.token.error(f'the scheme "{scheme}" of the address "{address.text}" is not supported', hint)
    if (scheme, port) in (("http", _HTTPS_PORT), ("https", _HTTP_PORT)):
        message = f"scheme and port of the address {address.text} contradict each other"
        raise address.token.error(message, "leave one of them out")


def _check_certificate_name(address: Address) -> None:
    host = address.host
    if not host or address.effective_port == _HTTP_PORT or address.scheme == "http":
        return
    star_is_wrong = "*" in host and host != "*" and not host.startswith("*.")
    if star_is_wrong or host[0] == "." or host[-1] == "." or not _NO_CERTIFICATE.isdisjoint(host):
        hint = "a wildcard stands for the whole first label" if star_is_wrong else _FORMS
        raise address.token.error(f'"{address.text}" is no site address: no certificate can have this name', hint)


def _lower(text: str) -> str:
    """*text* in lower case, but for placeholders."""
    if "{" not in text:
        return text.lower()
    return "".join(part if index % 2 else part.lower() for index, part in enumerate(_PLACEHOLDER.split(text)))


def _normal_ip(host: str) -> str:
    if ":" not in host:
        return host
    try:
        address = ipaddress.IPv6Address(host)
    except ValueError:
        return host
    return host if address.ipv4_mapped is not None else str(address)
