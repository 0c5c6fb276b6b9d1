"""Both interfaces through both stock Caddys over a unix socket: what a browser would see."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.caddies import caddy as find_caddy
from support.daemon import PATIENCE_S, caddy, daemon, eventually, python_site

pytestmark = pytest.mark.system

ASGI = '''
import asyncio, hashlib, json, pathlib

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    path = scope["path"]
    headers = []
    async def body():
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            yield message["body"]
            if not message["more_body"]:
                return
    async def start(status, *extra):
        await send({"type": "http.response.start", "status": status, "headers": list(extra)})
    async def end(data=b"", more=False):
        await send({"type": "http.response.body", "body": data, "more_body": more})
    if path == "/digest":
        digest, size = hashlib.sha256(), 0
        async for piece in body():
            digest.update(piece)
            size += len(piece)
        await start(200)
        await end(json.dumps([size, digest.hexdigest()]).encode())
    elif path == "/seen":
        await start(200)
        await end(json.dumps({
            "method": scope["method"], "path": path, "query": scope["query_string"].decode(),
            "scheme": scope["scheme"], "client": scope["client"][0],
            "host": dict(scope["headers"])[b"host"].decode(),
        }).encode())
    elif path == "/stream":
        await start(200, (b"content-type", b"text/event-stream"))
        for number in range(3):
            await end(b"data: %d\\n\\n" % number, more=True)
            await asyncio.sleep(0.3)
        await end()
    elif path == "/large":
        await start(200)
        for _ in range(64):
            await end(b"x" * 65536, more=True)
        await end()
    elif path == "/empty":
        await start(204)
        await end()
    elif path == "/unchanged":
        await start(304, (b"etag", b'"a"'))
        await end()
    elif path == "/early":
        await start(413, (b"content-length", b"3"))
        await end(b"no!")
    elif path == "/raises":
        raise RuntimeError("on purpose")
    elif path == "/dies":
        await start(200)
        await end(b"begun", more=True)
        await asyncio.sleep(0.2)
        raise RuntimeError("on purpose, later")
    elif path == "/wait":
        while (await receive())["type"] != "http.disconnect":
            pass
        pathlib.Path("left").touch()
    else:
        await start(200, (b"content-length", b"5"))
        await end(b"hello")
'''

WSGI = '''
import hashlib, json, time

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/digest":
        digest, size = hashlib.sha256(), 0
        while piece := environ["wsgi.input"].read(65536):
            digest.update(piece)
            size += len(piece)
        start_response("200 OK", [])
        return [json.dumps([size, digest.hexdigest()]).encode()]
    if path == "/seen":
        start_response("200 OK", [])
        return [json.dumps({
            "method": environ["REQUEST_METHOD"], "path": path, "query": environ["QUERY_STRING"],
            "scheme": environ["wsgi.url_scheme"], "client": environ["REMOTE_ADDR"], "host": environ["HTTP_HOST"],
        }).encode()]
    if path == "/stream":
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        def events():
            for number in range(3):
                yield b"data: %d\\n\\n" % number
                time.sleep(0.3)
        return events()
    if path == "/large":
        start_response("200 OK", [])
        return (b"x" * 65536 for _ in range(64))
    if path == "/empty":
        start_response("204 No Content", [])
        return []
    if path == "/unchanged":
        start_response("304 Not Modified", [("ETag", '"a"')])
        return []
    if path == "/early":
        start_response("413 Content Too Large", [("Content-Length", "3")])
        return [b"no!"]
    if path == "/raises":
        raise RuntimeError("on purpose")
    if path == "/dies":
        start_response("200 OK", [])
        def half():
            yield b"begun"
            time.sleep(0.2)
            raise RuntimeError("on purpose, later")
        return half()
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello"]
'''


class Site:
    """An app of one interface behind one Caddy, over a unix socket."""

    def __init__(self, port: int, interface: str, kind: str, folder: Path) -> None:
        self.kind = kind
        self.port = port
        self.folder = folder
        self.interface = interface

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)

    def ask(self, target: str, method: str = "GET", body: object = None, **headers: str) -> tuple[int, bytes]:
        connection = self.connect()
        try:
            connection.request(method, target, body, headers)  # type: ignore[arg-type]
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


@pytest.fixture(scope="module", params=["current", "debian"])
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(scope="module", params=["asgi", "wsgi"])
def site(request: pytest.FixtureRequest, kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    interface: str = request.param
    folder = tmp_path_factory.mktemp("site")
    (folder / "main.py").write_text(ASGI if interface == "asgi" else WSGI)
    ours = python_site(f"unix/{folder}/app.sock|0660", f"module_{interface} main:app", "workers 2")
    theirs = f"http://:{{port}} {{\n\tbind 127.0.0.1\n\treverse_proxy unix/{folder}/app.sock\n}}\n"
    with daemon(folder, ours), caddy(folder, theirs, find_caddy(kind)) as (_, port):
        yield Site(port, interface, kind, folder)


def test_a_plain_request_is_answered(site: Site) -> None:
    """The whole path: browser, Caddy, socket, worker, app."""
    assert site.ask("/") == (200, b"hello")


def test_the_app_sees_what_the_browser_asked_and_who_it_is(site: Site) -> None:
    """Scheme, client and host are the browser's, told by Caddy."""
    status, body = site.ask("/seen?a=1&b=%20", Host="shop.example:8080")
    assert status == 200
    assert json.loads(body) == {
        "method": "GET",
        "path": "/seen",
        "query": "a=1&b=%20",
        "scheme": "http",
        "client": "127.0.0.1",
        "host": "shop.example:8080",
    }


