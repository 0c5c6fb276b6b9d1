"""The daemon replaces itself under load, and nobody notices: direct, over a relay, and through Caddy."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Process, caddy, children, daemon, get, workers
from support.load import Load, app
from websockets.asyncio.client import ClientConnection, connect, unix_connect

pytestmark = pytest.mark.system

UPGRADES = int(os.environ.get("CADDYSNAKE_UPGRADES", "3"))
"""How many in a row. More take longer and show more."""

STOCK = "http://:{port} {\n\treverse_proxy unix/%s\n}\n"
ECHO = '''
async def socket(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def both(scope, receive, send):
    if scope["type"] == "websocket":
        await socket(scope, receive, send)
    else:
        await asgi(scope, receive, send)
'''
DIRECT = "unix/x.sock {\n\tpython {\n\t\tmodule_%s main:%s\n\t\tworkers 2\n\t}\n}\n"
RELAYED = "unix/x.sock {\n\thandle /other* {\n\t\tpython main:wsgi\n\t}\n\tpython {\n\t\tmodule_%s main:%s\n\t}\n}\n"
TENANTS = "unix/x.sock {\n\tpython {\n\t\tmodule_wsgi main:wsgi\n\t\tworking_dir {host}\n\t}\n}\n"


def go(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


@contextlib.contextmanager
def running(folder: Path, text: str, via: str = "socket") -> Iterator[tuple[Process, Path | int]]:
    """The daemon, and where its app is asked."""
    (folder / "main.py").write_text(app("1") + ECHO)
    with daemon(folder, text) as process, contextlib.ExitStack() as stack:
        target: Path | int = folder / "x.sock"
        if via == "caddy":
            target = stack.enter_context(caddy(folder, STOCK % (folder / "x.sock")))[1]
        yield process, target


async def upgrade(process: Process, turn: int) -> None:
    process.popen.send_signal(signal.SIGUSR2)
    await asyncio.to_thread(process.wait_for_log, '"upgraded"', turn)


async def upgrades(process: Process, *loads: Load) -> None:
    """Some, with requests between and during them, of which none fails."""
    before = workers(process.pid)
    for turn in range(1, UPGRADES + 1):
        await upgrade(process, turn)
        for load in loads:
            await load.more(50)
    assert [failure for load in loads for failure in load.failures] == []
    assert workers(process.pid) == before


class Newcomer:
    """A client that connects anew for each request, of which ``status`` is the answer."""

    def __init__(self, target: Path | int, fields: str = "Host: test", status: int = 200) -> None:
        self.longest_s = 0.0
        self.done = 0
        self._fields = fields
        self._status = status
        self._target = target
        self._stop = asyncio.Event()

    async def __aenter__(self) -> Newcomer:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await self._task

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._stop.is_set():
            began = loop.time()
            if isinstance(self._target, int):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._target)
            else:
                reader, writer = await asyncio.open_unix_connection(self._target)
            fields = self._fields.format(turn=self.done)
            writer.write(f"GET / HTTP/1.1\r\n{fields}\r\nConnection: close\r\n\r\n".encode())
            answer = await asyncio.wait_for(reader.read(), 30)
            writer.close()
            assert answer.startswith(b"HTTP/1.1 %d" % self._status), answer
            self.longest_s = max(self.longest_s, loop.time() - began)
            self.done += 1
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("text", "interface", "via"),
    [
        pytest.param(DIRECT, "wsgi", "caddy", id="direct-wsgi-caddy"),
        pytest.param(DIRECT, "asgi", "socket", id="direct-asgi"),
        pytest.param(RELAYED, "wsgi", "socket", id="relayed-wsgi"),
        pytest.param(RELAYED, "asgi", "caddy", id="relayed-asgi-caddy"),
    ],
)
def test_no_request_fails_and_no_worker_is_replaced(tmp_path: Path, text: str, interface: str, via: str) -> None:
    with running(tmp_path, text % (interface, interface), via) as (process, target):

        async def work() -> None:
            async with Load(target, 6) as load, Newcomer(target) as newcomer:
                await load.more(100)
                quiet_s, quiet_new_s = load.longest_s, newcomer.longest_s
                load.longest_s = newcomer.longest_s = 0.0
                await upgrades(process, load)
            print(f"{UPGRADES} upgrades, {load.done} requests, {newcomer.done} new connections; longest: "
                  f"{load.longest_s * 1000:.0f} ms ({quiet_s * 1000:.0f}), "
                  f"new {newcomer.longest_s * 1000:.0f} ms ({quiet_new_s * 1000:.0f})")  # fmt: skip
            assert newcomer.done > UPGRADES

        go(work())


def test_what_waits_for_a_thread_or_asks_for_a_tenant_waits_on(tmp_path: Path) -> None:
    busy = (DIRECT % ("wsgi", "wsgi")).replace("workers 2", "workers 1\n\t\tthreads 1")
    with running(tmp_path, busy + TENANTS.replace("x.sock", "tenants.sock")) as (process, target):

        async def work() -> None:
            async with contextlib.AsyncExitStack() as stack:
                slow = "Host: test\r\nX-Sleep: 0.05"
                many = [await stack.enter_async_context(Newcomer(target, slow)) for _ in range(8)]
                strangers = Newcomer(tmp_path / "tenants.sock", "Host: nobody-{turn}.test", 404)
                await stack.enter_async_context(strangers)
                for turn in (1, 2):
                    await upgrade(process, turn)
            assert min(each.done for each in (*many, strangers)) > 1

        go(work())
        assert "an error inside caddysnake" not in process.log
        assert process.stop() == 0


def test_workers_that_are_threads_go_on(tmp_path: Path) -> None:
    text = (DIRECT % ("wsgi", "wsgi")).replace("workers 2", "workers 2\n\t\tworkers_runtime thread")
    with running(tmp_path, text) as (process, target):
        host = children(process.pid)

        async def work() -> None:
            async with Load(target, 4) as load:
                await upgrades(process, load)

        go(work())
        assert host <= children(process.pid)
        process.popen.send_signal(signal.SIGHUP)
        process.wait_for_log('"reloaded"')
        assert get("/", path=tmp_path / "x.sock")[0] == 200
        assert process.stop() == 0


async def sockets(target: Path | int, count: int) -> list[ClientConnection]:
    if isinstance(target, Path):
        return [await unix_connect(str(target), "ws://test/") for _ in range(count)]
    return [await connect(f"ws://127.0.0.1:{target}/") for _ in range(count)]


@pytest.mark.parametrize(
    ("text", "via"),
    [pytest.param(DIRECT, "caddy", id="direct-caddy"), pytest.param(RELAYED, "socket", id="relayed")],
)
def test_websockets_stay_open(tmp_path: Path, text: str, via: str) -> None:
    with running(tmp_path, text % ("asgi", "both"), via) as (process, target):

        async def work() -> None:
            loop = asyncio.get_running_loop()
            longest_s = 0.0
            opened = await sockets(target, 10)
            for turn in range(1, UPGRADES + 1):
                process.popen.send_signal(signal.SIGUSR2)
                while process.log.count('"upgraded"') < turn:
                    for each in opened:
                        began = loop.time()
                        await each.send(f"turn {turn}")
                        assert await asyncio.wait_for(each.recv(), 30) == f"turn {turn}"
                        longest_s = max(longest_s, loop.time() - began)
                    await asyncio.sleep(0.02)
            for each in opened:
                await each.close()
                assert each.close_code == 1000
            print(f"longest echo {longest_s * 1000:.0f} ms")

        go(work())


def test_tenants_go_on_and_others_can_be_started(tmp_path: Path) -> None:
    names = [f"{name}.test" for name in ("ann", "ben", "cat", "dan")]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "main.py").write_text(app("1", "import time\ntime.sleep(0.3)\n"))
    with running(tmp_path, TENANTS) as (process, target):

        async def work() -> None:
            async with contextlib.AsyncExitStack() as stack:
                first = await stack.enter_async_context(Load(target, 3, names[0]))
                await first.more(20)
                loads = [first]
                for turn, name in enumerate(names[1:], 1):
                    process.popen.send_signal(signal.SIGUSR2)
                    loads.append(await stack.enter_async_context(Load(target, 3, name)))  # it starts meanwhile
                    await asyncio.to_thread(process.wait_for_log, '"upgraded"', turn)
                    for load in loads:
                        await load.more(20)
            assert [load.failures for load in loads] == [[]] * len(loads)
            assert len(first.pids) == 1  # it was never started again

        go(work())
        assert process.stop() == 0


def test_a_worker_that_dies_right_after_is_rescued_and_replaced(tmp_path: Path) -> None:
    clients, threads = 6, 8
    with running(tmp_path, DIRECT % ("wsgi", "wsgi")) as (process, target):

        async def work() -> None:
            async with Load(target, clients) as load:
                await load.more(50)
                for turn in range(1, 4):
                    await upgrade(process, turn)
                    os.kill(min(workers(process.pid)), signal.SIGKILL)
                    await load.more(50)
            assert len(load.failures) <= 3 * min(clients, threads)

        go(work())
        process.wait_for_log("worker failed; it is started again", 3)
        deadline = 500
        while len(workers(process.pid)) < 2 and (deadline := deadline - 1):
            get("/", path=tmp_path / "x.sock")
        assert len(workers(process.pid)) == 2


def held(pid: int) -> tuple[int, int]:
    """How many descriptors, and how much memory in KiB, a process has."""
    status = Path(f"/proc/{pid}/status").read_text()
    return len(os.listdir(f"/proc/{pid}/fd")), int(status.partition("VmRSS:")[2].split()[0])


def test_descriptors_memory_and_processes_do_not_grow(tmp_path: Path) -> None:
    with running(tmp_path, RELAYED % ("wsgi", "wsgi")) as (process, _):
        series = []
        for turn in range(1, max(4, UPGRADES) + 1):
            process.popen.send_signal(signal.SIGUSR2)
            process.wait_for_log('"upgraded"', turn)
            process.wait_for_log("admin API ready", turn + 1)
            for prefix in ("/", "/other"):
                assert get(prefix, path=tmp_path / "x.sock")[0] == 200
            series.append((*held(process.pid), len(children(process.pid))))
        print(series)
        assert series[-1][0] <= series[1][0] + 3  # a connection of the admin API may be closing
        assert series[-1][1] <= series[1][1] * 1.1
        assert series[-1][2] <= series[1][2]
        assert process.stop() == 0
