"""Nothing is lost when code or configuration changes under load, direct and through Caddy."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Process, caddy, daemon, python_site
from support.load import Load, app

pytestmark = pytest.mark.system

STOCK = "http://:{port} {\n\treverse_proxy unix/%s\n}\n"


def caddyfile(interface: str, *lines: str, site: str = "unix/x.sock", module: str = "main") -> str:
    return python_site(site, f"module_{interface} {module}:{interface}", "workers 2", *lines)


@contextlib.contextmanager
def running(folder: Path, text: str, via: str = "socket") -> Iterator[tuple[Process, Path | int]]:
    """The daemon, and where its app is asked."""
    with daemon(folder, text) as process, contextlib.ExitStack() as stack:
        target: Path | int = folder / "x.sock"
        if via == "caddy":
            target = stack.enter_context(caddy(folder, STOCK % (folder / "x.sock")))[1]
        yield process, target


async def said(process: Process, text: str, times: int = 1) -> None:
    await asyncio.to_thread(process.wait_for_log, text, times)


def go(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


@pytest.mark.parametrize("via", ["socket", pytest.param("caddy", marks=pytest.mark.once)])
def test_no_request_fails_over_reloads_by_signal(folder: Path, interface: str, via: str) -> None:
    with running(folder, caddyfile(interface), via) as (process, target):

        async def work() -> None:
            async with Load(target) as load:
                for turn in range(1, 9):
                    (folder / "main.py").write_text(app(str(turn + 1)))
                    process.popen.send_signal(signal.SIGHUP)
                    await said(process, '"reloaded"', turn)
                    await load.more(100)
                await load.until("9")
            assert load.failures == []

        go(work())


@pytest.mark.parametrize("via", ["socket", pytest.param("caddy", marks=pytest.mark.once)])
def test_no_request_fails_over_changes_of_the_code(folder: Path, interface: str, via: str) -> None:
    text = caddyfile(interface, "autoreload {", "\tdebounce 100ms", "}")
    with running(folder, text, via) as (process, target):

        async def work() -> None:
            async with Load(target) as load:
                for turn in range(1, 6):
                    (folder / "main.py").write_text(app(str(turn + 1)))
                    await said(process, '"app reloaded"', turn)
                    await load.more(100)
                await load.until("6")
            assert load.failures == []

        go(work())


def test_code_that_does_not_start_is_refused_by_a_reload_and_costs_nothing(folder: Path, interface: str) -> None:
    with running(folder, caddyfile(interface)) as (process, target):

        async def work() -> None:
            async with Load(target) as load:
                for turn in range(1, 4):
                    (folder / "main.py").write_text(app(str(turn + 1), "raise LookupError('no database')\n"))
                    process.popen.send_signal(signal.SIGHUP)
                    await said(process, "reload refused", turn)
                    await load.more(100)
                await load.until("1")
            assert load.failures == []

        go(work())
        assert "LookupError: no database" in process.log


def test_code_that_does_not_start_leaves_the_old_serving_where_autoreload_is_told_to_keep_it(
    folder: Path, interface: str
) -> None:
    text = caddyfile(interface, "autoreload {", "\tdebounce 100ms", "\ton_error keep", "}")
    with running(folder, text) as (process, target):

        async def work() -> None:
            async with Load(target) as load:
                (folder / "main.py").write_text(app("2", "raise LookupError('no database')\n"))
                await said(process, "the old code keeps serving")
                await load.until("1")
                (folder / "main.py").write_text(app("3"))
                await said(process, '"app reloaded"')
                await load.until("3")
            assert load.failures == []

        go(work())


def test_requests_do_not_wait_for_an_import_that_takes_its_time(folder: Path, interface: str) -> None:
    with running(folder, caddyfile(interface)) as (process, target):

        async def work() -> None:
            async with Load(target) as load:
                (folder / "main.py").write_text(app("2", "import time\ntime.sleep(4)\n"))
                process.popen.send_signal(signal.SIGHUP)
                await said(process, '"reloaded"')
                await load.until("2")
            assert load.failures == []
            assert load.longest_s < 3.5

        go(work())


TENANTS = """
unix/x.sock {
	python {
		module_wsgi main:wsgi
		working_dir {host}
		autoreload {
			debounce 100ms
		}
	}
}
"""


@pytest.mark.parametrize("how", ["signal", "change"])
def test_no_request_of_a_tenant_fails(tmp_path: Path, how: str) -> None:
    for name in ("ann.test", "ben.test"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "main.py").write_text(app("1"))
    with running(tmp_path, TENANTS) as (process, target):

        async def work() -> None:
            async with Load(target, 8, "ann.test") as ann, Load(target, 8, "ben.test") as ben:
                await ben.more(50)
                for turn in range(1, 5):
                    (tmp_path / "ann.test" / "main.py").write_text(app(str(turn + 1)))
                    if how == "signal":
                        process.popen.send_signal(signal.SIGHUP)
                        await said(process, '"reloaded"', turn)
                    else:
                        await said(process, "app leaves: its code has changed", turn)
                    await ann.until(str(turn + 1))
                await ben.until("1")
            assert ann.failures == []
            assert ben.failures == []

        go(work())


def test_the_death_of_workers_costs_only_requests_that_they_had_begun_to_read(folder: Path) -> None:
    threads, kills = 2, 20
    text = caddyfile("wsgi", f"threads {threads}")
    with running(folder, text) as (_process, target):

        async def work() -> None:
            async with Load(target) as load:
                await load.more(100)
                for _ in range(kills):
                    load.pids.clear()
                    await load.more(20)
                    victim = int(load.pids.most_common(1)[0][0])
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(victim, signal.SIGKILL)
                    await asyncio.sleep(0.2)
                await load.more(200)
            assert len(load.failures) <= kills * threads

        go(work())


def test_load_evens_out_after_a_worker_has_died(folder: Path, interface: str) -> None:
    with running(folder, caddyfile(interface)) as (_process, target):

        async def work() -> None:
            async with Load(target) as load:
                await load.more(200)
                os.kill(int(load.pids.most_common(1)[0][0]), signal.SIGKILL)
                async with asyncio.timeout(30):
                    while True:
                        load.pids.clear()
                        await load.more(300)
                        shares = [count for _, count in load.pids.most_common()]
                        if len(shares) == 2 and shares[1] > 0.3 * sum(shares):
                            break

        go(work())


@pytest.mark.parametrize("limit", ["max_requests 50 20", "max_lifetime 1s"])
def test_no_request_fails_when_workers_are_replaced(folder: Path, interface: str, limit: str) -> None:
    with running(folder, caddyfile(interface, limit)) as (process, target):

        async def work() -> None:
            async with Load(target) as load:
                await said(process, "worker is replaced", 4)
                await load.more(100)
                load.pids.clear()
                await load.more(100)
                assert 1 <= len(load.pids) <= 3
            assert load.failures == []

        go(work())
        assert f'"code":"{limit.partition(" ")[0]}"' in process.log


def test_a_worker_that_has_grown_is_replaced(folder: Path) -> None:
    (folder / "main.py").write_text(app("1", "hoard = bytearray(200_000_000)\n"))
    with running(folder, caddyfile("wsgi", "max_memory 100MB")) as (process, target):

        async def work() -> None:
            async with Load(target, 4) as load:
                await said(process, '"code":"max_memory"')
                await load.more(100)
            assert load.failures == []

        go(work())
