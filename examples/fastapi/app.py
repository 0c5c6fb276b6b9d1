"""A small FastAPI app: lifespan with state, a validated POST, and a response that streams."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict

from fastapi import FastAPI, Query, Request
from fastapi.responses import HTMLResponse, StreamingResponse
from pydantic import BaseModel, Field


@dataclass
class Guests:
    """Who has been greeted by this worker: made when it starts, gone when it stops."""

    since: float = field(default_factory=time.time)
    names: list[str] = field(default_factory=list)


class State(TypedDict):
    guests: Guests


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[State]:
    """Each request gets a copy of what this yields as `request.state`."""
    yield {"guests": Guests()}


class Visitor(BaseModel):
    name: str = Field(min_length=1, max_length=100)
    times: int = Field(default=1, ge=1, le=10)


class Greeting(BaseModel):
    greeting: str
    guests: int


app = FastAPI(title="FastAPI behind Caddy", lifespan=lifespan)


@app.get("/", response_class=HTMLResponse, include_in_schema=False)
async def index(request: Request) -> str:
    def path(name: str) -> str:
        return str(request.url_for(name).path)

    return f"""<!doctype html>
<html lang="en">
<title>FastAPI behind Caddy</title>
<h1>Hello from FastAPI</h1>
<ul>
<li><a href="{path("show_json")}">JSON</a>
<li><a href="{path("stream")}">a response that streams</a>
<li><a href="{path("show_guests")}">state from the lifespan</a>
<li><a href="{path("swagger_ui_html")}">API documentation</a>
</ul>
</html>
"""


@app.get("/json")
async def show_json(request: Request) -> dict[str, Any]:
    """What the app knows about the request: behind a proxy these are the things that go wrong."""
    return {
        "framework": "fastapi",
        "url": str(request.url),
        "scheme": request.url.scheme,
        "client": request.client.host if request.client else None,
        "page": request.url_for("index").path,
        "pid": os.getpid(),
    }


@app.post("/greet")
async def greet(visitor: Visitor, request: Request) -> Greeting:
    """A body that does not fit the model is answered with 422 and the reason."""
    guests: Guests = request.state.guests
    guests.names.append(visitor.name)
    return Greeting(greeting="Hello " + " ".join([visitor.name] * visitor.times), guests=len(guests.names))


@app.get("/guests")
async def show_guests(request: Request) -> dict[str, Any]:
    """The state that the lifespan made, as this worker has it."""
    guests: Guests = request.state.guests
    return {"since": guests.since, "names": guests.names, "pid": os.getpid()}


@app.get("/stream")
async def stream(
    lines: Annotated[int, Query(ge=0, le=100)] = 5, pause: Annotated[float, Query(ge=0, le=5)] = 0.2
) -> StreamingResponse:
    """`lines` lines, `pause` seconds apart; each is sent as soon as it is made."""

    async def body() -> AsyncIterator[str]:
        for number in range(1, lines + 1):
            yield f"line {number} of {lines}\n"
            if number < lines:
                await asyncio.sleep(pause)

    return StreamingResponse(body(), media_type="text/plain")
