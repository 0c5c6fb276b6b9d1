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
from ..http1.limits import CHUNK_OVERHEAD_BYTES, CHUNK_OVERHEAD_RATIO
from ..http1.memory import Memory
from ..http1.request import behind_blank_line

HEAD_MAX_BYTES = 256 * 1024
"""Status line and header section; and all interim responses to one request together. Caddy takes 10 MiB of one head;
nothing of use comes near either."""
FIELDS_MAX = 1024
"""Lines of a header section."""
CONNECTION_MAX_BYTES = 1024
INTERIM_MAX = 256
"""How many interim responses one request may bring: the progress of an hour, with one each quarter of a minute."""
TRAILERS_MAX_BYTES = 64 * 1024

STEP_UNITS = 256
"""What one feed may cost: more only by the last head or trailer section, which are read as a whole."""
HURRIED_UNITS = 64
"""The same for a feed that is done at once, however much else there is to do."""
WHOLE_HEAD_MAX_BYTES = 4096
"""A response with a longer head is not read as a whole, out of turn."""

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

    __slots__ = ("closes", "framing", "has_connection_fields", "hop_fields", "length", "raw", "status", "upgrades")

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
        self.hop_fields: tuple[bytes, ...] = ()
        """Names of fields that Connection says are among those, in lower case."""


_known = Memory[ResponseHead](_KNOWN_MAX)
"""Heads of final responses that were found good, a bounded number. Not those of answers to HEAD."""


def _head_of(data: bytes, is_head: bool = False, most: int | None = None) -> ResponseHead | None:
    """The head of ``data``; None: not whole within ``most``, or malformed. Raises ``BadResponse``."""
    end = data.find(_END, 0, most) + 4
    raw = data[:end]
    head = None if is_head else _known.get(raw)
    if head is None:
        found = _HEAD.fullmatch(raw)
        if found is None:
            return None
        head = ResponseHead(int(found[1]), raw)
        _judge(head, is_head)
        if head.status >= 200 and not is_head and end <= _KNOWN_MAX_BYTES and _known.comes_again(raw):
            _known.keep(raw, head)
    return head


