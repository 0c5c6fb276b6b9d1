"""Threads that do not end, hosts that crash, apps that do what threads cannot."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from support.hosted import Hosted, pids, threads, write
from support.house import run, until
from support.probe import exchange

from caddysnake.daemon.apps.app import App
from caddysnake.daemon.apps.recycling import RestartLimits
from caddysnake.daemon.apps.spec import StartFailed
from caddysnake.daemon.system.timings import Timings
from caddysnake.daemon.workers.threads import hosts as hosts_module
from caddysnake.daemon.workers.threads.host import ThreadHost


def test_a_request_that_exits_ends_that_request_alone(tmp_path: Path, interface: str) -> None:
    async def work() -> None:
        async with Hosted() as house:
            leave = "import sys\n"
            home = write(tmp_path, "main", interface, "sys.exit(3) if not os.path.exists('ok') else b'ok'", leave)
            app = await house.started(threads(home, interface))
            assert (await house.ask(app))[0] == 500
            (home / "ok").touch()
            assert await house.ask(app) == (200, b"ok")
            assert app.pool.core.restarts == 0

    run(work())


def test_an_app_that_ends_the_process_takes_its_host_along_and_all_come_back(tmp_path: Path, interface: str) -> None:
    async def work() -> None:
        async with Hosted() as house:
            bad = await house.started(threads(write(tmp_path, "bad", interface, "os._exit(3)"), interface))
            good = await house.started(threads(write(tmp_path, "good", interface, "b'good'"), interface))
            assert pids(bad) == pids(good)
            for _ in range(3):
                client = house.connect(good)
                assert await asyncio.to_thread(exchange, client, "/") == (200, b"good")
                await house.all_idle()
                with pytest.raises((OSError, AssertionError, ValueError, IndexError)):
                    await house.ask(bad)
                assert await asyncio.to_thread(exchange, client, "/") == (200, b"good")
                await until(lambda: bad.pool.ready and good.pool.ready, "the way back")
            # It was in two hosts that crashed: from then on it is on its own.
            assert pids(bad) != pids(good)
            former = pids(good)
            with pytest.raises((OSError, AssertionError, ValueError, IndexError)):
                await house.ask(bad)
            assert pids(good) == former

    run(work())


FOREVER = """
import time
def forever():
    open("stuck", "w").close()
    while True:
        try:
            time.sleep({nap_s})
        except Exception:
            pass
