"""The opening handshake of WebSocket, a server's part (RFC 6455 section 4.2), without any I/O."""

from __future__ import annotations

import binascii
import hashlib
import time
from typing import NamedTuple

from ...channel.records import say
from ...http1.errors import ProtocolError
from ...http1.fields import tokens
from ...http1.request import RequestHead

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
VERSION = b"13"


class Offer(NamedTuple):
    """What a client asks for."""

    key: bytes
    subprotocols: list[str]
    extensions: str

    @property
    def accept(self) -> bytes:
        """The value of Sec-WebSocket-Accept."""
        digest = hashlib.sha1(self.key + _GUID, usedforsecurity=False).digest()
        return binascii.b2a_base64(digest, newline=False)


def is_upgrade(head: RequestHead) -> bool:
    """``head`` asks for WebSocket. Any other upgrade is a plain request."""
    return head.upgrade is not None and head.method == "GET" and b"websocket" in tokens(head.upgrade)


def read(head: RequestHead) -> Offer:
    """What ``head``, for which ``is_upgrade`` holds, asks for. Raises ``ProtocolError``."""
    keys = []
    versions = []
    subprotocols = []
    extensions = []
    for name, value in head.headers:
        if name == b"sec-websocket-key":
            keys.append(value)
        elif name == b"sec-websocket-version":
            versions.append(value)
        elif name == b"sec-websocket-protocol":
            subprotocols += [text.strip() for text in value.decode("latin-1").split(",")]
        elif name == b"sec-websocket-extensions":
            extensions.append(value.decode("latin-1"))
    if versions != [VERSION]:
        # RFC 6455 section 4.4: name the version that is spoken; RFC 9110 section 15.5.22: and the protocol.
        spoken = (b"sec-websocket-version", VERSION), (b"upgrade", b"websocket")
        raise ProtocolError(426, "websocket-version", "only version 13 of WebSocket is spoken here", spoken)
    if len(keys) != 1 or not _is_key(keys[0]):
        raise ProtocolError(400, "websocket-key", "one Sec-WebSocket-Key of 16 bytes is required")
    if head.has_body:
        raise ProtocolError(400, "websocket-body", "a WebSocket handshake has no content")
    return Offer(keys[0], [text for text in subprotocols if text], ",".join(extensions))


def _is_key(value: bytes) -> bool:
    try:
        return len(value) == 24 and len(binascii.a2b_base64(value)) == 16
    except binascii.Error:
        return False


_TOLD_EVERY_S = 60.0
_told: dict[str, float] = {}


def full(app: str, most: int) -> ProtocolError:
    """The answer to one more WebSocket than the ``most`` of ``app``; told in the log, once a minute."""
    now = time.monotonic()
    if now - _told.get(app, float("-inf")) >= _TOLD_EVERY_S:
        _told[app] = now
        say("warn", "a WebSocket was refused with 503: as many as max_websockets allows are open", app=app, most=most)
    return ProtocolError(503, "websockets-full", "as many WebSockets as may be are open", ((b"retry-after", b"5"),))
