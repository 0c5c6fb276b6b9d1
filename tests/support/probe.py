"""A small app for both interfaces that answers with the JSON of one of its functions, and the asking of it."""

from __future__ import annotations

import json
import socket
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

from support.worker import Worker

SOURCE = '''
import json


def respond(path):
    return json.dumps(globals()[path.strip("/")]()).encode()


def wsgi(environ, start_response):
    body = respond(environ["PATH_INFO"])
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


async def asgi(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    body = respond(scope["path"])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
'''


def write(folder: Path, source: str, name: str = "probe") -> None:
    """Write the app into ``folder``; ``source`` comes first, so that its imports see an interpreter not yet touched."""
    (folder / f"{name}.py").write_text(source + SOURCE)


def exchange(sock: socket.socket, target: str) -> tuple[int, bytes]:
    """GET ``target`` over ``sock``, which stays open: status and body."""
    sock.sendall(f"GET {target} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
    response = HTTPResponse(sock, method="GET")
    response.begin()
    return response.status, response.read()


def ask(worker: Worker, function: str) -> Any:
    """What ``function`` of the app returns."""
    with worker.connect() as client:
        status, body = exchange(client, "/" + function)
    worker.drop_duplicates()
    assert status == 200, body
    return json.loads(body)
