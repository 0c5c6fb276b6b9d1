"""The table of placeholders: name to function, and why some names have none.

Three kinds of names: those every request answers anew (``Source.of_request``), those that only the place answers where
we run (``Source.of_place``: environment, files, system), and those that Caddy knows and we cannot.
"""

from __future__ import annotations

import difflib
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Final, NamedTuple

from .. import files
from ..caddyfile import hosts
from ..caddyfile.errors import Hinted
from . import uris
from .request import Request

Environ = Mapping[str, str]
OfRequest = Callable[[Request], str | None]
OfPlace = Callable[[Environ], str]

_MAX_FILE_BYTES: Final = 1024 * 1024
_LIKENESS: Final = 0.85
_START_NS: Final = time.monotonic_ns()
_MACHINES: Final = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "i686": "386",
    "i386": "386",
    "armv7l": "arm",
    "armv6l": "arm",
}


class Source(NamedTuple):
    """Where the value of one name comes from: exactly one of the two is there."""

    of_request: OfRequest | None = None
    """``None`` as the result means that the name is unknown as yet: a regular expression has not matched."""
    of_place: OfPlace | None = None


class PlaceholderError(Hinted):
    """A placeholder that cannot be used."""


def find(name: str) -> Source | None:
    """The source of *name*, or ``None`` when there is none."""
    if (of_request := _EXACT.get(name)) is not None:
        return Source(of_request)
    for start, make in _PLACES.items():
        if name.startswith(start):
            of_place = make(name[len(start) :])
            return None if of_place is None else Source(of_place=of_place)
    for start, make_of_request in _FAMILIES.items():
        if name.startswith(start):
            family = make_of_request(name[len(start) :])
            return None if family is None else Source(family)
    return None


def look_up(name: str) -> Source:
    """The source of *name*. Raises ``PlaceholderError``: a sidecar cannot know it, or nobody does."""
    if (source := find(name)) is not None and (name == "http.vars.client_ip" or not name.startswith("http.vars.")):
        return source
    for start, reason in UNKNOWABLE.items():
        if name == start.rstrip("./") or (start[-1] in "./" and name.startswith(start)):
            raise PlaceholderError(f"the placeholder {{{name}}} cannot be known here: {reason}", PASS_ON)
    raise PlaceholderError(f"unknown placeholder {{{name}}}", _nearest(name))


# Requests