def test_a_browser_cannot_forge_its_address(site: Site) -> None:
    """Caddy replaces the field of a client that it does not trust, and its own hop is the one believed."""
    _, body = site.ask("/seen", **{"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https"})
    seen = json.loads(body)
    assert (seen["client"], seen["scheme"]) == ("127.0.0.1", "http")


@pytest.mark.parametrize("size", [0, 1, 65536, 3_000_000])
def test_a_body_of_known_length_arrives_whole(site: Site, size: int) -> None:
    """With Content-Length."""
    data = bytes(range(256)) * (size // 256 + 1)
    status, body = site.ask("/digest", "POST", data[:size])
    assert status == 200
    assert json.loads(body) == [size, hashlib.sha256(data[:size]).hexdigest()]


def test_a_chunked_body_arrives_whole(site: Site) -> None:
    """Without Content-Length Caddy sends chunks of its own cut."""
    pieces = [b"a" * 10, b"b" * 70_000, b"c"]
    status, body = site.ask("/digest", "POST", iter(pieces))
    assert status == 200
    assert json.loads(body) == [70_011, hashlib.sha256(b"".join(pieces)).hexdigest()]


def test_one_connection_carries_many_requests(site: Site) -> None:
    """Kept alive, with bodies in between."""
    connection = site.connect()
    try:
        for number in range(20):
            connection.request("POST", "/digest", b"x" * number)
            assert json.loads(connection.getresponse().read())[0] == number
    finally:
        connection.close()


def test_a_stream_arrives_piece_by_piece(site: Site) -> None:
    """The head at once, each event when it is sent."""
    connection = site.connect()
    begun = time.monotonic()
    try:
        connection.request("GET", "/stream")
        response = connection.getresponse()
        opened = time.monotonic() - begun
        first = response.read(9)
        came = time.monotonic() - begun
        rest = response.read()
        ended = time.monotonic() - begun
    finally:
        connection.close()
    assert first == b"data: 0\n\n"
    assert rest == b"data: 1\n\ndata: 2\n\n"
    # The app takes 0.9 s to the end; what came first came well before.
    assert opened <= came < ended - 0.3


def test_a_large_answer_arrives_whole(site: Site) -> None:
    """Without a declared length."""
    status, body = site.ask("/large")
    assert status == 200
    assert len(body) == 64 * 65536


@pytest.mark.parametrize(("target", "status"), [("/empty", 204), ("/unchanged", 304)])
def test_an_answer_without_content_leaves_the_connection_usable(site: Site, target: str, status: int) -> None:
    """204 and 304 have none."""
    connection = site.connect()
    try:
        for _ in range(3):
            connection.request("GET", target)
            response = connection.getresponse()
            assert (response.status, response.read()) == (status, b"")
    finally:
        connection.close()


def test_head_has_the_length_and_no_content(site: Site) -> None:
    """Whatever the app returns."""
    connection = site.connect()
    try:
        connection.request("HEAD", "/")
        response = connection.getresponse()
        assert (response.status, response.getheader("content-length"), response.read()) == (200, "5", b"")
    finally:
        connection.close()


def test_an_early_refusal_of_a_large_body_is_seen(site: Site) -> None:
    """An upstream that closes instead of reading on makes Caddy answer 502 about every third time."""
    for _ in range(5):
        assert site.ask("/early", "POST", b"x" * 3_000_000) == (413, b"no!")


def test_an_exception_is_a_500(site: Site) -> None:
    """And the next request is served."""
    assert site.ask("/raises")[0] == 500
    assert site.ask("/")[0] == 200


def test_a_response_that_dies_midway_does_not_look_whole(site: Site) -> None:
    """The connection is cut instead of ended with a last chunk. (Debian's Caddy hides that from the browser itself.)"""
    with socket.socket(socket.AF_UNIX) as direct:
        direct.settimeout(PATIENCE_S)
        direct.connect(str(site.folder / "app.sock"))
        direct.sendall(b"GET /dies HTTP/1.1\r\nHost: x\r\n\r\n")
        received = b"".join(iter(lambda: _read(direct), b""))
    assert b"begun" in received
    assert not received.endswith(b"0\r\n\r\n")
    if site.kind == "current":
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            site.ask("/dies")


def _read(sock: socket.socket) -> bytes:
    try:
        return sock.recv(65536)
    except ConnectionResetError:
        return b""


def test_an_app_that_waits_is_told_when_the_browser_leaves(site: Site) -> None:
    """Through Caddy, by ``receive``. PEP 3333 has no such thing: a thread finds out when it writes."""
    if site.interface == "asgi":
        with socket.create_connection(("127.0.0.1", site.port), PATIENCE_S) as browser:
            browser.sendall(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
            time.sleep(0.3)
        eventually((site.folder / "left").exists)
    assert site.ask("/")[0] == 200
