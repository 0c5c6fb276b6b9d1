"""The access log's line for a request that has been answered: what is at hand, in bytes, for the log process to read.

Header fields as they came and the head as it left, NUL between the parts, none of which can hold a NUL or a line end.
Making a record of that, and leaving secrets out, is done where it holds up no request (``logs.access``).
"""

from __future__ import annotations

import threading
from itertools import chain

from ..channel.records import Records, current
from ..channel.settings import Settings
from ..http1.request import RequestHead

TRUSTED, LINK = 1, 2
"""Flags: the connection is Caddy's or a relay's; it is a relay's."""

_QUEUE_SHIFT = 8
"""Above so many bits of the flags stands for how many microseconds it waited: a log process of an older version passes
over that."""
_QUEUE_MAX_US = 1 << 45

CLIENT_GONE = 499
"""The status of a request whose client left before it was answered, as with Caddy and nginx."""

LINE_MAX = 128 * 1024
_END = b"\r\n\r\n"
_fields_of = chain.from_iterable


def line(
    head: RequestHead,
    flags: int,
    peer: tuple[str, int],
    received: int,
    sent: int,
    status: int,
    took_s: float,
    answer: bytes,
) -> bytes:
    """``answer``: the response's head without the empty line; empty when none was sent. Sizes are those of contents."""
    fields = b"\0".join(_fields_of(head.headers))
    made = (
        b"A%d\0%d\0%d\0%d\0%d\0%d\0%b\0%b\0%b\0%b\0%b\0\0%b\n"
        if fields
        else b"A%d\0%d\0%d\0%d\0%d\0%d\0%b\0%b\0%b\0%b%b\0\0%b\n"
    ) % (
        took_s * 1e6,
        received,
        sent,
        status,
        flags,
        peer[1],
        peer[0].encode(),
        head.method.encode(),
        head.version.encode(),
        head.target,
        fields,
        answer.replace(b"\r\n", b"\0"),
    )
    if len(made) > LINE_MAX and (head.headers or answer):
        return line(_bare(head), flags, peer, received, sent, status, took_s, answer[: LINE_MAX // 2])
    return made


def queue_bits(waited_s: float) -> int:
    """What belongs into the flags of a request that waited for so long before the app was called."""
    return min(max(int(waited_s * 1e6), 0), _QUEUE_MAX_US) << _QUEUE_SHIFT


def head_of(output: bytes | tuple[bytes, ...]) -> bytes:
    """The head that ``output`` begins with."""
    first = output if isinstance(output, bytes) else output[0]
    return first[: first.find(_END)]


def _bare(head: RequestHead) -> RequestHead:
    """Without header fields, which are too many to be logged."""
    path = head.path[: LINE_MAX // 8]
    return RequestHead((head.method, head.target[: LINE_MAX // 8], path, b"", head.version), [], True)


class AccessLog:
    """Collects the lines of a turn, and writes them as one piece: each by itself would wake the log process. From any
    thread.
    """

    def __init__(self, records: Records) -> None:
        self._write = records.write
        self._lines: list[bytes] = []
        self._lock = threading.Lock()

    def collect(self, made: bytes) -> bool:
        """Keep a line for ``flush``; True when it is the first."""
        self._lines.append(made)
        return len(self._lines) == 1

    def flush(self) -> None:
        """Write the lines collected since the last call."""
        if self._lines:
            with self._lock:
                lines = self._lines[:]
                del self._lines[: len(lines)]  # others may come meanwhile
                self._write(b"".join(lines))


def access_log(settings: Settings) -> AccessLog | None:
    """The access log of the app, if it has one and somebody reads it. In the thread of its worker."""
    found = current()
    return AccessLog(found) if settings.access_log is not None and found.fd >= 0 else None
