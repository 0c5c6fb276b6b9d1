"""A small Flask app: a page, JSON, a form, and a response that streams."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

from flask import Flask, Response, render_template_string, request, url_for

PAGE = """<!doctype html>
<html lang="en">
<title>Flask behind Caddy</title>
<h1>Hello from Flask</h1>
<form method="post" action="{{ url_for('greet') }}">
  <label>Your name <input name="name" required></label> <button>Greet</button>
</form>
<p><a href="{{ url_for('show_json') }}">JSON</a> · <a href="{{ url_for('stream') }}">a response that streams</a></p>
</html>
"""


app = Flask(__name__)


@app.get("/")
def index() -> str:
    return render_template_string(PAGE)


@app.get("/json")
def show_json() -> dict[str, Any]:
    """What the app knows about the request: behind a proxy these are the things that go wrong."""
    return {
        "framework": "flask",
        "url": request.url,
        "scheme": request.scheme,
        "client": request.remote_addr,
        "page": url_for("index"),
        "pid": os.getpid(),
    }


@app.post("/greet")
def greet() -> tuple[str, int] | str:
    name = request.form.get("name", "").strip()
    if not name:
        return "Tell me your name.\n", 400
    return render_template_string("<!doctype html>\n<h1>Hello {{ name }}</h1>\n", name=name)


@app.get("/stream")
def stream() -> Response:
    """`lines` lines (at most 100), `pause` seconds apart (at most 5); each is sent as soon as it is made."""
    lines = min(request.args.get("lines", 5, int), 100)
    pause = min(request.args.get("pause", 0.2, float), 5.0)

    def body() -> Iterator[str]:
        for number in range(1, lines + 1):
            yield f"line {number} of {lines}\n"
            if number < lines:
                time.sleep(max(pause, 0))

    return Response(body(), mimetype="text/plain")
