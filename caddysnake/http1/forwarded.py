"""What a proxy says of its client: read where it is believed, and replaced where it is not.

Of a list the last member counts, which the nearest proxy wrote itself. Fields of a peer that is not trusted are
replaced by what the socket tells: an app sees the same behind a relay and without one, and nothing that a stranger made
up. Of a trusted peer they stay as they are.
"""

from __future__ import annotations

_NAMES = frozenset((b"forwarded", b"x-real-ip", b"x-request-start"))
_PREFIX = b"x-forwarded-"


def is_forwarded(name: bytes) -> bool:
    """Whether a field of that lower-case name is a proxy's word on its client (RFC 7239, and what is customary)."""
    return name.startswith(_PREFIX) or name in _NAMES


def own_fields(host: bytes | None, peer: str) -> list[tuple[bytes, bytes]]:
    """What there is to say of a request whose peer is the client itself; ``peer``: its address, empty for none."""
    fields = [(b"x-forwarded-proto", b"http")]
    if host is not None:
        fields.append((b"x-forwarded-host", host))
    if peer:
        fields.append((b"x-forwarded-for", peer.encode("ascii", "replace")))
    return fields


def last_member(values: bytes) -> bytes:
    """Return the last member of a list (RFC 9110 section 5.6.1); empty when there is none."""
    return values.rpartition(b",")[2].strip(b" \t")


def is_https(proto: bytes) -> bool:
    """Whether the client speaks TLS with the proxy, whose X-Forwarded-Proto is ``proto``. Schemes have no case (RFC
    3986 section 3.1)."""
    return proto == b"https" or last_member(proto).lower() == b"https"


def split_address(text: str) -> tuple[str, int]:
    """Address and port (0: none) of a client: ``192.0.2.1:4711``, ``[2001:db8::1]:4711``, a bare IPv6."""
    address, colon, port = text.rpartition(":")
    if not (colon and port.isascii() and port.isdigit() and len(port) <= 5) or (":" in address and address[-1:] != "]"):
        address, port = text, "0"
    return (address[1:-1] if address[:1] == "[" and address[-1:] == "]" else address), int(port)
