"""A stock Caddy that says what it makes of a request: the judge of placeholders, matchers and routes."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, NamedTuple

from support.daemon import PATIENCE_S, Process, free_port

Routes = list[dict[str, Any]]


class Answer(NamedTuple):
    status: int
    fields: dict[str, list[str]]
    """By names in lower case."""
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "surrogateescape")


class Oracle:
    """A running Caddy; each of its servers has a port on the loopback."""

    def __init__(self, process: Process, ports: Mapping[str, int]) -> None:
        self.process = process
        self.ports = ports

    def ask(self, raw: bytes, server: str) -> Answer:
        """The answer to the bytes of one request."""
        with socket.create_connection(("127.0.0.1", self.ports[server]), PATIENCE_S) as connection:
            connection.sendall(raw)
            with HTTPResponse(connection, method=raw.partition(b" ")[0].decode()) as response:
                response.begin()
                fields: dict[str, list[str]] = {}
                for name, value in response.getheaders():
                    fields.setdefault(name.lower(), []).append(value)
                return Answer(response.status, fields, response.read())


@contextlib.contextmanager
def oracle(
    binary: str, folder: Path, servers: Mapping[str, Mapping[str, Any]], environ: dict[str, str] | None = None
) -> Iterator[Oracle]:
    """A Caddy with *servers*, by a name: in the form of its JSON, without the addresses to listen on."""
    ports = {name: free_port() for name in servers}
    config = {
        "admin": {"disabled": True, "config": {"persist": False}},
        "logging": {"logs": {"default": {"level": "WARN"}}},
        "apps": {
            "http": {
                "servers": {
                    name: {"listen": [f"127.0.0.1:{ports[name]}"], "automatic_https": {"disable": True}, **server}
                    for name, server in servers.items()
                }
            }
        },
    }
    path = folder / "oracle.json"
    path.write_text(json.dumps(config))
    process = Process([binary, "run", "--config", str(path)], folder, "oracle", environ)
    try:
        for port in ports.values():
            wait_for_port(port, process)
        yield Oracle(process, ports)
    finally:
        process.close()


def wait_for_port(port: int, process: Process) -> None:
    """Wait until *process* listens on *port*."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        if process.popen.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"caddy does not listen:\n{process.log}")
        time.sleep(0.02)


def respond(body: str) -> dict[str, Any]:
    """The handler that answers with *body*, in which placeholders are expanded."""
    return {"handler": "static_response", "status_code": 200, "body": body}


def proxy(path: Path) -> dict[str, Any]:
    """The handler that forwards to the unix socket at *path*."""
    return {
        "handler": "reverse_proxy",
        "upstreams": [{"dial": f"unix/{path}"}],
        "transport": {"protocol": "http", "compression": False},
    }


@contextlib.contextmanager
def echo(path: Path) -> Iterator[None]:
    """A server on the unix socket at *path* that answers each request with the bytes of its head, and closes."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(16)
    thread = threading.Thread(target=_echo, args=(listener,))
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
        thread.join(PATIENCE_S)
        listener.close()


def _echo(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.settimeout(PATIENCE_S)
            head = b""
            while b"\r\n\r\n" not in head and (data := connection.recv(65536)):
                head += data
            answer = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: x/y\r\nContent-Length: {len(head)}\r\n\r\n"
            connection.sendall(answer.encode() + head)
