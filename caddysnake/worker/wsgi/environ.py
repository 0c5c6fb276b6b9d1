"""A request head to the ``environ`` of PEP 3333.

Keys have three lifetimes: the server's (``Environ``), the connection's (``of_connection``) or the request's
(``of_request``).
Text is latin-1 throughout, as PEP 3333 demands: each character of a str is one byte that came over the wire.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from enum import Enum
from typing import Any, TextIO
from urllib.parse import quote, unquote_to_bytes

from ...channel.messages import AFFINITY_FIELD, PREFIX_FIELD, RELAY_FIELDS
from ...channel.settings import Settings
from ...http1.forwarded import is_forwarded, own_fields, split_address
from ...http1.limits import Limits
from ...http1.request import RequestHead
from ...http1.speedups import FORWARDED, HOST_FIELD, NOBODY, Reader, new_reader

_LEARNED_MAX = 1024
_LEARNED_NAME_MAX = 64
_PREFIX_KEY = "caddysnake.prefix"
_AFFINITY_KEY = "caddysnake.affinity"
_ROOT_KEY = "caddysnake.root"
"""What Caddy has taken off the path of every request, percent-encoded; only there if it does."""
_DEFAULT_PORT = {"http": "80", "https": "443"}


class Origin(Enum):
    """Whom to believe about the client and the server's own name."""

    FORWARDED = "forwarded"  # X-Forwarded-For, -Proto and -Host: the peer is Caddy
    LINK = "link"  # the same, and what was taken off the path: the peer is the relay
    HOST = "host"  # nobody about the client; the Host field, for there is no other name of a unix socket
    KERNEL = "kernel"  # the socket's two addresses


_FORWARDED, _LINK, _HOST, _KERNEL = Origin
READ_FROM = {_FORWARDED: FORWARDED, _LINK: FORWARDED, _HOST: HOST_FIELD, _KERNEL: NOBODY}
"""The same, for a reader of plain heads."""


class Environ:
    """Builds environs for one app."""

    def __init__(self, settings: Settings, file_wrapper: Callable[..., Any], errors: TextIO | None = None) -> None:
        self._always: dict[str, Any] = {
            "SCRIPT_NAME": settings.root_path.encode().decode("latin-1"),
            "SERVER_SOFTWARE": "caddysnake",
            "wsgi.version": (1, 0),
            "wsgi.errors": sys.stderr if errors is None else errors,
            # Workers that are threads of one process share one import of the app.
            "wsgi.multithread": settings.threads > 1 or (settings.shares_process and settings.workers > 1),
            "wsgi.multiprocess": settings.workers > 1 and not settings.shares_process,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": file_wrapper,
            "wsgi.url_scheme": "http",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "REMOTE_ADDR": "",
        }
        if settings.root_path:
            self._always[_ROOT_KEY] = quote(settings.root_path)

    def reader(self, limits: Limits, keeps_fields: bool) -> Reader | None:
        """Return what reads plain heads into environs; None where it is not installed."""
        root = self._always.get(_ROOT_KEY, "")
        most = limits.max_target_bytes, limits.max_header_count
        return new_reader(None, (), (root, root.encode()), most, keeps_fields)

    def of_connection(self, sock: socket.socket, trusted: bool, link: bool = False) -> tuple[dict[str, Any], Origin]:
        """What is the same for every request on ``sock``, and whom ``of_request`` is to believe there."""
        environ = self._always.copy()
        if link:
            return environ, _LINK
        if sock.family not in (socket.AF_INET, socket.AF_INET6):
            return environ, _FORWARDED if trusted else _HOST
        try:
            here, there = sock.getsockname(), sock.getpeername()
        except OSError:  # it has ended already; so will its first read
            return environ, _KERNEL
        environ["SERVER_NAME"], environ["SERVER_PORT"] = here[0], str(here[1])
        environ["REMOTE_ADDR"] = there[0]
        if trusted:
            return environ, _FORWARDED
        environ["REMOTE_PORT"] = str(there[1])
        environ["HTTP_X_FORWARDED_FOR"] = there[0]
        return environ, _KERNEL


def of_request(base: dict[str, Any], head: RequestHead, origin: Origin) -> dict[str, Any]:
    """The environ of one request, still without ``wsgi.input``. ``base`` and ``origin`` are the connection's."""
    ready: dict[str, Any] | None = head.ready
    if ready is not None:
        return ready
    made = head.made
    if made is not None and made[0] is origin:
        known: dict[str, Any] = made[1]
        return base | known
    fields = _of_headers(head, origin)
    if head.is_shared:
        _add_line(fields, head, base.get(_ROOT_KEY, ""))
        head.made = (origin, fields)
        return base | fields
    environ = base | fields
    _add_line(environ, head, base.get(_ROOT_KEY, ""))
    return environ


