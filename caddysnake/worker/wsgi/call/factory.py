"""Which class a call of the app has: with a deadline or without, logged or not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ....http1.request import RequestHead
from ...access_log import AccessLog
from ..connection import Connection
from .call import Call, CallContext
from .deadlines import Deadlines, TimedCall

if TYPE_CHECKING:
    from .upgrade import Upgrading


def call_factory(
    deadlines: Deadlines | None, is_logged: bool
) -> Callable[[CallContext, Connection, RequestHead, bool], Call]:
    """Return what makes the calls of one app."""
    if not is_logged:
        return Call if deadlines is None else partial(TimedCall, deadlines)
    from .logged import LoggedCall, LoggedTimedCall  # most apps have no access log

    return LoggedCall if deadlines is None else partial(LoggedTimedCall, deadlines)


def upgrade_factory(
    deadlines: Deadlines | None, is_logged: bool
) -> Callable[[CallContext, Connection, RequestHead, bool], Upgrading]:
    """Return what makes those calls of one app that are for WebSockets."""
    from .upgrade import upgrading  # on the first: most apps never see one

    made = call_factory(deadlines, is_logged)
    if isinstance(made, partial):
        return partial(upgrading(made.func), deadlines)  # type: ignore[arg-type]
    return upgrading(made)  # type: ignore[arg-type]


def line_writer(access: AccessLog) -> Callable[[Call, Connection, int, float, float], None]:
    """Return what writes the line of a call into ``access``."""
    from .logged import log

    return partial(log, access)
