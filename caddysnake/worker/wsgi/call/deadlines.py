"""``request_timeout`` for threads: the controller answers 504 in the place of a call that takes too long.

The thread that makes the call owns its connection, and may begin to answer at the same moment. So each call has two
tokens, and whoever takes one first has the say over what it stands for: the head of the response, and its end. (Taking
the last item off a list is one atomic step, with and without a GIL.) A thread cannot be stopped: it finds out when it
next writes. One that does not end is counted on the page, and the daemon replaces the worker.
"""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Any

from ....aio.early_answers import most_s
from ....channel.vitals import SLOT_HEAD_SENT, WORD_LATE, WORD_OVERDUE
from ....http1.answers import refusal
from ....http1.errors import ProtocolError
from ....http1.request import RequestHead
from ...process.stacks import Stacks
from ..connection import ClientGone, Connection
from .call import Call, CallContext, report
from .file_wrapper import FileWrapper

PATIENCE_S = 5.0
"""How long a call may go on after its time, before the worker is to be replaced."""

_TOO_LATE = ProtocolError(504, "deadline", "the app took too long")


class TimedCall(Call):
    """A call that the controller may answer for."""

    __slots__ = ("_deadlines", "_end_token", "_has_end", "_has_head", "_head_token", "deadline", "is_given_up")

    def __init__(
        self, deadlines: Deadlines, context: CallContext, connection: Connection, head: RequestHead, close: bool
    ) -> None:
        super().__init__(context, connection, head, close)
        self._deadlines = deadlines
        self._head_token = [None]
        self._end_token = [None]
        self._has_head = False
        self._has_end = False
        self.deadline = 0.0
        self.is_given_up = False

    # For the thread.

    def run(self, environ: dict[str, Any]) -> bool:
        """As ``Call.run``, between the deadline's ``begin`` and ``end``. False: the controller has answered."""
        connection = self._connection
        self._deadlines.begin(self)
        try:
            owned = super().run(environ)
        finally:
            self._deadlines.end(self)
        if owned and connection is not None:
            self._take_end(connection)
        if not (self._has_end or _take(self._end_token)):
            self.failed = self.is_late = True
            self.answered = _TOO_LATE.status
        return owned

    def _detach(self) -> bool:
        connection = self._connection
        if connection is not None:
            self._take_end(connection)
        return super()._detach()

    def _send(self, connection: Connection, data: bytes, more: bool) -> bytes | tuple[bytes, ...]:
        self._take_head(connection)
        return super()._send(connection, data, more)

    def _send_file(self, wrapper: FileWrapper) -> None:
        if self._connection is not None:
            self._take_head(self._connection)
        super()._send_file(wrapper)

    def _fail(self, exc: BaseException, environ: dict[str, Any]) -> None:
        connection = self._connection
        if connection is None:
            super()._fail(exc, environ)
            return
        try:
            self._take_head(connection)
        except ClientGone as gone:
            super()._fail(exc if isinstance(exc, ClientGone) else gone, environ)
            self.answered = _TOO_LATE.status
        else:
            super()._fail(exc, environ)

    @property
    def most_s(self) -> float:
        """As ``Call.most_s``; well before the deadline."""
        return most_s(self.deadline - time.monotonic())

    def _take_head(self, connection: Connection) -> None:
        """Raises ``ClientGone`` when the controller was first."""
        if not self._has_head:
            self._has_head = _take(self._head_token)
            if not self._has_head:
                connection.lose()
                raise ClientGone("request_timeout was over: 504 was answered")

    def _take_end(self, connection: Connection) -> None:
        if not self._has_end:
            self._has_end = _take(self._end_token)
            if not self._has_end:
                connection.abort()

    def untime(self, connection: Connection) -> None:
        """It has no deadline any more. Raises ``ClientGone`` when the controller was first."""
        self._take_head(connection)
        self._take_end(connection)
        self._deadlines.end(self)

    # For the controller.

    @property
    def is_answered(self) -> bool:
        """The response is complete, whatever the app still does."""
        return self._connection is None

    def give_up(self) -> bool:
        """Answer 504, or cut the response short; False when it is complete already."""
        connection = self._connection
        if connection is None or not _take(self._end_token):
            return False
        if _take(self._head_token):
            connection.slots[connection.slot] = SLOT_HEAD_SENT
            answer = refusal(_TOO_LATE, self.head)
            how = socket.SHUT_WR
            try:
                connection.sock.send(answer, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except OSError:
                how = socket.SHUT_RDWR
        else:
            how = socket.SHUT_RDWR  # what was sent must not look whole
        with contextlib.suppress(OSError):
            connection.sock.shutdown(how)
        return True


def _take(token: list[None]) -> bool:
    try:
        token.pop()
    except IndexError:
        return False
    return True


class Deadlines:
    """The calls of one worker, each with its deadline. ``header``: the header words of its page."""

    def __init__(self, limit_s: float, app: str, header: memoryview) -> None:
        self._limit_s = limit_s
        self._app = app
        self._header = header
        self._running: dict[TimedCall, None] = {}  # oldest first
        self._stacks = Stacks()
        self.look_s = max(0.05, min(1.0, limit_s / 4))
        """How often ``look`` is to be called."""

    def begin(self, call: TimedCall) -> None:
        """For the thread that runs ``call``."""
        call.deadline = time.monotonic() + self._limit_s
        self._running[call] = None

    def end(self, call: TimedCall) -> None:
        """For the thread that ran ``call``."""
        self._running.pop(call, None)

    def look(self, now: float) -> None:
        """For the controller: answer for those whose time is over."""
        stuck = 0
        for call in list(self._running):
            if now < call.deadline:
                break
            if not call.is_given_up:
                if call.is_answered:
                    continue
                call.is_given_up = True
                self._give_up(call)
            stuck += now - call.deadline >= PATIENCE_S
        self._header[WORD_OVERDUE] = stuck

    def _give_up(self, call: TimedCall) -> None:
        what = f"the request took longer than request_timeout ({self._limit_s:g} s)"
        report("error", what, self._app, call.head, code=_TOO_LATE.code)
        self._stacks.write()
        if call.give_up():
            self._header[WORD_LATE] += 1
