"""Responses on their way from a worker: read strictly, passed on as they came.

At the other end of a link is our own server, unless a tenant has taken it over. So the grammar is the narrowest that
our server needs, and everything else is ``BadResponse``: HTTP/1.1 only, no obsolete folding, one Content-Length or
exactly ``chunked`` but not both, chunks without extensions, no framing fields among the trailers. What passes is
unambiguous, and leaves as the bytes that came; nothing is parsed into fields and written again on the usual path.
Heads that come again to the letter, as they do within a second, are remembered.

Splitting the bytes differently never changes what leaves, put together.
"""

from __future__ import annotations

import re
from enum import Enum

from ..http1.fields import tokens

HEAD_MAX_BYTES = 1024 * 1024
"""Status line and header section. Caddy takes 10 MiB; nothing of use comes near either."""
TRAILERS_MAX_BYTES = 64 * 1024

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_VALUE = rb"[\t\x20-\x7e\x80-\xff]*+"
_FIELDS = rb"(?:" + _TOKEN + rb":" + _VALUE + rb"\r\n)*+"
_HEAD = re.compile(rb"HTTP/1\.1 ([1-9][0-9]{2})(?: " + _VALUE + rb")?+\r\n" + _FIELDS + rb"\r\n")
_SECTION = re.compile(_FIELDS + rb"\r\n")
# In lower case: one pass over a head costs less than a pattern that ignores case.
_FRAMING = re.compile(
    rb"\r\n(content-length|transfer-encoding|connection|keep-alive|proxy-connection):[\t ]*+([^\r]*+)"
)
_NO_TRAILER = re.compile(rb"(?:^|\n)(?i:content-length|transfer-encoding|connection|host|upgrade|trailer|te):")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})\r\n")
_CHUNK_BEGUN = re.compile(rb"[0-9A-Fa-f]{0,15}\r?")
_KNOWN_MAX = 256
_KNOWN_MAX_BYTES = 1024
_START = b"HTTP/1.1 "
_END = b"\r\n\r\n"
_CR = 13


class BadResponse(Exception):
    """The worker's bytes are no response, or an ambiguous one."""


class Framing(Enum):
    """Where the content of a response ends (RFC 9112 section 6.3)."""

    NONE = "none"  # there is none: HEAD, 204, 304
    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"  # with the link
    UPGRADE = "upgrade"  # 101: what follows is not HTTP


# CPython 3.11 reaches a member through its class by a descriptor written in Python: too slow for each request.
_NONE, _LENGTH, _CHUNKED, _CLOSE, _UPGRADE = Framing


class ResponseHead:
    """``raw`` is the status line and header section as they came, with the blank line. One may stand for many
    responses: nothing of it changes once it is judged.
    """

    __slots__ = ("closes", "framing", "has_connection_fields", "length", "raw", "status", "upgrades")

    def __init__(self, status: int, raw: bytes) -> None:
        self.status = status
        self.raw = raw
        self.framing = _CLOSE
        self.length = 0
        self.closes = False
        """The worker ends the link after this response."""
        self.upgrades = False
        """Connection names ``upgrade``, as 101 and 426 do."""
        self.has_connection_fields = False
        """Some fields are between the worker and the relay alone."""


_known: dict[bytes, ResponseHead] = {}
"""Heads of final responses that were found good, a bounded number. Not those of answers to HEAD."""


def _head_of(data: bytes, is_head: bool = False) -> ResponseHead | None:
    """The head that ``data`` begins with; None when that is not whole, or malformed. Raises ``BadResponse``.

    ``is_head``: it answers HEAD.
    """
    end = data.find(_END) + 4
    raw = data[:end]
    head = None if is_head else _known.get(raw)
    if head is None:
        found = _HEAD.fullmatch(raw)
        if found is None:
            return None
        head = ResponseHead(int(found[1]), raw)
        _judge(head, is_head)
        if head.status >= 200 and not is_head and end <= _KNOWN_MAX_BYTES:
            if len(_known) >= _KNOWN_MAX:
                _known.clear()
            _known[raw] = head
    return head


