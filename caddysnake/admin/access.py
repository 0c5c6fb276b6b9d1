"""Who may call the admin API. Pure.

Whoever may connect to its unix socket is its owner, or root. Over TCP anybody on the machine may, and so may the pages
that anybody's browser shows: a page elsewhere may send requests here (hence ``Origin``), and a name of its own may be
made to lead here (hence ``Host``: DNS rebinding). As in Caddy's API, both must therefore be names of this address, or
named in the configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

from ..config.plan.admin import AdminEndpoint

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_EVERYWHERE = frozenset({"", "0.0.0.0", "::"})
_SAFE_SITES = frozenset({"same-origin", "none"})


class Denial(NamedTuple):
    """Why a request is refused. ``code`` is stable."""

    code: str
    text: str
    hint: str


class Host(NamedTuple):
    """A host of a ``Host`` field or an origin. ``port`` 0: it says none."""

    name: str
    port: int


def parse_host(text: str) -> Host | None:
    """``localhost:2020``, ``[::1]``, ``admin.example.com``; None when it is none."""
    try:
        parts = urlsplit(f"//{text}")
        port = parts.port or 0
    except ValueError:
        return None
    if parts.path or parts.query or parts.fragment or parts.username is not None or "@" in text:
        return None
    return Host((parts.hostname or "").removesuffix("."), port)


def parse_origin(text: str) -> Host | None:
    """``https://admin.example.com``, as ``Origin`` or ``Referer`` have it; None for ``null`` and the like."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.netloc:
        return None
    return parse_host(parts.netloc)


class Access:
    """The rules of one endpoint."""

    def __init__(self, endpoint: AdminEndpoint) -> None:
        self._enforce_origin = endpoint.enforce_origin
        self._named = {host for text in endpoint.origins if (host := _named(text)) is not None}
        listen = endpoint.listen
        self.is_local = listen is not None and listen.network == "unix"
        """Its callers' users are known."""
        self._port = (listen.port or 0) if listen is not None else 0
        name = listen.host if listen is not None else ""
        self._own = _LOOPBACK | {""} if self.is_local else (_LOOPBACK if name in _LOOPBACK | _EVERYWHERE else {name})
        self._any_address = not self.is_local and name in _EVERYWHERE

    def denial(self, headers: Mapping[str, str], *, is_page: bool = False) -> Denial | None:
        """Why a request with these fields, named in lower case, is refused. ``is_page``: it is for a page's file."""
        said = headers.get("host", "")
        host = parse_host(said)
        if host is None or not self._is_ours(host):
            hint = "call it by the address it listens on, or name the host after `origins` in the option admin"
            return Denial("forbidden-host", f"the API is not called {said[:200]!r}", hint)
        if is_page:
            return None
        origin = headers.get("origin") or headers.get("referer")
        if origin:
            caller = parse_origin(origin)
            if caller is None or not self._is_ours(caller):
                hint = "name it after `origins` in the option admin, if it is to be trusted with everything here"
                return Denial("forbidden-origin", f"the page {origin[:200]!r} may not call this API", hint)
        elif self._enforce_origin:
            hint = "send an Origin field, such as that of the address it listens on"
            return Denial("forbidden-origin", "the option enforce_origin asks for an Origin", hint)
        elif headers.get("sec-fetch-site", "none") not in _SAFE_SITES:
            return Denial("forbidden-origin", "another site's page may not call this API", "open it by itself")
        return None

    def _is_ours(self, host: Host) -> bool:
        if host in self._named or Host(host.name, 0) in self._named:
            return True
        if host.name not in self._own and not (self._any_address and _is_address(host.name)):
            return False
        # Behind a unix socket there may be any port: that of an ssh tunnel, say.
        return self.is_local or host.port == self._port


def _named(text: str) -> Host | None:
    return parse_origin(text) if "://" in text else parse_host(text)


def _is_address(name: str) -> bool:
    """An IP address: what a rebound name never is."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
