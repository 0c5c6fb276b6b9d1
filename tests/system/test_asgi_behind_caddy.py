"""ASGI frameworks, WebSocket and the extensions through stock Caddys: what works in the worker works in the browser."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.caddies import caddy as find_caddy
from support.daemon import PATIENCE_S, caddy, daemon, eventually
from support.rawhttp import RawClient
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

pytestmark = pytest.mark.system

CONTENT = os.urandom(1000) * 3000


class Site:
    def __init__(self, port: int, kind: str) -> None:
        self.port = port
        self.kind = kind

    def raw(self) -> RawClient:
        return RawClient(socket.create_connection(("127.0.0.1", self.port), PATIENCE_S))

    def ask(self, target: str, method: str = "GET", body: object = None, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request(method, target, body, headers)  # type: ignore[arg-type]
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def socket(self, path: str, **options: object) -> ClientConnection:
        return connect(f"ws://127.0.0.1:{self.port}{path}", max_size=None, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=["current", "debian"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    kind: str = request.param
    folder = tmp_path_factory.mktemp("frameworks")
    shutil.copy(Path(__file__).with_name("asgi_frameworks.py"), folder)
    (folder / "file.bin").write_bytes(CONTENT)
    block = "python {\n\t\tmodule_asgi asgi_frameworks:app\n\t\tworkers 1\n\t}"
    ours = f"unix/{folder}/app.sock|0660 {{\n\t{block}\n}}\n"
    theirs = f"http://:{{port}} {{\n\tbind 127.0.0.1\n\treverse_proxy unix/{folder}/app.sock\n}}\n"
    with daemon(folder, ours), caddy(folder, theirs, find_caddy(kind)) as (_, port):
        yield Site(port, kind)


# Frameworks


def test_fastapi_answers_through_its_middleware(site: Site) -> None:
    with site.raw() as client:
        answer = client.get("/json?q=7")
    assert answer.body == b'{"q":7}'
    assert answer.header("x-stamp") == "middleware"


def test_a_streaming_response_opens_at_once(site: Site) -> None:
    with site.raw() as client:
        client.send(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.head()[0] == 200
        assert b"data: 1" in client.exactly(14)
        site.ask("/gate")
        assert b"data: 2" in client.exactly(14)


def test_a_file_response_is_whole_and_may_be_asked_for_in_parts(site: Site) -> None:
    assert site.ask("/file") == (200, CONTENT)
    assert site.ask("/file", Range="bytes=5-9") == (206, CONTENT[5:10])
    assert site.ask("/django/file") == (200, CONTENT)


def test_an_upload_streams_into_the_app(site: Site) -> None:
    before = int(site.ask("/memory")[1])
    piece = os.urandom(1 << 20)
    digest = hashlib.sha256()
    for _ in range(200):
        digest.update(piece)
    status, body = site.ask("/upload", "POST", iter([piece] * 200))
    found = json.loads(body)
    assert (status, found["size"], found["sha256"]) == (200, 200 << 20, digest.hexdigest())
    assert found["memory"] < before + (40 << 20)


def test_a_background_task_holds_up_nobody(site: Site) -> None:
    with site.raw() as client:
        assert client.get("/background").body == b'"answered"'
        assert "background done" not in json.loads(client.get("/notes").body)
        eventually(lambda: "background done" in json.loads(client.get("/notes").body))


def test_an_exception_is_a_500_and_no_more(site: Site) -> None:
    with site.raw() as client:
        assert client.get("/boom").status == 500
        assert client.get("/json").status == 200


def test_django_answers_streams_and_reads(site: Site) -> None:
    assert site.ask("/django/hello", Host="shop.example") == (200, b"django http shop.example")
    assert site.ask("/django/count") == (200, b"0\n1\n2\n")
    assert site.ask("/django/digest", "POST", CONTENT[:1_000_000]) == (
        200,
        hashlib.sha256(CONTENT[:1_000_000]).hexdigest().encode(),
    )


# WebSocket


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_messages_come_back(site: Site, compression: str | None) -> None:
    with site.socket("/ws", compression=compression, subprotocols=["chat"]) as ws:
        assert ws.subprotocol == "chat"
        assert bool(ws.protocol.extensions) is bool(compression)
        for size in (0, 125, 65536, 5_000_000):
            ws.send(data := os.urandom(size))
            assert ws.recv(20) == data
        ws.send("text")
        assert ws.recv(20) == "text"
        assert ws.ping().wait(20)


def test_closes_carry_their_codes_both_ways(site: Site) -> None:
    with site.socket("/ws") as ws:
        ws.send("close")
        with pytest.raises(ConnectionClosed):
            ws.recv(20)
        assert (ws.close_code, ws.close_reason) == (4003, "as you wish")
    with site.socket("/ws") as ws:
        ws.close(4001, "mine")
        assert ws.close_code == 4001
    eventually(lambda: "left 4001" in json.loads(site.ask("/notes")[1]))


def test_a_denied_socket_is_told_why(site: Site) -> None:
    with pytest.raises(InvalidStatus) as caught:
        site.socket("/denied")
    assert caught.value.response.status_code == 401
    assert caught.value.response.body == b"who are you?"


# Extensions


def test_an_answer_with_trailers_is_whole_without_them(site: Site) -> None:
    """Caddy passes on no ``TE`` that Connection names; without it nobody gets trailers (RFC 9110 section 6.5.1)."""
    with site.raw() as client:
        client.send(b"GET /plain/trailers HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n")
        client.head()
        expected = b"7\r\ncontent\r\n0\r\n\r\n"
        assert client.exactly(len(expected)) == expected


def test_early_hints_reach_the_client(site: Site) -> None:
    with site.raw() as client:
        client.send(b"GET /plain/hints HTTP/1.1\r\nHost: a\r\n\r\n")
        hint = client.answer()
        assert (hint.status, hint.header("link")) == (103, "</a.css>; rel=preload")
        assert "http.response.early_hint" in json.loads(client.answer().body)
