"""``request_timeout``: what takes too long ends, with its stack in the log, and takes nobody else along."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import PATIENCE_S, Process, daemon, get, workers
from support.house import run
from support.load import Load, app
from support.rawhttp import Answer, RawClient
from support.serving import composition, serving

from caddysnake.daemon.system.timings import Timings

pytestmark = pytest.mark.system

SLOW = """
import asyncio, re, time

def hang_gil():
    re.match("(a+)+$", "a" * 60 + "b")  # for years, and keeps the GIL

def slow(path):
    if path == "/sleep":
        time.sleep(120)
    elif path == "/gil":
        hang_gil()
    elif path == "/short":
        time.sleep(2)

_wsgi, _asgi = wsgi, asgi

def wsgi(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/stream":
        start_response("200 OK", [])
        def body():
            yield b"begun"
            time.sleep(120)
        return body()
    if path == "/wait":
        time.sleep(120)
    slow(path)
    return _wsgi(environ, start_response)

async def asgi(scope, receive, send):
    if scope["type"] == "http":
        path = scope["path"]
        if path == "/stream":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
            await asyncio.sleep(120)
        if path == "/wait":
            await asyncio.sleep(120)
        if path == "/stubborn":
            while True:
                try:
                    await asyncio.sleep(120)
                except asyncio.CancelledError:
                    pass
        slow(path)
    await _asgi(scope, receive, send)
"""


def caddyfile(interface: str, *lines: str, site: str = "unix/x.sock", relayed: bool = False) -> str:
    inside = "\n".join(f"\t\t{line}" for line in (f"module_{interface} main:{interface}", *lines))
    other = f"\tpython /none {{\n\t\tmodule_{interface} main:{interface}\n\t}}\n" if relayed else ""
    return f"{site} {{\n{other}\tpython {{\n{inside}\n\t}}\n}}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@contextlib.contextmanager
def running(folder: Path, text: str) -> Iterator[Process]:
    (folder / "main.py").write_text(app("1") + SLOW)
    with daemon(folder, text) as process:
        yield process


def one_replaced(process: Process, before: set[int]) -> None:
    """Wait until there are as many workers as ``before``, all but one the same."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = workers(process.pid)
        if len(found) == len(before) == len(found & before) + 1:
            return
        assert time.monotonic() < deadline, process.log
        time.sleep(0.05)


def ask(folder: Path, target: str) -> Answer:
    with RawClient(connect(folder)) as client:
        return client.get(target)


def connect(folder: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE_S)
    sock.connect(str(folder / "x.sock"))
    return sock


@pytest.mark.parametrize(("interface", "via"), [("wsgi", "direct"), ("asgi", "relay")])
def test_a_request_that_waits_too_long_gets_504_and_the_others_go_on(folder: Path, interface: str, via: str) -> None:
    lines = ("workers 1", "request_timeout 1s", "grace_period 1s")
    with running(folder, caddyfile(interface, *lines, relayed=via == "relay")) as process:
        before = workers(process.pid)

        async def work() -> None:
            async with Load(folder / "x.sock", 4) as load:
                answers = await asyncio.gather(*(asyncio.to_thread(ask, folder, "/wait") for _ in range(3)))
                for answer in answers:
                    assert (answer.status, answer.header("caddysnake-code")) == (504, "deadline"), answer
                    assert b"took too long" in answer.body
                await load.more(50)
                cut = await asyncio.to_thread(ask, folder, "/stream")
                assert (cut.status, cut.body, cut.whole) == (200, b"begun", False)
            assert load.failures == []

        asyncio.run(work())
        assert "the request took longer than request_timeout (1 s)" in process.log
        assert "main.py" in process.log.partition("the request took longer")[2]
        if interface == "asgi":
            assert workers(process.pid) == before  # a task can be cancelled, a thread cannot
        else:
            one_replaced(process, before)


def test_a_worker_whose_requests_do_not_end_is_replaced_without_a_loss(folder: Path) -> None:
    with running(folder, caddyfile("asgi", "workers 1", "request_timeout 1s", "grace_period 1s")) as process:
        before = workers(process.pid)

        async def work() -> None:
            async with Load(folder / "x.sock", 4) as load:
                assert (await asyncio.to_thread(ask, folder, "/stubborn")).status == 504
                await asyncio.to_thread(one_replaced, process, before)
                await load.more(50)
            assert load.failures == []

        asyncio.run(work())
        assert "requests that do not end at request_timeout" in process.log


@pytest.mark.parametrize(("interface", "via"), [("wsgi", "relay"), ("asgi", "direct")])
def test_a_worker_in_which_nothing_runs_is_ended_and_its_requests_get_504(
    folder: Path, interface: str, via: str
) -> None:
    lines = ("workers 2", "request_timeout 1s", "grace_period 1s")
    with running(folder, caddyfile(interface, *lines, relayed=via == "relay")) as process:
        before = workers(process.pid)
        idle = [connect(folder) for _ in range(8)]
        try:
            for sock in idle:
                assert RawClient(sock).get("/").status == 200
            answer = ask(folder, "/gil")
            assert (answer.status, answer.header("caddysnake-code")) == (504, "deadline"), process.log
            # What was idle on it goes on with another.
            assert [RawClient(sock).get("/").status for sock in idle] == [200] * 8
        finally:
            for sock in idle:
                sock.close()
        one_replaced(process, before)
        assert "hang_gil" in process.log
        assert "it hung for longer than request_timeout (1 s)" in process.log


def test_a_worker_that_is_busy_and_healthy_is_told_of_and_left_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "main.py").write_text(app("1") + SLOW)
    text = caddyfile("asgi", "workers 1") + caddyfile("wsgi", "workers 1", site="unix/y.sock")

    async def work() -> None:
        async with serving(composition(folder, text), Timings(loop_still_s=0.5, thread_still_s=0.5)) as served:
            before = {worker.pid for each in served.running.apps.values() for worker in each.pool.ready}
            told = await asyncio.gather(
                *(asyncio.to_thread(get, "/short", path=folder / name) for name in ("x.sock", "y.sock"))
            )
            assert [status for status, _ in told] == [200, 200]
            assert {worker.pid for each in served.running.apps.values() for worker in each.pool.ready} == before

    with caplog_of("caddysnake.app") as records:
        run(work())
    said = [record.getMessage() for record in records]
    assert sum("event loop has been blocked" in each for each in said) == 1, said
    assert sum("has been at one request" in each for each in said) == 1, said


@contextlib.contextmanager
def caplog_of(name: str) -> Iterator[list[logging.LogRecord]]:
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger = logging.getLogger(name)
    logger.addHandler(handler)
    try:
        yield records
    finally:
        logger.removeHandler(handler)
