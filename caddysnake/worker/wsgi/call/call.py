"""One call of a WSGI app: ``start_response``, ``write``, the iterable, and what goes wrong (PEP 3333).

What the app gives goes out as it comes; nothing is collected. As soon as the response is complete the connection is
handed on, to be flushed, drained or read by any thread, and only then ``close`` runs: what an app does after its
response delays nobody but itself.
"""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, NamedTuple

from ....aio.early_answers import DROPPED_MAX_BYTES, KEPT_MAX_BYTES, SETTLE_S, most_s
from ....channel.records import say
from ....channel.vitals import SLOT_HEAD_SENT
from ....http1.answers import plain
from ....http1.chunked import Piece
from ....http1.errors import ProtocolError, ResponseError
from ....http1.request import RequestHead
from ....http1.response import Response, ResponsePhase, informational
from ...app.loader import foreign_traceback
from ...process import tracing
from ..connection import BROKEN, GONE, ClientGone, Connection, ContentRefused, FileRange
from .file_wrapper import FileWrapper
from .input import LazyInput

ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

_STARTED = ResponsePhase.STARTED
_STREAMING = ResponsePhase.STREAMING
CODE = "app-error"
"""Stable code of the 500 that an exception of the app's becomes."""

_OVER = (GONE, BROKEN)
_PATH_MAX = 200


def report(level: str, what: str, app: str, head: RequestHead, exc: BaseException | None = None, **more: str) -> None:
    """Log a request, without its query (secrets), with the traceback of ``exc`` cut down to the app's own."""
    path = head.path[:_PATH_MAX].decode("ascii", "backslashreplace")
    error = "" if exc is None else foreign_traceback(exc)
    if trace := tracing.current():
        more["traceID"] = trace
    say(level, what, error, app=app, method=head.method, path=path, **more)


class CallContext(NamedTuple):
    """What all calls of one app share."""

    app: Any
    name: str
    """For the log."""
    development: bool
    build: str
    body_timeout_s: float
    hand_on: Callable[[Connection], None]
    """Takes a connection whose response is complete while the app may still be busy."""


