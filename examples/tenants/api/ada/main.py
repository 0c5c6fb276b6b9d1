"""A tenant's API, with FastAPI. Each tenant has a folder and code of its own; these happen to be alike."""

from __future__ import annotations

import os

from fastapi import FastAPI, Request

TENANT = os.environ["TENANT"]

# Where the app is mounted, if it shares a host with other tenants.
app = FastAPI(title=TENANT, root_path=os.environ.get("URL_PREFIX", ""))


@app.get("/")
async def index(request: Request) -> dict[str, object]:
    return {"tenant": TENANT, "framework": "fastapi", "pid": os.getpid(), "notes": str(request.url_for("add_note"))}


@app.post("/notes")
async def add_note(request: Request) -> dict[str, object]:
    return {"tenant": TENANT, "kept": (await request.body()).decode()}
