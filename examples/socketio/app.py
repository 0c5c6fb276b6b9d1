"""A Socket.IO server: `echo` answers who asks, `say` is heard by all, over WebSocket and over long polling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import socketio

# Pages of other origins are refused; `cors_allowed_origins` would list those that are not.
server = socketio.AsyncServer(async_mode="asgi")


@server.event
async def echo(sid: str, data: Any) -> Any:
    """Back to the sender as an event, and as the acknowledgement, if one was asked for."""
    await server.emit("echo", data, to=sid)
    return data


@server.event
async def say(sid: str, text: str) -> None:
    """To everybody, the sender among them."""
    await server.emit("said", {"from": sid, "text": text})


@server.event
async def disconnect(sid: str, *_reason: str) -> None:
    await server.emit("left", {"from": sid})


PAGE = Path(__file__).with_name("page.html")

app = socketio.ASGIApp(server, static_files={"/": {"filename": str(PAGE), "content_type": "text/html; charset=utf-8"}})
