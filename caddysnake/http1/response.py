"""Responses, from status, headers and content to bytes, without any I/O.

``Response`` decides the framing and keeps the app to it, for both servers:

====================================  ================================================================
the app sent                          framing
====================================  ================================================================
HEAD, 1xx, 204, 304                   no content, whatever the app gives; 204 loses its Content-Length
205                                   an empty content (RFC 9110 section 15.3.6)
Content-Length                        counted: more raises at once, less raises at the end
nothing, whole content at once        Content-Length is added
nothing, HTTP/1.1                     chunked
nothing, HTTP/1.0                     ends with the connection
====================================  ================================================================

Connection, Keep-Alive and Transfer-Encoding are ours: what the app says there is taken as a wish (``close``) or
dropped. No field can smuggle another: the finished head is checked once for control characters. Nothing that raised
has changed what goes over the wire.

Usage: ``start`` once, then ``send`` with ``more`` until the last, which returns with ``is_done`` set. The head leaves
with the first ``send``, or earlier through ``flush_head``, so that a slow stream opens at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from .date import date_line
from .errors import ResponseError
from .fields import is_field_value, is_token, tokens
from .phrases import PHRASES
from .request import RequestHead

Headers = Iterable[tuple[bytes, bytes]]
Output = bytes | tuple[bytes, ...]
"""What to write: one piece, or several that are too large to be copied into one."""

JOIN_MAX_BYTES = 64 * 1024
"""Content up to this size is copied behind its head or chunk size, to leave in one write."""

_CONTROLS = bytes(range(32)) + b"\x7f"
_CONTROLS_BUT_TAB = _CONTROLS.replace(b"\t", b"")
_STATUS_LINES = {status: b"HTTP/1.1 %d %s" % (status, phrase.encode()) for status, phrase in PHRASES.items()}
_LEARNED_MAX = 1024
_LEARNED_NAME_MAX = 64


class Phase(Enum):
    """The life of one response."""

    WAITING = "waiting"  # nothing given
    STARTED = "started"  # status and headers given, nothing sent
    STREAMING = "streaming"  # the head is out
    TRAILERS = "trailers"  # the content is out, trailers are to come
    DONE = "done"
    BROKEN = "broken"  # cannot be completed: the connection must be cut


class _Framing(Enum):
    NONE = "none"  # no content at all
    LENGTH = "length"
    OPEN = "open"  # the app named no length; decided when the head leaves
    CHUNKED = "chunked"
    CLOSE = "close"


class _Field(Enum):
    PLAIN = 0
    CONTENT_LENGTH = 1
    TRANSFER_ENCODING = 2
    CONNECTION = 3
    KEEP_ALIVE = 4
    UPGRADE = 5
    DATE = 6
    SERVER = 7


_FIELDS = {
    b"content-length": _Field.CONTENT_LENGTH,
    b"transfer-encoding": _Field.TRANSFER_ENCODING,
    b"connection": _Field.CONNECTION,
    b"keep-alive": _Field.KEEP_ALIVE,
    b"proxy-connection": _Field.KEEP_ALIVE,
    b"upgrade": _Field.UPGRADE,
    b"date": _Field.DATE,
    b"server": _Field.SERVER,
}
_PLAIN = _Field.PLAIN
_names: dict[bytes, tuple[bytes, _Field]] = {}


def _learn(name: object) -> tuple[bytes, _Field]:
    """The start of a line with ``name``, and whether it means something to us. Remembered in a bounded table."""
    if not isinstance(name, bytes):
        raise ResponseError(f"a header name must be bytes, not {type(name).__name__}")
    if not is_token(name):
        raise ResponseError(f"a header name with a character that is not allowed: {name[:80]!r}")
    learned = (b"\r\n" + name + b": ", _FIELDS.get(name.lower(), _PLAIN))
    if len(name) <= _LEARNED_NAME_MAX:
        if len(_names) >= _LEARNED_MAX:
            _names.clear()
        _names[name] = learned
    return learned


class Response:
    """The answer to ``request``.

    ``close``: end the connection after it. ``server``: value of the Server field, none when empty. ``request`` is None
    when the answer is to something that could not be parsed.
    """

    __slots__ = ("_framing", "_head", "_remaining", "_request", "_server", "_trailers", "close", "phase", "status")

    def __init__(self, request: RequestHead | None, close: bool = False, server: bytes = b"") -> None:
        self._request = request
        self._server = server
        self.close = close
        """The connection ends after this response. Settled when the head leaves."""
        self.phase = Phase.WAITING
        self.status = 0
        self._head = b""
        self._framing = _Framing.OPEN
        self._remaining = 0
        self._trailers = False

    @property
    def is_done(self) -> bool:
        return self.phase is Phase.DONE

    @property
    def head_sent(self) -> bool:
        """A head has been handed out: nothing else can be answered any more."""
        return self.phase not in (Phase.WAITING, Phase.STARTED)

    @property
    def declared_length(self) -> int | None:
        """The size of content that the app declared and has not sent yet; None when it declared none."""
        return self._remaining if self._framing is _Framing.LENGTH else None

    @property
    def is_satisfied(self) -> bool:
        """The head is out, and no content of the app's can follow: all that was declared is there, or none is allowed."""
        if self.phase is Phase.STREAMING:
            return self._framing is _Framing.NONE or (self._framing is _Framing.LENGTH and not self._remaining)
        return self.phase is Phase.DONE

    def reset(self) -> None:
        """Forget a head that has not left, as PEP 3333 has it for ``exc_info``."""
        assert not self.head_sent
        self.phase = Phase.WAITING
        self._framing = _Framing.OPEN

    def start(self, status: int, headers: Headers, reason: bytes | None = None, trailers: bool = False) -> None:
        """Take status and headers. ``trailers``: the app announces trailers. Raises ``ResponseError``."""
        if self.phase is not Phase.WAITING:
            raise ResponseError("the response has been started already")
        if reason is None:
            line = _STATUS_LINES.get(status)
            if line is None:
                line = _status_line(status, b"")
        else:
            line = _status_line(status, reason)
        if status < 200:
            raise ResponseError(f"an informational status ({status}) cannot start a response")
        parts = [line]
        length = -1
        close = self.close
        has_date = has_server = upgrade = False
        for name, value in headers:
            known = _names.get(name)
            prefix, field = known if known is not None else _learn(name)
            if field is not _PLAIN:
                if field is _Field.CONTENT_LENGTH:
                    length = _content_length(value, length)
                    continue
                if field is _Field.CONNECTION:
                    close = close or b"close" in tokens(value)
                    continue
                if field is _Field.TRANSFER_ENCODING or field is _Field.KEEP_ALIVE:
                    continue
                if field is _Field.DATE:
                    has_date = True
                elif field is _Field.SERVER:
                    has_server = True
                else:
                    upgrade = True
            parts.append(prefix)
            parts.append(value)
        if not has_server and self._server:
            parts.append(b"\r\nserver: ")
            parts.append(self._server)
        if upgrade:
            parts.append(b"\r\nconnection: upgrade")
        try:
            head = b"".join(parts)
        except TypeError:
            raise ResponseError("a header value must be bytes") from None
        # Each line but the first brings exactly one CR and one LF.
        lines = len(parts) // 2 if not upgrade else (len(parts) - 1) // 2 + 1
        if len(head) - len(head.translate(None, _CONTROLS_BUT_TAB)) != 2 * lines:
            raise _guilty(headers)
        self._head = head if has_date else head + date_line()
        self._settle(status, length)
        self._trailers = trailers
        self.close = close
        self.status = status
        self.phase = Phase.STARTED

    def _settle(self, status: int, length: int) -> None:
        request = self._request
        if request is not None and request.method == "HEAD":
            self._framing = _Framing.NONE
            if length >= 0:
                self._head += b"\r\ncontent-length: %d" % length
        elif status in (204, 304):
            self._framing = _Framing.NONE
            if length >= 0 and status == 304:
                self._head += b"\r\ncontent-length: %d" % length
        elif status == 205:
            self._framing = _Framing.NONE
            self._head += b"\r\ncontent-length: 0"
        elif length >= 0:
            self._framing = _Framing.LENGTH
            self._remaining = length
            self._head += b"\r\ncontent-length: %d" % length

    def flush_head(self) -> bytes:
        """The head alone, because the content is not there yet. Only in ``Phase.STARTED``."""
        assert self.phase is Phase.STARTED
        self.phase = Phase.STREAMING
        return self._leave(0, more=True)

    def send(self, data: bytes, more: bool) -> Output:
        """The bytes to write for ``data``; ``more`` is to come, or this is the end. Raises ``ResponseError``."""
        phase = self.phase
        if phase is not Phase.STREAMING and phase is not Phase.STARTED:
            raise ResponseError(_OUT_OF_TURN[phase])
        framing = self._framing
        if framing is _Framing.LENGTH:
            remaining = self._remaining - len(data)
            if remaining < 0 or (remaining and not more):
                raise self._wrong_length(remaining)
            self._remaining = remaining
        head = self._leave(len(data), more) if phase is Phase.STARTED else b""
        framing = self._framing
        if framing is _Framing.NONE:
            data = b""
        end = b""
        if framing is _Framing.CHUNKED:
            if data:
                head += b"%x\r\n" % len(data)
                end = b"\r\n"
            if not more:
                end += b"0\r\n" if self._trailers else b"0\r\n\r\n"
        if more:
            self.phase = Phase.STREAMING
        else:
            self.phase = Phase.TRAILERS if self._trailers else Phase.DONE
        if len(data) <= JOIN_MAX_BYTES:
            return head + data + end if end else head + data
        return (head, data, end) if end else (head, data) if head else data

    def send_trailers(self, headers: Headers, more: bool) -> bytes:
        """The bytes to write for trailer fields; dropped where the framing has no place for them."""
        if self.phase is not Phase.TRAILERS:
            raise ResponseError(_OUT_OF_TURN.get(self.phase, "trailers before the end"))
        lines = b"".join(_trailer(name, value) for name, value in headers)
        if not more:
            self.phase = Phase.DONE
            lines += b"\r\n"
        return lines if self._framing is _Framing.CHUNKED else b""

    def count_file(self, size: int) -> bytes:
        """The head for a content of ``size`` bytes that the caller sends itself, and with it the response's end.

        Only in ``Phase.STARTED``. Raises ``ResponseError`` when Content-Length says otherwise. Nothing is to be sent
        behind the head when ``has_content`` is false.
        """
        if self.phase is not Phase.STARTED:
            raise ResponseError("a file is the whole content of a response: nothing may come before it")
        if self._framing is _Framing.LENGTH and self._remaining != size:
            raise self._wrong_length(self._remaining - size)
        self._trailers = False
        head = self._leave(size, more=False)
        self.phase = Phase.DONE
        return head

    @property
    def has_content(self) -> bool:
        return self._framing is not _Framing.NONE

    def _leave(self, size: int, more: bool) -> bytes:
        """The finished head, once it is known whether ``size`` bytes are all there will be."""
        request = self._request
        is_1_0 = request is not None and request.version == "1.0"
        head = self._head
        if self._framing is _Framing.OPEN:
            if not more and not self._trailers:
                self._framing = _Framing.LENGTH
                head += b"\r\ncontent-length: %d" % size
            elif is_1_0:
                self._framing = _Framing.CLOSE
                self.close = True
            else:
                self._framing = _Framing.CHUNKED
                head += b"\r\ntransfer-encoding: chunked"
        self._head = b""
        if self.close:
            return head + b"\r\nconnection: close\r\n\r\n"
        if is_1_0:
            return head + b"\r\nconnection: keep-alive\r\n\r\n"
        return head + b"\r\n\r\n"

    def _wrong_length(self, remaining: int) -> ResponseError:
        if self.phase is Phase.STREAMING:
            self.phase = Phase.BROKEN
        if remaining < 0:
            return ResponseError(f"the response is {-remaining} bytes longer than its Content-Length")
        return ResponseError(f"the response ends {remaining} bytes short of its Content-Length")


