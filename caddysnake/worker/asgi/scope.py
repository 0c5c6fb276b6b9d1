"""From a request head to an ASGI scope (ASGI 3.0, HTTP and WebSocket specification 2.5).

On a trusted connection ``client`` and ``scheme`` are what Caddy says: the last element of X-Forwarded-For is its own
peer (earlier ones may be the browser's invention; the app finds them in the header), that of X-Forwarded-Proto the
browser's scheme. On any other connection they are the socket's. ``server`` is what the client asked for in Host.
The same rules stand in ``worker.wsgi.environ``, and for plain heads in C (``speedups``).

What a route has taken off the path is ``root_path``, and the path is whole again: that is how ASGI means the two. For
an app with a socket of its own it is always the same, and in the settings. Else a relay says so, over a link; nobody
else's word is taken, and no app sees the field.
"""

from __future__ import annotations

import _socket
import contextlib
import re
import socket
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote

from ...channel.messages import AFFINITY_FIELD, PREFIX_FIELD, RELAY_FIELDS
from ...http1.forwarded import is_forwarded, is_https, last_member, own_fields, split_address
from ...http1.limits import Limits
from ...http1.request import RequestHead
from ...http1.speedups import Reader, new_reader

Address = tuple[str, int]
Scope = dict[str, Any]

_INTERNET = (int(socket.AF_INET), int(socket.AF_INET6))
# `socket.family` looks an enumeration up, by name: a microsecond for each connection.
_family_of: Callable[[socket.socket], int] = _socket.socket.family.__get__

_ASGI = {"version": "3.0", "spec_version": "2.5"}
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_CACHE_MAX = 1024
_NAME_MAX = 64
_DEFAULT_PORTS = {"http": 80, "https": 443}
_SECURE = {"http": "ws", "https": "wss"}

HTTP_EXTENSIONS = ("http.response.trailers", "http.response.early_hint")
SENDFILE_EXTENSIONS = ("http.response.pathsend",)
"""Only where the app's file says that nothing in it waits for the content of a response."""

WEBSOCKET_EXTENSIONS = ("websocket.http.response",)


