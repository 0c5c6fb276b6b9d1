"""As many workers as it takes: decisions by recorded loads, and real workers that come and go."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from support.house import House, run, spec, until
from support.worker import PATIENCE_S

from caddysnake.daemon.apps.generation import Generation, PoolOrder, Spawn
from caddysnake.daemon.apps.scaling import Bounds, Decision, Observation, Scaler
from caddysnake.daemon.system import memory

BOUNDS = Bounds(1, 8, 60.0)


def replay(
    load: Callable[[float, int], tuple[int, int]],
    seconds: float,
    threads: int = 4,
    step_s: float = 0.1,
    room: int = 99,
    scaler: Scaler | None = None,
) -> list[tuple[float, int]]:
    """``load(second, workers)`` is busy and waiting; when there were how many workers."""
    scaler = scaler or Scaler()
    workers, found = BOUNDS.least, []
    for turn in range(round(seconds / step_s)):
        now = turn * step_s
        busy, waiting = load(now, workers)
        cores = busy * 0.001
        decision = scaler.look(now, BOUNDS, Observation(workers, workers, busy, waiting, threads, cores), lambda: room)
        if decision is not None:
            workers = decision.workers
            found.append((now, workers))
    return found


def test_a_burst_gets_what_it_asks_for_at_once_and_a_moment_that_passes_gets_nothing() -> None:
    # Twelve at once, of which four run on each worker: three workers at the second look, a fourth for the next.
    assert replay(lambda now, workers: (min(12, 4 * workers), max(0, 12 - 4 * workers)), 1.0) == [(0.1, 4)]
    assert replay(lambda now, workers: (4, 8) if now == 0.5 else (1, 0), 2.0) == []
    assert replay(lambda now, workers: (400, 100), 1.0) == [(0.1, 8)], "never more than the most"
    assert replay(lambda now, workers: (400, 100), 1.0, room=2)[0] == (0.1, 3), "nor than there is memory for"
    assert replay(lambda now, workers: (400, 100), 1.0, room=0) == []


def test_an_event_loop_that_keeps_requests_waiting_gets_another_and_a_busy_one_that_does_not_gets_none() -> None:
    assert replay(lambda now, workers: (500, 0), 5.0, threads=0) == [], "five hundred that wait for a database"
    grown = replay(lambda now, workers: (5, 9) if workers < 3 else (3, 0), 5.0, threads=0)
    assert [workers for _, workers in grown] == [2, 4]


def test_a_quiet_time_takes_one_after_the_other() -> None:
    shrinking = replay(lambda now, workers: (30, 9) if now < 1 else (1, 0), 600.0)
    assert [workers for _, workers in shrinking] == [8, 7, 6, 5, 4, 3, 2, 1]
    gaps = [later - earlier for (earlier, _), (later, _) in pairwise(shrinking[1:])]
    assert all(59.0 < gap < 61.0 for gap in gaps)


def test_a_load_that_comes_and_goes_makes_it_patient() -> None:
    """Busy for five seconds every seventy: it does not shrink and grow each time for ever."""
    found = replay(lambda now, workers: (9, 0) if now % 70 < 5 else (0, 0), 3600.0)
    assert len([workers for at, workers in found if at > 700]) <= 4


def test_more_that_are_asked_for_while_the_first_start_are_started() -> None:
    generation = Generation[int](1)
    generation.start()
    assert [order.place for order in generation.resize(3) if isinstance(order, Spawn)] == [1, 2]
    assert generation.resize(1) == []
    orders = [generation.admitted(place, place) for place in range(3)]
    assert [PoolOrder.TELL_STARTED in some for some in orders] == [False, False, True]


def test_what_somebody_asked_for_holds() -> None:
    scaler = Scaler()
    two = BOUNDS._replace(asked_for=2)
    assert scaler.look(0.0, two, Observation(1, 1, 9, 9, 4), lambda: 9) == Decision(2, "asked for")
    assert scaler.look(1.0, two, Observation(2, 2, 9, 9, 4), lambda: 9) is None
    assert scaler.look(2.0, Bounds(3, 8), Observation(2, 2, 0, 0, 4), lambda: 9) == Decision(3, "as the file says")


# -- real workers ------------------------------------------------------------------------------------------------

SOURCE = """
import asyncio, time, os

