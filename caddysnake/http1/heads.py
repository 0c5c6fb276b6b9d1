"""What a parsed request head is, and what is remembered of heads that come again to the letter.

Clients send the same fields over and over: a browser for everything on a page, a proxy for its health checks. A server
keeps a bounded number of header sections, and of whole heads, by their bytes; what was found out about them once holds
each time.
"""

from __future__ import annotations

from typing import Any, TypeVar

_Kept = TypeVar("_Kept")

REMEMBERED_MAX = 256
_REST = 16 * REMEMBERED_MAX

Line = tuple[str, bytes, bytes, bytes, str]
"""Method, target, path, query and version of a request line that was found good."""


class RequestHead:
    """One request's line and header section."""

    __slots__ = (
        "chunked",
        "content_length",
        "expect_continue",
        "headers",
        "hop_fields",
        "host",
        "is_shared",
        "keep_alive",
        "last",
        "made",
        "method",
        "path",
        "query",
        "ready",
        "section",
        "target",
        "upgrade",
        "version",
    )

    def __init__(
        self,
        line: Line,
        headers: list[tuple[bytes, bytes]],
        keep_alive: bool,
    ) -> None:
        self.method, self.target, self.path, self.query, self.version = line
        """``target`` is as sent; ``path`` is still percent-encoded, without the query, or ``*`` for the asterisk form;
        ``version`` is ``1.0`` or ``1.1``."""
        self.headers = headers
        """In the order sent: lower-case name, value without outer white space."""
        self.last: dict[bytes, bytes] | None = None
        """Of each field the value, of those that are repeated the last; None where nobody has needed it so far."""
        self.keep_alive = keep_alive
        """The client is ready to send another request on this connection."""
        self.host: bytes | None = None
        """None only on HTTP/1.0. With a target in absolute form, that one's authority (RFC 9112 section 3.2.2)."""
        self.content_length: int | None = None
        self.chunked = False
        self.expect_continue = False
        self.upgrade: bytes | None = None
        """The Upgrade field, lower case, when Connection names it (HTTP/1.1 only)."""
        self.hop_fields: tuple[bytes, ...] = ()
        """What Connection names, as ``close``, or fields that end at the next hop (RFC 9110 section 7.6.1)."""
        self.section: Section | None = None
        """What this header section has in common with others like it, if they are remembered."""
        self.is_shared = False
        """This head is remembered, and stands for every request that is the same to the letter: read it only."""
        self.made: Any = None
        """As a section's: the server's own."""
        self.ready: dict[str, Any] | None = None
        """The scope or environ of this request, where it was made with the head."""

    @property
    def has_body(self) -> bool:
        """Content follows, or may follow."""
        return self.chunked or bool(self.content_length)


class Section:
    """A header section that many requests have in common, to the letter: a client sends the same fields over and over.

    What was found out about it once holds each time. ``made`` is the server's own to fill with what it makes of such a
    section: a scope, an environ.
    """

    __slots__ = ("content_length", "headers", "host", "keep_alive", "made")

    def __init__(self, head: RequestHead) -> None:
        self.headers = tuple(head.headers)
        self.host = head.host
        self.keep_alive = head.keep_alive
        self.content_length = head.content_length
        self.made: Any = None


class Remembered(dict[bytes, _Kept]):
    """A bounded number of things by their bytes. Where hardly any comes again it rests for a while.

    To look one up costs a hash over all its bytes, to remember one as much again: in vain, when each request has a
    field that no other has. Threads may share it: a count that is lost does no harm.
    """

    __slots__ = ("hits", "rest")

    def __init__(self) -> None:
        super().__init__()
        self.hits = 0
        """How many were found since it was last emptied: who finds one counts."""
        self.rest = 0
        """How many requests are to pass before it is asked again: who would ask counts."""

    def remember(self, key: bytes, kept: _Kept) -> None:
        """Keep one more."""
        if len(self) >= REMEMBERED_MAX:
            self.clear()
            if self.hits < REMEMBERED_MAX:
                self.rest = _REST
            self.hits = 0
        self[key] = kept


Sections = Remembered[Section]
"""What one server remembers of HTTP/1.1 requests without content."""

Heads = Remembered[RequestHead]
"""Whole heads that one server remembers, of sections that have come before."""