def _add_line(environ: dict[str, Any], head: RequestHead, root: str) -> None:
    """Add the keys that follow from the request line."""
    environ["REQUEST_METHOD"] = head.method
    path = head.path
    text = (unquote_to_bytes(path) if b"%" in path else path).decode("latin-1")
    environ["PATH_INFO"] = text if path != b"*" else ""  # not a path: of OPTIONS about the server as a whole
    environ["QUERY_STRING"] = head.query.decode("latin-1")
    environ["REQUEST_URI"] = head.target.decode("latin-1")
    environ["SERVER_PROTOCOL"] = "HTTP/1.1" if head.version == "1.1" else "HTTP/1.0"
    if head.chunked:
        # Said only where the app has no other sign of where the content ends. wsgi.input always ends by itself, but a
        # framework that is told so reads it without a size, which what stands between (wsgiref.validate) may refuse.
        environ["wsgi.input_terminated"] = True
    prefix = environ.pop(_PREFIX_KEY, None)
    if prefix is not None:
        environ["REQUEST_URI"] = prefix + environ["REQUEST_URI"]
    if root:
        environ["REQUEST_URI"] = root + environ["REQUEST_URI"]


def _of_headers(head: RequestHead, origin: Origin) -> dict[str, str]:
    """The keys that follow from the header section alone."""
    fields: dict[str, str] = {}
    keys = _KEYS
    headers = head.headers
    if origin is _HOST or origin is _KERNEL:
        headers = [field for field in headers if not is_forwarded(field[0])] + own_fields(head.host, "")
    for name, value in headers:
        key = keys.get(name)
        if key is None:
            key = _learn(name)
        if key in fields:
            _repeated(fields, key, value.decode("latin-1"))
        else:
            fields[key] = value.decode("latin-1")
    fields.pop("", None)  # where fields went that are not for the app
    prefix = fields.pop(_PREFIX_KEY, "")
    affinity = fields.pop(_AFFINITY_KEY, "")
    if origin is _FORWARDED:
        _forwarded(fields)
    elif origin is _LINK:
        _forwarded(fields)
        if affinity:
            fields["HTTP_CADDYSNAKE_AFFINITY"] = affinity
        if prefix:
            fields["SCRIPT_NAME"] = unquote_to_bytes(prefix.encode("latin-1")).decode("latin-1")
            fields[_PREFIX_KEY] = prefix
    elif origin is _HOST:
        _server_from(fields, fields.get("HTTP_HOST"))
    return fields


# Names are learned once, so that a field costs one look-up. What is mapped to "" is dropped: Transfer-Encoding, because
# the app gets the content decoded (an app that believes it would decode it again), and Proxy, which as HTTP_PROXY would
# configure the app's own HTTP clients.
_SPECIAL = {
    b"content-type": "CONTENT_TYPE",
    b"content-length": "CONTENT_LENGTH",
    b"transfer-encoding": "",
    b"proxy": "",
    PREFIX_FIELD: _PREFIX_KEY,
    AFFINITY_FIELD: _AFFINITY_KEY,
}
_KEYS: dict[bytes, str] = dict(_SPECIAL)


def _learn(name: bytes) -> str:
    if name.startswith(RELAY_FIELDS):
        return ""
    key = "HTTP_" + name.decode("latin-1").upper().replace("-", "_")
    if len(name) <= _LEARNED_NAME_MAX:
        if len(_KEYS) >= _LEARNED_MAX:
            _KEYS.clear()
            _KEYS.update(_SPECIAL)
        _KEYS[name] = key
    return key


def _repeated(fields: dict[str, str], key: str, value: str) -> None:
    """RFC 9110 section 5.3: lines of one name are one list. RFC 6265 section 5.4: cookies are joined otherwise."""
    if key == "HTTP_COOKIE":
        fields[key] += "; " + value
    elif key.startswith("HTTP_"):
        fields[key] += ", " + value
    # Content-Type and Content-Length are no lists: the first stands (llhttp refuses a second length).


def _forwarded(fields: dict[str, str]) -> None:
    """Believe what Caddy says of the client. Of a list its last member counts: that one Caddy wrote itself."""
    client = _last(fields.get("HTTP_X_FORWARDED_FOR"))
    if client:
        fields["REMOTE_ADDR"], port = split_address(client)
        if port:
            fields["REMOTE_PORT"] = str(port)
    scheme = _last(fields.get("HTTP_X_FORWARDED_PROTO")).lower()
    if scheme in _DEFAULT_PORT:
        fields["wsgi.url_scheme"] = scheme
    _server_from(fields, _last(fields.get("HTTP_X_FORWARDED_HOST")) or fields.get("HTTP_HOST"))


def _last(members: str | None) -> str:
    return members.rpartition(",")[2].strip(" \t") if members else ""


def _server_from(fields: dict[str, str], host: str | None) -> None:
    """SERVER_NAME and SERVER_PORT from a Host field; the connection's stay when it is empty."""
    if not host:
        return
    name, colon, port = host.rpartition(":")
    if not colon or not port.isdigit() or (":" in name and not name.endswith("]")):
        # No port, or the colon is one of an IPv6 address.
        name, port = host.removesuffix(":"), ""
    fields["SERVER_NAME"] = name or "localhost"
    fields["SERVER_PORT"] = port or _DEFAULT_PORT[fields.get("wsgi.url_scheme", "http")]