def _named(extensions: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Each of ``extensions`` with a dictionary of its own: an app may write into it."""
    return {name: {} for name in extensions}


class Peer:
    """Who is at the other end of one connection, when the request does not say."""

    __slots__ = ("address", "is_link", "is_trusted", "local", "source")

    def __init__(self, sock: socket.socket, is_trusted: bool, is_link: bool = False) -> None:
        self.is_trusted = is_trusted
        self.is_link = is_link
        self.address: Address | None = None
        self.local: Address | None = None
        if _family_of(sock) in _INTERNET:
            self.local = sock.getsockname()[:2]
            with contextlib.suppress(OSError):  # already gone; the first read will say so
                self.address = sock.getpeername()[:2]
        self.source: str | None = None if is_trusted else self.address[0] if self.address else ""
        """The client's address where nobody else is believed about it; None behind a proxy."""


class Scopes:
    """Builds the scopes of one app. ``state`` is what its lifespan left, None when there was none. ``sendfile``: the
    app may answer with files by their path.
    """

    def __init__(self, root_path: str = "", sendfile: bool = False) -> None:
        self.root_path = root_path
        self._extensions_1_0 = SENDFILE_EXTENSIONS if sendfile else ()
        self._extensions = (*self._extensions_1_0, *HTTP_EXTENSIONS)
        self._raw_root = quote(root_path).encode()
        self.state: dict[str, Any] | None = None
        self._others: set[bytes] = set()
        """Names of fields that are not between relays and workers, a bounded number."""
        self._servers: dict[str, dict[bytes, Address]] = {"http": {}, "https": {}}

    def reader(self, limits: Limits) -> Reader | None:
        """Return what reads plain heads into scopes; None where it is not installed."""
        template = {"type": "http", "asgi": _ASGI, "http_version": "1.1", "root_path": self.root_path}
        root = self.root_path, self._raw_root
        return new_reader(template, self._extensions, root, (limits.max_target_bytes, limits.max_header_count))

    def http(self, head: RequestHead, peer: Peer) -> Scope:
        """A new scope; nothing that an app may change in it is shared."""
        ready: Scope | None = head.ready
        if ready is not None:
            if self.state is not None:
                ready["state"] = self.state.copy()
            return ready
        template = head.made
        if template is None or template[0] != peer.source:
            return self._http(head, peer)
        scope: Scope = template[1].copy()
        scope["headers"] = scope["headers"].copy()
        scope["asgi"] = _ASGI.copy()
        scope["extensions"] = _named(scope["extensions"])
        if scope["client"] is None:
            scope["client"] = peer.address
        if self.state is not None:
            scope["state"] = self.state.copy()
        return scope

    def _http(self, head: RequestHead, peer: Peer) -> Scope:
        client, scheme, server, has_ours = self._made_of(head, peer)
        path = head.path
        scope: Scope = {
            "type": "http",
            "asgi": _ASGI.copy(),
            "http_version": head.version,
            "method": head.method,
            "scheme": scheme,
            "path": path.decode() if b"%" not in path else decode_path(path),
            "raw_path": path,
            "query_string": head.query,
            "root_path": self.root_path,
            "headers": head.headers,
            "client": client,
            "server": server,
            "extensions": _named(self._extensions if head.version == "1.1" else self._extensions_1_0),
        }
        if self.root_path:
            scope["path"] = self.root_path + scope["path"]
            scope["raw_path"] = self._raw_root + path
        if peer.source is not None:
            fields = [field for field in head.headers if not is_forwarded(field[0])]
            scope["headers"] = fields + own_fields(head.host, peer.source)
        if has_ours:
            self._without_ours(scope, peer)
        elif head.is_shared:
            # Most of the scope follows from the head, which will come again to the letter.
            told = client if client != peer.address else None
            head.made = (peer.source, {**scope, "client": told})
            scope["headers"] = scope["headers"].copy()
            scope["extensions"] = _named(scope["extensions"])
        if self.state is not None:
            scope["state"] = self.state.copy()
        return scope

    def _without_ours(self, scope: Scope, peer: Peer) -> None:
        """Take the fields that are between relays and workers out, and see to what a relay says in them."""
        headers = scope["headers"]
        seen = (AFFINITY_FIELD,) if peer.is_link else ()
        scope["headers"] = [field for field in headers if field[0] in seen or not field[0].startswith(RELAY_FIELDS)]
        if peer.is_link:
            for name, prefix in headers:
                if name == PREFIX_FIELD:
                    rest = prefix + scope["raw_path"][len(self._raw_root) :]
                    scope["root_path"] += decode_path(prefix)
                    scope["raw_path"] = self._raw_root + rest
                    scope["path"] = self.root_path + decode_path(rest)

    def websocket(self, head: RequestHead, peer: Peer, subprotocols: list[str]) -> Scope:
        """The scope of a WebSocket (ASGI WebSocket 2.5): ``ws`` or ``wss``, no method. Raises as ``http`` does."""
        scope = self.http(head, peer)
        del scope["method"]
        scope["type"] = "websocket"
        scope["scheme"] = _SECURE[scope["scheme"]]
        scope["subprotocols"] = subprotocols
        scope["extensions"] = _named(WEBSOCKET_EXTENSIONS)
        return scope

    def _made_of(self, head: RequestHead, peer: Peer) -> tuple[Address | None, str, Address | None, bool]:
        """Client, scheme, server and whether there are fields of a relay's."""
        last = head.last
        if last is None:
            last = dict(head.headers)  # of repeated fields the last: earlier ones were there before Caddy's
        has_ours = not (last.keys() <= self._others) and self._has_ours(last)
        if peer.is_trusted:
            client, scheme = self._origin(last, peer)
        else:
            client, scheme = peer.address, "http"
        host = head.host
        server = (self._servers[scheme].get(host) or self._server(host, scheme)) if host else peer.local
        return client, scheme, server, has_ours

    def _has_ours(self, names: Iterable[bytes]) -> bool:
        """Some of them are between relays and workers; those that are not are remembered."""
        others = self._others
        if len(others) >= _CACHE_MAX:
            others.clear()
        for name in names:
            if name.startswith(RELAY_FIELDS):
                return True
            if len(name) <= _NAME_MAX:
                others.add(name)
        return False

    def _origin(self, last: dict[bytes, bytes], peer: Peer) -> tuple[Address | None, str]:
        """The client's address and the scheme it used."""
        scheme = "https" if is_https(last.get(b"x-forwarded-proto", b"")) else "http"
        forwarded = last.get(b"x-forwarded-for")
        if forwarded is None:
            return peer.address, scheme
        return last_hop(forwarded), scheme

    def _server(self, host: bytes, scheme: str) -> Address:
        servers = self._servers[scheme]
        if len(servers) >= _CACHE_MAX:
            servers.clear()
        server = servers[host] = split_host(host, _DEFAULT_PORTS[scheme])
        return server


def last_hop(forwarded: bytes) -> Address | None:
    """The last element of X-Forwarded-For: an address, and its port where that is told, else 0."""
    address, port = split_address(last_member(forwarded).decode("latin-1"))
    return (address, port) if address else None


def split_host(host: bytes, default_port: int) -> Address:
    """Host and port of a Host field; IPv6 without its brackets."""
    text = host.decode("ascii")
    name, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or len(port) > 5 or (":" in name and not name.endswith("]")):
        name, port = text.removesuffix(":"), ""
    if name.startswith("[") and name.endswith("]"):
        name = name[1:-1]
    return name, int(port) if port else default_port


def decode_path(raw: bytes) -> str:
    """The path with percent-escapes and UTF-8 decoded; what is not UTF-8 becomes U+FFFD."""
    if b"%" in raw:
        raw = unescape(raw)
    return raw.decode("utf-8", "replace")


def unescape(raw: bytes) -> bytes:
    """``raw`` with its percent-escapes decoded; a ``%`` that is not one stays."""
    return _ESCAPE.sub(lambda match: bytes((int(match[1], 16),)), raw)