"""


async def stick(house: Hosted, app: App, home: Path) -> None:
    """Have one thread of ``app`` do something that does not end."""
    house.connect(app).sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await until((home / "stuck").exists, "a request")


def test_a_thread_that_runs_for_ever_is_stopped_with_its_worker(tmp_path: Path, interface: str) -> None:
    async def work() -> None:
        async with Hosted(Timings(term_s=0.3, host_lost_s=0.3)) as house:
            good = await house.started(threads(write(tmp_path, "good", interface, "b'good'"), interface))
            home = write(tmp_path, "bad", interface, "forever()", FOREVER.format(nap_s=0.02))
            bad = await house.started(threads(home, interface, grace_s=0.3))
            assert pids(bad) == pids(good)
            (host,) = house.hosts
            await stick(house, bad, home)
            bad.stop()
            await bad.ended()
            await until(lambda: not host.groups.get(bad_group(host, home)), "the end of the thread")
            assert await house.ask(good) == (200, b"good")
            await asyncio.sleep(1.0)
            assert host.is_open

    run(work())


def bad_group(host: ThreadHost, home: Path) -> int:
    return next((group for group, (root, _) in host.groups.items() if root == str(home)), 0)


def test_threads_that_cannot_be_stopped_have_their_host_replaced_without_a_lost_request(
    tmp_path: Path, interface: str
) -> None:
    async def work() -> None:
        async with Hosted(Timings(term_s=0.3, host_lost_s=0.3)) as house:
            good = await house.started(threads(write(tmp_path, "good", interface, "b'good'"), interface))
            kept = house.connect(good)
            assert await asyncio.to_thread(exchange, kept, "/") == (200, b"good")
            (host,) = house.hosts
            stubborn = FOREVER.format(nap_s=600)
            homes = [write(tmp_path, name, interface, "forever()", stubborn) for name in ("one", "two")]
            apps = [await house.started(threads(home, interface, grace_s=0.2)) for home in homes]
            assert pids(*apps) == [host.pid] * 2
            for app, home in zip(apps, homes, strict=True):
                await stick(house, app, home)
                app.stop()
            for app in apps:
                await app.ended()
            await until(lambda: good.pool.ready and host.pid not in pids(good), "another host")
            assert await asyncio.to_thread(exchange, kept, "/") == (200, b"good")
            assert good.pool.core.restarts == 0

    run(work())


def test_threads_that_apps_leave_behind_have_their_host_replaced(tmp_path: Path, interface: str) -> None:
    leaves = "import time\nthreading.Thread(target=lambda: time.sleep(600), daemon=True, name='left').start()\n"

    async def work() -> None:
        async with Hosted() as house:
            good = await house.started(threads(write(tmp_path, "good", interface, "b'good'"), interface))
            kept = house.connect(good)
            assert await asyncio.to_thread(exchange, kept, "/") == (200, b"good")
            (former,) = house.hosts
            homes = [write(tmp_path, name, interface, "b'x'", leaves) for name in ("one", "two")]
            apps = [await house.started(threads(home, interface)) for home in homes]
            assert len(set(pids(good, *apps))) == 1
            for app in apps:
                app.stop()
            for app in apps:
                await app.ended()
            await until(lambda: good.pool.ready and former.pid not in pids(good), "another host")
            assert await asyncio.to_thread(exchange, kept, "/") == (200, b"good")
            await until(former.gone.is_set, "the end of the old host")
            assert good.pool.core.restarts == 0

    run(work())


def test_an_import_that_hangs_holds_up_no_other_app_of_the_host(tmp_path: Path, interface: str) -> None:
    async def work() -> None:
        async with Hosted() as house:
            home = write(tmp_path, "hangs", interface, "b'x'", "import time\ntime.sleep(600)\n")
            first = await house.started(threads(write(tmp_path, "first", interface, "b'1'"), interface))
            hangs = house.app(threads(home, interface, start_timeout_s=0.5))
            starting = asyncio.create_task(hangs.start())
            second = await house.started(threads(write(tmp_path, "second", interface, "b'2'"), interface))
            with pytest.raises(StartFailed, match="not ready within"):
                await starting
            assert await house.ask(first) == (200, b"1")
            assert await house.ask(second) == (200, b"2")

    run(work())


def test_an_app_that_sets_signal_handlers_is_told_to_be_a_process(tmp_path: Path, interface: str) -> None:
    async def work() -> None:
        async with Hosted() as house:
            handler = "import signal\nsignal.signal(signal.SIGUSR1, print)\n"
            app = house.app(threads(write(tmp_path, "main", interface, "b'x'", handler), interface))
            with pytest.raises(StartFailed, match="workers_runtime process"):
                await app.start()

    run(work())


def test_where_threads_cannot_have_directories_apps_with_different_ones_are_kept_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts_module, "can_have_folders", lambda: False)

    async def work() -> None:
        async with Hosted() as house:
            homes = [write(tmp_path, name, "wsgi", "os.getcwd().encode()") for name in ("one", "two")]
            apps = [await house.started(threads(home, "wsgi")) for home in homes]
            assert len(set(pids(*apps))) == 2

    run(work())


@pytest.mark.parametrize("limit", [{"limits": {"open_files": 500}}, {}])
def test_what_limits_a_process_is_for_one_app(tmp_path: Path, limit: dict[str, Any]) -> None:
    async def work() -> None:
        async with Hosted() as house:
            apps = []
            for name in ("one", "two"):
                wanted = threads(write(tmp_path, name, "wsgi", "b'x'"), "wsgi", **limit)
                if not limit:
                    wanted = wanted._replace(limits=RestartLimits(memory_bytes=1 << 40))
                apps.append(await house.started(wanted))
            assert len(set(pids(*apps))) == 2

    run(work())


def test_a_worker_that_has_grown_too_large_is_replaced_in_another_process(tmp_path: Path) -> None:
    async def work() -> None:
        async with Hosted() as house:
            wanted = threads(write(tmp_path, "one", "wsgi", "b'x'"), "wsgi", workers=2)
            app = await house.started(wanted._replace(limits=RestartLimits(requests=4)))
            (former,) = set(pids(app))
            for _ in range(12):
                assert await house.ask(app) == (200, b"x")
            await until(lambda: len(app.pool.ready) == 2 and former not in pids(app), "another host")
            assert len(set(pids(app))) == 1

    run(work())