def _judge(head: ResponseHead, is_head: bool) -> None:
    """Find out where the content ends. Raises ``BadResponse``."""
    if len(head.raw) > HEAD_MAX_BYTES:
        raise BadResponse(f"a head over {HEAD_MAX_BYTES} bytes")
    framed = False
    for kind, value in _FRAMING.findall(head.raw.lower()):
        if kind == b"content-length":
            length = value.rstrip(b" \t")
            if framed or not length.isdigit() or len(length) > 19:
                raise BadResponse("more than one framing" if framed else "a malformed Content-Length")
            framed = True
            head.framing = _LENGTH
            head.length = int(length)
        elif kind == b"transfer-encoding":
            if framed or value.rstrip(b" \t") != b"chunked":
                raise BadResponse("more than one framing" if framed else "an unknown Transfer-Encoding")
            framed = True
            head.framing = _CHUNKED
        else:
            head.has_connection_fields = True
            if kind == b"connection":
                options = tokens(value)
                head.closes = head.closes or b"close" in options
                head.upgrades = head.upgrades or b"upgrade" in options
    status = head.status
    if status < 200 or status == 204:
        if framed or (head.has_connection_fields and 101 != status < 200):
            raise BadResponse(f"a response {status} with fields that it cannot have")
        head.framing = _UPGRADE if status == 101 else _NONE
    elif is_head or status == 304:
        head.framing = _NONE


def whole_response(data: bytes) -> ResponseHead | None:
    """The head of the response that ``data`` is, all of it and nothing behind it, as most are; None when it is not so
    simple. Not for answers to HEAD. Raises ``BadResponse``.
    """
    head = _known.get(data[: data.find(_END) + 4]) or _head_of(data)
    if head is None or head.framing is not _LENGTH or len(data) != len(head.raw) + head.length:
        return None
    return head


class _Place(Enum):
    """Where in chunked content the next byte stands."""

    SIZE = "size"
    DATA = "data"
    DATA_END = "data end"
    TRAILERS = "trailers"


_SIZE, _DATA, _DATA_END, _TRAILERS = _Place


