"""One ASGI HTTP request: ``receive`` and ``send`` for the app, between a connection's parser and its transport.

Two halves that end independently. The request half is the parser's (``HttpConnection.parser``); this one hands its
body to the app. The response half is a ``Response``, whose phases are the states of ``send``:

=============  ==================================================================================
phase          what the app may send
=============  ==================================================================================
WAITING        http.response.start, http.response.early_hint
STARTED        http.response.body, .pathsend; the head leaves at once with it, or at the end of
               this turn of the loop, so that a slow stream opens immediately
STREAMING      http.response.body
TRAILERS       http.response.trailers
DONE           nothing; the connection has gone on to its next request by then
BROKEN         nothing; the connection is being cut
=============  ==================================================================================

The app is never cancelled because a client left: ``receive`` says so, and ``send`` raises ``ClientDisconnected``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import MutableMapping
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..http1.answers import plain, traceback_page
from ..http1.errors import ProtocolError, ResponseError
from ..http1.request import RequestHead
from ..http1.response import Phase, Response
from .loader import foreign_traceback

if TYPE_CHECKING:
    from .asgi_connection import HttpConnection

log = logging.getLogger("caddysnake.worker")

Message = MutableMapping[str, Any]

_STARTED = Phase.STARTED
_DONE = Phase.DONE
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class ClientDisconnected(OSError):
    """Raised by ``send`` when the client is gone (ASGI HTTP specification, since 2.4)."""


class HttpCycle:
    """One request and its response."""

    __slots__ = (
        "_connection",
        "_event",
        "_request_given",
        "continued",
        "head",
        "is_counted",
        "is_gone",
        "is_waiting_for_body",
        "response",
        "scope",
        "started",
        "task",
    )

    def __init__(
        self, connection: HttpConnection, head: RequestHead, response: Response, scope: dict[str, Any]
    ) -> None:
        self._connection = connection
        self._event: asyncio.Event | None = None
        self._request_given = False
        self.head = head
        self.response = response
        self.scope = scope
        self.is_gone = False
        """The client is gone: nothing can be sent."""
        self.continued = False
        self.is_counted = False
        """No longer among the requests being answered."""
        self.is_waiting_for_body = False
        self.started = monotonic()
        self.task: asyncio.Task[None] | None = None

    async def run(self, app: Any) -> None:
        """Call the app for this request, and answer for it where it does not."""
        connection = self._connection
        try:
            await app(self.scope, self.receive, self.send)
        except BaseException as exc:  # foreign code; SystemExit must not end the loop
            self._raised(exc)
        else:
            if self.response.phase is not _DONE and not self.is_gone:
                self._incomplete()
        finally:
            connection.server.cycle_ended(self)
            self.task = None

    # For the app

    async def receive(self) -> Message:
        connection = self._connection
        parser = connection.parser
        while True:
            if connection.cycle is not self or self.is_gone:
                return {"type": "http.disconnect"}
            if not self._request_given and (parser.body or parser.complete):
                body = parser.take_body()
                more = not parser.complete
                self._request_given = not more
                if more:
                    connection.resume_reading()
                connection.server.tally.bytes_in += len(body)
                return {"type": "http.request", "body": body, "more_body": more}
            if connection.is_half_closed:
                return {"type": "http.disconnect"}
            if self.head.expect_continue and not self._request_given:
                self._continue()
            await self._wait()

    async def send(self, message: Message) -> None:
        kind = message["type"]
        connection = self._connection
        response = self.response
        if self.is_gone:
            raise ClientDisconnected("the client is gone")
        if kind == "http.response.body":
            body = message.get("body", b"")
            if type(body) is not bytes:
                body = _to_bytes(body)
            connection.write(response.send(body, message.get("more_body", False)), len(body))
            if response.phase is _DONE:
                connection.response_done(self)
            if connection.is_write_paused:
                await connection.drain()
        elif kind == "http.response.start":
            if self.head.expect_continue:
                self._refuse_unread()
            response.start(message["status"], message.get("headers", ()), None, message.get("trailers", False))
            connection.server.head_waits(self)
        else:
            raise ResponseError(f"{kind!r} is not a message of an HTTP response")

    # For the connection

    def flush_head(self) -> None:
        """Let a head leave whose content did not come in the same turn of the loop."""
        if not self.is_gone:
            self._connection.write(self.response.flush_head(), 0)

    def wake(self) -> None:
        """Something that ``receive`` may wait for has happened."""
        if self._event is not None:
            self._event.set()

    def disconnect(self) -> None:
        """The client is gone."""
        self.is_gone = True
        self.wake()

    async def _wait(self) -> None:
        event = self._event
        if event is None:
            event = self._event = asyncio.Event()
        event.clear()
        connection = self._connection
        if self._request_given:
            await event.wait()
            return
        self.is_waiting_for_body = True
        connection.watch_body()
        try:
            await event.wait()
        finally:
            self.is_waiting_for_body = False

    def _continue(self) -> None:
        # Caddy has sent one already; a second would reach the browser (seen with 2.11.7).
        connection = self._connection
        if self.continued or self.response.head_sent or connection.peer.is_trusted or connection.parser.received:
            return
        self.continued = True
        connection.write(_CONTINUE, 0)

    def _refuse_unread(self) -> None:
        """A client that still waits for its 100 may send its body all the same, or another request: the next bytes

        cannot be told apart, so this is the last answer (RFC 9110 section 10.1.1). Caddy has had its 100.
        """
        connection = self._connection
        if not self.continued and not connection.parser.received and not connection.peer.is_trusted:
            self.response.close = True

    # When the app does not answer

    def _raised(self, exc: BaseException) -> None:
        if self.is_gone and _is_about_leaving(exc):
            return
        cancelled = isinstance(exc, asyncio.CancelledError) and self._connection.server.is_forced
        if not cancelled:
            self._log("the app raised an exception", exc)
        self._connection.server.tally.errors += 1
        if self.is_gone or self.response.phase is _DONE:
            return
        if self.response.head_sent:
            self._connection.abort()
        elif self._connection.server.settings.development:
            trace = foreign_traceback(exc)
            self._answer(500, *traceback_page(500, "app-error", f"{type(exc).__name__}: {exc}", trace))
        else:
            self._answer(500, *plain(500, "app-error"))

    def _incomplete(self) -> None:
        self._connection.server.tally.errors += 1
        if self.response.head_sent:
            self._log("the app returned before its response was complete", None)
            self._connection.abort()
        else:
            self._log("the app returned without a response", None)
            self._answer(500, *plain(500, "no-response"))

    def _answer(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Answer in the app's place; a head of its own that has not left is forgotten."""
        response = self.response
        response.reset()
        response.start(status, headers)
        self._connection.write(response.send(body, more=False), len(body))
        self._connection.response_done(self)

    def fail(self, error: ProtocolError) -> None:
        """The request's body broke a rule, or did not come: answer if that can still be done, else cut."""
        if self.response.head_sent:
            self._connection.abort()
            return
        self.response.close = True
        self._answer(error.status, *plain(error.status, error.code, str(error)))
        self.disconnect()

    def _log(self, what: str, exc: BaseException | None) -> None:
        server = self._connection.server
        log.error(
            "%s: app=%s method=%s path=%s",
            what,
            server.settings.app,
            self.head.method,
            self.head.path.decode("ascii", "backslashreplace"),
            exc_info=exc,
        )


def _to_bytes(body: object) -> bytes:
    if isinstance(body, (bytearray, memoryview, bytes)):
        return bytes(body)
    raise ResponseError(f"the body of a response must be bytes, not {type(body).__name__}")


def _is_about_leaving(exc: BaseException | None) -> bool:
    """Whether ``exc`` only says that the client left, be it wrapped by a framework or in an exception group."""
    while exc is not None:
        if isinstance(exc, (ClientDisconnected, asyncio.CancelledError)):
            return True
        members = getattr(exc, "exceptions", None)
        if isinstance(members, tuple) and members and all(_is_about_leaving(member) for member in members):
            return True
        exc = exc.__cause__ or exc.__context__
    return False
