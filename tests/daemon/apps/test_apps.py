"""Apps with real workers: starting, crashing, coming back, leaving; connections in the meantime."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import resource
import signal
import socket
import time
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path

import pytest
from support.house import House, run, spec, until
from support.probe import exchange, write

from caddysnake.channel import vitals
from caddysnake.channel.farewell import END_S
from caddysnake.daemon.apps.app import App
from caddysnake.daemon.apps.spec import StartFailed
from caddysnake.daemon.system.timings import Timings

SOURCE = """
import os, pathlib, time
HERE = pathlib.Path(__file__).parent
if (HERE / "slow").exists():
    time.sleep(float((HERE / "slow").read_text()))
if (HERE / "together").exists():
    (HERE / f"here.{os.getpid()}").touch()
    while len(list(HERE.glob("here.*"))) < 4:
        time.sleep(0.01)
if (HERE / "broken").exists():
    raise LookupError("no database")

def pid():
    return os.getpid()

def hold():
    (HERE / f"held.{os.getpid()}").touch()
    while not (HERE / "release").exists():
        time.sleep(0.01)
    return os.getpid()

def crash():
    os._exit(3)

def segfault():
    import ctypes
    ctypes.string_at(0)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, SOURCE)
    return tmp_path


def pids(app: App) -> set[int]:
    return {worker.pid for worker in app.pool.ready}


def send(client: socket.socket, target: str) -> None:
    client.sendall(f"GET {target} HTTP/1.1\r\nHost: test\r\n\r\n".encode())


async def reply(client: socket.socket) -> tuple[int, bytes]:
    def read() -> tuple[int, bytes]:
        response = HTTPResponse(client, method="GET")
        response.begin()
        return response.status, response.read()

    return await asyncio.to_thread(read)


async def request(client: socket.socket, target: str) -> int:
    status, body = await asyncio.to_thread(exchange, client, target)
    assert status == 200, body
    return int(body)


def held(folder: Path) -> set[int]:
    """Pids of the workers that have begun to hold a request."""
    return {int(path.suffix[1:]) for path in folder.glob("held.*")}


# -- starting ----------------------------------------------------------------------------------------------------


def test_workers_of_a_pool_start_side_by_side(folder: Path) -> None:
    (folder / "together").touch()

    async def work() -> None:
        async with House() as house:
            app = await house.started(spec("probe:wsgi", "wsgi", folder, workers=4))
            assert len(pids(app)) == 4

    run(work())


def test_a_start_fails_at_the_first_worker_that_fails_and_nothing_is_started_again(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "broken").touch()

    async def work() -> None:
        async with House() as house:
            app = house.app(spec("probe:wsgi", "wsgi", folder, workers=4))
            with pytest.raises(StartFailed, match="LookupError: no database") as caught:
                await app.start()
            assert caught.value.code == "import-failed"
            assert caught.value.app == "probe:wsgi"
            await until(lambda: not app.pool.workers, "the end of the others")
            assert app.pool.core.restarts == 0

    run(work())
    assert "started again" not in caplog.text


def test_an_app_that_loads_too_long_is_given_up_in_the_words_operators_search_for(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "slow").write_text("60")

    async def work() -> None:
        async with House() as house:
            app = house.app(spec("probe:wsgi", "wsgi", folder, start_timeout_s=3.0)._replace(slow_start_s=0.2))
            with pytest.raises(StartFailed, match=r"^not ready within 3s$") as caught:
                await app.start()
            assert caught.value.code == "start-timeout"

    run(work())
    assert "taking a long time to load" in caplog.text


@pytest.mark.parametrize("slow_start_s", [2.0, 0.01])  # by then its interpreter does not listen yet
def test_a_slow_start_says_where_it_stands(
    folder: Path, capfd: pytest.CaptureFixture[str], slow_start_s: float
) -> None:
    (folder / "slow").write_text("5")

    async def work() -> None:
        async with House() as house:
            slow = spec("probe:wsgi", "wsgi", folder, start_timeout_s=30.0)._replace(slow_start_s=slow_start_s)
            app = house.app(slow)
            await app.start()

    run(work())
    told = capfd.readouterr().err
    here = r"\S+/probe\.py:\d+ in <module>"
    assert re.search(rf"WARN still starting, at {here}: app=probe:wsgi\n{here}", told), told
    assert told.count("still starting") == 1


