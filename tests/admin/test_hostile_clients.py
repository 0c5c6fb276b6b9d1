"""Who does not finish a request to the admin API keeps nobody else from it; what failed at its start comes later."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import resource
import select
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from support.admin import call, command, socket_of
from support.daemon import PATIENCE_S, daemon, eventually, free_port
from support.load import app

from caddysnake.admin.attending import AdminServer, _Open
from caddysnake.admin.connection import BODY_S, HEAD_S
from caddysnake.admin.hosting import SILENT_S, Hosting
from caddysnake.admin.request import Answer, Request
from caddysnake.config.language.values import SocketAddress
from caddysnake.config.plan.admin import AdminEndpoint
from caddysnake.daemon.main import Daemon
from caddysnake.daemon.sockets.opener import open_unix
from caddysnake.daemon.supervisor.document import Configuration
from caddysnake.daemon.system.timings import Timings

pytestmark = pytest.mark.system

SITE = "unix/x.sock {\n\tpython {\n\t\tmodule_wsgi main:wsgi\n\t\tworkers 1\n\t}\n}\n"


@pytest.mark.parametrize(
    "begun",
    [b"", b"GET /status HTTP/1.1\r\n", b"POST /load HTTP/1.1\r\nHost: localhost:%d\r\nContent-Length: 9\r\n\r\n"],
)
def test_clients_that_do_not_finish_give_way_to_others(tmp_path: Path, begun: bytes) -> None:
    (tmp_path / "main.py").write_text(app("1"))
    port = free_port()
    with daemon(tmp_path, f"{{\n\tadmin localhost:{port}\n}}\n{SITE}") as process, contextlib.ExitStack() as held:
        process.wait_for_log("admin API ready")
        clients = []
        for _ in range(600):
            client = held.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE_S))
            client.sendall(begun % port if b"%d" in begun else begun)
            clients.append(client)
        for _ in range(5):
            assert call(port, "GET", "/status").status == 200
        assert command(process, tmp_path, "reload").returncode == 0
        assert len(os.listdir(f"/proc/{process.pid}/fd")) < 500
        # A reset is what an evicted one gets; the others have some time.
        assert sum(bool(select.select([client], [], [], 0)[0]) for client in clients) >= 300


@pytest.mark.parametrize("begun", [b"", b"GET /status HTTP/1.1\r\nHost: localh"])
def test_a_head_that_does_not_come_ends_the_connection(tmp_path: Path, begun: bytes) -> None:
    (tmp_path / "main.py").write_text(app("1"))
    with daemon(tmp_path, SITE) as process, socket.socket(socket.AF_UNIX) as client:
        process.wait_for_log("admin API ready")
        client.settimeout(HEAD_S + PATIENCE_S)
        client.connect(str(socket_of(process)))
        client.sendall(begun)
        began = time.monotonic()
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""
        assert time.monotonic() - began > HEAD_S / 2


def test_a_body_that_does_not_come_is_answered_and_one_that_is_slow_is_read(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(app("1"))
    with daemon(tmp_path, SITE) as process, contextlib.ExitStack() as held:
        process.wait_for_log("admin API ready")
        never, slow = (held.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2))
        for client in (never, slow):
            client.settimeout(BODY_S + PATIENCE_S)
            client.connect(str(socket_of(process)))
            head = (
                f"POST /load HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/caddyfile\r\nContent-Length: {len(SITE)}"
            )
            client.sendall(head.encode() + b"\r\n\r\n")
        time.sleep(HEAD_S + 2)
        slow.sendall(SITE.encode())
        assert slow.recv(4096).startswith(b"HTTP/1.1 200 ")
        answer = never.recv(4096)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"request-timeout" in answer


HOST = b"Host: localhost\r\n"
LIVE = b"GET /health/live HTTP/1.1\r\n" + HOST
GOOD = LIVE + b"\r\n"
FOLLOW = GOOD.replace(b"/health/live", b"/logs?follow=true")
LOAD = b"POST /load HTTP/1.1\r\n" + HOST
EXEC = b"POST /apps/main:wsgi/exec HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: caddysnake-exec\r\n"
SAID: dict[str, tuple[bytes, list[bytes]]] = {
    "one behind the other": (GOOD + GOOD.replace(b"live", b"nope") + GOOD, [b"200", b"404", b"200"]),
    "a body that nobody reads": (LIVE + b"Content-Length: 4\r\n\r\n1234" + GOOD, [b"200", b"200"]),
    "a body that nobody waits for": (LIVE + b"Content-Length: 9999\r\n\r\n1234" + GOOD, [b"200"]),
    "chunks": (LOAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\na {\r\n0\r\n\r\n" + GOOD, [b"400", b"200"]),
    "what are no chunks": (LOAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n" + GOOD, [b"400"]),
    "two lengths": (LOAD + b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + LIVE, [b"400"]),
    "a body that ends early": (LOAD + b"Content-Length: 9\r\n\r\na {", [b"400"]),
    "a compressed body": (LOAD + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\na {" + GOOD, [b"415", b"200"]),
    "too much": (LOAD + b"Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n", [b"413"]),
    "what was told to go on": (LOAD + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n", [b"100", b"400"]),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", [b"400"]),
    "a slash in a name": (GOOD.replace(b"/live", b"%2Flive"), [b"404"]),
    "a letter in another way": (GOOD.replace(b"live", b"%6Cive"), [b"200"]),
    "a command, and more": (EXEC + b"Content-Length: 20\r\n\r\n" + b'{"command":["true"]}and more', [b"400"]),
}


def test_it_speaks_http_with_whoever_half_knows_it(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(app("1"))
    with daemon(tmp_path, SITE) as process:
        process.wait_for_log("admin API ready")
        for name, (said, expected) in SAID.items():
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(PATIENCE_S)
                client.connect(str(socket_of(process)))
                client.sendall(said)
                client.shutdown(socket.SHUT_WR)  # it may still read
                answer = b"".join(iter(partial(client.recv, 65536), b""))
            statuses = re.findall(rb"HTTP/1\.1 (\d+) ", answer)
            assert statuses == expected, (name, answer)
            assert statuses[-1] < b"400" or b'"code":"' in answer, name
        before = len(os.listdir(f"/proc/{process.pid}/fd"))
        for said in [FOLLOW, FOLLOW.replace(b"GET", b"HEAD")] * 20:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(socket_of(process)))
                client.sendall(said)
                client.recv(1)  # what else has come is lost: a reset
        eventually(lambda: len(os.listdir(f"/proc/{process.pid}/fd")) < before + 10, "the end of who has left")
        assert "Traceback" not in process.log


def test_what_fails_at_the_start_for_want_of_descriptors_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "admin.sock"
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def bring_up() -> bytes:
        nothing = SimpleNamespace(unwalled=frozenset(), apps={}, templates={})
        running = SimpleNamespace(origins=SimpleNamespace(uids=()), desired=nothing, apps={}, templates={})
        nobody = SimpleNamespace(running=running)
        admin = AdminServer(cast(Daemon, nobody))
        endpoint = AdminEndpoint(SocketAddress("unix", str(path)))
        admin._coming = _Open(endpoint, open_unix(str(path), None, None, None))
        admin.commit()
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
        starting = asyncio.create_task(admin.start())
        try:
            async with asyncio.timeout(PATIENCE_S):
                while "cannot come up for now" not in caplog.text:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        await starting
        answer = await reader.read(100)
        writer.close()
        await admin.stop()
        return answer

    try:
        with caplog.at_level(logging.ERROR, "caddysnake"):
            assert asyncio.run(bring_up()).startswith(b"HTTP/1.1 200 ")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert "Too many open files" in str([getattr(record, "fields", {}) for record in caplog.records])


def test_a_command_does_not_wait_for_an_api_that_does_not_answer(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "admin.sock"))
        listener.listen(16)
        (tmp_path / "Caddyfile").write_text(SITE)
        done = subprocess.run(
            [sys.executable, "-m", "caddysnake", "reload", "--address", f"unix/{tmp_path}/admin.sock"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE_S,
            check=False,
        )
    assert done.returncode == 1
    assert "does not answer" in done.stderr


def test_a_default_address_that_cannot_be_had_at_the_start_is_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "runtime"
    folder.touch()
    endpoint = AdminEndpoint(SocketAddress("unix", str(folder / "x.sock")), is_default=True)

    async def bring_up() -> None:
        admin = AdminServer(cast(Daemon, None), Timings(admin_again_s=0.05))
        admin.prepare(cast(Configuration, SimpleNamespace(admin=endpoint)))
        admin.commit()
        assert admin._present is None
        folder.unlink()
        async with asyncio.timeout(PATIENCE_S):
            while admin._present is None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (folder / "x.sock").is_socket()
        await admin.stop()

    asyncio.run(bring_up())


def test_who_is_being_answered_is_not_ended_for_others() -> None:
    async def serve() -> list[bytes]:
        go, asked = asyncio.Event(), asyncio.Queue[Request]()

        async def answer(request: Request) -> Answer:
            await asked.put(request)
            await go.wait()
            return Answer(200, b"here", {})

        hosting = Hosting(answer, lambda exc: Answer(exc.status, b"", {}), 8, PATIENCE_S)
        loop = asyncio.get_running_loop()
        got = []
        with contextlib.ExitStack() as held:
            clients = []
            for _ in range(8):
                ours, client = socket.socketpair()
                clients.append(held.enter_context(client))
                client.setblocking(False)
                client.send(b"GET / HTTP/1.0\r\n\r\n")
                hosting.accept(ours)
                await asked.get()
            await asyncio.sleep(2 * SILENT_S)
            assert not hosting.has_room()
            go.set()
            for client in clients:
                got.append((await loop.sock_recv(client, 4096))[-4:])
        await hosting.stop()
        return got

    assert asyncio.run(serve()) == [b"here"] * 8
