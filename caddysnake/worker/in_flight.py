"""What becomes of requests when as many as ``max_in_flight`` allows are being answered: a worker has its share of that.

Further ones wait, first come, first served, without a thread or a call of the app. When as many wait as ``max_queue``
allows, one more is refused.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from ..channel.records import say
from ..channel.settings import Settings
from ..channel.vitals import WORD_FULL
from ..http1.errors import ProtocolError
from ..http1.request import RequestHead

_TOLD_EVERY_S = 60.0
_told: dict[str, float] = {}


def full(settings: Settings, header: memoryview) -> ProtocolError:
    """The answer to one more, counted in the ``header`` of the page; told in the log once a minute."""
    header[WORD_FULL] += 1
    now = time.monotonic()
    if now - _told.get(settings.app, float("-inf")) >= _TOLD_EVERY_S:
        _told[settings.app] = now
        what = "a request was refused with 429: as many as max_in_flight allows run, and as max_queue allows wait"
        say("warn", what, app=settings.app, running=settings.max_in_flight, waiting=settings.max_waiting)
    fields = ((b"retry-after", b"1"),)
    return ProtocolError(429, "in-flight-full", "as many requests as may wait for this app do", fields)


def is_exempt(settings: Settings, head: RequestHead) -> bool:
    """It is a health check, which is answered in front of the app."""
    return bool(settings.health_path) and head.path == settings.health_path.encode()


_NAMED_MAX = 5
_PATH_MAX = 200


def named(requests: Iterable[tuple[RequestHead, float | None]]) -> str:
    """The first of ``requests``, each with the seconds for which it has run, if they are known: ``GET /report (12.0
    s)``. Without the query: it is where people put secrets.
    """
    told = []
    for head, seconds in requests:
        path = head.path[:_PATH_MAX].decode("ascii", "backslashreplace")
        told.append(f"{head.method} {path}" + ("" if seconds is None else f" ({seconds:.1f} s)"))
    more = f" and {len(told) - _NAMED_MAX} more" if len(told) > _NAMED_MAX else ""
    return ", ".join(told[:_NAMED_MAX]) + more
