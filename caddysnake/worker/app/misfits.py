"""Apps that do not go together with how they are run here: told, or refused, before they misbehave."""

from __future__ import annotations

import gc
import sys
from typing import Any

from ...channel.records import say
from ...channel.settings import Settings

_PATCHED = ("select", "socket", "threading")
_STATEFUL = {"nicegui": "NiceGUI", "gradio.routes": "Gradio", "shiny": "Shiny", "reflex.app": "Reflex"}
"""Frameworks that keep what each client sees in the memory of a worker."""
_SOCKETIO = ("socketio.async_server", "socketio.server")


def patched() -> str | None:
    """Why an app cannot run whose libraries have made the standard library another one; None when they have not."""
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    is_patched = (getattr(gevent, "is_module_patched", None), getattr(eventlet, "is_monkey_patched", None))
    for name, tells in zip(("gevent", "eventlet"), is_patched, strict=True):
        if tells is not None and any(tells(module) for module in _PATCHED):
            return (
                f"{name} has patched the standard library (monkey_patch), and this server runs apps in real threads, "
                "or on asyncio: take that away. `threads` says how many requests a worker answers at once; an ASGI "
                "app has thousands waiting"
            )
    return None


def tell_of_one_worker(app: Any, settings: Settings) -> None:
    """Warn of an app that needs its clients to come back to the same worker, and has several."""
    if settings.workers < 2 or settings.worker_index or settings.has_affinity:
        return
    found = next((name for module, name in _STATEFUL.items() if module in sys.modules), None)
    if found is None and _polls(app):
        found = "Socket.IO with HTTP polling"
    if found is not None:
        what = f"{found} keeps its clients' state in one process: with {settings.workers} workers they lose it"
        say("warn", f"{what}. Write `affinity cookie`, or `workers 1`", app=settings.app)


def _polls(app: Any) -> bool:
    """Whether there is a Socket.IO server whose clients may begin with polling: each poll may reach another worker."""
    if not any(module in sys.modules for module in _SOCKETIO):
        return False
    for each in gc.get_objects():
        kind = type(each)
        if kind.__module__ in _SOCKETIO and kind.__name__ in ("Server", "AsyncServer"):
            transports = getattr(getattr(each, "eio", None), "transports", None)
            if transports is None or "polling" in transports:
                return True
    return False
