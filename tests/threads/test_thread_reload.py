"""A new generation of an app that is threads: the old serves on untouched, and nothing of it stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.hosted import Hosted, pids, threads, write
from support.house import run, until
from support.probe import exchange

from caddysnake.daemon.apps.app import App
from caddysnake.daemon.apps.spec import StartFailed

RELOADS = int(os.environ.get("CADDYSNAKE_THREAD_RELOADS", "40"))


@contextlib.asynccontextmanager
async def with_neighbour(folder: Path, interface: str) -> AsyncIterator[tuple[Hosted, App]]:
    """A house with one more app, in whose host others fit."""
    async with Hosted() as house:
        yield house, await house.started(threads(write(folder, "neighbour", interface, "b'here'"), interface))


async def renew(app: App) -> None:
    await app.prepare(app.spec)
    app.swap()


async def left(app: App) -> None:
    await until(lambda: len(app.pools()) == 1, "the end of the old generation")


def test_while_new_code_is_imported_the_old_finds_its_own_modules_only(tmp_path: Path, interface: str) -> None:
    late = "def late():\n    import part\n    return part.NAME\n"

    async def work() -> None:
        async with with_neighbour(tmp_path, interface) as (house, neighbour):
            home = write(tmp_path, "main", interface, "late()", late, part="NAME = b'old'")
            app = await house.started(threads(home, interface))
            assert pids(app) == pids(neighbour)
            assert await house.ask(app) == (200, b"old")
            slow = "import time, part\nopen('importing', 'w').close()\ntime.sleep(0.5)\n"
            write(tmp_path, "main", interface, "late()", slow + late, part="NAME = b'newer'")
            preparing = asyncio.create_task(app.prepare(app.spec))
            await until((home / "importing").exists)
            assert await house.ask(app) == (200, b"old")
            await preparing
            assert await house.ask(app) == (200, b"old")
            client = house.connect(app)
            assert await asyncio.to_thread(exchange, client, "/") == (200, b"old")
            app.swap()
            await left(app)
            assert await asyncio.to_thread(exchange, client, "/") == (200, b"newer")
            assert await house.ask(neighbour) == (200, b"here")

    run(work())


def test_code_that_does_not_import_changes_nothing(tmp_path: Path, interface: str) -> None:
    late = "def late():\n    import part, other\n    return part.NAME + other.NAME\n"

    async def work() -> None:
        async with with_neighbour(tmp_path, interface) as (house, neighbour):
            home = write(tmp_path, "main", interface, "late()", late, part="NAME = b'1'", other="NAME = b'1'")
            app = await house.started(threads(home, interface))
            assert await house.ask(app) == (200, b"11")
            write(tmp_path, "main", interface, "late()", late + "import part\nraise LookupError\n", part="NAME = b'22'")
            with pytest.raises(StartFailed, match="LookupError"):
                await app.prepare(app.spec)
            assert await house.ask(app) == (200, b"11")
            write(tmp_path, "main", interface, "late()", late, part="NAME = b'333'")
            await renew(app)
            assert await house.ask(app) == (200, b"3331")
            assert await house.ask(neighbour) == (200, b"here")

    run(work())


def test_what_the_app_gave_to_atexit_runs_when_it_leaves(tmp_path: Path, interface: str) -> None:
    more = """
import atexit, weakref
from concurrent.futures import ThreadPoolExecutor
pool = ThreadPoolExecutor(1)
pool.submit(int)
class Thing: pass
thing = Thing()
weakref.finalize(thing, print)
def note(what):
    with open("left", "a") as file:
        file.write(what)
atexit.register(note, "1")
atexit.register(note, what="2")
def never(): note("never")
atexit.register(never)
atexit.unregister(never)
"""

    async def work() -> None:
        async with with_neighbour(tmp_path, interface) as (house, neighbour):
            home = write(tmp_path, "main", interface, "b'x'", more)
            app = await house.started(threads(home, interface, workers=2))
            await renew(app)
            await left(app)
            assert (home / "left").read_text() == "21"
            assert await house.ask(neighbour) == (200, b"here")

    run(work())


def test_reloads_leave_no_memory_no_threads_and_no_descriptors_behind(tmp_path: Path, interface: str) -> None:
    more = "import part\nclass Thing: pass\nTHING = Thing()\nWEIGHT = bytes(200_000)\n"
    count = (
        "import gc, sys\ndef things():\n    return sum(type(each).__name__ == 'Thing' for each in gc.get_objects())\n"
    )
    body = "b'%d %d' % (things(), sum(name in ('main', 'part') for name in sys.modules))"

    async def work() -> None:
        async with Hosted() as house:
            home = write(tmp_path, "main", interface, "b'main'", more, part="import main\n")
            neighbour = await house.started(threads(write(tmp_path, "neighbour", interface, body, count), interface))
            app = await house.started(threads(home, interface))
            (pid,) = pids(neighbour)
            readings = []
            for number in range(RELOADS):
                await renew(app)
                await left(app)
                if (number + 1) % 2 == 0 and number >= RELOADS // 2:  # it is at home again
                    readings.append((_resident_kib(pid), _held(pid, "task"), _held(pid, "fd")))
            assert pids(app) == pids(neighbour)
            assert await house.ask(neighbour) == (200, b"1 2")
            first, last = readings[0], readings[-1]
            # A generation weighs 200 kB; an allocator's whims come to less than one for every four reloads.
            assert last[0] - first[0] < 50 * RELOADS // 2, readings
            assert last[1:] == first[1:], readings

    run(work())


def _resident_kib(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def _held(pid: int, what: str) -> int:
    return len(os.listdir(f"/proc/{pid}/{what}"))


def test_two_hosts_are_enough_for_any_number_of_reloads(tmp_path: Path) -> None:
    async def work() -> None:
        async with with_neighbour(tmp_path, "wsgi") as (house, _):
            apps = [await house.started(threads(write(tmp_path, n, "wsgi", "b'x'"), "wsgi")) for n in ("one", "two")]
            for turn in range(6):
                await renew(apps[turn % 2])
                await left(apps[turn % 2])
                assert len(house.hosts) <= 2

    run(work())


def test_reloading_everything_ends_in_a_fresh_process(tmp_path: Path) -> None:
    async def work() -> None:
        async with with_neighbour(tmp_path, "wsgi") as (house, neighbour):
            app = await house.started(threads(write(tmp_path, "one", "wsgi", "b'x'"), "wsgi"))
            (former,) = set(pids(neighbour, app))
            await asyncio.gather(*(each.prepare(each.spec) for each in (neighbour, app)))
            neighbour.swap()
            app.swap()
            assert len(set(pids(neighbour, app))) == 1
            assert former not in pids(neighbour, app)
            await until(lambda: len(house.hosts) == 1, "the end of the old host")

    run(work())