_OUT_OF_TURN = {
    Phase.WAITING: "content before the response was started",
    Phase.TRAILERS: "content after the end of the response",
    Phase.DONE: "content after the end of the response",
    Phase.BROKEN: "the response is broken off",
}


def informational(status: int, headers: Headers) -> bytes:
    """A whole 1xx response (RFC 9110 section 15.2). Raises ``ResponseError``."""
    return _status_line(status, PHRASES.get(status, "").encode()) + b"".join(map(_line, headers)) + b"\r\n\r\n"


def _line(field: tuple[bytes, bytes]) -> bytes:
    name, value = field
    prefix, _ = _learn(name)
    if not isinstance(value, bytes) or not is_field_value(value):
        raise ResponseError(f"a value of {name!r} that is not allowed")
    return prefix + value


def _trailer(name: bytes, value: bytes) -> bytes:
    """A trailer line. Fields that frame or route a message have no place there (RFC 9110 section 6.5.1)."""
    line = _line((name, value))
    if name.lower() in _FIELDS or name.lower() in (b"host", b"trailer", b"te"):
        raise ResponseError(f"{name!r} cannot be a trailer")
    return line[2:] + b"\r\n"


def _status_line(status: int, reason: bytes) -> bytes:
    if not isinstance(status, int) or not 100 <= status <= 999:
        raise ResponseError(f"not a status: {status!r}")
    if not is_field_value(reason):
        raise ResponseError(f"a reason phrase with a control character: {reason[:80]!r}")
    return b"HTTP/1.1 %d %s" % (status, reason)


def _content_length(value: object, before: int) -> int:
    if not isinstance(value, bytes):
        raise ResponseError("a header value must be bytes")
    digits = value.strip(b" \t")
    if not digits.isdigit() or len(digits) > 19:
        raise ResponseError(f"not a Content-Length: {value[:80]!r}")
    length = int(digits)
    if before not in (-1, length):
        raise ResponseError("two different Content-Lengths")
    return length


def _guilty(headers: Headers) -> ResponseError:
    for name, value in headers:
        if not is_field_value(value):
            return ResponseError(f"a value of {name!r} with a control character, such as CR or LF")
    return ResponseError("a header with a control character, such as CR or LF")
