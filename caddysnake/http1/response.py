"""Responses, from status, headers and content to bytes, without any I/O.

``Response`` decides the framing and keeps the app to it, for both servers:

====================================  ================================================================
the app sent                          framing
====================================  ================================================================
HEAD, 204, 304                        no content, whatever the app gives; 204 loses its Content-Length,
                                      HEAD gets one where GET would
205                                   an empty content (RFC 9110 section 15.3.6)
Content-Length                        counted: more raises at once, less raises at the end
nothing, whole content at once        Content-Length is added
nothing, HTTP/1.1                     chunked
nothing, HTTP/1.0                     ends with the connection
====================================  ================================================================

Connection, Keep-Alive and Transfer-Encoding are ours: what the app says there is taken as a wish (``close``) or
dropped. Nothing that raised has changed what goes over the wire.

Usage: ``start`` once, then ``send`` with ``more`` until the last, which returns with ``is_done`` set. The head leaves
with the first ``send``, or earlier through ``flush_head``, so that a slow stream opens at once.
"""

from __future__ import annotations

import time
from enum import Enum

from .encoding import (
    STATUS_LINES,
    Encoded,
    Headers,
    TextHeaders,
    encode,
    encode_text,
    informational,
    status_line,
    trailer_section,
)
from .errors import ResponseError
from .fields import tokens
from .request import RequestHead

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_cached: tuple[float, bytes] = (0.0, b"")


def http_date(seconds: int) -> bytes:
    """IMF-fixdate of RFC 9110 section 5.6.7, whatever the locale."""
    t = time.gmtime(seconds)
    return (
        f"{_DAYS[t.tm_wday]}, {t.tm_mday:02} {_MONTHS[t.tm_mon - 1]} {t.tm_year:04} "
        f"{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02} GMT"
    ).encode()


def date_line() -> bytes:
    """``\\r\\ndate: …`` for now. Threads may call it: a tuple is replaced at once or not at all."""
    global _cached
    now = time.time()
    until, line = _cached
    if until - 1.0 <= now < until:
        return line
    seconds = int(now)
    line = b"\r\ndate: " + http_date(seconds)
    _cached = (seconds + 1.0, line)
    return line


__all__ = ["Headers", "Output", "Response", "ResponsePhase", "informational"]

Output = bytes | tuple[bytes, ...]
"""What to write: one piece, or several that are too large to be copied into one."""

JOIN_MAX_BYTES = 16 * 1024
"""Content up to this size is copied behind its head or chunk size, to leave in one write."""


class ResponsePhase(Enum):
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


# CPython 3.11 reaches a member through its class by a descriptor written in Python: too slow for each request.
_WAITING, _STARTED, _STREAMING, _TRAILERS, _DONE, _BROKEN = ResponsePhase
_NONE, _LENGTH, _OPEN, _CHUNKED, _CLOSE = _Framing

_EMPTY = frozenset((204, 205, 304))
_OUT_OF_TURN = {
    _WAITING: "content before the response was started",
    _TRAILERS: "content after the end of the response",
    _DONE: "content after the end of the response",
    _BROKEN: "the response is broken off",
}


