"""One exchange: a request of a client's, forwarded over a link, and the response on its way back.

Pure: events come in as method calls, commands go out as lists, in the order in which they must be carried out. There is
no I/O and no clock in here, and no knowledge of who else uses either connection. Most requests are one write each way:
those have ``linked_whole`` and ``answered_whole``, which need no lists; both give way when it is not so simple.

=============  =====================================================================================
stage          meaning
=============  =====================================================================================
WAITING        there is no link yet; what has come of the request is held by its parser
ASKED          the request is on its way, or whole; no final response head has come
ANSWERING      the response head has been passed on: nothing else can be answered any more
TUNNEL         101: bytes go both ways until either side ends
OVER
=============  =====================================================================================

What ends an exchange is ``Complete`` (the response is complete), ``Answer`` (one of the relay's own instead), or
``Abort`` (what was passed on cannot be completed, and must not look as if it were). A response that ends before its
request does is passed on; the rest of the request is the shell's to drain.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from ..http1.errors import ProtocolError
from ..http1.request import RequestHead
from . import to_worker
from .from_worker import BadResponse, Framing, ResponseHead, ResponseReader, rewritten, whole_response

JOIN_MAX_BYTES = 64 * 1024
"""Content up to this size is copied behind its head, to leave in one write."""

_REPEATABLE = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))
"""Safe methods: what a worker may have begun for them can be begun again. Caddy and Go repeat the same ones."""

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"


class ExchangeStage(Enum):
    """The life of one exchange; see the table above."""

    WAITING = "waiting"
    ASKED = "asked"
    ANSWERING = "answering"
    TUNNEL = "tunnel"
    OVER = "over"


class ToClient(NamedTuple):
    """Write to the client."""

    data: bytes


class ToLink(NamedTuple):
    """Write to the link."""

    data: bytes


class EndLink(NamedTuple):
    """End our side of the link, and read on: the client has ended its own."""


class Retry(NamedTuple):
    """Drop the link and ask for one to another worker; ``linked`` when it is there."""


class Tunnel(NamedTuple):
    """From now on pass bytes both ways: ``tunnelled`` or directly."""


class Complete(NamedTuple):
    """The response is complete. ``is_clean``: another request may use the link. ``keeps_client``: one may follow."""

    is_clean: bool
    keeps_client: bool


class Answer(NamedTuple):
    """Drop the link and answer this instead."""

    status: int
    code: str
    detail: str = ""
    """Why; for developers."""
    retry_after_s: int = 0
    is_told: bool = False
    """``detail`` is for the client in any case: who gave it knows to whom it goes."""


class Abort(NamedTuple):
    """Drop the link and cut the client's connection: the response is not whole. ``why`` is for the log."""

    why: str
    is_clients: bool = False
    """It was the client that left."""


Command = ToClient | ToLink | EndLink | Retry | Tunnel | Complete | Answer | Abort

# CPython 3.11 reaches a member through its class by a descriptor written in Python: too slow for each request.
_WAITING, _ASKED, _ANSWERING, _TUNNEL, _OVER = ExchangeStage
_NONE, _LENGTH, _CHUNKED, _CLOSE, _UPGRADE = Framing
_OVERS = {(clean, keeps): Complete(clean, keeps) for clean in (False, True) for keeps in (False, True)}


