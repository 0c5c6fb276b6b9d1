"""What the threaded server says in the log: one record for each request that dies, and why."""

from __future__ import annotations

import logging
import sys

from ..http1.request import RequestHead
from .loader import foreign_traceback

_PATH_MAX = 200
_logger = logging.getLogger("caddysnake.worker")


def logger() -> logging.Logger:
    """Our logger, usable whatever the app has done to logging (dictConfig disables what it does not know)."""
    if not _logger.handlers:
        handler = logging.StreamHandler(sys.__stderr__)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
        _logger.addHandler(handler)
        _logger.setLevel(logging.INFO)
        _logger.propagate = False
    _logger.disabled = False
    return _logger


def report(level: int, what: str, app: str, head: RequestHead, exc: BaseException | None = None) -> None:
    """One record about a request, with the traceback of ``exc`` cut down to the app's own frames.

    The query is left out: it is where people put secrets.
    """
    path = head.path[:_PATH_MAX].decode("ascii", "backslashreplace")
    trace = f"\n{foreign_traceback(exc)}" if exc is not None else ""
    logger().log(level, "%s: app=%s method=%s path=%s%s", what, app, head.method, path, trace)