class Response:
    """The answer to ``request``, or to something that could not be parsed. ``close``: end the connection after it."""

    __slots__ = ("_framing", "_head", "_remaining", "_request", "_trailers", "close", "phase", "status")

    def __init__(self, request: RequestHead | None, close: bool = False) -> None:
        self._request = request
        self.close = close
        """The connection ends after this response. The head says so if it was known when it was made."""
        self.phase = _WAITING
        self._framing = _OPEN
        self._trailers = False
        # Set by ``start``: status, _head, and _remaining where the length is known.

    @property
    def is_done(self) -> bool:
        """It is complete."""
        return self.phase is _DONE

    @property
    def head_sent(self) -> bool:
        """A head has been handed out: nothing else can be answered any more."""
        return self.phase is not _WAITING and self.phase is not _STARTED

    @property
    def has_content(self) -> bool:
        """The framing lets content through."""
        return self._framing is not _NONE

    @property
    def declared_length(self) -> int | None:
        """The size of content that the app declared and has not sent yet; None when it declared none."""
        return self._remaining if self._framing is _LENGTH else None

    @property
    def is_satisfied(self) -> bool:
        """The head is out, and no more content of the app's can follow: all that was declared is, or none may be."""
        if self.phase is _STREAMING:
            return self._framing is _NONE or (self._framing is _LENGTH and not self._remaining)
        return self.phase is _DONE

    def reset(self) -> None:
        """Forget a head that has not left, as PEP 3333 has it for ``exc_info``."""
        assert not self.head_sent
        self.phase = _WAITING
        self._framing = _OPEN

    def start(self, status: int, headers: Headers, reason: bytes | None = None, trailers: bool = False) -> None:
        """Take status and headers. ``trailers``: the app announces trailers. Raises ``ResponseError``."""
        if self.phase is not _WAITING:
            raise ResponseError("the response has been started already")
        line = STATUS_LINES.get(status) if reason is None and type(status) is int else None
        if line is None:
            line = status_line(status, reason)
        if status < 200:
            raise ResponseError(f"an informational status ({status}) cannot start a response")
        try:
            encoded = encode(line, headers, drop_length=status in (204, 205))
        except (TypeError, ValueError) as exc:
            raise ResponseError(f"headers must be pairs of bytes: {exc}") from None
        self._begin(status, encoded)
        self._trailers = trailers

    def start_text(self, status: str, headers: TextHeaders) -> None:
        """As ``start`` for PEP 3333's text; ``status`` is such as ``200 OK``. Raises ``ResponseError``."""
        if self.phase is not _WAITING:
            raise ResponseError("the response has been started already")
        try:
            code, encoded = encode_text(status, headers)
        except TypeError as exc:
            raise ResponseError(f"headers must be a list of (str, str): {exc}") from None
        self._begin(code, encoded)

    def _begin(self, status: int, encoded: Encoded) -> None:
        head, length, close, has_date = encoded
        if not has_date:
            head += date_line()
        if close:
            self.close = True
        request = self._request
        is_head = request is not None and request.method == "HEAD"
        if status in _EMPTY or (is_head and length is not None):
            self._framing = _NONE
            if status == 205:
                head += b"\r\ncontent-length: 0"
            head += self._tail()
        elif length is not None:
            self._framing = _LENGTH
            self._remaining = length
            head += self._tail() if self.close or request is None or request.version != "1.1" else b"\r\n\r\n"
        self._head = head
        self.status = status
        self.phase = _STARTED

    def flush_head(self) -> bytes:
        """The head alone, because the content is not there yet. Only in ``ResponsePhase.STARTED``."""
        assert self.phase is _STARTED
        self.phase = _STREAMING
        return self._leave(0, more=True)

    def send(self, data: bytes, more: bool) -> Output:
        """The bytes to write for ``data``; ``more`` is to come, or this is the end. Raises ``ResponseError``."""
        phase = self.phase
        size = len(data)
        if phase is _STARTED and self._framing is _LENGTH and size == self._remaining and not more:
            if size <= JOIN_MAX_BYTES and not self._trailers:  # a whole response at once: most are
                self.phase = _DONE
                return self._head + data
        elif phase is not _STREAMING and phase is not _STARTED:
            raise ResponseError(_OUT_OF_TURN[phase])
        if self._framing is _LENGTH:
            remaining = self._remaining - size
            if remaining < 0 or (remaining and not more):
                raise self._wrong_length(remaining)
            self._remaining = remaining
        head = self._leave(size, more) if phase is _STARTED else b""
        framing = self._framing
        if not more:
            self.phase = _TRAILERS if self._trailers else _DONE
        else:
            self.phase = _STREAMING
        if framing is _CHUNKED:
            return self._chunk(head, data, more)
        if framing is _NONE:
            return head
        if size <= JOIN_MAX_BYTES:
            return head + data
        return (head, data) if head else data

    def _chunk(self, head: bytes, data: bytes, more: bool) -> Output:
        end = b"\r\n" if data else b""
        if data:
            head += b"%x\r\n" % len(data)
        if not more:
            end += b"0\r\n" if self._trailers else b"0\r\n\r\n"
        return head + data + end if len(data) <= JOIN_MAX_BYTES else (head, data, end)

    def send_trailers(self, headers: Headers, more: bool) -> bytes:
        """The bytes to write for trailer fields; dropped where the framing has no place for them, and for a client
        that does not say ``TE: trailers`` (RFC 9110 section 6.5.1).
        """
        if self.phase is not _TRAILERS:
            raise ResponseError(_OUT_OF_TURN.get(self.phase, "trailers before the end of the response"))
        lines = trailer_section(headers)
        if not self._takes_trailers():
            lines = b""
        if not more:
            self.phase = _DONE
            lines += b"\r\n"
        return lines if self._framing is _CHUNKED else b""

    def _takes_trailers(self) -> bool:
        request = self._request
        return request is not None and any(
            b"trailers" in tokens(value) for name, value in request.headers if name == b"te"
        )

    def count_file(self, size: int) -> bytes:
        """The head for a content of ``size`` bytes that the caller sends itself, and with it the response's end.

        Only in ``ResponsePhase.STARTED``. Raises ``ResponseError`` when Content-Length says otherwise. Nothing is to be
        sent behind the head when ``has_content`` is false.
        """
        if self.phase is not _STARTED:
            raise ResponseError("a file is the whole content of a response: nothing may come before it")
        if self._framing is _LENGTH and self._remaining != size:
            raise self._wrong_length(self._remaining - size)
        self._trailers = False
        head = self._leave(size, more=False)
        self.phase = _DONE
        return head

    def frame_file(self, size: int) -> tuple[bytes, bytes]:
        """As ``count_file``, also when the head has left already: what to write before the file, and behind it."""
        if self.phase is not _STREAMING:
            return self.count_file(size), b""
        if self._framing is _LENGTH and self._remaining != size:
            raise self._wrong_length(self._remaining - size)
        self._trailers = False
        self.phase = _DONE
        if self._framing is not _CHUNKED:
            return b"", b""
        if not size:
            return b"", b"0\r\n\r\n"
        return b"%x\r\n" % size, b"\r\n0\r\n\r\n"

    def _leave(self, size: int, more: bool) -> bytes:
        """The finished head, once it is known whether ``size`` bytes are all there will be."""
        head = self._head
        self._head = b""
        if self._framing is not _OPEN:
            return head
        if self._request is not None and self._request.method == "HEAD":
            self._framing = _NONE
            # What GET would have said, if it can be told: an app may well leave the content out by itself.
            return (head + b"\r\ncontent-length: %d" % size if size and not more else head) + self._tail()
        if not more and not self._trailers:
            self._framing = _LENGTH
            return head + b"\r\ncontent-length: %d" % size + self._tail()
        if self._request is not None and self._request.version == "1.0":
            self._framing = _CLOSE
            self.close = True
            return head + self._tail()
        self._framing = _CHUNKED
        return head + b"\r\ntransfer-encoding: chunked" + self._tail()

    def _tail(self) -> bytes:
        """The end of a head, with what it says of the connection."""
        if self.close:
            return b"\r\nconnection: close\r\n\r\n"
        if self._request is not None and self._request.version == "1.0":
            return b"\r\nconnection: keep-alive\r\n\r\n"
        return b"\r\n\r\n"

    def _wrong_length(self, remaining: int) -> ResponseError:
        if self.phase is _STREAMING:
            self.phase = _BROKEN
        if remaining < 0:
            return ResponseError(f"the response is {-remaining} bytes longer than its Content-Length")
        return ResponseError(f"the response ends {remaining} bytes short of its Content-Length")