class Exchange:
    """The request with ``head`` and its response.

    ``outgoing``: the head as the worker gets it. ``closes``: the client's connection ends after the response; may be
    set until the response head has been passed on. ``continues``: a client that waits for 100 Continue gets it from us.
    """

    __slots__ = (
        "_continues",
        "_keeps_client",
        "_outgoing",
        "_reader",
        "_request_sent",
        "_response",
        "added",
        "closes",
        "has_body",
        "head",
        "input_ended",
        "is_repeatable",
        "stage",
        "status",
    )

    def __init__(self, head: RequestHead, outgoing: bytes, closes: bool, continues: bool = False) -> None:
        self.head = head
        self.closes = closes
        self.input_ended = False
        """The client has ended its side; it may still be reading."""
        self.stage = _WAITING
        self.status = 0
        """Of the response, once its head has been passed on."""
        self._outgoing = outgoing
        self._continues = continues and head.expect_continue
        self.has_body = head.has_body
        """Content follows, or may follow, in the request."""
        self.is_repeatable = head.method in _REPEATABLE and not self.has_body and head.upgrade is None
        """Should its link end without an answer, another may be tried, once."""
        self._keeps_client = False
        self._request_sent = False
        self.added: list[bytes] = []
        """Lines for the head of the response."""
        self._response: ResponseHead | None = None
        self._reader: ResponseReader | None = None

    # The request

    def tell(self, line: bytes) -> None:
        """One more line for the head that the worker gets."""
        self._outgoing = self._outgoing[:-2] + line + b"\r\n\r\n"

    def linked_whole(self) -> bytes | None:
        """There is a link: what to write to it, which is all of the request. None, and nothing has happened, when
        there is more to it: call ``linked``.
        """
        if self.has_body or self.input_ended:
            return None
        self.stage = _ASKED
        self._request_sent = True
        return self._outgoing

    def linked(self, content: bytes, is_complete: bool) -> list[Command]:
        """There is a link. ``content`` is what has come of the request's, ``is_complete`` when that is all."""
        self.stage = _ASKED
        self._request_sent = is_complete
        data = self._outgoing
        commands: list[Command]
        if self.head.chunked:
            data += to_worker.framed(content, is_complete)
            commands = [ToLink(data)]
        elif len(content) <= JOIN_MAX_BYTES:
            commands = [ToLink(data + content if content else data)]
        else:
            commands = [ToLink(data), ToLink(content)]
        if self._continues and not content and not is_complete:
            commands.append(ToClient(_CONTINUE))
        if self.input_ended:
            commands.append(EndLink())
        return commands

    def content(self, content: bytes, is_complete: bool) -> list[Command]:
        """More of the request's content has come; not while WAITING."""
        self._request_sent = is_complete
        data = to_worker.framed(content, is_complete) if self.head.chunked else content
        return [ToLink(data)] if data else []

    def client_ended(self, is_complete: bool) -> list[Command]:
        """The client has ended its side. ``is_complete``: its request is whole, so it may be reading still."""
        if self.stage is _TUNNEL:
            return self._over(False)
        if not is_complete:
            self.stage = _OVER
            return [Abort("the client left within its request", is_clients=True)]
        self.input_ended = True
        self.closes = True
        return [] if self.stage is _WAITING else [EndLink()]

    def request_broken(self, error: ProtocolError) -> list[Command]:
        """The request's content broke a rule: there is no knowing where the next one begins."""
        self.closes = True
        return self.failed(error.status, error.code, str(error))

    def refused(self, answer: Answer) -> list[Command]:
        """There will be no link, but this."""
        self.stage = _OVER
        return [answer]

    # The response

    def answered_whole(self, data: bytes) -> tuple[bytes, Complete] | None:
        """Bytes have come over the link. When they are the response, all of it: what to write to the client, and
        what then becomes of both sides. None, and nothing has happened, when they are not: call ``response``.
        """
        if self.stage is not _ASKED or self._reader is not None or self.head.method == "HEAD":
            return None
        try:
            head = whole_response(data)
        except BadResponse:
            return None
        if head is None:
            return None
        self.stage = _OVER
        self.status = head.status
        if not self.closes and not head.has_connection_fields and self.head.version == "1.1" and not self.added:
            return data, _OVERS[self._request_sent, True]  # as below, for most
        raw = self._head_for_client(head)
        return data if raw is head.raw else raw + data[len(head.raw) :], self._ending(head, True)

    @property
    def is_behind(self) -> bool:
        """Some of what came over the link has not been read yet: call ``response`` without anything."""
        reader = self._reader
        return reader is not None and reader.is_behind and (self.stage is _ASKED or self.stage is _ANSWERING)

    @property
    def begun_bytes(self) -> int:
        """How much there is of a head, or of trailers, that is not whole."""
        return 0 if self._reader is None else self._reader.held_bytes

    @property
    def units(self) -> int:
        """What the last ``response`` cost, see ``ResponseReader``."""
        return 0 if self._reader is None else self._reader.units

    def response(self, data: bytes = b"", is_hurried: bool = False) -> list[Command]:
        """Bytes have come over the link; not while WAITING. ``is_hurried``: do no more than a little now."""
        stage = self.stage
        if stage is _TUNNEL:
            return [ToClient(data)]
        reader = self._reader
        if reader is None:
            reader = self._reader = ResponseReader(self.head.method == "HEAD", decodes=self.head.version == "1.0")
        try:
            reader.feed(data, is_hurried)
        except BadResponse as bad:
            return self.failed(502, "bad-response", str(bad))
        content = reader.content
        if stage is _ANSWERING:
            head = reader.head
            assert head is not None
            if head.framing is _CLOSE and self.head.version == "1.1":
                content = to_worker.framed(content, False)
            commands: list[Command] = [ToClient(content)] if content else []
        else:
            commands = self._begun(reader, content)
        if reader.complete and self.stage is _ANSWERING:
            commands += self._over(not reader.excess)
        return commands

    def _begun(self, reader: ResponseReader, content: bytes) -> list[Command]:
        commands: list[Command] = []
        if reader.informational:
            self.is_repeatable = False
            if self.head.version == "1.1":  # RFC 9110 section 15.2: a client of 1.0 does not know them
                commands.append(ToClient(reader.informational))
        head = reader.head
        if head is None:
            return commands
        if head.framing is _UPGRADE:
            return commands + self._upgraded(head, reader.excess)
        self.stage = _ANSWERING
        self.status = head.status
        self._response = head
        raw = self._head_for_client(head)
        if head.framing is _CLOSE and self.head.version == "1.1":
            content = to_worker.framed(content, False)
        if len(content) <= JOIN_MAX_BYTES:
            commands.append(ToClient(raw + content if content else raw))
        else:
            commands += [ToClient(raw), ToClient(content)]
        return commands

    def _head_for_client(self, head: ResponseHead) -> bytes:
        """The head as the client gets it: whether its connection stays is between it and us."""
        framing = head.framing
        is_1_0 = self.head.version == "1.0"
        # A worker that ends the connection within a request will not have the rest of it: neither shall we wait for it.
        gives_up = head.closes and not self._request_sent
        self._keeps_client = not (self.closes or gives_up or (is_1_0 and framing in (_CHUNKED, _CLOSE)))
        added = self.added
        if self._keeps_client and framing is not _CLOSE and not head.has_connection_fields and not is_1_0 and not added:
            return head.raw
        added = [*added]
        options = [b"upgrade"] if head.upgrades else []
        if not self._keeps_client:
            options.append(b"close")
        elif is_1_0:
            options.append(b"keep-alive")
        if options:
            added.append(b"connection: " + b", ".join(options))
        if framing is _CLOSE and not is_1_0:
            added.append(b"transfer-encoding: chunked")
        return rewritten(head, added, drops_framing=is_1_0)

    def _upgraded(self, head: ResponseHead, excess: bytes) -> list[Command]:
        if self.head.upgrade is None or not self._request_sent or not head.upgrades:
            return self.failed(502, "bad-response", "it switched protocols, which nobody asked for")
        self.stage = _TUNNEL
        self.status = 101
        self._response = head
        raw = head.raw
        if head.hop_fields or self.added:
            raw = rewritten(head, [b"connection: upgrade", *self.added], drops_framing=False)
        return [ToClient(raw + excess), Tunnel()]

    def link_ended(self, is_orderly: bool) -> list[Command]:
        """The link has ended; not while WAITING. ``is_orderly``: as a sender ends, not by an error."""
        stage = self.stage
        if stage is _TUNNEL:
            return self._over(False)
        if stage is _ASKED:
            if self.is_repeatable and not self.input_ended:
                self.is_repeatable = False
                self._reader = None
                self.stage = _WAITING
                return [Retry()]
            return self.failed(502, "worker-gone", "the worker ended before it answered")
        head = self._response
        if is_orderly and head is not None and head.framing is _CLOSE:
            last: list[Command] = [ToClient(_LAST_CHUNK)] if self.head.version == "1.1" else []
            return last + self._over(False)
        return self.failed(502, "worker-gone", "the worker ended within its response")

    def failed(self, status: int, code: str, why: str) -> list[Command]:
        """It cannot be completed: answer, or cut when a response has begun."""
        begun = self.stage is _ANSWERING or self.stage is _TUNNEL
        self.stage = _OVER
        return [Abort(why) if begun else Answer(status, code, why)]

    def _over(self, is_clean: bool) -> list[Command]:
        self.stage = _OVER
        assert self._response is not None
        return [self._ending(self._response, is_clean)]

    def _ending(self, head: ResponseHead, is_clean: bool) -> Complete:
        reusable = (
            is_clean
            and self._request_sent
            and not self.input_ended
            and not head.closes
            and head.framing is not _CLOSE
            and head.framing is not _UPGRADE
        )
        return _OVERS[reusable, self._keeps_client and not self.input_ended]