class Call(Response):
    """One request's call, and the response that it makes; harmless once that is complete. One object: cheap."""

    __slots__ = (
        "_connection",
        "_context",
        "_expecting",
        "answered",
        "arrived",
        "failed",
        "has_raised",
        "head",
        "is_cut",
        "is_late",
        "lazy",
        "sent_bytes",
        "sent_head",
    )

    def __init__(self, context: CallContext, connection: Connection, head: RequestHead, close: bool) -> None:
        Response.__init__(self, head, close)
        self._context = context
        self._connection: Connection | None = connection
        self._expecting = head.expect_continue and not connection.trusted
        """A 100 is owed before content is read. Caddy has sent one already, so it never gets ours."""
        self.head = head
        self.lazy: LazyInput | None = None
        self.arrived: io.BytesIO | None = None
        """Content that is large and has come already."""
        self.failed = False
        """The app raised, or its client left, or its time was over. Then ``answered`` is the status that was answered
        in its place, 0 when none could be.
        """
        self.has_raised = False
        """It failed because the app raised."""
        self.is_cut = False
        """The answer had begun when the app raised, and was cut."""
        self.is_late = False
        """It failed because its time was over, and was answered for."""
        self.sent_bytes = 0
        self.sent_head: bytes
        """For the access log: what of it was sent as the head. Not set where nothing is logged."""

    # What the app is given.

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        """``start_response`` of PEP 3333; it answers with ``write``.

        Raises ``exc_info`` when a head has left already, ``ResponseError`` for a status or fields that cannot be sent
        and for a second call without ``exc_info``.
        """
        if exc_info is not None:
            try:
                if self.head_sent and exc_info[1] is not None:
                    raise exc_info[1].with_traceback(exc_info[2])
                if self.phase is _STARTED:
                    self.reset()
            finally:
                exc_info = None
        if self.lazy is not None and self._connection is not None:
            self._consider_closing(self._connection)
            self._read_ahead(self._connection, self.lazy)
        elif self.arrived is not None and not self.arrived.tell():
            time.sleep(SETTLE_S)  # as where the rest is read (``Connection.read_on``)
        self.start_text(status, headers)
        return self.write

    def write(self, data: bytes) -> None:
        """PEP 3333's imperative way to send content: it has left, or waits in the kernel, when this returns.

        Raises ``TypeError`` for what is not bytes, ``ResponseError`` before ``start_response`` and after the end,
        ``ClientGone``.
        """
        if type(data) is not bytes and not isinstance(data, bytes):
            raise TypeError(f"write() takes bytes, not {type(data).__name__}")
        connection = self._connection
        if connection is None:
            raise ResponseError("write() after the end of the response")
        if data:
            connection.push(self._send(connection, data, True))

    def early_hints(self, headers: Iterable[tuple[str, str]]) -> None:
        """``wsgi.early_hints``: a 103 response with ``headers`` at once (RFC 8297); nothing when it is too late.

        Raises ``ResponseError`` for a field that cannot be sent, ``UnicodeEncodeError`` for one outside latin-1,
        ``ClientGone``.
        """
        connection = self._connection
        if connection is not None and not self.head_sent and self.head.version == "1.1":
            fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
            connection.push(informational(103, fields))

    def pull(self) -> Piece:
        """More content for ``wsgi.input``. Raises ``ClientGone``, ``ContentRefused``."""
        connection = self._connection
        if connection is None:
            return b""
        if self._expecting:
            self._expecting = False
            if not self.head_sent and not connection.parser.received:
                connection.push(informational(100, ()))
        try:
            return connection.pull(self._context.body_timeout_s)
        except ProtocolError as exc:
            raise self._refused(connection, exc) from exc
        except ClientGone:
            self.close = True
            raise

    # What the server does with it.

    def run(self, environ: dict[str, Any]) -> bool:
        """Call the app and send what it gives; whatever it raises ends here.

        True when the response is done with and the caller still owns the connection, which then is to be settled;
        False when it has been handed on.
        """
        iterable: Any = ()
        connection = self._connection
        assert connection is not None
        try:
            iterable = self._context.app(environ, self.start_response)
            kind = type(iterable)
            if kind is list or kind is tuple:
                data = iterable[0] if len(iterable) == 1 else b"".join(iterable)
                if type(data) is not bytes and not isinstance(data, bytes):
                    raise TypeError(f"a response consists of bytes, not {type(data).__name__}")
                if self.lazy is not None:
                    data = self._read_rest(connection, data)
                connection.offer(self._send(connection, data, False))
                self._connection = None
                if self.close:
                    connection.close()
                if self.lazy is not None:
                    self.lazy.discard()
                return True
            if kind is FileWrapper:
                self._send_file(iterable)
            else:
                self._stream(iterable)
        except BaseException as exc:
            self._fail(exc, environ)
        close = getattr(iterable, "close", None)
        if close is None:
            return self._detach()
        self._hand_on()
        self._run_close(close)
        return False

    def _detach(self) -> bool:
        """The app has no more say over the connection. False when it had none before."""
        connection = self._connection
        if connection is None:
            return False
        self._connection = None
        if self.lazy is not None:
            self.lazy.discard()
        if self.close:
            connection.close()
        return True

    def _hand_on(self) -> None:
        connection = self._connection
        if connection is not None:
            self._detach()
            self._context.hand_on(connection)

    def _run_close(self, close: Callable[[], object]) -> None:
        try:
            close()
        except BaseException as exc:
            what = "close() of the response raised an exception"
            report("error", what, self._context.name, self.head, exc, code=CODE)

    def _send(self, connection: Connection, data: bytes, more: bool) -> bytes | tuple[bytes, ...]:
        output = self.send(data, more)
        connection.slots[connection.slot] = SLOT_HEAD_SENT
        self.sent_bytes += len(data)
        return output

    @property
    def most_s(self) -> float:
        """How long an answer waits at most for the rest of its request."""
        return most_s(None)

    def _consider_closing(self, connection: Connection) -> None:
        """Before the head is made: announce the end if what is unread of the request forbids to go on behind it."""
        unread = (self.head.content_length or 0) - connection.parser.received
        # Asked to expect a 100, a client without one may hold its content back for good, or send it: no telling.
        if self._expecting or unread > DROPPED_MAX_BYTES:
            self.close = True

    def _read_ahead(self, connection: Connection, lazy: LazyInput) -> None:
        """The app is about to answer, and has not read its request: let it come first, up to a bound."""
        if lazy.is_untouched and not self.head_sent and not self._expecting:
            try:
                connection.read_on(max(1, KEPT_MAX_BYTES - lazy.size), self.most_s)
            except ProtocolError as exc:
                raise self._refused(connection, exc) from exc

    def _refused(self, connection: Connection, exc: ProtocolError) -> ContentRefused:
        connection.refusal = exc
        self.close = True
        return ContentRefused(str(exc))

    def _read_rest(self, connection: Connection, data: bytes) -> bytes:
        """The app has given all of its answer, so that nothing of the request is wanted any more. ``data`` is the last
        of it; what is left of that.
        """
        if self._expecting or connection.parser.complete:
            return data
        try:
            if self.phase is _STARTED:
                is_split = len(data) > 1 and self.has_content and self.declared_length in (None, len(data))
                if not (connection.read_on(0, self.most_s) and is_split):
                    return data
                connection.offer(self._send(connection, data[:-1], True))
                data = data[-1:]
            if self.phase is _STREAMING and self.declared_length != 0:
                connection.read_on(0, self.most_s, is_end=True)
        except ProtocolError:
            self.close = True  # too late to be told, and nothing can come behind it
        return data

    def _may_drop(self) -> bool:
        lazy = self.lazy
        if lazy is None or not (lazy.is_untouched or lazy.is_lost):
            return False
        lazy.lose()
        return True

    def _stream(self, iterable: Iterable[bytes]) -> None:
        """Send each piece as it comes: nothing of it is held back while the next is made."""
        connection = self._connection
        assert connection is not None
        for data in iterable:
            if type(data) is not bytes and not isinstance(data, bytes):
                raise TypeError(f"a response consists of bytes, not {type(data).__name__}")
            if not data:
                if self._connection is not None:
                    connection.check_reader()  # it has nothing to say, and would never hear of it otherwise
                continue
            if self._connection is None:
                what = "the app sent content beyond its Content-Length, which was dropped"
                report("warn", what, self._context.name, self.head)
                return
            if not connection.parser.complete and self.declared_length == len(data) and self._may_drop():
                self._read_rest(connection, b"")
            connection.push(self._send(connection, data, True), self._may_drop)
            if self.is_satisfied:
                if self.head.method == "HEAD":
                    break  # all that is wanted of it has left
                if connection.parser.complete:
                    self._hand_on()
        if self._connection is not None:
            self._read_rest(connection, b"")
            connection.offer(self._send(connection, b"", False))
            if not connection.parser.complete and not connection.unsent:
                connection.await_reader()

    def _send_file(self, wrapper: FileWrapper) -> None:
        connection = self._connection
        assert connection is not None
        found = wrapper.sendable() if self.phase is _STARTED else None
        if found is None:
            self._stream(wrapper if self.declared_length is None else wrapper.limited(self.declared_length))
            return
        fd, offset, size = found
        if self.declared_length is not None:
            size = min(size, self.declared_length)  # PEP 3333: to the end, or as far as Content-Length says
        if self.lazy is not None:
            self._read_rest(connection, b"")
        head = self.count_file(size)
        connection.slots[connection.slot] = SLOT_HEAD_SENT
        if size and self.has_content:
            self.sent_bytes = size
            connection.file = FileRange(fd, offset, size, connection.sock.family != socket.AF_UNIX)
        connection.offer(head)
        connection.flush()

    def answers_with(self, output: bytes | tuple[bytes, ...]) -> None:
        """``output`` takes the place of the app's answer. For the access log."""

    # When it goes wrong.

    def _fail(self, exc: BaseException, environ: dict[str, Any]) -> None:
        self.failed = True
        self.answered = self.status if self.head_sent else 0
        reason = _clients_part(exc)
        self.has_raised = reason is None
        if reason is not None:
            report("debug", str(reason), self._context.name, self.head)
        else:
            report("error", "the app raised an exception", self._context.name, self.head, exc, code=CODE)
        connection = self._connection
        if connection is None:
            return  # the response was complete
        if self.head_sent or connection.ending in _OVER:
            self.is_cut = self.has_raised
            connection.abort()
            return
        refusal = connection.refusal
        if refusal is not None:
            status, (headers, content) = refusal.status, plain(refusal.status, refusal.code, str(refusal))
        elif self._context.development:
            from ....http1.traceback_page import traceback_page

            accept = str(environ.get("HTTP_ACCEPT", "")).encode("latin-1", "replace")
            how = self.head.method, accept, self._context.build
            page = traceback_page(500, CODE, f"{type(exc).__name__}: {exc}", foreign_traceback(exc), *how)
            status, (headers, content) = 500, page
        else:
            status, (headers, content) = 500, plain(500, CODE)
        answer = Response(self.head, self.close)
        answer.start(status, headers)
        self.answered = status
        self.sent_bytes = len(content)
        self.close = answer.close
        connection.slots[connection.slot] = SLOT_HEAD_SENT
        try:
            output = answer.send(content, False)
            self.answers_with(output)
            connection.offer(output)
        except ClientGone:
            connection.abort()


def _clients_part(exc: BaseException) -> BaseException | None:
    """What the client did, if ``exc`` is or follows from that (a framework may have made another exception of it)."""
    seen: BaseException | None = exc
    for _ in range(8):
        if seen is None or isinstance(seen, (ClientGone, ContentRefused)):
            break
        seen = seen.__cause__ or seen.__context__
    return seen if isinstance(seen, (ClientGone, ContentRefused)) else None


tracing.is_call(Call.run.__code__)
