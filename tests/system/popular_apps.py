"""Apps of ``test_popular_apps``, as their frameworks' guides have them. They run in a virtual environment of their own,
one a worker, named by ``APP``: each of the frameworks takes a second to import.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def gradio_app() -> Any:
    import gradio
    from fastapi import FastAPI

    with gradio.Blocks() as page:
        name = gradio.Textbox(label="Name", elem_id="name")
        greeting = gradio.Textbox(label="Greeting", elem_id="greeting")
        count = gradio.Textbox(label="Count", elem_id="count")
        gradio.Button("Greet", elem_id="greet").click(lambda whom: f"Hello {whom}!", name, greeting)

        def counting() -> Any:
            for number in range(1, 4):
                yield f"number {number}"

        gradio.Button("Count", elem_id="start").click(counting, None, count)
    return gradio.mount_gradio_app(FastAPI(), page, path="/", allowed_paths=[str(HERE)])


def nicegui_app() -> Any:
    from fastapi import FastAPI
    from nicegui import app as pages
    from nicegui import ui

    @ui.page("/")
    def index() -> None:
        label = ui.label("nobody yet")
        name = ui.input("Name").classes("name")
        ui.button("Greet", on_click=lambda: label.set_text(f"Hello {name.value or 'you'}!")).classes("greet")

    app = FastAPI()
    pages.add_static_files("/files", HERE)
    ui.run_with(app, storage_secret="a secret for the test")
    return app


def starlette_app() -> Any:
    """Each middleware by itself below a path of its name, and all of them below ``/all``."""
    from brotli_asgi import BrotliMiddleware
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.middleware.cors import CORSMiddleware
    from starlette.middleware.gzip import GZipMiddleware
    from starlette.middleware.sessions import SessionMiddleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import Request
    from starlette.responses import FileResponse, JSONResponse, StreamingResponse
    from starlette.routing import Mount, Route, WebSocketRoute
    from starlette.staticfiles import StaticFiles
    from starlette.websockets import WebSocket

    async def stamped(request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["x-stamp"] = "stamped"
        return response

    async def file(request: Request) -> FileResponse:
        return FileResponse(HERE / "file.txt")

    async def stream(request: Request) -> StreamingResponse:
        async def pieces() -> Any:
            for number in range(1000):
                yield f"{number}\n"

        return StreamingResponse(pieces(), media_type="text/plain")

    async def visits(request: Request) -> JSONResponse:
        request.session["visits"] = request.session.get("visits", 0) + 1
        return JSONResponse(request.session["visits"])

    async def upload(request: Request) -> JSONResponse:
        return JSONResponse(len(await request.body()))

    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    routes = [
        Route("/file", file),
        Mount("/static", StaticFiles(directory=HERE)),
        Route("/stream", stream),
        Route("/visits", visits),
        Route("/upload", upload, methods=["POST"]),
        WebSocketRoute("/echo", echo),
    ]
    known = {
        "gzip": Middleware(GZipMiddleware, minimum_size=500),
        "brotli": Middleware(BrotliMiddleware, minimum_size=500),
        "cors": Middleware(CORSMiddleware, allow_origins=["https://shop.example"]),
        "base": Middleware(BaseHTTPMiddleware, dispatch=stamped),
        "hosts": Middleware(TrustedHostMiddleware, allowed_hosts=["*"]),
        "sessions": Middleware(SessionMiddleware, secret_key="a secret for the test"),
    }
    mounts = [Mount(f"/{name}", Starlette(routes=routes, middleware=[each])) for name, each in known.items()]
    return Starlette(routes=[*mounts, Mount("/all", Starlette(routes=routes, middleware=[*known.values()]))])


app = {"gradio": gradio_app, "nicegui": nicegui_app, "starlette": starlette_app}[os.environ["APP"]]()
