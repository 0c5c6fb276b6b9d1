"""Who asks whether a host is served is answered in time, and cannot make the daemon look at the disk without end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any

from caddysnake.daemon.system.timings import Timings
from caddysnake.daemon.tenants.known_hosts import HostAnswer, KnownHosts


def in_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*args: Any, **named: Any) -> None:
        asyncio.run(test(*args, **named))

    return run


@asynccontextmanager
async def desk(serves: Callable[[str], bool], **more: Any) -> AsyncIterator[KnownHosts]:
    found = KnownHosts(serves, **more)
    try:
        yield found
    finally:
        found.close()


@in_a_loop
async def test_an_answer_is_remembered_whatever_the_case_of_the_name() -> None:
    looks: list[str] = []
    async with desk(lambda host: looks.append(host) is None and host == "ann") as hosts:
        assert await hosts.answer("ann") is await hosts.answer("ANN") is HostAnswer.YES
        assert await hosts.answer("eve") is await hosts.answer("Eve") is HostAnswer.NO
    assert looks == ["ann", "eve"]


@in_a_loop
async def test_all_who_ask_for_one_host_at_once_share_one_look() -> None:
    looks: list[str] = []
    may_end = threading.Event()

    def serves(host: str) -> bool:
        looks.append(host)
        return may_end.wait(30)

    async with desk(serves) as hosts:
        asking = [asyncio.create_task(hosts.answer("ann")) for _ in range(100)]
        await asyncio.sleep(0)
        may_end.set()
        assert set(await asyncio.gather(*asking)) == {HostAnswer.YES}
    assert looks == ["ann"]


@in_a_loop
async def test_a_disk_that_does_not_answer_gets_busy_instead_of_a_wait_without_end() -> None:
    may_end = threading.Event()
    async with desk(lambda _: may_end.wait(30), timings=Timings(lookup_s=0.05)) as hosts:
        assert await hosts.answer("ann") is HostAnswer.BUSY
        may_end.set()  # the look goes on, and whoever asks again has its result
        async with asyncio.timeout(30):
            while await hosts.answer("ann") is HostAnswer.BUSY:
                pass


@in_a_loop
async def test_names_without_end_are_refused_at_a_bound_and_leave_nothing_behind() -> None:
    may_end = threading.Event()
    async with desk(lambda _: not may_end.wait(30), pending_max=4, remembered_max=10) as hosts:
        waiting = [asyncio.create_task(hosts.answer(f"h{number}")) for number in range(4)]
        await asyncio.sleep(0)
        assert await hosts.answer("one-too-many") is HostAnswer.BUSY
        may_end.set()
        assert set(await asyncio.gather(*waiting)) == {HostAnswer.NO}
        for number in range(50):
            assert await hosts.answer(f"n{number}") is HostAnswer.NO
        assert len(hosts) == 10


@in_a_loop
async def test_a_look_that_fails_is_not_remembered() -> None:
    looks: list[str] = []

    def serves(host: str) -> bool:
        looks.append(host)
        if len(looks) == 1:
            raise OSError("the disk is gone")
        return True

    async with desk(serves) as hosts:
        assert await hosts.answer("ann") is HostAnswer.BUSY
        assert await hosts.answer("ann") is HostAnswer.YES


@in_a_loop
async def test_another_configuration_forgets_what_the_former_one_said() -> None:
    async with desk(lambda _: False) as hosts:
        assert await hosts.answer("ann") is HostAnswer.NO
        hosts.change(lambda _: True)
        assert await hosts.answer("ann") is HostAnswer.YES
