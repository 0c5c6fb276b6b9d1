"""What becomes of one WebSocket too many."""

from __future__ import annotations

import time

from ...channel.records import say
from ...http1.errors import ProtocolError

_TOLD_EVERY_S = 60.0
_told: dict[str, float] = {}


def full(app: str, most: int) -> ProtocolError:
    """The answer to one more WebSocket than the ``most`` that a worker of ``app`` may have open; told in the log, once
    a minute.
    """
    now = time.monotonic()
    if now - _told.get(app, float("-inf")) >= _TOLD_EVERY_S:
        _told[app] = now
        say("warn", "a WebSocket was refused with 503: as many as max_websockets allows are open", app=app, most=most)
    return ProtocolError(503, "websockets-full", "as many WebSockets as may be are open", ((b"retry-after", b"5"),))
