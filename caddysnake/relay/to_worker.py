"""Requests on their way to a worker: the head as the link carries it, and the framing of the content.

A head of Caddy's of which each line is a field that the parser accepted, and none is the relay's to see to, goes on as
it came. Any other is written anew from the fields that were accepted, so nothing reaches a worker that ``http1`` did
not understand. What is left out or added:

* fields of the connection (Connection, Keep-Alive, Proxy-Connection, Upgrade) are the relay's own, and those that
  Connection names end here (RFC 9110 section 7.6.1); an upgrade is asked for again, and so are trailers. Host and what
  is said of the client stay, whatever Connection names: it is not the client who takes them away;
* ``caddysnake-*`` fields of the client's are dropped. ``caddysnake-prefix`` holds what a route has taken off the path,
  percent-encoded: it becomes the app's SCRIPT_NAME or root_path. A worker may believe it on links only;
* X-Forwarded-For, -Host and -Proto stay as they are when they are Caddy's, and else say what the relay sees
  (``http1.forwarded``): a worker believes them on a link;
* a request of HTTP/1.0 becomes one of HTTP/1.1 (RFC 9110 section 2.5): the version is the link's. An Expect of its is
  ignored (section 10.1.1), so it does not go along.
"""

from __future__ import annotations

from typing import cast

from ..channel.messages import PREFIX_FIELD, RELAY_FIELDS
from ..http1.fields import tokens
from ..http1.forwarded import is_forwarded, own_fields
from ..http1.request import RequestHead
from ..matchers.target import Target

_CONNECTION = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"upgrade", b"transfer-encoding"))
_EXPECT = frozenset((b"expect",))
_NOT_OF_THE_HOP = frozenset((b"host", b"content-length"))
_END = b"\r\n\r\n"
_PLAIN_MAX = 1024
_plain: set[bytes] = set()
"""Names of fields that go along as they are, a bounded number."""


def head_for(head: RequestHead, target: Target, peer: str, is_trusted: bool, came: bytes = b"") -> bytes:
    """The request line and header section for the link, with its blank line.

    ``peer``: the address at the other end of the client's connection, empty when it has none. ``came``: what ``head``
    was read from, and perhaps more behind it; empty when it did not come at once.
    """
    path = head.target
    if target.prefix:
        path = target.path + path[path.find(b"?") :] if b"?" in path else target.path
    elif is_trusted:
        made = head.ready or head.made
        if made is not None:
            return cast(bytes, made)
        raw = came[: came.find(_END) + 4]
        if raw and _goes_as_it_came(head, raw):
            if head.is_shared:
                head.made = raw
            return raw
    return b"%b %b HTTP/1.1\r\n" % (head.method.encode(), path) + _fields(head, target, peer, is_trusted)


def _goes_as_it_came(head: RequestHead, raw: bytes) -> bool:
    """Whether the parser left nothing of ``raw`` out, and there is nothing in it that the relay leaves out."""
    if head.version != "1.1" or head.host is None or head.upgrade is not None or head.target[:1] != b"/":
        return False
    names = dict(head.headers) if head.last is None else head.last
    if not _plain.issuperset(names) and not all(name in _plain or _is_plain(name) for name in names):
        return False
    return raw.count(b"\r\n") == len(head.headers) + 2


def _is_plain(name: bytes) -> bool:
    """Whether a field of that name goes along as it is; remembered."""
    if name in _CONNECTION or name.startswith(RELAY_FIELDS):
        return False
    if len(_plain) >= _PLAIN_MAX:
        _plain.clear()
    _plain.add(name)
    return True


def _fields(head: RequestHead, target: Target, peer: str, is_trusted: bool) -> bytes:
    """The header section, with its blank line."""
    dropped = _CONNECTION
    named = frozenset(name for name in head.hop_fields if name not in _NOT_OF_THE_HOP and not is_forwarded(name))
    if named:
        dropped |= named
    if head.version == "1.0":
        dropped |= _EXPECT
    lines = [
        b": ".join(field)
        for field in head.headers
        if field[0] not in dropped
        and not field[0].startswith(RELAY_FIELDS)
        and (is_trusted or not is_forwarded(field[0]))
    ]
    if b"te" in named and any(name == b"te" and b"trailers" in tokens(value) for name, value in head.headers):
        lines.append(b"te: trailers")
    if head.host is None:
        lines.append(b"host: ")
    if target.prefix:
        lines.append(PREFIX_FIELD + b": " + target.prefix)
    if not is_trusted:
        lines += [b": ".join(field) for field in own_fields(head.host, peer)]
    if head.chunked:
        lines.append(b"transfer-encoding: chunked")
    if head.upgrade is not None:
        lines.append(b"connection: upgrade\r\nupgrade: " + head.upgrade)
    lines.append(b"\r\n")
    return b"\r\n".join(lines)


def framed(content: bytes, is_last: bool) -> bytes:
    """A piece of chunked content (RFC 9112 section 7.1), with the end behind it when it is the last."""
    end = b"0\r\n\r\n" if is_last else b""
    return b"%x\r\n%b\r\n%b" % (len(content), content, end) if content else end
