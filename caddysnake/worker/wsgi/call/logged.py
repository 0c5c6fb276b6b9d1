"""A call whose request is logged. Apart from the others, so that these pay nothing for it."""

from __future__ import annotations

from ....http1.request import RequestHead
from ....http1.response import ResponsePhase
from ...access_log import CLIENT_GONE, LINK, TRUSTED, AccessLog, head_of, line, queue_bits
from ..connection import Connection
from ..environ import Origin
from .call import Call, CallContext
from .deadlines import Deadlines, TimedCall

_STARTED = ResponsePhase.STARTED


class _Logged(Call):
    """Keeps the head that it sends."""

    __slots__ = ()

    def _send(self, connection: Connection, data: bytes, more: bool) -> bytes | tuple[bytes, ...]:
        begins = self.phase is _STARTED
        output = super()._send(connection, data, more)
        if begins:
            self.sent_head = head_of(output)
        return output

    def answers_with(self, output: bytes | tuple[bytes, ...]) -> None:
        self.sent_head = head_of(output)

    def count_file(self, size: int) -> bytes:
        head = super().count_file(size)
        self.sent_head = head_of(head)
        return head


class LoggedCall(_Logged):
    """A ``Call`` that is logged."""

    __slots__ = ()

    def __init__(self, context: CallContext, connection: Connection, head: RequestHead, close: bool) -> None:
        Call.__init__(self, context, connection, head, close)
        self.sent_head = b""


class LoggedTimedCall(_Logged, TimedCall):
    """A ``TimedCall`` that is logged: ``request_timeout`` and ``log`` together."""

    __slots__ = ()

    def __init__(
        self, deadlines: Deadlines, context: CallContext, connection: Connection, head: RequestHead, close: bool
    ) -> None:
        TimedCall.__init__(self, deadlines, context, connection, head, close)
        self.sent_head = b""


def log(access: AccessLog, call: Call, connection: Connection, received: int, took_s: float, waited_s: float) -> None:
    """Keep the line of ``call``: it has been answered, or nobody is there to read the answer."""
    status = (call.answered if call.failed else call.status) or CLIENT_GONE
    flags = TRUSTED if connection.trusted else 0
    if connection.origin is Origin.LINK:
        flags |= LINK
    flags |= queue_bits(waited_s)
    base = connection.base
    peer = (base["REMOTE_ADDR"], int(base.get("REMOTE_PORT", 0)))
    access.collect(line(call.head, flags, peer, received, call.sent_bytes, status, took_s, call.sent_head))