def test_an_app_that_is_quick_enough_is_not_talked_about(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with House() as house:
            await house.started(spec("probe:wsgi", "wsgi", folder))

    with caplog.at_level(logging.INFO):
        run(work())
    assert "taking a long time" not in caplog.text


def test_without_a_start_timeout_a_slow_app_is_waited_for(folder: Path) -> None:
    (folder / "slow").write_text("0.5")

    async def work() -> None:
        async with House() as house:
            app = await house.started(spec("probe:wsgi", "wsgi", folder, start_timeout_s=None))
            assert len(pids(app)) == 1

    run(work())


def test_apps_of_one_interpreter_share_a_fork_server(folder: Path) -> None:
    async def work() -> None:
        async with House() as house:
            await house.started(spec("probe:wsgi", "wsgi", folder, name="one"))
            await house.started(spec("probe:wsgi", "wsgi", folder, name="two"))
            assert len(house.origins.pids()) == 1

    run(work())


def test_an_interpreter_that_does_not_exist_is_told(folder: Path) -> None:
    async def work() -> None:
        async with House() as house:
            app = house.app(spec("probe:wsgi", "wsgi", folder, python="/nowhere/bin/python"))
            with pytest.raises(StartFailed, match="cannot run /nowhere/bin/python: No such file") as caught:
                await app.start()
            assert caught.value.code == "setup-failed"

    run(work())


@contextlib.contextmanager
def room_for(count: int) -> Iterator[None]:
    """This process may open so many descriptors more."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    top = max(int(fd) for fd in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (top + 20, limits[1]))
    held = []
    with contextlib.suppress(OSError):
        while True:
            held.append(os.dup(0))
    try:
        for _ in range(count):
            os.close(held.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in held:
            os.close(fd)


# A worker needs two ends of a channel, page, settings, a mapping; a fork server some more.
@pytest.mark.parametrize(
    ("room", "spawns"), [*((room, True) for room in range(7)), *((room, False) for room in range(5))]
)
def test_when_there_are_no_descriptors_left_a_start_fails_with_the_reason(
    folder: Path, room: int, spawns: bool
) -> None:
    async def work() -> None:
        async with House() as house:
            await house.started(spec("probe:wsgi", "wsgi", folder, name="one"))
            environ = {"OTHER": "fork_server"} if spawns else None
            app = house.app(spec("probe:wsgi", "wsgi", folder, name="two", environ=environ))
            with room_for(room), pytest.raises(StartFailed) as caught:
                await app.start()
            assert caught.value.code in ("resources", "spawn-failed", "setup-failed")
            assert "Too many open files" in str(caught.value)

    run(work())


def test_a_worker_that_dies_when_there_are_no_descriptors_left_is_replaced_later(folder: Path) -> None:
    async def work() -> None:
        async with House() as house:
            app = await house.started(spec("probe:wsgi", "wsgi", folder))
            with room_for(0):
                os.kill(pids(app).pop(), signal.SIGKILL)
                await until(lambda: getattr(app.pool.core.last_failure, "code", "") == "resources")
            await until(lambda: app.pool.ready, "the replacement")
            assert (await house.ask(app, "/pid"))[0] == 200

    run(work())


# -- connections while nobody is ready -------------------------------------------------------------------------------


def test_connections_wait_for_the_first_worker_and_are_all_served(folder: Path, interface: str) -> None:
    (folder / "slow").write_text("0.3")

    async def work() -> None:
        async with House() as house:
            app = house.app(spec(f"probe:{interface}", interface, folder))
            clients = [house.connect(app) for _ in range(100)]
            for client in clients:
                send(client, "/pid")
            assert app.waiting == 100
            await app.start()
            answers = [await reply(client) for client in clients]
            assert {status for status, _ in answers} == {200}
            assert app.waiting == 0

    run(work())


def test_a_client_that_leaves_while_it_waits_is_forgotten(folder: Path) -> None:
    async def work() -> None:
        async with House() as house:
            app = house.app(spec("probe:wsgi", "wsgi", folder))
            one, other = house.connect(app), house.connect(app)
            send(one, "/pid")
            one.close()
            await until(lambda: app.waiting == 1)
            await app.start()
            assert await request(other, "/pid") in pids(app)
            assert len(house.connections) == 1

    run(work())


def test_a_client_that_has_said_all_still_gets_its_answer(folder: Path, interface: str) -> None:
    async def work() -> None:
        async with House() as house:
            app = await house.started(spec(f"probe:{interface}", interface, folder))
            client = house.connect(app)
            send(client, "/pid")
            client.shutdown(socket.SHUT_WR)
            assert (await reply(client))[0] == 200
            await until(lambda: len(house.connections) == 0)

    run(work())


def test_connections_that_end_leave_nothing(folder: Path, interface: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With eight slots a hundred connections, one after another, need each slot again and again."""
    monkeypatch.setattr(vitals, "SLOTS", 8)

    async def work() -> None:
        async with House() as house:
            app = await house.started(spec(f"probe:{interface}", interface, folder))
            before = len(os.listdir("/proc/self/fd"))
            for _ in range(100):
                status, _ = await house.ask(app, "/pid")
                assert status == 200
            await until(lambda: len(house.connections) == 0)
            assert len(os.listdir("/proc/self/fd")) <= before
            assert pids(app) == {worker.pid for worker in app.pool.workers.values()}

    run(work())


# -- balance -------------------------------------------------------------------------------------------------------


def test_a_request_goes_to_the_worker_that_has_none(folder: Path) -> None:
    async def work() -> None:
        async with House() as house:
            app = await house.started(spec("probe:wsgi", "wsgi", folder, workers=3, threads=1))
            holding = []
            for count in range(1, 4):
                client = house.connect(app)
                send(client, "/hold")
                holding.append(client)
                await until(lambda count=count: len(held(folder)) == count)  # type: ignore[misc]
            (folder / "release").touch()
            assert {(await reply(client))[1] for client in holding} == {str(pid).encode() for pid in pids(app)}

    run(work())


def test_a_request_waits_when_every_thread_is_held_and_is_served_by_the_first_that_is_free(folder: Path) -> None:
    async def work() -> None:
        async with House() as house:
            app = await house.started(spec("probe:wsgi", "wsgi", folder, threads=1))
            holding, waiting = house.connect(app), house.connect(app)
            send(holding, "/hold")
            await until(lambda: held(folder))
            send(waiting, "/pid")
            await asyncio.sleep(0.1)
            (folder / "release").touch()
            assert (await reply(holding))[0] == 200
            assert (await reply(waiting))[0] == 200

    run(work())


def test_kept_alive_connections_of_a_busy_worker_are_served_by_another(folder: Path) -> None:
    async def work() -> None:
        async with House() as house:
            app = await house.started(spec("probe:wsgi", "wsgi", folder, workers=2, threads=1))
            clients = [house.connect(app) for _ in range(8)]
            for client in clients:
                await request(client, "/pid")
            send(clients[0], "/hold")
            await until(lambda: held(folder))
            (busy,) = held(folder)
            for client in clients[1:]:
                assert await request(client, "/pid") != busy
            (folder / "release").touch()
            assert await reply(clients[0]) == (200, str(busy).encode())

    run(work())


# -- crashing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("target", "how"), [("/crash", "exit status 3"), ("/segfault", "signal SIGSEGV")])
def test_a_worker_that_dies_is_replaced_and_the_log_says_how_it_ended(
    folder: Path, interface: str, target: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        async with House() as house:
            app = await house.started(spec(f"probe:{interface}", interface, folder))
            first = pids(app)
            client = house.connect(app)
            send(client, target)
            with pytest.raises((ConnectionError, OSError)):
                await reply(client)
            assert (await house.ask(app, "/pid"))[0] == 200  # it waits, and is not refused
            assert pids(app).isdisjoint(first)
            assert how in str(app.pool.core.last_failure)

    run(work())
    assert "worker failed; it is started again" in caplog.text


def test_killing_a_worker_costs_no_idle_connection(folder: Path, interface: str) -> None:
    async def work() -> None:
        async with House() as house:
            app = await house.started(spec(f"probe:{interface}", interface, folder, workers=2))
            clients = [house.connect(app) for _ in range(32)]
            served = {await request(client, "/pid") for client in clients}
            assert served == pids(app)
            victim = served.pop()
            await house.all_idle()
            os.kill(victim, signal.SIGKILL)
            for client in clients:
                assert await request(client, "/pid") != victim
            await until(lambda: len(app.pool.ready) == 2, "the replacement")
            assert victim not in pids(app)

    run(work())


def test_when_all_workers_are_killed_at_once_the_connections_wait_for_new_ones(folder: Path, interface: str) -> None:
    async def work() -> None:
        async with House() as house:
            app = await house.started(spec(f"probe:{interface}", interface, folder, workers=2))
            clients = [house.connect(app) for _ in range(16)]
            for client in clients:
                await request(client, "/pid")
            before = pids(app)
            await house.all_idle()
            for pid in before:
                os.kill(pid, signal.SIGKILL)
            assert {await request(client, "/pid") for client in clients}.isdisjoint(before)

    run(work())


def test_a_dead_worker_is_in_the_rotation_no_more_before_it_is_reaped(folder: Path) -> None:
    async def work() -> None:
        async with House() as house:
            app = await house.started(spec("probe:wsgi", "wsgi", folder, workers=2))
            (fork_server,) = house.origins.pids()
            victim = min(pids(app))
            os.kill(fork_server, signal.SIGSTOP)  # so nobody reaps
            os.kill(victim, signal.SIGKILL)
            for _ in range(6):
                assert int((await house.ask(app, "/pid"))[1]) != victim
            os.kill(fork_server, signal.SIGCONT)
            await until(lambda: len(app.pool.ready) == 2, "the replacement")

    run(work())


def test_what_a_dead_worker_had_started_ends_with_it(folder: Path) -> None:
    source = "import subprocess\ndef start():\n    return subprocess.Popen(['sleep', '600']).pid\n"
    write(folder, SOURCE + source)

    async def work() -> None:
        async with House() as house:
            app = await house.started(spec("probe:wsgi", "wsgi", folder))
            sleeper = int((await house.ask(app, "/start"))[1])
            assert is_alive(sleeper)
            os.kill(pids(app).pop(), signal.SIGKILL)
            await until(lambda: not is_alive(sleeper), "its end")

    run(work())


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


def test_an_app_that_fails_again_and_again_is_tried_again_and_serves_when_it_is_mended(folder: Path) -> None:
    async def work() -> None:
        async with House() as house:
            app = await house.started(spec("probe:wsgi", "wsgi", folder))
            (folder / "broken").touch()
            os.kill(pids(app).pop(), signal.SIGKILL)
            client = house.connect(app)
            send(client, "/pid")
            await until(lambda: app.pool.core.restarts >= 4, "the fourth failure")
            assert "no database" in str(app.pool.core.last_failure)
            assert app.waiting == 1
            assert len(app.pool.leaving) <= 2
            (folder / "broken").unlink()
            assert (await reply(client))[0] == 200

    run(work())


def test_killing_the_fork_server_costs_nothing(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with House() as house:
            app = await house.started(spec("probe:wsgi", "wsgi", folder, workers=2))
            before = pids(app)
            clients = [house.connect(app) for _ in range(8)]
            for client in clients:
                await request(client, "/pid")
            (fork_server,) = house.origins.pids()
            os.kill(fork_server, signal.SIGKILL)
            await until(lambda: "spawner died" in caplog.text)
            for client in clients:
                assert await request(client, "/pid") in before
            victim = min(before)
            os.kill(victim, signal.SIGKILL)
            await until(lambda: len(app.pool.ready) == 2 and victim not in pids(app), "the replacement")
            assert fork_server not in house.origins.pids()

    run(work())


# -- leaving -----------------------------------------------------------------------------------------------------


def test_a_request_in_flight_is_finished_before_its_worker_leaves(folder: Path, interface: str) -> None:
    async def work() -> None:
        async with House() as house:
            app = await house.started(spec(f"probe:{interface}", interface, folder))
            busy, idle = house.connect(app), house.connect(app)
            await request(idle, "/pid")
            pid = pids(app).pop()
            send(busy, "/hold")
            await until(lambda: held(folder))
            app.stop()
            assert app.pool.ready == []
            (folder / "release").touch()
            assert await reply(busy) == (200, str(pid).encode())
            async with asyncio.timeout(30):
                await app.ended()
            assert await asyncio.to_thread(idle.recv, 1) == b""
            assert not is_alive(pid)

    run(work())


def test_a_request_that_outlives_the_grace_is_cut(folder: Path, interface: str) -> None:
    async def work() -> None:
        async with House(Timings(term_s=0.2)) as house:
            app = await house.started(spec(f"probe:{interface}", interface, folder, grace_s=0.3))
            busy = house.connect(app)
            send(busy, "/hold")
            await until(lambda: held(folder))
            pid = pids(app).pop()
            begun = time.monotonic()
            app.stop()
            async with asyncio.timeout(30):
                await app.ended()
            assert time.monotonic() - begun < END_S + 10  # an ASGI app's cleanup has time of its own behind the grace
            assert not is_alive(pid)

    run(work())


def test_what_waits_when_an_app_stops_is_ended(folder: Path) -> None:
    async def work() -> None:
        async with House() as house:
            app = house.app(spec("probe:wsgi", "wsgi", folder))
            client = house.connect(app)
            app.stop()
            assert await asyncio.to_thread(client.recv, 1) == b""
            late = house.connect(app)
            assert await asyncio.to_thread(late.recv, 1) == b""
            async with asyncio.timeout(30):
                await app.ended()

    run(work())


def test_an_app_can_be_stopped_at_any_moment_of_its_start(folder: Path) -> None:
    async def work() -> None:
        async with House() as house:
            for moment in range(8):
                app = house.app(spec("probe:wsgi", "wsgi", folder, workers=3))
                starting = asyncio.ensure_future(app.start())
                await asyncio.sleep(0.02 * moment)
                starting.cancel()
                await asyncio.wait((starting,))
                app.stop()
                async with asyncio.timeout(30):
                    await app.ended()
                assert not app.pool.workers
                assert not app.pool.leaving

    run(work())


def test_a_worker_that_dies_in_the_moment_of_the_stop_does_not_disturb_it(folder: Path) -> None:
    async def work() -> None:
        async with House() as house:
            for moment in range(6):
                app = await house.started(spec("probe:wsgi", "wsgi", folder, workers=2))
                for pid in pids(app):
                    os.kill(pid, signal.SIGKILL)
                for _ in range(moment):
                    await asyncio.sleep(0)
                await asyncio.sleep(0.001 * moment)
                app.stop()
                async with asyncio.timeout(30):
                    await app.ended()

    run(work())


@pytest.mark.usefixtures("many_descriptors")
def test_a_drain_of_thousands_of_idle_connections_is_no_flood(folder: Path, interface: str) -> None:
    async def work() -> None:
        async with House() as house:
            app = await house.started(spec(f"probe:{interface}", interface, folder))
            clients = [house.connect(app) for _ in range(2500)]
            await until(lambda: app.waiting == 0, "the hand-over of all")
            assert await request(clients[-1], "/pid") in pids(app)
            app.stop()
            async with asyncio.timeout(30):
                await app.ended()
            assert app.pool.core.last_failure is None
            assert len(house.connections) == 0

    run(work())
