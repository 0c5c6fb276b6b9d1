"""The same bytes give the same result whether a worker gets them directly or through a relay."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from support import relay as relays
from support import worker as workers

from caddysnake.channel.messages import TAKE_LINK, TAKE_TRUSTED, Need

SOURCE = '''
import json


def told(pairs):
    return json.dumps(sorted([key, str(value)] for key, value in pairs)).encode()


async def asgi(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    path = scope["path"]
    if path == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in (b"one", b"", b"two" * 50000):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"end"})
        return
    if path == "/trailers":
        start = {"type": "http.response.start", "status": 200, "headers": [(b"trailer", b"x-sum")]}
        await send({**start, "trailers": True})
        await send({"type": "http.response.body", "body": b"content"})
        await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"7")]})
        return
    if path == "/hints":
        await send({"type": "http.response.early_hint", "links": [b"</a.css>"]})
    if path == "/broken":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"some", "more_body": True})
        raise ValueError("broken")
    if path == "/error":
        raise ValueError("error")
    status = int(path[1:4]) if path[1:4].isdigit() else 200
    keys = ("method", "path", "raw_path", "query_string", "root_path", "scheme", "client", "server")
    headers = [field for field in scope["headers"] if field[0] != b"connection"]
    answer = told([*((key, scope[key]) for key in keys), ("headers", headers), ("body", body)])
    await send({"type": "http.response.start", "status": status, "headers": [(b"x-a", b"1"), (b"set-cookie", b"a=b"),
                                                                         (b"set-cookie", b"c=d")]})
    await send({"type": "http.response.body", "body": b"" if status in (204, 304) else answer})


def wsgi(environ, start_response):
    body = environ["wsgi.input"].read()
    path = environ["PATH_INFO"]
    if path == "/stream":
        start_response("200 OK", [])
        return iter([b"one", b"", b"two" * 50000, b"end"])
    if path == "/broken":
        start_response("200 OK", [])
        def pieces():
            yield b"some"
            raise ValueError("broken")
        return pieces()
    if path == "/error":
        raise ValueError("error")
    status = path[1:4] if path[1:4].isdigit() else "200"
    start_response(status + " Said so", [("X-A", "1"), ("Set-Cookie", "a=b"), ("Set-Cookie", "c=d")])
    shown = [(key, value) for key, value in environ.items() if key.isupper()]
    return [] if status in ("204", "304") else [told([*shown, ("body", body)])]
'''

FORWARDED = "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Host: site.test\r\nX-Forwarded-Proto: https\r\nVia: 2.0 Caddy\r\n"
REQUESTS = {
    "plain": f"GET /a%20b/%2F?x=1&y=%zz HTTP/1.1\r\nHost: site.test\r\n{FORWARDED}Cookie: a=1\r\nCookie: b=2\r\n\r\n",
    "no_forwarding": "GET / HTTP/1.1\r\nHost: site.test:81\r\nX-UPPER: \xe9\r\nX_Under: dropped\r\n\r\n",
    "head": "HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n",
    "options": "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "absolute": "GET http://other.test/p?q HTTP/1.1\r\nHost: a\r\n\r\n",
    "post": "POST /p HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello",
    "empty_post": "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    "expecting": f"PUT /p HTTP/1.1\r\nHost: a\r\n{FORWARDED}Expect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
    "created": "PATCH /201 HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTrailer: X-T\r\nContent-Length: 1\r\n\r\nx",
    "no_content": "DELETE /204 HTTP/1.1\r\nHost: a\r\n\r\n",
    "not_modified": "GET /304 HTTP/1.1\r\nHost: a\r\nIf-None-Match: x\r\n\r\n",
    "stream": "GET /stream HTTP/1.1\r\nHost: a\r\n\r\n",
    "stream_1_0": "GET /stream HTTP/1.0\r\nHost: a\r\n\r\n",
    "trailers": "GET /trailers HTTP/1.1\r\nHost: a\r\n\r\n",
    "hints": "GET /hints HTTP/1.1\r\nHost: a\r\n\r\n",
    "closing": "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "broken": "GET /broken HTTP/1.1\r\nHost: a\r\n\r\n",
    "error": "GET /error HTTP/1.1\r\nHost: a\r\n\r\n",
    "two": "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: b\r\nContent-Length: 2\r\n\r\nhi",
    "bad": "GET / HTTP/1.1\r\n\r\n",
}
# What is between the relay and one of its two neighbours alone.
BETWEEN = {"HTTP_CONNECTION"}


class Way(NamedTuple):
    worker: workers.Worker
    relay: relays.Relay

    def connect(self, through: bool) -> socket.socket:
        return self.relay.connect() if through else self.worker.connect(TAKE_TRUSTED)


@pytest.fixture(scope="module", params=["asgi", "wsgi"])
def worker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[workers.Worker]:
    folder: Path = tmp_path_factory.mktemp("app")
    (folder / "echo.py").write_text(SOURCE)
    with workers.running(workers.settings(f"echo:{request.param}", request.param, folder)) as it:
        yield it


@pytest.fixture(scope="module")
def relay() -> Iterator[relays.Relay]:
    with relays.running() as it:
        yield it


@pytest.fixture
def way(worker: workers.Worker, relay: relays.Relay) -> Iterator[Way]:
    """To the worker, directly or through the relay, for whose needs it is asked."""
    stop = threading.Event()

    def daemon() -> None:
        while not stop.is_set():
            try:
                need = relay.message(0.05)
            except TimeoutError:
                continue
            assert isinstance(need, Need)
            worker.give(relay.link(need), TAKE_TRUSTED | TAKE_LINK)

    thread = threading.Thread(target=daemon)
    thread.start()
    try:
        yield Way(worker, relay)
    finally:
        stop.set()
        thread.join()
        relay.forget()
        worker.drop_duplicates()


def asked(sock: socket.socket, request: str) -> bytes:
    with sock:
        sock.sendall(request.encode("latin-1"))
        sock.shutdown(socket.SHUT_WR)
        return relays.read_all(sock)


def comparable(raw: bytes) -> list[object]:
    """What is said, without what differs from one second to the next or belongs to the connection."""
    raw = re.sub(rb"\r\n(?:date|connection): [^\r]*", b"", raw)
    if b"[[" in raw:  # its size depends on what is left out here
        raw = re.sub(rb"\r\ncontent-length: [^\r]*", b"", raw)
    found: list[object] = []
    for part in re.split(rb"(\[\[.*?\]\])", raw):
        if part.startswith(b"[["):
            found.append([pair for pair in json.loads(part) if pair[0] not in BETWEEN])
        else:
            found.append(part)
    return found


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_a_request_is_answered_alike(way: Way, request_: str) -> None:
    direct = comparable(asked(way.connect(through=False), request_))
    relayed = comparable(asked(way.connect(through=True), request_))
    assert relayed == direct
    assert direct[0]


def test_chunked_content_arrives_alike(way: Way) -> None:
    head = "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    request = head + "3\r\nabc\r\n2;x\r\nde\r\n0\r\nT: 1\r\n\r\n"
    for through in (False, True):
        assert b"b'abcde'" in asked(way.connect(through), request)


def test_a_thousand_requests_of_one_connection_are_answered(way: Way) -> None:
    with way.connect(through=True) as client:
        for number in range(1000):
            body = b"x" * (number % 50)
            client.sendall(b"POST /n%d HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (number, len(body)) + body)
            answer = relays.response(client)
            assert b"'" + body + b"'" in answer.read()
