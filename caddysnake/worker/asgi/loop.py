"""The event loop of an ASGI worker; the one place that imports uvloop."""

from __future__ import annotations

import asyncio
from typing import Any

from ...channel.records import say
from ...libraries import load


def new_loop(kind: str) -> tuple[asyncio.AbstractEventLoop, str]:
    """A new loop and its name for the log. ``kind`` is ``uvloop`` or ``asyncio``; without uvloop it is asyncio's."""
    uvloop = import_uvloop() if kind == "uvloop" else None
    if uvloop is not None:
        return uvloop.new_event_loop(), f"uvloop {getattr(uvloop, '__version__', '')}"
    return asyncio.new_event_loop(), "asyncio"


def import_uvloop() -> Any:
    """The library, or None, with a warning, when it cannot be had. No loop is made: a fork server may call this."""
    try:
        return load("uvloop")
    except ImportError as exc:
        say("warn", "uvloop cannot be imported: asyncio's own loop is used, which is slower", reason=str(exc))
        return None