def _judge(head: ResponseHead, is_head: bool) -> None:
    """Find out where the content ends. Raises ``BadResponse``."""
    if len(head.raw) > 4 * FIELDS_MAX and head.raw.count(b"\r\n") > FIELDS_MAX + 2:
        raise BadResponse(f"a head of over {FIELDS_MAX} fields")
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
                if len(value) > CONNECTION_MAX_BYTES:
                    raise BadResponse(f"a Connection over {CONNECTION_MAX_BYTES} bytes")
                options = tokens(value)
                head.hop_fields += tuple(option for option in options if option not in _NOT_OF_THE_HOP)
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
    head = _known.get(data[: data.find(_END) + 4]) or _head_of(data, most=WHOLE_HEAD_MAX_BYTES)
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
    """Reads one response. ``feed`` it; each time, look at ``informational``, ``head``, ``content``, ``complete``; and
    go on with ``feed()`` while it ``is_behind``: a feed does a bounded amount of work, in units of about a microsecond,
    whatever the worker chose to send. ``is_head``: it answers HEAD, and has no content whatever it says. ``decodes``:
    chunked content is wanted without its framing, for HTTP/1.0.
    """

    __slots__ = (
        "_at",
        "_data",
        "_decodes",
        "_held",
        "_interim",
        "_interim_bytes",
        "_is_head",
        "_left",
        "_overhead",
        "_place",
        "_received",
        "complete",
        "content",
        "excess",
        "head",
        "informational",
        "is_behind",
        "units",
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
        self.is_behind = False
        """Some of what was fed has not been read yet."""
        self.units = 0
        """What the last feed cost."""
        self._data = b""
        self._at = 0
        self._held = bytearray()
        self._left = 0
        self._place = _SIZE
        self._interim = 0
        self._interim_bytes = 0
        self._overhead = 0
        self._received = 0

    def feed(self, data: bytes = b"", is_hurried: bool = False) -> None:
        """Read ``data``, or go on with what is left of the last. Raises ``BadResponse``, after which nothing more may
        be fed.

        ``is_hurried``: read only what costs next to nothing, and perhaps nothing at all.
        """
        self.content = self.informational = b""
        self.units = 0
        at = 0
        if self.is_behind:
            data, at = self._data, self._at
        elif self.complete:
            self.excess += data
            return
        most = HURRIED_UNITS if is_hurried else STEP_UNITS
        if self.head is None:
            at = self._read_heads(data, at, most, is_hurried)
        head = self.head
        if head is not None:
            framing = head.framing
            if framing is _LENGTH:
                at = self._counted(data, at)
            elif framing is _CHUNKED:
                if self._held and self._place is not _TRAILERS:
                    data = bytes(self._held) + data
                    self._held.clear()
                at = self._chunks(data, at, most, is_hurried)
            elif framing is _CLOSE:
                self.content = data[at:] if at else data
                at = len(data)
            else:
                self.complete = True
            if self.complete:
                self.excess = data[at:]
                at = len(data)
        self.is_behind = at < len(data)
        self._data, self._at = (data, at) if self.is_behind else (b"", 0)

    @property
    def held_bytes(self) -> int:
        """How much there is of a head, or of trailers, that is not whole."""
        return len(self._held)

    # The heads

    def _read_heads(self, data: bytes, at: int, most: int, is_hurried: bool) -> int:
        """Read heads until a final one; how far it has come in ``data``. Raises ``BadResponse``."""
        informational: list[bytes] = []
        end = len(data)
        while at < end and self.units < most:
            stop = behind_blank_line(bytes(self._held[-3:]), data, at)
            if stop < 0:
                self._hold_head(data[at:])
                at = end
                break
            size = len(self._held) + stop - at
            if size > HEAD_MAX_BYTES:
                raise BadResponse(f"a head over {HEAD_MAX_BYTES} bytes")
            cost = 5 + (size >> 6)
            if is_hurried and self.units + cost > most:
                break
            self.units += cost
            raw = data[at:stop]
            if self._held:
                raw = bytes(self._held) + raw
                self._held.clear()
            head = _head_of(raw, self._is_head)
            if head is None:
                raise BadResponse("a malformed head")
            at = stop
            if head.status >= 200 or head.status == 101:
                self.head = head
                self._left = head.length
                break
            self._count_interim(size)
            if head.status != 100:  # a 100 Continue is the relay's own business with its client
                informational.append(raw)
        if informational:
            self.informational = b"".join(informational)
        return at

    def _hold_head(self, data: bytes) -> None:
        """Keep the beginning of a head. Raises ``BadResponse``."""
        held = self._held
        held += data
        if held[: len(_START)] != _START[: len(held)]:
            raise BadResponse("not a response of HTTP/1.1")
        if len(held) > HEAD_MAX_BYTES:
            raise BadResponse(f"a head over {HEAD_MAX_BYTES} bytes")

    def _count_interim(self, size: int) -> None:
        self._interim += 1
        self._interim_bytes += size
        if self._interim > INTERIM_MAX or self._interim_bytes > HEAD_MAX_BYTES:
            raise BadResponse("interim responses without end")

    # The content

    def _counted(self, data: bytes, at: int) -> int:
        """Take what belongs to the content; where that ends."""
        stop = min(len(data), at + self._left)
        self._left -= stop - at
        self.content = data[at:stop] if at or stop < len(data) else data
        self.complete = not self._left
        return stop

    def _chunks(self, data: bytes, at: int, most: int, is_hurried: bool) -> int:
        """Take some chunks, and trailers; how far it has come. Raises ``BadResponse``."""
        begin = at
        end = len(data)
        left = self._left
        place = self._place
        units = self.units
        received = 0
        decoded: list[bytes] = []
        while at < end and units < most:
            if place is _SIZE:
                units += 1
                size = _CHUNK.match(data, at)
                if size is None:
                    if _CHUNK_BEGUN.fullmatch(data, at) is None:
                        raise BadResponse("a malformed chunk size")
                    break
                at = size.end()
                left = int(size[1], 16)
                place = _DATA if left else _TRAILERS
            elif place is _DATA:
                stop = min(at + left, end)
                if self._decodes:
                    decoded.append(data[at:stop])
                left -= stop - at
                received += stop - at
                at = stop
                if not left:
                    place = _DATA_END
            elif place is _DATA_END:
                if not data.startswith(b"\r\n", at):
                    if data[at] == _CR and at + 1 == end:
                        break
                    raise BadResponse("a chunk that does not end where its size says")
                at += 2
                place = _SIZE
            else:
                break
        self._left = left
        self._place = place
        self.units = units
        self._received += received
        self._overhead += at - begin - received
        if self._overhead > CHUNK_OVERHEAD_BYTES + CHUNK_OVERHEAD_RATIO * self._received:
            raise BadResponse("more framing than content")
        content = data if not begin and at == end else data[begin:at]
        if place is _TRAILERS:
            if at < end and units < most:
                section, at = self._trailers(data, at, is_hurried)
                content += section
        elif at < end and units < most:
            self._held += data[at:]  # a line that is not whole
            at = end
        self.content = b"".join(decoded) if self._decodes else content
        return at

    def _trailers(self, data: bytes, at: int, is_hurried: bool) -> tuple[bytes, int]:
        """Read the trailer section, if it is whole; it, and how far that is. Raises ``BadResponse``."""
        held = self._held
        if len(held) < 2 and (bytes(held) + data[at : at + 2])[:2] == b"\r\n":
            stop = at + 2 - len(held)  # there are none
        else:
            stop = behind_blank_line(bytes(held[-3:]), data, at)
        if len(held) + (stop if stop > 0 else len(data)) - at > TRAILERS_MAX_BYTES:
            raise BadResponse(f"trailers over {TRAILERS_MAX_BYTES} bytes")
        if stop < 0:
            held += data[at:]
            return b"", len(data)
        cost = (len(held) + stop - at) >> 5
        if is_hurried and cost > HURRIED_UNITS:
            return b"", at
        self.units += cost
        section = bytes(held) + data[at:stop]
        held.clear()
        if _SECTION.fullmatch(section) is None:
            raise BadResponse("malformed trailers")
        if _NO_TRAILER.search(section):
            raise BadResponse("a trailer that cannot be one")
        self.complete = True
        return section, stop


def rewritten(head: ResponseHead, added: list[bytes], drops_framing: bool) -> bytes:
    """The head without the fields that are between worker and relay, those that Connection names among them (RFC 9110
    section 7.6.1), and with the lines ``added``.

    ``drops_framing``: Transfer-Encoding is left out as well, because the content leaves decoded.
    """
    lines = head.raw[:-4].split(b"\r\n")
    kept = lines[:1]
    for line in lines[1:]:
        name = line.partition(b":")[0].lower()
        if name in _BETWEEN_US or name in head.hop_fields or (drops_framing and name == b"transfer-encoding"):
            continue
        kept.append(line)
    return b"\r\n".join([*kept, *added, b"", b""])


_NOT_OF_THE_HOP = frozenset((b"close", b"keep-alive", b"upgrade", b"content-length", b"transfer-encoding"))
"""Options that name no field of the worker's alone, whatever Connection says: it cannot take the framing away."""
_BETWEEN_US = frozenset((b"connection", b"keep-alive", b"proxy-connection"))
