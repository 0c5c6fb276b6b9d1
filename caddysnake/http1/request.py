"""Requests, from bytes to ``RequestHead`` and body, without any I/O.

llhttp (strict) does the fields, but for those of lines that came before or are plain (``fields``), ``chunked`` the
chunks; the rules they leave open are enforced here, for both servers and the relay alike:

* the request line is ours: one space each, a method that is a token, HTTP/1.0 or 1.1, no fragment;
* exactly one Host (none is allowed on 1.0), with characters a host may have;
* Transfer-Encoding is exactly ``chunked``, on 1.1 only, and never beside Content-Length;
* limits count the bytes fed, not the callbacks: llhttp reports nothing until a field is complete;
* one message at a time: bytes behind it wait unparsed in ``pending`` until ``next_message``.

The last is why a feed is cut where a head ends, and where Content-Length or the last chunk says: llhttp never sees a
byte of the next message, and a stop costs nothing. Splitting the bytes differently never changes the result.

Usage::

    parser.feed(data)                       # raises ProtocolError
    if parser.head is not None: ...         # the head is complete
    body = parser.take_body()               # what has come of the body
    if parser.complete: ...                 # the message is whole
    parser.next_message()                   # once it is answered, when both sides keep the connection
"""

from __future__ import annotations

from enum import Enum
from typing import Any, cast

from .chunked import ChunkDecoder, Piece
from .errors import ProtocolError
from .fields import FRAMING, is_host, judge_line, known_lines, request_names, tokens
from .heads import HEADS_MAX, Heads, Line, RequestHead
from .limits import CHUNK_OVERHEAD_BYTES, CHUNK_OVERHEAD_RATIO, Limits
from .llhttp import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpRequestParser
from .request_line import METHODS, check_partial_line, judge_request_line, resolve_target
from .speedups import NOBODY, Reader

__all__ = ["HEADS_MAX", "Heads", "RequestHead", "RequestParser"]

_END = b"\r\n\r\n"
_CR = 13
_SLASH = 47
_BYPASS_BYTES = 64 * 1024
_EMPTY_LINES_MAX = 8
_LENGTH_DIGITS_MAX = 19
_KNOWN = request_names.known
_learn = request_names.learn
_SPECIAL = FRAMING | {b"", b"host"}
_REMEMBERED_MAX_BYTES = 2048
_FRAMING_MAX = max(map(len, FRAMING)) + 1


class _State(Enum):
    START = "start"  # nothing of a message is fed to llhttp; perhaps part of its first line is held
    HEAD = "head"
    LENGTH = "length"
    CHUNKED = "chunked"


# CPython 3.11 reaches a member through its class by a descriptor written in Python: too slow for each request.
_START, _HEAD, _LENGTH, _CHUNKED = _State


