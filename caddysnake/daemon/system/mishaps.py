"""Errors of our own, of which each is told once a minute. One for which a connection is to blame ends that one."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ParamSpec

from ...channel.throttle import MISHAP, Throttle, raised_at
from .log.fields import FieldLog

log = FieldLog("caddysnake.daemon")

P = ParamSpec("P")

_told = Throttle()


def tell(exc: Exception) -> None:
    """Log ``exc`` with its traceback; what one line raises, once a minute."""
    if _told.is_due(raised_at(exc), time.monotonic()):
        log.error(MISHAP, exc_info=exc, code="internal")


def or_else(amends: Callable[..., object]) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Have a function tell what it raises, and ``amends`` called with its arguments then: nobody waits for ever."""

    def guard(step: Callable[P, None]) -> Callable[P, None]:
        def taken(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                step(*args, **kwargs)
            except Exception as exc:
                tell(exc)
                amends(*args, **kwargs)

        return taken

    return guard