def wsgi(environ, start):
    time.sleep(0.3)
    start("200 OK", [])
    return [b"%d" % os.getpid()]

async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    if scope["path"] == "/wait":
        time.sleep(0.05)
    until = time.process_time() + (0.0 if scope["path"] == "/wait" else 0.1)
    while time.process_time() < until:
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % os.getpid()})
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "slow.py").write_text(SOURCE)
    return tmp_path


def ask(client: socket.socket) -> None:
    client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")


async def answered(client: socket.socket) -> None:
    data = await asyncio.to_thread(client.recv, 1000)
    assert data.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(("interface", "enough"), [("wsgi", 3), ("asgi", 2)])
def test_a_burst_on_idle_connections_finds_more_workers_and_loses_nothing(
    folder: Path, interface: str, enough: int
) -> None:
    """An event loop that computes has read all of it: the second is for whoever comes next."""

    async def work() -> None:
        async with House() as house:
            wanted = spec(f"slow:{interface}", interface, folder, threads=2)
            app = await house.started(wanted._replace(most=4, scale_down_after_s=0.5))
            clients = [house.connect(app) for _ in range(12)]
            await house.all_idle()
            began = time.monotonic()
            for client in clients:
                ask(client)
            await until(lambda: len(app.pool.ready) >= enough, "more workers")
            print(f"{interface}: {enough} workers after {time.monotonic() - began:.3f}s")
            for client in clients:
                await answered(client)
            assert app.scaled.last is not None
            await until(lambda: app.pool.core.size == 1 and len(app.pool.workers) == 1, "the way back")
            for client in clients:  # those of the workers that went have migrated
                ask(client)
                await answered(client)

    run(work())


def test_what_an_event_loop_does_not_get_to_is_shared_with_those_that_come(folder: Path) -> None:
    """Also where nothing is computed, and no connection is ever idle when it is looked at."""
    seen: Counter[bytes] = Counter()
    since = 0

    async def work() -> None:
        async with House() as house:
            app = await house.started(spec("slow:asgi", "asgi", folder)._replace(most=3))

            async def client() -> None:
                nonlocal since
                with house.connect(app) as sock:
                    while len(seen) < 3:
                        sock.sendall(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
                        data = await asyncio.to_thread(sock.recv, 1000)
                        assert data.startswith(b"HTTP/1.1 200")
                        seen[data.split(b"\r\n")[-4]] += 1  # its only chunk
                        since += len(app.pool.ready) == 3

            await asyncio.wait_for(asyncio.gather(*(client() for _ in range(12))), PATIENCE_S)
            assert since < 600, "within seconds"

    run(work())


def test_a_burst_gets_no_more_workers_than_the_budget_has_memory_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is measured now and then only."""

    async def work() -> None:
        async with House() as house:
            app = await house.started(spec("slow:wsgi", "wsgi", folder, threads=2)._replace(most=4))
            monkeypatch.setattr(memory.Budget, "left_bytes", int(1.9 * memory.resident_bytes(app.pool.ready[0].pid)))
            clients = [house.connect(app) for _ in range(12)]
            for client in clients:
                ask(client)
            for client in clients:
                await answered(client)
            assert app.pool.core.size == 2

    run(work())


def test_a_number_at_run_time_holds_until_the_next_build(folder: Path) -> None:
    async def work() -> None:
        async with House() as house:
            app = await house.started(spec("slow:wsgi", "wsgi", folder, workers=2))
            app.scaled.ask_for(4)
            await until(lambda: len(app.pool.ready) == 4, "four")
            app.scaled.ask_for(1)
            await until(lambda: len(app.pool.workers) == 1, "one")
            app.scaled.ask_for(None)
            await until(lambda: len(app.pool.ready) == 2, "what the file says")
            app.scaled.ask_for(3)
            await app.renew(app.spec)
            assert (app.scaled.asked_for, app.pool.core.size) == (None, 2)

    run(work())
