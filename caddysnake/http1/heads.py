"""What a parsed request head is."""

from __future__ import annotations

from typing import Any

from .memory import Memory

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
        "target",
        "upgrade",
        "version",
    )

    def __init__(self, line: Line, headers: list[tuple[bytes, bytes]], keep_alive: bool) -> None:
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
        self.is_shared = False
        """This head is remembered, and stands for every request that is the same to the letter: read it only."""
        self.made: Any = None
        """Of a shared head: the server's own, what it has made of it."""
        self.ready: Any = None
        """The scope or environ of this request, or its bytes for the next hop, where they were made with the head."""

    @property
    def has_body(self) -> bool:
        """Content follows, or may follow."""
        return self.chunked or bool(self.content_length)


Heads = Memory[RequestHead]
"""Whole heads that one server remembers: of HTTP/1.1, without content, and nobody's in particular."""

HEADS_MAX = 256
