"""The chunked transfer coding of a request (RFC 9112 section 7.1), without any I/O.

As strict as llhttp, whose job this would be: it stops for nobody at the end of a message, and finding that end for it
costs more than decoding. Sizes are one to sixteen hexadecimal digits, lines end in CRLF and nothing else, extensions
and trailers must be well formed and are dropped. How the bytes are split never matters; content is not copied twice.
"""

from __future__ import annotations

import re
from enum import Enum

from .errors import ProtocolError
from .fields import is_field_value, is_token

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
_EXTENSION = rb";" + _TOKEN + rb"(?:=(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?"
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:" + _EXTENSION + rb")*\r\n")
_PLAIN_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})\r\n")
_SIZE_BEGUN = re.compile(rb"[0-9A-Fa-f]{1,16}(?:\r|;[\t\x20-\x7e\x80-\xff]*\r?)?\Z")
Piece = bytes | memoryview
"""Some content: bytes, or a part of what was read with it."""

_VIEW_MIN_BYTES = 4096
"""Content of this size is not copied out of what was read."""

_FRAMING = frozenset((b"content-length", b"transfer-encoding", b"host"))


class _State(Enum):
    SIZE = "size"
    DATA = "data"
    CR = "cr"  # of the line end behind a chunk's data
    LF = "lf"
    TRAILERS = "trailers"
    DONE = "done"


# CPython 3.11 reaches a member through its class by a descriptor written in Python.
_SIZE, _DATA, _CR, _LF, _TRAILERS, _DONE = _State


class ChunkDecoder:
    """Decodes one message's content. ``is_done`` once its last byte has been fed."""

    __slots__ = ("_held", "_left", "_state", "received")

    def __init__(self) -> None:
        self._state = _SIZE
        self._held = b""  # the beginning of a line
        self._left = 0
        self.received = 0
        """Bytes of content so far."""

    @property
    def is_done(self) -> bool:
        """The last chunk and the trailers have come."""
        return self._state is _DONE

    def feed(self, data: bytes, at: int, content: list[Piece]) -> int:
        """Decode ``data`` from ``at``, adding to ``content``; where it stopped. Raises ``ProtocolError``."""
        end = len(data)
        while at < end:
            state = self._state
            if state is _DATA:
                stop = min(at + self._left, end)
                size = stop - at
                content.append(data[at:stop] if size < _VIEW_MIN_BYTES else memoryview(data)[at:stop])
                self.received += size
                self._left -= size
                at = stop
                if not self._left:
                    self._state = _CR
            elif state is _SIZE:
                if not self._held:
                    at = self._whole_chunks(data, at, content)
                    if at == end:
                        break
                at = self._size_line(data, at)
            elif state is _CR:
                if data[at] != 13:
                    raise _malformed("a chunk does not end where its size says")
                at += 1
                self._state = _LF
            elif state is _LF:
                if data[at] != 10:
                    raise _malformed("a chunk does not end where its size says")
                at += 1
                self._state = _SIZE
            elif state is _TRAILERS:
                at = self._trailer(data, at)
            else:
                break
        return at

    def _whole_chunks(self, data: bytes, at: int, content: list[Piece]) -> int:
        """Decode chunks of which all is there, and that have no extensions, as long as there are such."""
        while (found := _PLAIN_SIZE.match(data, at)) is not None:
            begin = found.end()
            stop = begin + int(found[1], 16)
            if stop == begin or data[stop : stop + 2] != b"\r\n":
                break
            size = stop - begin
            content.append(data[begin:stop] if size < _VIEW_MIN_BYTES else memoryview(data)[begin:stop])
            self.received += size
            at = stop + 2
        return at

    def _size_line(self, data: bytes, at: int) -> int:
        if self._held:
            line, at = self._line(data, at)
            if not line:
                if _SIZE_BEGUN.match(self._held) is None:
                    raise _malformed("not a chunk size")
                return at
            found = _SIZE_LINE.fullmatch(line)
        else:
            found = _SIZE_LINE.match(data, at)
            if found is None and data.find(b"\n", at) < 0:
                self._held = data[at:]
                if _SIZE_BEGUN.match(self._held) is None:
                    raise _malformed("not a chunk size")
                return len(data)
            if found is not None:
                at = found.end()
        if found is None:
            raise _malformed("not a chunk size")
        self._left = int(found[1], 16)
        self._state = _DATA if self._left else _TRAILERS
        return at

    def _trailer(self, data: bytes, at: int) -> int:
        line, at = self._line(data, at)
        if line == b"\r\n":
            self._state = _DONE
        elif line:
            name, colon, value = line[:-2].partition(b":")
            if not colon or not is_token(name) or not is_field_value(value) or name.lower() in _FRAMING:
                raise _malformed("a malformed trailer")
        return at

    def _line(self, data: bytes, at: int) -> tuple[bytes, int]:
        """The next line with its CRLF, and where it ends; nothing when it is not whole yet."""
        end = data.find(b"\n", at) + 1
        if not end:
            self._held += data[at:]
            return b"", len(data)
        line, self._held = self._held + data[at:end], b""
        if line[-2:] != b"\r\n":
            raise _malformed("a line that ends in a bare LF")
        return line, end


def _malformed(text: str) -> ProtocolError:
    return ProtocolError(400, "malformed", text)
