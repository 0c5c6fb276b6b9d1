"""The log of requests that die."""

from __future__ import annotations

import logging
import sys

from ..http1.request import RequestHead

_TARGET_MAX = 200
_logger = logging.getLogger("caddysnake.worker")


def logger() -> logging.Logger:
    """Our logger, usable whatever the app has done to logging (dictConfig disables what it does not know)."""
    if not _logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
        _logger.addHandler(handler)
        _logger.setLevel(logging.INFO)
        _logger.propagate = False
    _logger.disabled = False
    return _logger


def request_line(head: RequestHead) -> str:
    """Method and target for people: escaped, cut."""
    target = head.target[:_TARGET_MAX].decode("ascii", "backslashreplace")
    if not target.isprintable():
        target = repr(target)
    return f"{head.method} {target}{'…' if len(head.target) > _TARGET_MAX else ''}"
