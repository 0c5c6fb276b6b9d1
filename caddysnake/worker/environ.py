"""A request head to the ``environ`` of PEP 3333.

Keys have three lifetimes: the server's (``Environ``), the connection's (``of_connection``) or the request's
(``of_request``).
Text is latin-1 throughout, as PEP 3333 demands: each character of a str is one byte that came over the wire.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from typing import Any, TextIO
from urllib.parse import unquote_to_bytes

from ..channel.settings import Settings
from ..http1.request import RequestHead, Section

_LEARNED_MAX = 1024
_LEARNED_NAME_MAX = 64
_DEFAULT_PORT = {"http": "80", "https": "443"}


class Environ:
    """Builds environs for one app."""

    def __init__(self, settings: Settings, file_wrapper: Callable[..., Any], errors: TextIO | None = None) -> None:
        self._always: dict[str, Any] = {
            "SCRIPT_NAME": "",
            "SERVER_SOFTWARE": "caddysnake",
            "wsgi.version": (1, 0),
            "wsgi.errors": sys.stderr if errors is None else errors,
            "wsgi.multithread": settings.threads > 1,
            "wsgi.multiprocess": settings.workers > 1,
            "wsgi.run_once": False,
            "wsgi.input_terminated": True,
            "wsgi.file_wrapper": file_wrapper,
        }

    def of_connection(self, sock: socket.socket) -> dict[str, Any]:
        """What is the same for every request on ``sock``: the two ends, as the kernel names them."""
        environ = self._always.copy()
        environ["wsgi.url_scheme"] = "http"
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            try:
                here, there = sock.getsockname(), sock.getpeername()
            except OSError:  # it has ended already; so will its first read
                here, there = ("", 80), ("", 0)
            environ["SERVER_NAME"], environ["SERVER_PORT"] = here[0], str(here[1])
            environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = there[0], str(there[1])
        else:
            environ["SERVER_NAME"], environ["SERVER_PORT"] = "", "80"
            environ["REMOTE_ADDR"] = ""
        return environ


def of_request(base: dict[str, Any], head: RequestHead, trusted: bool) -> dict[str, Any]:
    """The environ of one request, still without ``wsgi.input``.

    ``base`` is the connection's and is copied. With ``trusted``, X-Forwarded-For, -Proto and -Host are believed.
    """
    section = head.section
    environ = base.copy()
    path = head.path
    environ["REQUEST_METHOD"] = head.method
    environ["PATH_INFO"] = (unquote_to_bytes(path) if b"%" in path else path).decode("latin-1")
    environ["QUERY_STRING"] = head.query.decode("latin-1")
    environ["REQUEST_URI"] = head.target.decode("latin-1")
    environ["SERVER_PROTOCOL"] = "HTTP/1.1" if head.version == "1.1" else "HTTP/1.0"
    if trusted and section is not None and section.made is not None:
        environ.update(section.made)
        environ.pop("REMOTE_PORT", None)
        return environ
    keys = _KEYS
    for name, value in head.headers:
        key = keys.get(name)
        if key is None:
            key = _learn(name)
        if key in environ:
            _repeated(environ, key, value.decode("latin-1"))
        else:
            environ[key] = value.decode("latin-1")
    if "" in environ:
        del environ[""]  # where fields went that are not for the app
    if path == b"*":
        environ["PATH_INFO"] = ""  # not a path: of OPTIONS about the server as a whole
    if trusted:
        _forwarded(environ)
    if not environ["SERVER_NAME"]:
        _server_from(environ, environ.get("HTTP_HOST", ""))
    if trusted and section is not None and "REMOTE_PORT" not in environ and environ.get("HTTP_HOST"):
        _remember(section, environ)
    return environ


_FROM_SECTION = ("CONTENT_TYPE", "CONTENT_LENGTH", "wsgi.url_scheme", "SERVER_NAME", "SERVER_PORT", "REMOTE_ADDR")


def _remember(section: Section, environ: dict[str, Any]) -> None:
    """Keep what follows from the header section alone, for the next request with the same."""
    if environ.get("HTTP_X_FORWARDED_FOR", "").rpartition(",")[2].strip(" \t"):
        section.made = {
            key: value for key, value in environ.items() if key.startswith("HTTP_") or key in _FROM_SECTION
        }


# Names are learned once, so that a field costs one look-up. What is mapped to "" is dropped: Transfer-Encoding, because
# the app gets the content decoded (an app that believes it would decode it again), and Proxy, which as HTTP_PROXY would
# configure the app's own HTTP clients.
_SPECIAL = {
    b"content-type": "CONTENT_TYPE",
    b"content-length": "CONTENT_LENGTH",
    b"transfer-encoding": "",
    b"proxy": "",
}
_KEYS: dict[bytes, str] = dict(_SPECIAL)


def _learn(name: bytes) -> str:
    key = "HTTP_" + name.decode("latin-1").upper().replace("-", "_")
    if len(name) <= _LEARNED_NAME_MAX:
        if len(_KEYS) >= _LEARNED_MAX:
            _KEYS.clear()
            _KEYS.update(_SPECIAL)
        _KEYS[name] = key
    return key


def _repeated(environ: dict[str, Any], key: str, value: str) -> None:
    """RFC 9110 section 5.3: lines of one name are one list. RFC 6265 section 5.4: cookies are joined otherwise."""
    if key == "HTTP_COOKIE":
        environ[key] += "; " + value
    elif key.startswith("HTTP_"):
        environ[key] += ", " + value
    # Content-Type and Content-Length are no lists: the first stands (llhttp refuses a second length).


def _forwarded(environ: dict[str, Any]) -> None:
    """Believe what Caddy says of the client. Of a list its last member counts: that one Caddy wrote itself."""
    forwarded_for = environ.get("HTTP_X_FORWARDED_FOR")
    if forwarded_for:
        client = forwarded_for.rpartition(",")[2].strip(" \t")
        if client:
            environ["REMOTE_ADDR"] = client
            environ.pop("REMOTE_PORT", None)
    scheme = environ.get("HTTP_X_FORWARDED_PROTO")
    if scheme:
        scheme = scheme.rpartition(",")[2].strip(" \t").lower()
        if scheme in _DEFAULT_PORT:
            environ["wsgi.url_scheme"] = scheme
    host = environ.get("HTTP_X_FORWARDED_HOST")
    if host:
        host = host.rpartition(",")[2].strip(" \t")
    _server_from(environ, host or environ.get("HTTP_HOST", ""))


def _server_from(environ: dict[str, Any], host: str) -> None:
    """SERVER_NAME and SERVER_PORT from a Host field; the kernel's stay when it is empty."""
    if not host:
        environ["SERVER_NAME"] = environ["SERVER_NAME"] or "localhost"
        return
    name, colon, port = host.rpartition(":")
    if not colon or not port.isdigit() or (":" in name and not name.endswith("]")):
        # No port, or the colon is one of an IPv6 address.
        name, port = host.removesuffix(":"), ""
    environ["SERVER_NAME"] = name or "localhost"
    environ["SERVER_PORT"] = port or _DEFAULT_PORT[environ["wsgi.url_scheme"]]
