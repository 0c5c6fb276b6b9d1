"""Which class a call of the app has: with a deadline or without, logged or not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ....http1.request import RequestHead
from ...access_log import AccessLog
from ..connection import Connection
from .call import Call, CallContext
from .deadlines import Deadlines, TimedCall


def call_factory(
    deadlines: Deadlines | None, is_logged: bool
) -> Callable[[CallContext, Connection, RequestHead, bool], Call]:
    """Return what makes the calls of one app."""
    if not is_logged:
        return Call if deadlines is None else partial(TimedCall, deadlines)
    from .logged import LoggedCall, LoggedTimedCall  # most apps have no access log

    return LoggedCall if deadlines is None else partial(LoggedTimedCall, deadlines)


def line_writer(access: AccessLog) -> Callable[[Call, Connection, int, float], None]:
    """Return what writes the line of a call into ``access``."""
    from .logged import log

    return partial(log, access)
