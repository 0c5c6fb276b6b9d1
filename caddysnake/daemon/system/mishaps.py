"""Errors of our own, of which each is told once a minute. One for which a connection is to blame ends that one."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, ParamSpec

from ...channel.throttle import Throttle, kind_of

log = logging.getLogger("caddysnake.daemon")

P = ParamSpec("P")

_told = Throttle()


def tell(exc: BaseException, what: str = "a connection is ended") -> None:
    """Log ``exc`` with its traceback, and ``what`` became of it; what one line raises, once a minute."""
    if _told.is_due(kind_of(exc), time.monotonic()):
        fields = {"code": "internal"}
        log.error("an error inside caddysnake: %s", what, exc_info=exc, extra={"fields": fields})


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


def of_loop(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Tell what a callback has raised: for ``loop.set_exception_handler``."""
    exc = context.get("exception")
    if exc is None:
        loop.default_exception_handler(context)
    else:
        tell(exc, str(context.get("message", "")))
