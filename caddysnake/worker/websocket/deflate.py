"""permessage-deflate (RFC 7692): negotiation, and one connection's compressors, without any I/O.

Windows are kept small: zlib's own defaults cost over 250 kB for each idle socket, ours some 30 kB, at a compression
that is hardly worse for messages of the usual sizes.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

NAME = "permessage-deflate"
SERVER_WINDOW_BITS = 11
CLIENT_WINDOW_BITS = 11
_MEMORY_LEVEL = 4
_LEVEL = 6
TAIL = b"\x00\x00\xff\xff"
"""What a sender leaves out at the end of a message (RFC 7692 section 7.2.1)."""

_TAILS = (TAIL, b"\0" + TAIL)


class DeflateError(Exception):
    """The peer's data cannot be inflated."""


class Agreement(NamedTuple):
    """What both sides keep to."""

    server_window_bits: int = SERVER_WINDOW_BITS
    client_window_bits: int = 15
    server_no_context: bool = False
    client_no_context: bool = False
    names_client_window: bool = False

    def header(self) -> str:
        """The value of Sec-WebSocket-Extensions in the answer."""
        parts = [NAME]
        if self.server_no_context:
            parts.append("server_no_context_takeover")
        if self.client_no_context:
            parts.append("client_no_context_takeover")
        parts.append(f"server_max_window_bits={self.server_window_bits}")
        if self.names_client_window:
            parts.append(f"client_max_window_bits={self.client_window_bits}")
        return "; ".join(parts)


def negotiate(offers: str) -> Agreement | None:
    """Agree to the first offer in Sec-WebSocket-Extensions that we can keep; None when there is none."""
    # A quoted value must be a token as well (RFC 6455 section 9.1), so no comma or semicolon can hide in one.
    for offer in offers.split(","):
        name, *parameters = [part.strip(" \t") for part in offer.split(";")]
        if name == NAME:
            agreement = _accept(parameters)
            if agreement is not None:
                return agreement
    return None


def _accept(parameters: list[str]) -> Agreement | None:
    """What one offer leads to; None when it is malformed or asks for what zlib cannot do (RFC 7692 section 7.1)."""
    agreed = Agreement()
    seen = set()
    for parameter in parameters:
        name, equals, value = (part.strip(" \t") for part in parameter.partition("="))
        value = value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value
        if name in seen:
            return None
        seen.add(name)
        if name == "server_no_context_takeover" and not equals:
            agreed = agreed._replace(server_no_context=True)
        elif name == "client_no_context_takeover" and not equals:
            agreed = agreed._replace(client_no_context=True)
        elif name == "server_max_window_bits" and _is_bits(value):
            if int(value) == 8:
                return None  # zlib makes no raw stream with so small a window
            agreed = agreed._replace(server_window_bits=min(int(value), SERVER_WINDOW_BITS))
        elif name == "client_max_window_bits" and (not equals or _is_bits(value)):
            bits = min(int(value or 15), CLIENT_WINDOW_BITS)
            agreed = agreed._replace(client_window_bits=bits, names_client_window=True)
        else:
            return None
    return agreed


def _is_bits(value: str) -> bool:
    return value in ("8", "9", "10", "11", "12", "13", "14", "15")


class Deflate:
    """The compressors of one connection; they are made when first needed."""

    __slots__ = ("_agreed", "_compressor", "_decompressor")

    def __init__(self, agreed: Agreement) -> None:
        self._agreed = agreed
        self._compressor: zlib._Compress | None = None
        self._decompressor: zlib._Decompress | None = None

    def deflate(self, data: bytes | memoryview, is_end: bool = True) -> bytes:
        """The payload of a message with content ``data``; or of a part of one, of which ``is_end`` is the last."""
        compressor = self._compressor
        if compressor is None:
            bits = self._agreed.server_window_bits
            compressor = self._compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, -bits, _MEMORY_LEVEL)
        if not is_end:
            return compressor.compress(data)
        if self._agreed.server_no_context:
            self._compressor = None
        return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[: -len(TAIL)]

    def forget(self) -> None:
        """Begin anew: a message was deflated in part and is not sent."""
        self._compressor = None

    def inflate(self, data: bytes, most_bytes: int, is_end: bool) -> tuple[bytes, bytes | None]:
        """Some of the content that ``data``, a part of a message, brings, at most ``most_bytes``; and what is to be
        given again for more, None when that was all. ``is_end``: the message ends with it, and with ``TAIL``.

        Raises ``DeflateError``.
        """
        decompressor = self._decompressor
        if decompressor is None:
            decompressor = self._decompressor = zlib.decompressobj(-self._agreed.client_window_bits)
        try:
            piece = decompressor.decompress(data, most_bytes)
        except zlib.error:
            raise DeflateError("the message cannot be inflated") from None
        rest: bytes | None = decompressor.unconsumed_tail
        is_whole = not rest and len(piece) < most_bytes  # else zlib may hold some back
        if decompressor.eof:
            # A block marked as final ends zlib's stream, not the connection's (RFC 7692 section 7.2.3.5).
            self._decompressor = None
            rest = decompressor.unused_data
            is_whole = not rest or (is_end and rest in _TAILS)
        if not is_whole:
            return piece, rest
        if is_end and self._agreed.client_no_context:
            self._decompressor = None
        return piece, None