class ResponseReader:
    """Reads one response. ``feed`` it; each time, look at ``informational``, ``head``, ``content``, ``complete``.

    ``is_head``: it answers HEAD, and so has no content whatever it says. ``decodes``: chunked content is wanted without
    its framing, for a client of HTTP/1.0.
    """

    __slots__ = (
        "_decodes",
        "_held",
        "_is_head",
        "_left",
        "_place",
        "complete",
        "content",
        "excess",
        "head",
        "informational",
    )

    def __init__(self, is_head: bool = False, decodes: bool = False) -> None:
        self._is_head = is_head
        self._decodes = decodes
        self.head: ResponseHead | None = None
        """The head of the final response, or of 101, once it is complete."""
        self.informational = b""
        """1xx responses that the last feed completed, without 100."""
        self.content = b""
        """What the last feed brought of the content, to be passed on; framed as the worker did unless decoded."""
        self.complete = False
        self.excess = b""
        """Bytes behind the response."""
        self._held = bytearray()
        self._left = 0
        self._place = _SIZE

    def feed(self, data: bytes) -> None:
        """Read ``data``. Raises ``BadResponse``, after which nothing more may be fed."""
        self.content = b""
        if self.head is None:
            data = self._read_head(data)
            if self.head is None:
                return
        elif self.complete:
            self.excess += data
            return
        framing = self.head.framing
        if framing is _LENGTH:
            self._counted(data)
        elif framing is _CHUNKED:
            self._chunks(data)
        elif framing is _CLOSE:
            self.content = data
        else:
            self.complete = True
            self.excess = data

    # The head

    def _read_head(self, data: bytes) -> bytes:
        """Read heads until a final one; what is behind it."""
        self.informational = b""
        while data:
            head = _head_of(data, self._is_head) if not self._held else None
            if head is None:
                joined = self._join(data)
                if joined is None:
                    return b""
                data = joined
                head = _head_of(data, self._is_head)
                if head is None:
                    raise BadResponse("a malformed head")
            status = head.status
            data = data[len(head.raw) :]
            if status >= 200 or status == 101:
                self.head = head
                self._left = head.length
                return data
            if status != 100:  # a 100 Continue is the relay's own business with its client
                self.informational += head.raw
        return b""

    def _join(self, data: bytes) -> bytes | None:
        """Hold a head that is not whole, and give it back when it is. Raises ``BadResponse``."""
        held = self._held
        before = len(held)
        held += data
        if held[: len(_START)] != _START[: len(held)]:
            raise BadResponse("not a response of HTTP/1.1")
        if held.find(_END, max(0, before - 3)) < 0:
            if len(held) > HEAD_MAX_BYTES:
                raise BadResponse(f"a head over {HEAD_MAX_BYTES} bytes")
            return None
        self._held = bytearray()
        return bytes(held)

    # The content

    def _counted(self, data: bytes) -> None:
        left = self._left - len(data)
        if left < 0:
            self.excess = data[left:]
            data = data[:left]
            left = 0
        self._left = left
        self.content = data
        self.complete = not left

    def _chunks(self, data: bytes) -> None:
        if self._held:
            data = bytes(self._held) + data
            self._held.clear()
        at = 0
        end = len(data)
        decoded: list[bytes] = []
        while at < end and not self.complete:
            place = self._place
            if place is _DATA:
                stop = min(end, at + self._left)
                self._left -= stop - at
                if self._decodes:
                    decoded.append(data[at:stop])
                at = stop
                if not self._left:
                    self._place = _DATA_END
                continue
            after = self._between_data(data, at)
            if after < 0:
                self._held += data[at:]
                break
            at = after
        self.content = b"".join(decoded) if self._decodes else data[:at] if at < end else data
        if self.complete:
            self.excess = data[at:]

    def _between_data(self, data: bytes, at: int) -> int:
        """Read what frames the data at ``at``: where it ends, or -1 when more must come. Raises ``BadResponse``."""
        place = self._place
        if place is _SIZE:
            size = _CHUNK.match(data, at)
            if size is None:
                if _CHUNK_BEGUN.fullmatch(data, at) is None:
                    raise BadResponse("a malformed chunk size")
                return -1
            self._left = int(size[1], 16)
            self._place = _DATA if self._left else _TRAILERS
            return size.end()
        if place is _DATA_END:
            if data.startswith(b"\r\n", at):
                self._place = _SIZE
                return at + 2
            if data[at] == _CR and at + 1 == len(data):
                return -1
            raise BadResponse("a chunk that does not end where its size says")
        return self._trailers(data, at)

    def _trailers(self, data: bytes, at: int) -> int:
        section = _SECTION.match(data, at)
        if section is None:
            if data.startswith(b"\r\n", at) or data.find(_END, at) >= 0:
                raise BadResponse("malformed trailers")
            if len(data) - at > TRAILERS_MAX_BYTES:
                raise BadResponse(f"trailers over {TRAILERS_MAX_BYTES} bytes")
            return -1
        if section.end() - at > TRAILERS_MAX_BYTES or _NO_TRAILER.search(section[0]):
            raise BadResponse("a trailer that cannot be one")
        self.complete = True
        return section.end()


def rewritten(head: ResponseHead, added: list[bytes], drops_framing: bool) -> bytes:
    """The head without the fields that are between worker and relay, and with the lines ``added``.

    ``drops_framing``: Transfer-Encoding is left out as well, because the content leaves decoded.
    """
    lines = head.raw[:-4].split(b"\r\n")
    kept = lines[:1]
    for line in lines[1:]:
        name = line.partition(b":")[0].lower()
        if name in _BETWEEN_US or (drops_framing and name == b"transfer-encoding"):
            continue
        kept.append(line)
    return b"\r\n".join([*kept, *added, b"", b""])


_BETWEEN_US = frozenset((b"connection", b"keep-alive", b"proxy-connection"))