class RequestParser:
    """Parses the requests of one connection. A parser that raised ``ProtocolError`` must not be fed again."""

    __slots__ = (
        "_bypasses",
        "_chunked",
        "_connection",
        "_empty_lines",
        "_fed",
        "_fields",
        "_heads",
        "_held",
        "_limits",
        "_line",
        "_llhttp",
        "_reader",
        "_remaining",
        "_state",
        "_tail",
        "_upgrade",
        "body",
        "body_bytes",
        "complete",
        "draft",
        "head",
        "on_body",
        "pending",
        "received",
        "start",
    )

    def __init__(self, limits: Limits, heads: Heads | None = None, reader: Reader | None = None) -> None:
        self._limits = limits
        self._reader = reader
        self.start: tuple[Any, int] = (None, NOBODY)
        """What ``reader`` makes of a head begins with this, and whom it is to believe."""
        self._heads = heads
        self.head: RequestHead | None = None
        """The head, once it is complete."""
        self.draft: RequestHead | None = None
        """The head whose fields are still arriving: for the log line of a refused request."""
        self.complete = False
        """The message's last byte has been parsed."""
        self.pending = b""
        """Bytes behind the message, not looked at yet."""
        self.body: list[Piece] = []
        """What has come of the body and was not taken."""
        self.body_bytes = 0
        """The size of ``body``."""
        self.received = 0
        """Bytes of this message's body so far, taken or not."""
        self.on_body = self.body.append
        self._state = _START
        self._held = b""
        self._empty_lines = 0
        self._tail = b""
        self._line = b""
        self._fed = 0
        self._remaining = 0
        self._bypasses = False
        self._chunked = ChunkDecoder()
        self._fields: list[tuple[bytes, bytes]] = []
        self._connection: list[bytes] | None = None
        self._upgrade: bytes | None = None
        self._llhttp: HttpRequestParser | None = None
        """Made when it is needed first: most connections have nothing but plain heads. It and we keep each other alive
        until a collection of garbage."""

    # What a server calls

    @property
    def at_boundary(self) -> bool:
        """Nothing has been read of a request."""
        return self._state is _START and self.head is None and not self._held and not self.pending

    def feed(self, data: bytes) -> None:
        """Parse ``data``. Raises ``ProtocolError``."""
        heads = self._heads
        end = len(data)
        if heads and end <= _REMEMBERED_MAX_BYTES and self._state is _START:  # to look up is to hash
            known = heads.get(data)
            if known is not None and not self.complete and not self._held:
                heads.hits += 1
                self.head = known
                self.complete = True
                return
        at = 0
        if self._reader is not None and self._state is _START and not (self.complete or self._held):
            at = self._plain_head(self._reader, data)
        if (
            self._state is _START
            and not self.complete
            and 3 < data.find(_END) + 4 == end <= self._limits.max_head_bytes
            and data[0] != _CR
            and not self._held
        ):
            self._whole_head(data)
            return
        while at < end:
            if self.complete:
                self.pending += data[at:]
                return
            state = self._state
            if state is _START:
                at = self._start(data, at)
            elif state is _LENGTH:
                at = self._counted(data, at)
            elif state is _CHUNKED:
                at = self._chunks(data, at)
            else:
                at = self._more_head(data, at)

    def _plain_head(self, reader: Reader, data: bytes) -> int:
        """Take a head that ``reader`` can read; where it ends in ``data``, 0 if it cannot."""
        found = reader.read(data, *self.start)
        if found is None:
            return 0
        line, fields, host, length, end, made = found
        most = self._limits.max_body_bytes
        if end > self._limits.max_head_bytes or (length and most is not None and length > most):
            return 0
        heads = self._heads
        if heads is not None and not length and end == len(data) <= _REMEMBERED_MAX_BYTES and heads.comes_again(data):
            return 0  # what is remembered is made in Python
        head = RequestHead(line, fields or [], True)
        head.host = host
        head.content_length = length
        head.ready = made
        self.head = head
        if length:
            self._state = _LENGTH
            self._remaining = length
            self._bypasses = True
        else:
            self.complete = True
        return end

    def _whole_head(self, data: bytes) -> None:
        """A whole head and nothing else, which is how Caddy sends it."""
        lines = data[:-4].split(b"\r\n")
        first = lines.pop(0)
        line = judge_request_line(first, self._limits.max_target_bytes)
        is_usual = line[4] == "1.1" and line[1][0] == _SLASH
        if not (is_usual and self._take_lines(lines, line)):
            self._begin(line)
            self._execute(_spaced(_without_target(line) + data[len(first) :]))
            self._finish_head()
        head, heads = self.head, self._heads
        if heads is None or head is None or not (is_usual and self.complete and head.host):
            return
        if head.upgrade or head.expect_continue or len(data) > _REMEMBERED_MAX_BYTES:
            return
        if heads.comes_again(data):
            head.is_shared = True
            heads.keep(data, head)

    def _take_lines(self, lines: list[bytes], line: Line) -> bool:
        """The head has plain fields, no content, and goes on. False: llhttp, as which we judge, is to see to it."""
        fields = list(map(known_lines.get, lines))
        if not all(fields):
            for at, known in enumerate(fields):
                if known is None:
                    fields[at] = field = judge_line(lines[at])
                    if field is None:
                        return False
        found = cast("list[tuple[bytes, bytes]]", fields)
        last = dict(found)
        host = last.get(b"host")
        if host is None or len(found) > self._limits.max_header_count:
            return False
        if len(last) != len(found) and [name for name, _ in found].count(b"host") > 1:
            return False
        head = RequestHead(line, found, True)
        head.host = host
        head.last = last
        self.head = head
        self.complete = True
        return True

    def take_body(self) -> bytes:
        """What has come of the body since the last call."""
        body = self.body
        if not body:
            return b""
        first = body[0]
        data = first if len(body) == 1 and type(first) is bytes else b"".join(body)
        body.clear()
        self.body_bytes = 0
        return data

    def take_piece(self) -> Piece:
        """The first piece of what ``take_body`` would return, as it was read, without a copy."""
        if not self.body:
            return b""
        piece = self.body.pop(0)
        self.body_bytes -= len(piece)
        return piece

    def next_message(self) -> None:
        """Forget the message that is complete, and parse what is ``pending``. Raises ``ProtocolError``."""
        self.head = None
        self.complete = False
        self.received = 0
        self._state = _START
        if self.body:
            self.body.clear()
            self.body_bytes = 0
        if self.pending:
            data, self.pending = self.pending, b""
            self.feed(data)

    # The request line

    def _start(self, data: bytes, at: int) -> int:
        """Hold bytes back until the request line is whole, so that it is always judged as a whole."""
        fed = len(data)
        data = self._held + data[at:]
        while data.startswith(b"\r\n"):  # RFC 9112 section 2.2: ignore empty lines before a request
            data = data[2:]
            self._empty_lines += 1
            if self._empty_lines > _EMPTY_LINES_MAX:
                raise ProtocolError(400, "request-line", "nothing but empty lines")
        eol = data.find(b"\r\n")
        if eol < 0:
            check_partial_line(data, self._limits.max_target_bytes)
            self._held = data
            return fed
        self._held = b""
        self._empty_lines = 0
        line = judge_request_line(data[:eol], self._limits.max_target_bytes)
        self._begin(line)
        stop = data.find(_END) + 4
        is_whole = stop > 3
        if not is_whole:
            stop = len(data)
        self._tail = b""
        self._state = _HEAD
        plain = _without_target(line)
        self._fed = eol - len(plain)
        self._line = b""
        self._feed_head(plain + data[eol:stop], is_whole)
        return fed - (len(data) - stop)

    def _begin(self, line: Line) -> None:
        fields = self._fields = []
        self.draft = RequestHead(line, fields, line[4] == "1.1")

    # The header section

    def _more_head(self, data: bytes, at: int) -> int:
        stop = behind_blank_line(self._tail, data, at)
        self._feed_head(data[at : stop if stop > 0 else None], complete=stop > 0)
        return stop if stop > 0 else len(data)

    def _feed_head(self, piece: bytes, complete: bool) -> None:
        self._fed += len(piece)
        if self._fed > self._limits.max_head_bytes:
            raise self._too_large()
        self._execute(_spaced(piece, self._line))
        if complete:
            self._finish_head()
        else:
            newline = piece.rfind(b"\n") + 1
            self._line = piece[newline:][:_FRAMING_MAX] if newline else (self._line + piece)[:_FRAMING_MAX]
            self._tail = (self._tail + piece[-3:])[-3:]
            if len(self._fields) > self._limits.max_header_count:
                raise self._too_large()

    def _too_large(self) -> ProtocolError:
        return ProtocolError(431, "head-too-large", "the header section is too large")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by llhttp: a field of the header section."""
        lower = _KNOWN.get(name)
        if lower is None:
            lower = _learn(name)
        value = value.rstrip(b" \t")
        if lower in _SPECIAL and not self._special(lower, value):
            return
        self._fields.append((lower, value))

    def _special(self, name: bytes, value: bytes) -> bool:
        """Note a field that framing depends on; False when it is not for the app."""
        head = self.draft
        if head is None or not name:
            return False  # a name that is dropped
        if name == b"host":
            if head.host is not None:
                raise ProtocolError(400, "host", "more than one Host")
            if not is_host(value):
                raise ProtocolError(400, "host", "a Host with a character that is not allowed")
            head.host = value
        elif name == b"content-length":
            # llhttp refuses what is not digits, and a second one.
            if len(value) > _LENGTH_DIGITS_MAX:
                raise ProtocolError(400, "content-length", "a Content-Length of too many digits")
            head.content_length = int(value)
        elif name == b"transfer-encoding":
            self._transfer_encoding(head, value)
        elif name == b"connection":
            self._connection = (self._connection or []) + tokens(value)
        elif name == b"upgrade":
            self._upgrade = value.lower()
        elif head.version == "1.1":  # RFC 9110 section 10.1.1: Expect from HTTP/1.0 is ignored
            if value.lower() != b"100-continue":
                raise ProtocolError(417, "expect", "an unknown expectation")
            head.expect_continue = True
        return True

    def _transfer_encoding(self, head: RequestHead, value: bytes) -> None:
        if head.version != "1.1":
            raise ProtocolError(400, "transfer-encoding", "Transfer-Encoding is not part of HTTP/1.0")
        codings = tokens(value)
        if head.chunked or codings.count(b"chunked") != 1 or codings[-1] != b"chunked":
            # RFC 9112 section 6.3: without a final chunked there is no telling where the message ends.
            raise ProtocolError(400, "transfer-encoding", "Transfer-Encoding does not end in chunked")
        if value.lower() != b"chunked":
            raise ProtocolError(501, "transfer-encoding", "a transfer coding other than chunked")
        head.chunked = True

    def _finish_head(self) -> None:
        head = self.draft
        assert head is not None
        self.draft = None
        if len(head.headers) > self._limits.max_header_count:
            raise self._too_large()
        if self._connection is not None or self._upgrade is not None:
            self._persistence(head, self._connection or [])
        if head.target[0] != _SLASH:
            resolve_target(head)
        if head.host is None and head.version == "1.1":
            raise ProtocolError(400, "host", "no Host")
        self.head = head
        if head.chunked:
            if head.content_length is not None:
                raise ProtocolError(400, "framing", "both Content-Length and Transfer-Encoding")
            self._state = _CHUNKED
            self._chunked = ChunkDecoder()
            self._fed = 0
        elif head.content_length:
            self._remaining = head.content_length
            self._state = _LENGTH
            # What is only counted needs no parser: a large body is passed on as it was read, without another copy.
            self._bypasses = head.content_length > _BYPASS_BYTES
            limit = self._limits.max_body_bytes
            if limit is not None and head.content_length > limit:
                raise ProtocolError(413, "body-too-large", f"a body of {head.content_length} bytes is over the limit")
        elif not self.complete:
            raise ProtocolError(400, "framing", "the header section does not end where it seems to")

    def _persistence(self, head: RequestHead, options: list[bytes]) -> None:
        self._connection = None
        head.hop_fields = tuple(options)
        if b"close" in options:
            head.keep_alive = False
        elif b"keep-alive" in options:
            head.keep_alive = True
        # RFC 9110 section 7.8: Upgrade from HTTP/1.0 is ignored.
        if self._upgrade is not None and b"upgrade" in options and head.version == "1.1":
            head.upgrade = self._upgrade
        self._upgrade = None

    # The body

    def _counted(self, data: bytes, at: int) -> int:
        take = min(self._remaining, len(data) - at)
        piece = data if take == len(data) else data[at : at + take]
        self._remaining -= take
        self.body_bytes += take
        self.received += take
        if self._bypasses:
            self.body.append(piece)
            if not self._remaining:
                self._bypasses = False
                self._llhttp = None
                self.complete = True
            return at + take
        self._execute(piece)
        if self.complete is not (self._remaining == 0):
            raise ProtocolError(400, "framing", "the body does not end where Content-Length says")
        return at + take

    def _chunks(self, data: bytes, at: int) -> int:
        decoder = self._chunked
        stop = decoder.feed(data, at, self.body)
        self.body_bytes += decoder.received - self.received
        self.received = decoder.received
        self._fed += stop - at
        limit = self._limits.max_body_bytes
        if limit is not None and self.received > limit:
            raise ProtocolError(413, "body-too-large", "the body is over the limit")
        if self._fed - self.received > CHUNK_OVERHEAD_BYTES + CHUNK_OVERHEAD_RATIO * self.received:
            raise ProtocolError(400, "chunk-overhead", "chunk extensions or trailers are too large")
        if decoder.is_done:
            self._llhttp = None  # it still waits for chunks
            self.complete = True
        return stop

    def on_message_complete(self) -> None:
        """Called by llhttp."""
        self.complete = True

    # llhttp

    def _execute(self, piece: bytes) -> None:
        llhttp = self._llhttp
        if llhttp is None:
            llhttp = self._llhttp = HttpRequestParser(self)
        try:
            llhttp.feed_data(piece)
        except HttpParserUpgrade:
            self._resume_after_upgrade()
        except HttpParserCallbackError as exc:
            if isinstance(exc.__context__, ProtocolError):
                raise exc.__context__ from None
            raise
        except HttpParserError as exc:
            raise ProtocolError(400, "malformed", str(exc)) from None

    def _resume_after_upgrade(self) -> None:
        """llhttp stops at each upgrade as if without a body: a fresh one, told its framing, goes on."""
        head, self.draft = self.draft, None
        assert head is not None
        fields, self._fields = self._fields, []
        self._llhttp = HttpRequestParser(self)
        if head.has_body:
            self.complete = False
        if head.content_length:
            self._llhttp.feed_data(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % head.content_length)
        self.draft, self._fields = head, fields


def _without_target(line: Line) -> bytes:
    """The request line for llhttp, which sees to the fields only, and knows not each byte and method."""
    method = line[0].encode()
    return b"%s / HTTP/%s" % (method if method in METHODS else b"POST", line[4].encode())


def _spaced(piece: bytes, begun: bytes = b"") -> bytes:
    """``piece`` of a head with spaces for tabs in fields of the framing: llhttp takes a tab for part of their value
    (white space is either, RFC 9110 section 5.6.3). ``begun``: what its first line began with.
    """
    if b"\t" not in piece:
        return piece
    lines = piece.split(b"\n")
    for at, line in enumerate(lines):
        name = (line if at else begun + line)[:_FRAMING_MAX].partition(b":")[0].lower()
        if name in FRAMING:
            lines[at] = line.replace(b"\t", b" ")
    return b"\n".join(lines)


def behind_blank_line(tail: bytes, data: bytes, at: int) -> int:
    """Where the first blank line ends that ends in ``data[at:]``; ``tail`` is what came before. Else -1."""
    if tail:
        joint = (tail + data[at : at + 3]).find(_END)
        if joint >= 0:
            return at + joint + 4 - len(tail)
    stop = data.find(_END, at)
    return stop + 4 if stop >= 0 else -1
