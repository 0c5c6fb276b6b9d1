"""An event loop always turns: in processes and thread hosts, with connections handed over and relayed."""

from __future__ import annotations

import contextlib
import json
import select
import shutil
import socket
import statistics
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from support.daemon import PATIENCE_S, children, daemon
from support.rawhttp import RawClient
from support.streams import RECEIVING, SENDING, UPGRADE, ask, beside, work_of_others

pytestmark = pytest.mark.system

HERE = Path(__file__).parent
MANY = 10
LOOPS = {"uvloop": "uvloop", "asyncio": "native"}
PLACES = [f"{way}-{host}-{loop}" for way in ("direct", "relayed") for host in ("process", "thread") for loop in LOOPS]
LARGE_READS, SMALL_READS = 1 << 20, 1000


class Site(NamedTuple):
    folder: Path
    pids: set[int]
    """Of all workers and relays."""

    def connect(self, place: str) -> socket.socket:
        way = "relay" if place.startswith("relayed") else place
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE_S)
        sock.connect(str(self.folder / f"{way}.sock"))
        return sock


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("turns")
    text = ""
    for place in PLACES:
        way, host, loop = place.split("-")
        home = folder / place
        home.mkdir()
        shutil.copy(HERE.parent / "worker" / "asgi" / "turning_apps.py", home)
        address = f"unix/{place}.sock" if way == "direct" else f"http://{place}"
        bind = "" if way == "direct" else "\tbind unix/relay.sock\n"
        text += f"""{address} {{
{bind}	python {{
		module_asgi turning_apps:app
		working_dir {place}
		workers 1
		workers_runtime {host}
		runtime {LOOPS[loop]}
		sendfile on
	}}
}}
"""
    with daemon(folder, text) as process:
        yield Site(folder, children(process.pid))


@pytest.mark.parametrize("reads_bytes", [LARGE_READS, SMALL_READS], ids=["large-reads", "small-reads"])
@pytest.mark.parametrize("place", PLACES)
def test_others_are_answered_beside_streams_of_every_kind(site: Site, place: str, reads_bytes: int) -> None:
    connect = partial(site.connect, place)
    for kind in SENDING:
        with contextlib.ExitStack() as stack:
            socks = [stack.enter_context(connect()) for _ in range(MANY)]
            for sock in socks:
                ask(sock, kind, place)
            with beside(socks, lambda sock, _: sock.recv(reads_bytes), select.EPOLLIN):
                assert statistics.median(work_of_others(connect, site.pids, place)) < 1.0, kind
        # All of them have left, which the apps are told by the next send.
        assert statistics.median(work_of_others(connect, site.pids, place)) < 1.0, kind


@pytest.mark.parametrize("place", PLACES)
def test_others_are_answered_beside_clients_that_send_as_fast_as_is_read(site: Site, place: str) -> None:
    connect = partial(site.connect, place)
    for kind, data in RECEIVING.items():
        at: dict[socket.socket, int] = {}

        def turn(sock: socket.socket, event: int, data: bytes = data, at: dict[socket.socket, int] = at) -> None:
            if event & select.EPOLLIN:
                sock.recv(LARGE_READS)
            begin = at.get(sock, 0)
            at[sock] = (begin + sock.send(data[begin:])) % len(data)

        with contextlib.ExitStack() as stack:
            socks = [stack.enter_context(connect()) for _ in range(MANY)]
            for sock in socks:
                ask(sock, kind, place)
            with beside(socks, turn, select.EPOLLIN | select.EPOLLOUT):
                assert statistics.median(work_of_others(connect, site.pids, place)) < 1.0, kind


@pytest.mark.parametrize("place", PLACES)
def test_a_send_to_a_client_that_left_raises_before_the_loop_has_turned(site: Site, place: str) -> None:
    for kind in ["told", "told_at_the_end", "told_websocket"]:
        with site.connect(place) as sock:
            upgrade = UPGRADE if kind.endswith("websocket") else b""
            sock.sendall(b"GET /%s HTTP/1.1\r\nHost: %s\r\n%s\r\n" % (kind.encode(), place.encode(), upgrade))
            seen = b""
            while b"first" not in seen:
                seen += sock.recv(4096)
        with RawClient(site.connect(place)) as other:
            deadline = time.monotonic() + PATIENCE_S
            notes: list[str] = []
            while not any(note.startswith((f"{kind}:", "sent")) for note in notes):
                assert time.monotonic() < deadline
                notes = json.loads(other.ask(b"GET /notes HTTP/1.1\r\nHost: %s\r\n\r\n" % place.encode()).body)
            assert notes[-1] == f"{kind}: ClientDisconnected, turned: False"
