"""WebSocket frames (RFC 6455 section 5), from bytes to messages and back, without any I/O.

``Receiver`` takes bytes as they come and gives whole messages: payloads are unmasked, inflated and checked for UTF-8
piece by piece, so that a large message neither blocks the loop nor waits for its end to be found wrong. The commonest
frame, a short whole message, takes a short way through. What breaks a rule becomes one last ``FAIL`` event with the
close code to send; nothing is looked at after it.

What some bytes become has no bound: a kilobyte inflates to a megabyte, or is a hundred messages. So ``feed`` does a
bounded amount of work, and holds the rest of what it was given until it is called again.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from io import StringIO
from typing import Any

from .deflate import TAIL, Deflate, DeflateError
from .mask import unmask

# Opcodes (RFC 6455 section 5.2), and the kinds of events.
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
FAIL = 16

Event = tuple[int, Any]
"""Kind and content: text (str), binary (bytes), ping and pong (bytes), close and fail (code, reason)."""

# Close codes (RFC 6455 section 7.4.1 and its registry).
NORMAL, GOING_AWAY, PROTOCOL_ERROR, NO_STATUS, ABNORMAL = 1000, 1001, 1002, 1005, 1006
INVALID_DATA, TOO_BIG, INTERNAL_ERROR, SERVICE_RESTART = 1007, 1009, 1011, 1012
_SENDABLE = frozenset((1000, 1001, 1002, 1003, *range(1007, 1015)))
REASON_MAX_BYTES = 123

FRAMES_MAX = 256
CONTENT_MAX_BYTES = 128 * 1024
"""``feed`` stops behind so many frames, or so much content, which a message that ends may exceed."""

_FIN, _RSV1, _RSV, _MASKED = 0x80, 0x40, 0x70, 0x80
_SHORT_TEXT = _FIN | TEXT
_SHORT = frozenset((_SHORT_TEXT, _FIN | BINARY))
_DECODER = codecs.getincrementaldecoder("utf-8")


class WebSocketError(Exception):
    """The peer broke a rule; ``code`` is the close code that says so."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Receiver:
    """Frames of a client to messages. ``limit_bytes`` bounds one message, after inflation."""

    __slots__ = (
        "_content_bytes",
        "_control",
        "_deflate",
        "_deflated",
        "_fin",
        "_held",
        "_inflating",
        "_left",
        "_limit",
        "_mask",
        "_message",
        "_opcode",
        "_rest",
        "_size",
        "_validate",
        "has_more",
        "is_done",
    )

    def __init__(self, limit_bytes: int, deflate: Deflate | None = None) -> None:
        self._limit = limit_bytes
        self._deflate = deflate
        self.is_done = False
        """A close frame has come, or the peer broke a rule: the rest is not looked at."""
        self.has_more = False
        """There is more to be done without more bytes: call ``feed`` again."""
        self._rest = b""
        self._content_bytes = 0  # made in this call of `feed`
        self._held = b""  # the beginning of a frame's head
        # The frame whose payload is arriving: what is left of it (-1: none is), its mask turned to where we are.
        self._left = -1
        self._mask = b""
        self._fin = True
        self._control = -1  # the opcode of a control frame, whose payload is in _held
        # The message that is arriving, over several frames perhaps: -1 when none is.
        self._opcode = -1
        self._size = 0
        self._inflating = False
        self._deflated: bytes | None = None  # of its frame, what is still to be inflated
        self._message: bytearray | StringIO | None = None
        self._validate: Callable[[bytes, bool], str] | None = None

    def feed(self, data: bytes) -> list[Event]:
        """The events that ``data`` completes, behind what was held: some of them, while ``has_more``."""
        if len(data) > 5 and data[0] in _SHORT and self._opcode < 0 and self._left < 0:
            # One whole message that is not large, as most are.
            start = 2 if data[1] < 254 else 4
            size = len(data) - start - 4
            is_whole = size == (data[1] - 128 if start == 2 else data[2] << 8 | data[3]) and data[1] < 255
            if is_whole and size <= self._limit and not (self._held or self.has_more or self.is_done):
                payload = unmask(data[start + 4 :], data[start : start + 4])
                if data[0] != _SHORT_TEXT:
                    return [(BINARY, payload)]
                try:
                    return [(TEXT, payload.decode())]
                except UnicodeDecodeError:
                    pass  # it is told of below
        events: list[Event] = []
        if self.is_done:
            return events
        if self.has_more:
            data, self._rest = self._rest + data, b""
        if self._held:
            data, self._held = self._held + data, b""
        self._content_bytes = 0
        try:
            at = self._feed(data, events)
        except WebSocketError as error:
            self.is_done = True
            events.append((FAIL, (error.code, str(error))))
            at = len(data)
        if at < len(data):
            self._rest = data[at:]
        self.has_more = not self.is_done and (at < len(data) or self._deflated is not None)
        return events

    def _feed(self, data: bytes, events: list[Event]) -> int:
        """Where in ``data`` it stopped."""
        at, end = 0, len(data)
        for _ in range(FRAMES_MAX):
            if self._content_bytes > CONTENT_MAX_BYTES:
                return at
            if self._left >= 0:
                at = self._payload(data, at, events)
                if self.is_done:
                    return at
                if self._deflated is not None:
                    continue
                if self._left >= 0:
                    return end
            if end - at < 2:
                break
            first, second = data[at], data[at + 1]
            if first in _SHORT and self._opcode < 0 and 128 <= second < 254:
                stop = at + 6 + (second & 127)
                if stop <= end:
                    if stop - at - 6 > self._limit:
                        raise WebSocketError(TOO_BIG, "the message is too big")
                    payload = unmask(data[at + 6 : stop], data[at + 2 : at + 6])
                    events.append((TEXT, _text(payload)) if first == _SHORT_TEXT else (BINARY, payload))
                    at = stop
                    continue
            after = self._head(data, at, end)
            if after < 0:
                break
            at = after
        else:
            return at
        if at < end:
            self._held = data[at:]
        return end

    def _head(self, data: bytes, at: int, end: int) -> int:
        """Take a frame's head; where its payload begins, -1: the head is not complete. Raises ``WebSocketError``."""
        first, second = data[at], data[at + 1]
        opcode, length = first & 15, second & 127
        self._check_head(first, opcode, second & _MASKED, length)
        start = at + 2
        if length > 125:
            width = 2 if length == 126 else 8
            if end - start < width:
                return -1
            length = int.from_bytes(data[start : start + width], "big")
            start += width
            if length >> 63:
                raise WebSocketError(PROTOCOL_ERROR, "a length with its highest bit set")
        if opcode < CLOSE and self._size + length > self._limit and not (first & _RSV1 or self._inflating):
            raise WebSocketError(TOO_BIG, "the message is too big")
        if end - start < 4:
            return -1
        self._mask = data[start : start + 4]
        self._left = length
        self._fin = bool(first & _FIN)
        if opcode >= CLOSE:
            self._control = opcode
        elif opcode != CONTINUATION:
            self._open(opcode, bool(first & _RSV1))
        return start + 4

    def _check_head(self, first: int, opcode: int, is_masked: int, length: int) -> None:
        if first & _RSV and not (first & _RSV == _RSV1 and self._deflate is not None and opcode in (TEXT, BINARY)):
            raise WebSocketError(PROTOCOL_ERROR, "a reserved bit is set")
        if not is_masked:
            raise WebSocketError(PROTOCOL_ERROR, "a frame that is not masked")
        if opcode >= CLOSE:
            if opcode > PONG:
                raise WebSocketError(PROTOCOL_ERROR, "a reserved opcode")
            if not first & _FIN:
                raise WebSocketError(PROTOCOL_ERROR, "a control frame in pieces")
            if length > 125:
                raise WebSocketError(PROTOCOL_ERROR, "a control frame of more than 125 bytes")
        elif opcode > BINARY:
            raise WebSocketError(PROTOCOL_ERROR, "a reserved opcode")
        elif (opcode == CONTINUATION) is (self._opcode < 0):
            raise WebSocketError(PROTOCOL_ERROR, "a continuation of nothing, or a message inside another")

    def _open(self, opcode: int, inflating: bool) -> None:
        self._opcode = opcode
        self._size = 0
        self._inflating = inflating
        if opcode == TEXT:
            self._message = StringIO(newline="")
            self._validate = _DECODER().decode
        else:
            self._message = bytearray()

    def _payload(self, data: bytes, at: int, events: list[Event]) -> int:
        take = min(self._left, len(data) - at)
        piece = data[at : at + take]
        if self._control >= 0:
            if take < self._left:  # at most 125 bytes: wait for all of them
                self._held = data[at:]
                return len(data)
            self._left = -1
            opcode, self._control = self._control, -1
            self._close_or_ping(opcode, unmask(piece, self._mask), events)
            return at + take
        if self._deflated is None:
            at += take
            self._left -= take
            if take:
                piece = unmask(piece, self._mask)
                turn = take & 3
                if turn:
                    self._mask = self._mask[turn:] + self._mask[:turn]
            if self._inflating:
                self._deflated = piece + TAIL if self._fin and not self._left else piece
            else:
                self._content(piece, self._fin and not self._left)
        if self._deflated is not None:
            self._inflate(self._deflated, self._fin and not self._left)
            if self._deflated is not None:
                return at
        if not self._left:
            self._left = -1
            if self._fin:
                self._finish(events)
        return at

    def _inflate(self, data: bytes, is_end: bool) -> None:
        """Add some of what ``data`` brings to the message, and keep the rest."""
        assert self._deflate is not None
        # One more than allowed, so that "too much" is seen without making all of it.
        most = min(self._limit - self._size + 1, CONTENT_MAX_BYTES // 2)
        try:
            piece, self._deflated = self._deflate.inflate(data, most, is_end)
        except DeflateError as error:
            raise WebSocketError(PROTOCOL_ERROR, str(error)) from None
        if self._size + len(piece) > self._limit:
            raise WebSocketError(TOO_BIG, "the message is too big")
        self._content(piece, is_end and self._deflated is None)

    def _content(self, piece: bytes, is_end: bool) -> None:
        """Add to the message."""
        self._size += len(piece)
        self._content_bytes += len(piece)
        message = self._message
        if isinstance(message, bytearray):
            message += piece
            return
        assert message is not None
        assert self._validate is not None
        try:
            message.write(self._validate(piece, is_end))
        except UnicodeDecodeError:
            raise WebSocketError(INVALID_DATA, "a text that is not UTF-8") from None

    def _finish(self, events: list[Event]) -> None:
        message = self._message
        if isinstance(message, bytearray):
            events.append((BINARY, bytes(message)))
        elif message is not None:
            events.append((TEXT, message.getvalue()))
        self._message = self._validate = None
        self._opcode = -1
        self._size = 0
        self._inflating = False

    def _close_or_ping(self, opcode: int, payload: bytes, events: list[Event]) -> None:
        if opcode != CLOSE:
            events.append((opcode, payload))
            return
        events.append((CLOSE, _read_close(payload)))
        self.is_done = True


def _text(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise WebSocketError(INVALID_DATA, "a text that is not UTF-8") from None


def _read_close(payload: bytes) -> tuple[int, str]:
    if not payload:
        return NO_STATUS, ""
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or not is_sendable(code):
        raise WebSocketError(PROTOCOL_ERROR, "a malformed close frame")
    return code, _text(payload[2:])


def is_sendable(code: int) -> bool:
    """``code`` may stand in a close frame (RFC 6455 section 7.4)."""
    return code in _SENDABLE or 3000 <= code < 5000


def frame(opcode: int, payload: bytes, rsv1: bool = False) -> bytes | tuple[bytes, bytes]:
    """A whole message, or a control frame, as a server sends it: unmasked. Large payloads are not copied."""
    first = _FIN | opcode | (_RSV1 if rsv1 else 0)
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65536:
        return bytes((first, 126, size >> 8, size & 255)) + payload
    return bytes((first, 127)) + size.to_bytes(8, "big"), payload


def control_frame(opcode: int, payload: bytes) -> bytes:
    """A ping, a pong or a close, as a server sends it; ``payload`` has at most 125 bytes."""
    return bytes((_FIN | opcode, len(payload))) + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """A close frame; without a payload for ``NO_STATUS``. A reason that is too long is cut at a character."""
    payload = b""
    if code != NO_STATUS:
        text = reason.encode("utf-8", "replace")
        if len(text) > REASON_MAX_BYTES:
            text = text[:REASON_MAX_BYTES].decode("utf-8", "ignore").encode()
        payload = code.to_bytes(2, "big") + text
    return control_frame(CLOSE, payload)
