"""Apps that differ in their lifespan. Each answers HTTP with its scope's state."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any


async def answer(scope: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": repr(scope.get("state", "none")).encode()})


async def unaware(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http", "I only speak HTTP"
    await answer(scope, send)


async def returns_at_once(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await answer(scope, send)


async def stateful(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        scope["state"]["mine"] = "not seen by the next request"
        await answer(scope, send)
        return
    await receive()
    scope["state"]["pool"] = "open"
    await send({"type": "lifespan.startup.complete"})
    await receive()
    Path("shut_down").touch()  # noqa: ASYNC240
    await send({"type": "lifespan.shutdown.complete"})


async def says_failed(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database at db.example"})


async def raises_in_startup(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await answer(scope, send)
        return
    await receive()
    raise ConnectionError("no database")


async def exits_in_startup(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    raise SystemExit(3)


async def sends_nonsense(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def hangs_in_startup(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    Path("hanging").touch()  # noqa: ASYNC240
    await asyncio.sleep(3600)


async def hangs_in_shutdown(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await answer(scope, send)
        return
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await asyncio.sleep(3600)


async def raises_in_shutdown(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    raise ConnectionError("the pool was gone")


async def leaves_after_startup(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await answer(scope, send)
        return
    await receive()
    await send({"type": "lifespan.startup.complete"})
