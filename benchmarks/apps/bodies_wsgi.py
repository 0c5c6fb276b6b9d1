"""Large and long things over WSGI: bodies, streams, a file. By path."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

HELLO = b"Hello, World!"
CHUNK = bytes(64 * 1024)
MEBIBYTE = bytes(1 << 20)
GIBIBYTE_CHUNKS = (1 << 30) // len(CHUNK)
EVENT = b"data: " + b"x" * 64 + b"\n\n"
FILE = Path(os.environ["BENCHMARK_FILE"]) if "BENCHMARK_FILE" in os.environ else None


def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    headers = [("Content-Type", "application/octet-stream")]
    if path == "/stream":  # a thousand small pieces of unknown total
        start_response("200 OK", headers)
        return (EVENT for _ in range(1000))
    body, length = BODIES[path](environ)
    start_response("200 OK", [*headers, ("Content-Length", str(length))])
    return body


def hello(environ: dict[str, Any]) -> tuple[Iterable[bytes], int]:
    return [HELLO], len(HELLO)


def length(environ: dict[str, Any]) -> tuple[Iterable[bytes], int]:
    total = 0
    while chunk := environ["wsgi.input"].read(len(CHUNK)):
        total += len(chunk)
    body = str(total).encode()
    return [body], len(body)


def mebibyte(environ: dict[str, Any]) -> tuple[Iterable[bytes], int]:
    return [MEBIBYTE], len(MEBIBYTE)


def gibibyte(environ: dict[str, Any]) -> tuple[Iterable[bytes], int]:
    return (CHUNK for _ in range(GIBIBYTE_CHUNKS)), GIBIBYTE_CHUNKS * len(CHUNK)


def file(environ: dict[str, Any]) -> tuple[Iterable[bytes], int]:
    assert FILE is not None
    opened = FILE.open("rb")
    if "wsgi.file_wrapper" in environ:
        return environ["wsgi.file_wrapper"](opened, len(CHUNK)), FILE.stat().st_size
    return pieces(opened), FILE.stat().st_size


def pieces(opened: Any) -> Iterator[bytes]:
    with opened:
        while chunk := opened.read(len(CHUNK)):
            yield chunk


BODIES = {"/": hello, "/length": length, "/mebibyte": mebibyte, "/gibibyte": gibibyte, "/file": file}
