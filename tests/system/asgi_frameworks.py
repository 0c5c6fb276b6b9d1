"""Starlette's, FastAPI's and Django's own behaviour behind Caddy: the app of ``test_asgi_behind_caddy``."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import FileResponse as DjangoFile
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path
from fastapi import BackgroundTasks, FastAPI, Request, WebSocket, WebSocketDisconnect
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import FileResponse, PlainTextResponse, StreamingResponse

NOTES: list[str] = []
GATE = asyncio.Event()
FILE = Path("file.bin")


# FastAPI

fast = FastAPI()
fast.add_middleware(GZipMiddleware, minimum_size=1000)


async def stamp(request: Request, call_next: Any) -> Any:
    response = await call_next(request)
    response.headers["x-stamp"] = "middleware"
    return response


fast.add_middleware(BaseHTTPMiddleware, dispatch=stamp)


@fast.get("/json")
async def as_json(q: int = 0) -> dict[str, int]:
    return {"q": q}


@fast.get("/stream")
async def stream() -> StreamingResponse:
    async def events() -> AsyncIterator[bytes]:
        yield b"data: 1\n\n"
        await GATE.wait()
        yield b"data: 2\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


@fast.get("/gate")
async def open_gate() -> str:
    GATE.set()
    return "open"


@fast.get("/file")
async def file() -> FileResponse:
    return FileResponse(FILE)


@fast.post("/upload")
async def upload(request: Request) -> dict[str, Any]:
    digest, size, most = hashlib.sha256(), 0, 0
    async for piece in request.stream():
        digest.update(piece)
        size += len(piece)
        most = max(most, resident_bytes())
    return {"size": size, "sha256": digest.hexdigest(), "memory": most}


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@fast.get("/memory")
async def memory() -> int:
    return resident_bytes()


@fast.get("/background")
async def background(tasks: BackgroundTasks) -> str:
    async def later() -> None:
        await asyncio.sleep(0.3)
        NOTES.append("background done")

    tasks.add_task(later)
    return "answered"


@fast.get("/notes")
async def notes() -> list[str]:
    return NOTES


@fast.get("/boom")
async def boom() -> None:
    raise RuntimeError("boom")


@fast.websocket("/ws")
async def echo(socket: WebSocket) -> None:
    await socket.accept(subprotocol="chat" if "chat" in socket.scope["subprotocols"] else None)
    try:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message["code"])
            if message.get("text") == "close":
                await socket.close(4003, "as you wish")
            elif message.get("text") is not None:
                await socket.send_text(message["text"])
            else:
                await socket.send_bytes(message["bytes"])
    except WebSocketDisconnect as left:
        NOTES.append(f"left {left.code}")
    except RuntimeError:
        pass


@fast.websocket("/denied")
async def denied(socket: WebSocket) -> None:
    await socket.send_denial_response(PlainTextResponse("who are you?", 401))


# Django


def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"django {request.scheme} {request.get_host()}")


async def count(request: HttpRequest) -> StreamingHttpResponse:
    async def numbers() -> AsyncIterator[bytes]:
        for number in range(3):
            yield b"%d\n" % number
            await asyncio.sleep(0.01)

    return StreamingHttpResponse(numbers())


def send_file(request: HttpRequest) -> DjangoFile:
    return DjangoFile(FILE.open("rb"))


def digest(request: HttpRequest) -> HttpResponse:
    return HttpResponse(hashlib.sha256(request.body).hexdigest())


urlpatterns = [
    path("django/hello", hello),
    path("django/count", count),
    path("django/file", send_file),
    path("django/digest", digest),
]
settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="only for tests", USE_TZ=True)
django.setup()
site = get_asgi_application()


# Plain ASGI


async def plain(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/plain/trailers":
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send({"type": "http.response.body", "body": b"content"})
        await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"42")]})
    else:
        await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]})
        body = json.dumps(sorted(scope["extensions"])).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http" and scope["path"].startswith("/django/"):
        await site(scope, receive, send)
    elif scope["type"] == "http" and scope["path"].startswith("/plain/"):
        await plain(scope, receive, send)
    else:
        await fast(scope, receive, send)