def _wall_clock(_request: Request) -> str:
    """As Go prints a time: nine digits at most, the zone twice, and the monotonic clock since the start."""
    now_ns = time.time_ns()
    moment = datetime.fromtimestamp(now_ns // 10**9).astimezone()
    fraction = f".{now_ns % 10**9:09}".rstrip("0").rstrip(".")
    elapsed_ns = time.monotonic_ns() - _START_NS
    return (
        f"{moment:%Y-%m-%d %H:%M:%S}{fraction} {moment:%z} {moment.tzname()}"
        f" m=+{elapsed_ns // 10**9}.{elapsed_ns % 10**9:09}"
    )


def _http_date(_request: Request) -> str:
    return f"{datetime.now(UTC):%a, %d %b %Y %H:%M:%S} GMT"


def _common_log(_request: Request) -> str:
    return f"{datetime.now().astimezone():%d/%b/%Y:%H:%M:%S %z}"


def _port(request: Request) -> str:
    number = hosts.integer(request.port)
    return request.port if number is None else str(number)


def _uri(request: Request) -> str:
    if request.head.target == b"*":
        return "*"
    return (request.escaped_path or "/") + request.marked_query


def _original_path(request: Request) -> str:
    return uris.text(uris.unescape(request.head.path))


def _file_base(path: str) -> str:
    return uris.base(path).removesuffix(uris.extension(path))


def _protocol_name(request: Request) -> str:
    return request.protocol.removesuffix(".0") if request.protocol != "HTTP/1.0" else request.protocol


_EXACT: Final[dict[str, OfRequest]] = {
    "http.request.host": lambda request: request.host,
    "http.request.hostport": lambda request: request.hostport,
    "http.request.port": _port,
    "http.request.method": lambda request: request.head.method,
    "http.request.scheme": lambda request: request.scheme,
    "http.request.proto": lambda request: request.protocol,
    "http.request.proto_name": _protocol_name,
    "http.request.uuid": lambda request: request.uuid,
    "http.request.uri": _uri,
    "http.request.uri_escaped": lambda request: uris.escape_form(_uri(request)),
    "http.request.uri.path": lambda request: request.path,
    "http.request.uri.path.dir": lambda request: uris.split(request.path)[0],
    "http.request.uri.path.file": lambda request: uris.split(request.path)[1],
    "http.request.uri.path.file.base": lambda request: _file_base(request.path),
    "http.request.uri.path.file.ext": lambda request: uris.extension(request.path),
    "http.request.uri.path_escaped": lambda request: uris.escape_form(request.path),
    "http.request.uri.query": lambda request: request.query,
    "http.request.uri.query_escaped": lambda request: uris.escape_form(request.query),
    "http.request.uri.prefixed_query": lambda request: request.query and f"?{request.query}",
    "http.request.orig_method": lambda request: request.head.method,
    "http.request.orig_uri": lambda request: uris.text(request.head.target),
    "http.request.orig_uri.path": _original_path,
    "http.request.orig_uri.path.dir": lambda request: uris.split(_original_path(request))[0],
    "http.request.orig_uri.path.file": lambda request: uris.split(_original_path(request))[1],
    "http.request.orig_uri.query": lambda request: request.query,
    "http.request.orig_uri.prefixed_query": lambda request: request.query and f"?{request.query}",
    "http.request.remote.host": lambda request: request.remote_host,
    "http.vars.client_ip": lambda request: request.client_ip,
    "time.now": _wall_clock,
    "time.now.http": _http_date,
    "time.now.common_log": _common_log,
    "time.now.year": lambda _: str(datetime.now().year),
    "time.now.unix": lambda _: str(time.time_ns() // 10**9),
    "time.now.unix_ms": lambda _: str(time.time_ns() // 10**6),
}


def _numbered(read: Callable[[int, Request], str]) -> Callable[[str], OfRequest | None]:
    """For names that end in a number, counted from 0."""

    def of_request(tail: str) -> OfRequest | None:
        index = hosts.integer(tail)
        return None if index is None or index < 0 else partial(read, index)

    return of_request


def _label(index: int, request: Request) -> str:
    labels = request.host.lower().split(".")
    return labels[-1 - index] if index < len(labels) else ""


def _part(index: int, request: Request) -> str:
    return uris.part(request.path, index)


def _original_part(index: int, request: Request) -> str:
    return uris.part(_original_path(request), index)


def _query_value(name: str) -> OfRequest:
    return lambda request: ",".join(request.pairs.get(name, ()))


def _field(tail: str) -> OfRequest:
    name = tail.encode("utf-8", "surrogateescape").lower()
    return lambda request: ",".join(request.values(name))


def _cookie(tail: str) -> OfRequest:
    name = tail.lower()
    return lambda request: next((value for found, value in request.cookies if found.lower() == name), "")


def _variable(name: str) -> OfRequest:
    return lambda request: request.variables.get(name, "")


def _capture(tail: str) -> OfRequest:
    name = f"http.regexp.{tail}"
    return lambda request: request.captures.get(name)


def _remote_network(tail: str) -> OfRequest:
    """``24`` or ``24,56``: how many bits are kept of an IPv4 and of an IPv6 address."""
    bits_4, comma, bits_6 = tail.partition(",")

    def network(request: Request) -> str:
        parsed = hosts.parse_address(request.remote_host)
        if parsed is None:
            return request.remote_host
        bits = hosts.integer(bits_6 if comma and parsed[0].version == 6 else bits_4)
        return "" if bits is None else hosts.prefix(parsed[0], bits)

    return network


_FAMILIES: Final[dict[str, Callable[[str], OfRequest | None]]] = {
    "http.request.host.labels.": _numbered(_label),
    "http.request.uri.path.": _numbered(_part),
    "http.request.uri.query.": _query_value,
    "http.request.orig_uri.path.": _numbered(_original_part),
    "http.request.header.": _field,
    "http.request.cookie.": _cookie,
    "http.request.remote.host/": _remote_network,
    "http.vars.": _variable,
    "http.regexp.": _capture,
}


# The place where we run


def _file_content(path: str) -> OfPlace:
    def content(_environ: Environ) -> str:
        try:
            found = files.read(path, _MAX_FILE_BYTES)
        except (OSError, ValueError):
            return ""
        return uris.text(found.removesuffix(b"\n").removesuffix(b"\r"))

    return content


def _working_directory(_environ: Environ) -> str:
    try:
        return os.getcwd()
    except OSError:
        return ""


_SYSTEM: Final[dict[str, OfPlace]] = {
    "hostname": lambda _: platform.node(),
    "os": lambda _: sys.platform,
    "arch": lambda _: _MACHINES.get(platform.machine(), platform.machine()),
    "slash": lambda _: os.sep,
    "wd": _working_directory,
}
_PLACES: Final[dict[str, Callable[[str], OfPlace | None]]] = {
    "env.": lambda name: lambda environ: environ.get(name, ""),
    "file.": _file_content,
    "system.": _SYSTEM.get,
}


# What only Caddy knows

PASS_ON: Final = "let Caddy pass it on: header_up X-Name {placeholder} in reverse_proxy, {header.X-Name} here"
_OWN_STATE: Final = "it is the state of one of Caddy's own directives"
_LISTENER: Final = "it belongs to Caddy's listener"
_TLS: Final = "TLS ends at Caddy, and all that arrives is whether there was any ({scheme})"
_NO_BODY: Final = "a request is placed by its head, before its body has come"

UNKNOWABLE: Final[dict[str, str]] = {
    "http.request.body": _NO_BODY,
    "http.request.body_base64": _NO_BODY,
    "http.request.remote": "the browser's port stays with Caddy; {remote_host} is its address",
    "http.request.remote.port": "the browser's port stays with Caddy",
    "http.request.local.": _LISTENER,
    "http.request.tls.": _TLS,
    "http.request.duration": "the request has only just begun",
    "http.request.duration_ms": "the request has only just begun",
    "http.response.": "there is no response yet",
    "http.auth.": "Caddy checked who it is",
    "http.vars.": "the variables are Caddy's own",
    "http.reverse_proxy.": _OWN_STATE,
    "http.intercept.": _OWN_STATE,
    "http.error.": _OWN_STATE,
    "http.matchers.": _OWN_STATE,
    "http.handlers.": _OWN_STATE,
    "http.shutting_down": _OWN_STATE,
    "http.time_until_shutdown": _OWN_STATE,
    "tls.": _TLS,
}
"""Names, and beginnings of names that end in a dot, that Caddy knows and we do not; with the reason."""


# Hints


_NUMBERED: Final = {
    "http.request.host.labels.": "labels are numbered from 0, which is the last one",
    "http.request.uri.path.": "the elements of a path are numbered from 0",
    "http.request.orig_uri.path.": "the elements of a path are numbered from 0",
}


def _nearest(name: str) -> str:
    """The known name most like *name*, be that written long, short, or with a tail; or how braces are written."""
    for start, hint in _NUMBERED.items():
        if name.startswith(start) and hosts.integer(name.removeprefix(start)) is not None:
            return hint
    stem, separator, tail = name.rpartition(".")
    for start in (*_FAMILIES, *_PLACES):
        is_like = difflib.SequenceMatcher(None, stem, start[:-1]).ratio() > _LIKENESS
        if separator == start[-1] and stem != start[:-1] and is_like and find(start + tail) is not None:
            return f"did you mean {{{start}{tail}}}?"
    candidates: dict[str, str] = {}
    for known in (*_EXACT, *(f"system.{word}" for word in _SYSTEM)):
        short = known.removeprefix("http.request.").removeprefix("http.vars.")
        for spelling in (known, short, short.removeprefix("uri.")):
            candidates.setdefault(spelling, f"{{{known}}}")
    for start in (*_FAMILIES, *_PLACES):
        candidates.setdefault(start[:-1], f"{{{start}…}}")
        candidates.setdefault(start[:-1].rpartition(".")[2], f"{{{start}…}}")
    close = difflib.get_close_matches(name, candidates, n=1)
    return f"did you mean {candidates[close[0]]}?" if close else "a literal brace is written \\{ or \\}"
