"""What the connections and cycles of one worker share."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from ...aio.context import Context
from ...channel.settings import Settings
from ...channel.vitals import WORD_ACTIVE, WORD_WEBSOCKETS, Page
from ...http1.errors import ProtocolError
from ...http1.request import RequestHead
from ...http1.response import Response, ResponsePhase
from .in_flight import Bound
from .scope import Scopes
from .turns import Turns

if TYPE_CHECKING:
    from ..app.slow import SlowRequests

READ_BUFFER_BYTES = 256 * 1024
"""One for all connections: a loop reads one at a time, and what is read is parsed at once."""

FIRST_READ_BYTES = 64 * 1024
"""So much is read at once while it is not known what comes."""

SMALL_READ_BYTES = 4 * 1024
"""So much is read at once of a request that comes in tiny chunks: taking those apart costs a hundred times more."""

_LOOKS, _LOOKS_S = 20, 0.05
_PULSE_S, _LATE_S = 0.05, 0.01
_TASKS_TAKE_CONTEXT = sys.version_info >= (3, 11)
"""Some task factories take none."""
_STARTED = ResponsePhase.STARTED


class Call(Protocol):
    """A call of the app, as far as it is not its connection's affair."""

    head: RequestHead
    scope: dict[str, Any]
    is_counted: bool
    is_overdue: bool
    arrived: float
    begun: float
    started: float
    task: asyncio.Task[None] | None
    response: Response
    pieces: list[bytes] | None

    async def run(self, app: Any) -> None:
        """Call ``app``, and answer for it where it does not."""

    @property
    def waits_for_request(self) -> bool:
        """An answer waits for the rest of its request."""

    def flush_head(self) -> None:
        """Let a head leave whose content did not come in the same turn of the loop."""

    def flush_pieces(self) -> None:
        """Let the pieces leave that were sent in the same turn of the loop."""

    def fail(self, error: ProtocolError) -> None:
        """Answer if that can still be done, else cut."""

    def log(self, code: str, what: str, error: str = "") -> None:
        """Write one record."""


class AsgiContext(Context):
    """``call_ended`` is told that the app has returned, or raised, while the worker is leaving."""

    settings: Settings

    def __init__(
        self,
        app: Any,
        settings: Settings,
        page: Page,
        loop: asyncio.AbstractEventLoop,
        ended: Callable[[int, bool], None],
        call_ended: Callable[[], None],
    ) -> None:
        super().__init__(settings, page, loop, ended)
        self.app = app
        self.scopes = Scopes(settings.root_path, settings.sendfile)
        self.reader = self.scopes.reader(self.limits)
        self.view = memoryview(bytearray(READ_BUFFER_BYTES))
        self.first_view = self.view[:FIRST_READ_BYTES]
        self.small_view = self.view[:SMALL_READ_BYTES]
        self.turns = Turns(loop)
        self.task_factory: Callable[[], object] = loop.get_task_factory if _TASKS_TAKE_CONTEXT else lambda: loop
        """None: nobody makes tasks but asyncio, which the connection asks itself then; uvloop takes half as long again.
        """
        self.variables = contextvars.copy_context()
        """What importing the app has left; every request begins in a copy of its own. Whoever begins one may be in
        another's: what asyncio calls back runs in the context of who asked for it, and an app asks (it resumes reading,
        or ends its answer before a pipelined request).
        """
        self.traced = False
        """A request of a trace has been seen: from then on each tells what it prints where it belongs to. That costs a
        request 1 %, so as long as there is none they are looked for in so many only, of each short while."""
        self.looks = 0
        self.looks_from = 0.0 if settings.marks_traces else float("inf")
        self.late_at = 0.0
        """Monotonic seconds from which on the loop has stood still; 0: nobody looks, since nothing is answered."""
        self.bound: Bound | None = None
        """How many requests may be answered at a time, if there is a limit."""
        self.websockets = 0
        """Calls for WebSockets."""
        self.calls: set[Call] = set()
        """Apps that run, be their response complete or not."""
        self.slow: SlowRequests | None = None
        self._heads: list[Call] = []
        self._call_ended = call_ended
        if settings.max_in_flight is not None:
            self.bound = Bound(self, settings, settings.max_in_flight)

    def seeks_trace(self, call: Call) -> bool:
        """Whether ``call`` is of a trace."""
        if call.started >= self.looks_from:
            self.looks, self.looks_from = _LOOKS, call.started + _LOOKS_S
        self.looks -= 1
        self.traced = any(name == b"traceparent" for name, _ in call.scope["headers"])
        return self.traced

    def late(self, call: Call) -> None:
        """``call`` started when the loop had stood still, if somebody looks: it may have been there since."""
        if not self.late_at:
            self._await_pulse(call.started)
        elif call.arrived == call.started:
            call.arrived = self.late_at - _LATE_S

    def _await_pulse(self, now: float) -> None:
        self.late_at = now + _PULSE_S + _LATE_S
        self.loop.call_later(_PULSE_S, self._pulse)

    def _pulse(self) -> None:
        self.late_at = 0.0
        if self.active:
            self._await_pulse(monotonic())

    def begin(self, call: Call) -> None:
        """Call the app in a task of its own; it counts as active until ``end``."""
        self.calls.add(call)
        self.active += 1
        self.header[WORD_ACTIVE] = self.active
        call.task = self.variables.copy().run(self.loop.create_task, call.run(self.app), name="request")

    def end(self, call: Call) -> None:
        """The app has returned, or raised. A worker that is leaving may be done by this."""
        self.calls.discard(call)
        if self.slow is not None and (took_s := monotonic() - call.begun) >= self.slow.limit_s:
            self.slow.end(call.scope, took_s)
        if not call.is_counted:
            self.active -= 1
            self.header[WORD_ACTIVE] = self.active
            if self.bound is not None:
                self.bound.go_on()
        if self.is_leaving:
            self._call_ended()

    def count_websocket(self, step: int) -> None:
        """One more, or one less, is open."""
        self.websockets += step
        self.header[WORD_WEBSOCKETS] = self.websockets

    def head_waits(self, call: Call) -> None:
        """Let a head wait for its content, or a piece for others, until the end of this turn of the loop."""
        if not self._heads:
            self.loop.call_soon(self._flush_heads)
        self._heads.append(call)

    def _flush_heads(self) -> None:
        heads, self._heads = self._heads, []
        for call in heads:
            if call.response.phase is _STARTED:
                if not call.waits_for_request:
                    call.flush_head()
            elif call.pieces:
                call.flush_pieces()
