"""Apps that answer an upload without reading it, behind stock Caddys over HTTP/1.1: the answer comes whole."""

from __future__ import annotations

import http.client
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.caddies import caddy as find_caddy
from support.daemon import PATIENCE_S, caddy, daemon, python_site

pytestmark = pytest.mark.system

TIMES = 4
FULL_DUPLEX = "\tservers {\n\t\tenable_full_duplex\n\t}\n"
KINDS = ("asgi", "wsgi")


class Front:
    def __init__(self, port: int) -> None:
        self.port = port

    def answered(self, host: str, upload: int, size: int, how: str, reads_at_once: bool, takes_s: float = 0) -> int:
        """How many bytes of the answer came; sends all before it reads, or reads meanwhile. ``takes_s``: to send."""
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE_S) as sock:
            head = f"POST /?size={size}&how={how} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {upload}\r\n\r\n"
            sock.sendall(head.encode())
            sending = threading.Thread(target=self._send, args=(sock, upload, takes_s))
            sending.start()
            try:
                if not reads_at_once:
                    sending.join()
                response = http.client.HTTPResponse(sock, method="POST")
                response.begin()
                assert response.status == 200
                return len(response.read())
            except http.client.IncompleteRead as exc:
                return len(exc.partial)
            finally:
                sock.shutdown(socket.SHUT_RDWR)
                sending.join()

    @staticmethod
    def _send(sock: socket.socket, upload: int, takes_s: float) -> None:
        pieces = 20 if takes_s else 1
        try:
            for _ in range(pieces):
                sock.sendall(bytes(upload // pieces))
                time.sleep(takes_s / pieces)
        except OSError:
            pass  # it has had its answer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("early")
    shutil.copy(Path(__file__).with_name("early_apps.py"), folder)
    more = {"asgi": "\t\tsendfile on\n"}
    blocks = {
        kind: f"\tpython {{\n\t\tmodule_{kind} early_apps:{kind}\n\t\tworkers 1\n{more.get(kind, '')}\t}}\n}}\n"
        for kind in KINDS
    }
    direct = "".join(f"unix/{folder}/{kind}.sock|0660 {{\n{blocks[kind]}" for kind in KINDS)
    relayed = "".join(f"http://{kind} {{\n\tbind unix/{folder}/relay.sock|0660\n{blocks[kind]}" for kind in KINDS)
    timed = "".join(
        python_site(f"unix/{folder}/{kind}-timed.sock|0660", f"module_{kind} early_apps:{kind}", "request_timeout 1.5s")
        for kind in KINDS
    )
    with daemon(folder, direct + relayed + timed):
        yield folder


def proxies(folder: Path) -> str:
    sites = [(f"{kind}.direct", f"unix/{folder}/{kind}.sock", "") for kind in KINDS]
    sites += [(f"{kind}.timed", f"unix/{folder}/{kind}-timed.sock", "") for kind in KINDS]
    sites += [(f"{kind}.relayed", f"unix/{folder}/relay.sock", f"header_up Host {kind}") for kind in KINDS]
    return "".join(
        f"http://{host}:{{port}} {{\n\tbind 127.0.0.1\n\treverse_proxy {socket} {{\n\t\t{rest}\n\t}}\n}}\n"
        for host, socket, rest in sites
    )


@pytest.fixture(scope="module", params=["current", "debian", "full-duplex"])
def front(request: pytest.FixtureRequest, folder: Path) -> Iterator[Front]:
    options, kind = (FULL_DUPLEX, "current") if request.param == "full-duplex" else ("", request.param)
    with caddy(folder, proxies(folder), find_caddy(kind), options) as (_, port):
        yield Front(port)


@pytest.mark.parametrize("host", ["asgi.direct", "asgi.relayed", "wsgi.direct", "wsgi.relayed"])
@pytest.mark.parametrize("how", ["whole", "pieces", "file"])
@pytest.mark.parametrize("reads_at_once", [True, False], ids=["reading", "sending-first"])
def test_a_large_answer_to_an_upload_that_nobody_reads_comes_whole(
    front: Front, host: str, how: str, reads_at_once: bool
) -> None:
    for upload, size in ((200_000, 1_000_000), (800_000, 8_000_000)):
        came = [front.answered(host, upload, size, how, reads_at_once) for _ in range(TIMES)]
        assert came == [size] * TIMES


@pytest.mark.parametrize("host", ["asgi.direct", "asgi.relayed", "wsgi.direct", "wsgi.relayed"])
@pytest.mark.parametrize("reads_at_once", [True, False], ids=["reading", "sending-first"])
@pytest.mark.parametrize("upload", [1_300_000, 30_000_000])
def test_a_streamed_answer_to_an_upload_that_is_too_large_to_be_kept_comes_whole(
    front: Front, host: str, reads_at_once: bool, upload: int
) -> None:
    for size in (1_000_000, 8_000_000):
        came = [front.answered(host, upload, size, "pieces", reads_at_once) for _ in range(TIMES)]
        # Of clients that send all before they read, a Caddy that is held up may still cut one of very many.
        assert came.count(size) >= TIMES - (not reads_at_once)


@pytest.mark.parametrize("host", ["asgi.direct", "asgi.relayed", "wsgi.direct", "wsgi.relayed"])
@pytest.mark.parametrize("reads_at_once", [True, False], ids=["reading", "sending-first"])
def test_a_whole_answer_to_a_very_large_upload_comes_whole(front: Front, host: str, reads_at_once: bool) -> None:
    came = [front.answered(host, 12_000_000, 8_000_000, "whole", reads_at_once) for _ in range(TIMES)]
    assert came == [8_000_000] * TIMES


def test_a_large_answer_to_an_upload_that_comes_slowly_comes_whole(front: Front) -> None:
    ways = [
        (f"{kind}.{way}", 300_000, 700_000, how, reads_at_once, 2.0)
        for kind in KINDS
        for way in ("direct", "relayed")
        for how in ("whole", "file", "pieces")
        for reads_at_once in (True, False)
    ]
    with ThreadPoolExecutor(len(ways)) as pool:
        came = list(pool.map(lambda way: front.answered(*way), ways))
    assert dict(zip(ways, came, strict=True)) == dict.fromkeys(ways, 700_000)


def test_an_answer_does_not_wait_for_an_upload_until_its_request_timeout_is_over(front: Front) -> None:
    for kind in KINDS:
        assert front.answered(f"{kind}.timed", 300_000, 5, "whole", True, 2.0) == 5
