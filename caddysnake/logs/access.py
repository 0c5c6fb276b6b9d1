"""A request that a worker has answered, as Caddy's access log has it. Pure.

A worker writes what it has at hand, NUL between the parts: names and values of header fields as they came, and its own
head as it left. Making a record of that costs as much as serving a small request, so it is done here. The worker may be
hostile: what is malformed is ``ValueError``.

Caddy's additions to what a browser sent (Via, X-Forwarded-…) are not shown among the headers: they are the protocol,
the addresses and the host, as in Caddy's own record of the same request.
"""

from __future__ import annotations

from typing import Any

from ..channel.traces import trace_in
from .records import Record

LOGGER = "http.log.access"
MESSAGE = "handled request"
REDACTED = ["REDACTED"]
SECRET = frozenset(("Cookie", "Set-Cookie", "Authorization", "Proxy-Authorization"))
"""Whose values Caddy does not log."""

_NUMBERS = 6
_PARTS = 10
_TRUSTED, _LINK = 1, 2
_QUEUE_SHIFT = 8
"""Above so many bits of the flags stand microseconds that it waited before the app was called."""
_ADDED = frozenset((b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"))
_HOP = frozenset((b"connection", b"transfer-encoding", b"keep-alive"))
_PREFIX = b"caddysnake-prefix"
"""Between a relay and a worker, and for nobody to see."""
_OWN = frozenset((b"host", _PREFIX))
_names: dict[bytes, tuple[str, bytes]] = {}
_NAMES_MAX = 1024


def read(line: bytes, with_credentials: bool, ts: float) -> Record:
    """The record of an access line, without its first byte and its end. Raises ``ValueError``."""
    parts = line.split(b"\0")
    if len(parts) < _PARTS + 1:
        raise ValueError("a short access line")
    took_us, received, sent, status, flags, remote_port = (_number(part) for part in parts[:_NUMBERS])
    peer, method, version, target = parts[_NUMBERS:_PARTS]
    try:
        end = parts.index(b"", _PARTS)
        while (end - _PARTS) % 2:  # an empty value
            end = parts.index(b"", end + 1)
    except ValueError:
        raise ValueError("an access line without an end of its header") from None
    fields = list(zip(parts[_PARTS:end:2], parts[_PARTS + 1 : end : 2], strict=True))
    last = dict(fields)
    remote = _text(peer)
    proto = b"HTTP/" + version
    host = last.get(b"host", b"")
    trusted = flags & _TRUSTED
    client = remote
    port = str(remote_port) if remote_port else ""
    if trusted:
        hops = [hop.strip() for hop in _text(last.get(b"x-forwarded-for", b"")).split(",")]
        if hops[-1]:
            remote, client, port = hops[-1], hops[0], ""
        via = last.get(b"via", b"").rpartition(b",")[2].split()
        if len(via) == 2 and via[1] == b"Caddy":
            proto = b"HTTP/" + via[0]
    if flags & _LINK and _PREFIX in last:
        target = last[_PREFIX] + target
    request: dict[str, Any] = {
        "remote_ip": remote,
        "remote_port": port,
        "client_ip": client,
        "proto": _text(proto),
        "method": _text(method),
        "host": _text(host),
        "uri": _text(target),
        "headers": _headers(fields, _ADDED | _OWN if trusted else _OWN, with_credentials),
    }
    answer = [line.partition(b":") for line in parts[end + 2 :]]
    entry = {
        "request": request,
        "bytes_read": received,
        "user_id": "",
        "duration": took_us / 1e6,
        "size": sent,
        "status": status,
        "resp_headers": _headers([(name, value.lstrip()) for name, _, value in answer], _HOP, with_credentials),
        "queue": (flags >> _QUEUE_SHIFT) / 1e6,
    }
    trace = trace_in(fields)
    if trace:
        entry["traceID"] = trace
    return Record("error" if status >= 500 else "info", ts, LOGGER, MESSAGE, entry)


def _headers(
    fields: list[tuple[bytes, bytes]], without: frozenset[bytes], with_credentials: bool
) -> dict[str, list[str]]:
    shown: dict[str, list[str]] = {}
    for name, value in fields:
        key, lower = _names.get(name) or _learn(name)
        if lower in without:
            continue
        if key in SECRET and not with_credentials:
            shown[key] = REDACTED
        else:
            shown.setdefault(key, []).append(_text(value))
    return shown


def _learn(name: bytes) -> tuple[str, bytes]:
    """The name as Go writes it, ``User-Agent``, and in lower case."""
    made = "-".join(part[:1].upper() + part[1:].lower() for part in _text(name).split("-")), name.lower()
    if len(name) <= 64:
        if len(_names) >= _NAMES_MAX:
            _names.clear()
        _names[name] = made
    return made


def _number(part: bytes) -> int:
    if not part.isdigit() or len(part) > 18:
        raise ValueError("an access line with a bad number")
    return int(part)


def _text(part: bytes) -> str:
    return part.decode("utf-8", "backslashreplace")
