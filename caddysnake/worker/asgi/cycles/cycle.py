"""What an HTTP request and a WebSocket have in common: one call of the app, and what happens when it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any, Protocol

from ....channel.records import say
from ....channel.traces import trace_in
from ....http1.answers import plain
from ....http1.errors import ProtocolError
from ....http1.request import RequestHead, RequestParser
from ....http1.response import Output, Response, ResponsePhase
from ...app.loader import foreign_traceback
from ..context import AsgiContext
from ..scope import Peer

_DONE = ResponsePhase.DONE
_PATH_MAX = 200
LOOK_S = 0.01
"""A client that was there so lately is taken to be there still."""

PIECE_MAX_BYTES = 1024
PIECES_MAX = 64
BURST_S = 0.001
"""Pieces that come sooner than this after another are let wait for each other, within one turn of the loop."""

REFUSALS_MAX = 8
"""So often an app is told at once that its client is gone; one that goes on all the same waits for its turn."""


class ClientDisconnected(OSError):
    """Raised by ``send`` when the client is gone (ASGI HTTP and WebSocket specification, since 2.4)."""


class CycleTransport(Protocol):
    """What a cycle needs of its connection; see there."""

    context: AsgiContext
    cycle: Cycle | None
    is_closing: Callable[[], bool]
    is_reading_paused: bool
    is_write_paused: bool
    parser: RequestParser
    peer: Peer

    @property
    def is_reading_ahead(self) -> bool:
        """Whether an answer waits for the rest of its request."""

    @property
    def is_request_lost(self) -> bool:
        """Whether content was dropped that nobody had asked for."""

    def is_client_gone(self) -> bool:
        """Ask the kernel whether the client has ended both sides, and not only its own."""

    def abort(self) -> None:
        """Cut the connection, unless it is ending already."""

    def pause_reading(self) -> None:
        """Take no more from the client."""

    def resume_reading(self) -> None:
        """Undo ``pause_reading``."""

    async def read_ahead(self, keep: bool, is_end: bool = False) -> bool:
        """Read the rest of the request before its answer leaves, or the end of that does; ``keep`` what comes, or drop
        it. False when no more of it comes.
        """

    def watch_reading(self) -> None:
        """Begin to measure how long the client takes to send more."""

    def write(self, output: Output, content_bytes: int) -> None:
        """Write a piece of a response, ``content_bytes`` of which are content."""

    def count_sent(self, size: int) -> None:
        """Count so much content that was sent in another way."""

    def fileno(self) -> int:
        """Return the descriptor of the socket."""

    async def flush(self) -> None:
        """Wait until the kernel has everything that was written. Raises ``ClientDisconnected``."""

    async def drain(self) -> None:
        """Wait until the client has taken enough of what was written, or is gone."""

    def response_done(self, cycle: Cycle) -> None:
        """Go on: the response is complete, whatever else the app may be doing."""

    def upgraded(self, websocket: Any) -> None:
        """Give ``websocket`` everything that comes from now on."""

    def upgrade_ended(self, is_clean: bool) -> None:
        """End the connection; not ``is_clean``: once the client has read why."""


class Cycle:
    """One call of the app. Subclasses are its ``receive`` and ``send``."""

    __slots__ = (
        "arrived",
        "begun",
        "connection",
        "continued",
        "event",
        "head",
        "held_bytes",
        "is_answered",
        "is_counted",
        "is_gone",
        "is_overdue",
        "is_waiting_for_body",
        "looked",
        "pieces",
        "refusals",
        "request_given",
        "response",
        "scope",
        "started",
        "task",
        "wrote",
    )

    def __init__(
        self, connection: CycleTransport, head: RequestHead, response: Response, scope: dict[str, Any]
    ) -> None:
        self.connection = connection
        self.head = head
        self.response = response
        self.scope = scope
        self.started = self.arrived = self.begun = monotonic()
        """Monotonic seconds: when its head was whole, when that came, and when the app was called."""
        self.is_gone = False
        """The client is gone: nothing can be sent."""
        self.is_answered = False
        """The client has all of the answer, although the app has not said that this is all: as good as gone."""
        self.is_overdue = False
        """Its time is over, it has been answered for, and its task was cancelled."""
        self.is_counted = False
        """No longer among the requests being answered."""
        self.is_waiting_for_body = False
        self.task: asyncio.Task[None] | None = None
        # HttpCycle's own; here because a second __init__ would cost each request more than it is worth.
        self.event: asyncio.Event | None = None
        self.request_given = False
        """The app has received the last of the request's body."""
        self.continued = False
        """A 100 has been sent."""
        self.pieces: list[bytes] | None = None
        """What waits for the end of this turn of the loop."""
        self.held_bytes = 0
        """How much content those are."""
        self.refusals = 0
        """How often the app was told that nothing more comes, or can be sent."""
        self.looked = self.started
        """Monotonic seconds at which it was last asked whether the client is still there."""
        self.wrote = 0.0
        """Monotonic seconds at which the last piece of content left at once."""

    async def run(self, app: Any) -> None:
        """Call the app, and answer for it where it does not."""
        self.begun = monotonic()
        try:
            await app(self.scope, self.receive, self.send)
        except BaseException as exc:  # foreign code; SystemExit must not end the loop
            self.raised(exc)
        else:
            if self.response.phase is not _DONE and not self.is_gone:
                self.returned()
        finally:
            self.connection.context.end(self)
            self.task = None

    async def receive(self) -> Any:
        """The app's ``receive`` (ASGI 3.0): the next event, waited for."""
        raise NotImplementedError

    async def send(self, message: Any) -> None:
        """The app's ``send`` (ASGI 3.0). Raises ``ClientDisconnected`` and ``ResponseError``."""
        raise NotImplementedError

    # For subclasses

    def look_for_client(self, now: float) -> None:
        """Raise ``ClientDisconnected`` if there is nobody to read the app's next piece. ``now``: monotonic seconds.

        The loop tells so in its next turn only; so the kernel is asked, but not for each of many pieces.
        """
        connection = self.connection
        if connection.cycle is self:
            is_late = now - self.looked > LOOK_S
            self.looked = now if is_late else self.looked
            if connection.is_closing() or (is_late and connection.is_client_gone()):
                connection.abort()
                self.disconnect()
                raise ClientDisconnected("the client is gone")

    async def share(self) -> None:
        """Give way to others if this turn of the loop has lasted long."""
        turns = self.connection.context.turns
        if turns.is_over(monotonic()):
            await turns.give_way()

    async def refuse(self) -> None:
        """Let the loop turn if the app has been told often enough that nothing more comes, or can be sent."""
        self.refusals += 1
        if self.refusals > REFUSALS_MAX:
            await self.connection.context.turns.give_way()

    # For the connection

    @property
    def waits_for_request(self) -> bool:
        """An answer waits for the rest of its request."""
        return self.connection.is_reading_ahead

    def flush_head(self) -> None:
        """Let a head leave whose content did not come in the same turn of the loop."""
        if not self.is_gone:
            self.connection.write(self.response.flush_head(), 0)

    # Small pieces

    def _let_wait(self, piece: Any, content_bytes: int) -> None:
        """Let ``piece``, soon behind another, leave at the end of this turn of the loop at the latest."""
        pieces = self.pieces
        self.held_bytes += content_bytes
        if pieces is None:
            self.pieces = [piece]
            self.connection.context.head_waits(self)
            return
        pieces.append(piece)
        if len(pieces) >= PIECES_MAX:
            if self.connection.is_closing():
                self.look_for_client(self.looked)
            self.flush_pieces()

    def _write(self, output: Output, content_bytes: int = 0) -> None:
        """Write ``output`` behind the pieces that wait."""
        pieces = self.pieces
        if pieces:
            self.pieces = None
            content_bytes += self.held_bytes
            self.held_bytes = 0
            output = b"".join((*pieces, output)) if isinstance(output, bytes) else (*pieces, *output)
        self.connection.write(output, content_bytes)

    def flush_pieces(self) -> None:
        """Let the pieces leave that were sent in the same turn of the loop."""
        if self.pieces and not self.is_gone:
            self._write(b"")

    def wake(self) -> None:
        """Something that ``receive`` may wait for has happened."""

    def disconnect(self) -> None:
        """The client is gone."""
        self.is_gone = True
        self.wake()

    def half_closed(self) -> bool:
        """The client has ended its side, after a whole request; True when it may still read an answer."""
        self.response.close = True
        self.wake()
        return True

    def fail(self, error: ProtocolError) -> None:
        """The request broke a rule, or did not come: answer if that can still be done, else cut."""
        if self.response.head_sent:
            self.flush_pieces()
            self.connection.abort()
            return
        self.response.close = True
        self.answer(error.status, *plain(error.status, error.code, str(error)))
        self.disconnect()

    # When the app does not answer

    def raised(self, exc: BaseException) -> None:
        """The app raised: log it, once, and answer if that can still be done, else cut."""
        context = self.connection.context
        if self.is_gone and is_about_leaving(exc):
            return
        is_told = context.is_forced or self.is_overdue
        if not (is_told and isinstance(exc, asyncio.CancelledError)):
            self.log("app-error", "the app raised an exception", foreign_traceback(exc))
        context.counters.errors += 1
        if self.is_gone or self.response.phase is _DONE:
            return
        if self.response.head_sent:
            context.counters.cut()
            self.flush_pieces()
            self.connection.abort()
        elif context.settings.development:
            from ....http1.traceback_page import accepted, traceback_page

            trace, title = foreign_traceback(exc), f"{type(exc).__name__}: {exc}"
            how = self.head.method, accepted(self.scope["headers"]), context.settings.build
            self.answer(500, *traceback_page(500, "app-error", title, trace, *how))
        else:
            self.answer(500, *plain(500, "app-error"))

    def returned(self) -> None:
        """The app returned, and its response is not complete."""
        self.connection.context.counters.errors += 1
        if self.response.head_sent:
            self.connection.context.counters.cut()
            self.log("no-response", "the app returned before its response was complete")
            self.flush_pieces()
            self.connection.abort()
        else:
            self.log("no-response", "the app returned without a response")
            self.answer(500, *plain(500, "no-response"))

    def answer(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Answer in the app's place; a head of its own that has not left is forgotten."""
        response = self.response
        response.reset()
        response.start(status, headers)
        self.connection.write(response.send(body, more=False), len(body))
        self.connection.response_done(self)

    def log(self, code: str, what: str, error: str = "") -> None:
        """One record, without the query: it is where people put secrets. ``code``: see ``channel.codes``."""
        path = self.head.path[:_PATH_MAX].decode("ascii", "backslashreplace")
        more = {"method": self.head.method, "path": path, "code": code}
        if trace := trace_in(self.scope["headers"]):
            more["traceID"] = trace
        say("error", what, error, app=self.connection.context.settings.app, **more)


def is_about_leaving(exc: BaseException) -> bool:
    """Whether ``exc`` says that the client left, be it wrapped by a framework or in an exception group."""
    waiting: list[BaseException | None] = [exc]
    seen = set()  # a member of a group may have the group as its context
    while waiting:
        found = waiting.pop()
        if found is None or id(found) in seen:
            continue
        if isinstance(found, (ClientDisconnected, asyncio.CancelledError)):
            return True
        seen.add(id(found))
        waiting += [found.__cause__, found.__context__, *getattr(found, "exceptions", ())]
    return False
