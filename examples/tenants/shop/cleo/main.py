"""A tenant's shop, with Flask. Each tenant has a folder and code of its own; these happen to be alike."""

from __future__ import annotations

import os

from flask import Flask, request, url_for

TENANT = os.environ["TENANT"]

app = Flask(__name__)


@app.get("/")
def index() -> dict[str, object]:
    return {
        "tenant": TENANT,
        "framework": "flask",
        "pid": os.getpid(),
        "orders": url_for("add_order", _external=True),
    }


@app.post("/orders")
def add_order() -> dict[str, object]:
    return {"tenant": TENANT, "ordered": request.get_data(as_text=True)}
