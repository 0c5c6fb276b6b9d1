"""Workers and fork servers that break every rule: each ends itself only."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.hostile import install
from support.house import House, run, spec, until
from support.probe import write
from support.worker import PATIENCE_S

from caddysnake.channel import vitals
from caddysnake.daemon.apps.app import App
from caddysnake.daemon.apps.spec import PoolSpec, StartFailed
from caddysnake.daemon.system.timings import Timings
from caddysnake.daemon.workers import process as process_module

IMPATIENT = Timings(term_s=0.2, last_word_s=0.3)
GOOD = "def pid():\n    import os\n    return os.getpid()\n"


@pytest.fixture
def python(tmp_path: Path) -> str:
    return install(tmp_path)


class Neighbours:
    """A house with a well-behaved app, and a hostile one moving in."""

    def __init__(self, house: House, folder: Path, python: str, good: App) -> None:
        self.house = house
        self.good = good
        self._folder = folder
        self._python = python
        self._pid = b""

    def hostile(self, act: str, start_timeout_s: float | None = 30.0, grace_s: float = 0.3, **environ: str) -> PoolSpec:
        return spec(
            "evil:app", "wsgi", self._folder, python=self._python, start_timeout_s=start_timeout_s, grace_s=grace_s,
            environ={"ACT": act, **environ},
        )  # fmt: skip

    async def good_one_answers(self) -> None:
        """By the worker that it has had all the time."""
        status, body = await self.house.ask(self.good, "/pid")
        assert status == 200
        assert self._pid in (b"", body)
        self._pid = body


@asynccontextmanager
async def neighbours(folder: Path, python: str) -> AsyncIterator[Neighbours]:
    write(folder, GOOD)
    async with House(IMPATIENT) as house:
        good = await house.started(spec("probe:wsgi", "wsgi", folder))
        found = Neighbours(house, folder, python, good)
        await found.good_one_answers()
        await found.good_one_answers()
        yield found
        await found.good_one_answers()


def exists(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def settle(wanted: int) -> None:
    await until(lambda: descriptors() <= wanted, f"closing all but {wanted} descriptors")


async def refused(among: Neighbours, wanted: PoolSpec) -> StartFailed:
    """Start a hostile app, which fails and leaves nothing."""
    before = descriptors()
    app = among.house.app(wanted)
    with pytest.raises(StartFailed) as caught:
        await app.start()
    app.stop()
    app.kill()
    async with asyncio.timeout(PATIENCE_S):
        await app.ended()
    among.house.origins.discard(wanted.key)
    await until(lambda: not app.pool.workers and not app.pool.leaving)
    # What remains is the fork server: its channel and its pidfd.
    await settle(before + 2)
    return caught.value


AT_THE_START = {
    "garbage": ("breach", "unknown message type"),
    "overlong": ("breach", "bytes"),
    "returned_first": ("breach", "Returned while starting"),
    "drained_first": ("breach", "Drained while starting"),
    "speaks_as_daemon": ("breach", "Drain while starting"),
    "speaks_as_fork_server": ("breach", "Spawned while starting"),
    "other_version": ("breach", "version 99"),
    "empty_message": ("breach", "closed its channel and lives on"),
    "closes_first": ("breach", "closed its channel and lives on"),
    "half_closes_first": ("breach", "closed its channel and lives on"),
    "silent": ("start-timeout", "not ready within 0.5s"),
    "failed_then_flood": ("import-failed", "cut"),
    "failed_and_stays": ("import-failed", "no"),
}


@pytest.mark.parametrize("act", AT_THE_START)
def test_a_worker_that_breaks_a_rule_at_the_start_fails_its_own_app_only(
    tmp_path: Path, python: str, act: str
) -> None:
    async def work() -> None:
        async with neighbours(tmp_path, python) as among:
            failed = await refused(among, among.hostile(act, start_timeout_s=0.5 if act == "silent" else 30.0))
            code, text = AT_THE_START[act]
            assert failed.code.startswith(code), failed
            assert text in str(failed)
            assert len(failed.code) < 100

    run(work())


WHILE_READY = {
    "ready_twice": "Ready while ready",
    "failed_while_ready": "Failed while ready",
    "drained_while_ready": "Drained while ready",
    "attaches_descriptors": "while ready|descriptors",
    "garbage_while_ready": "unknown message type 71",
    "closes_while_ready": "closed its channel and lives on",
}


@pytest.mark.parametrize("act", WHILE_READY)
def test_a_worker_that_breaks_a_rule_while_it_serves_is_killed_and_replaced(
    tmp_path: Path, python: str, act: str
) -> None:
    async def work() -> None:
        async with neighbours(tmp_path, python) as among:
            evil = await among.house.started(among.hostile(act))
            first = next(iter(evil.pool.workers.values()))
            await until(lambda: evil.pool.core.restarts >= 1, "the breach")
            failure = evil.pool.core.last_failure
            assert failure is not None
            assert failure.code == "breach"
            assert any(part in str(failure) for part in WHILE_READY[act].split("|")), failure
            await first.ended.wait()
            assert not exists(first.pid)
            await among.good_one_answers()

    run(work())


@pytest.mark.parametrize("slot", [0, 1, vitals.SLOTS - 1, vitals.SLOTS, 2**32 - 1])
def test_a_slot_that_it_does_not_hold_is_not_given_back(tmp_path: Path, python: str, slot: int) -> None:
    async def work() -> None:
        async with neighbours(tmp_path, python) as among:
            evil = await among.house.started(among.hostile("returns_what_it_never_had", SLOT=str(slot)))
            await until(lambda: evil.pool.core.restarts >= 1, "the breach")
            assert f"returned slot {slot}, which it does not hold" in str(evil.pool.core.last_failure)

    run(work())


def test_a_slot_is_given_back_once(tmp_path: Path, python: str) -> None:
    async def work() -> None:
        async with neighbours(tmp_path, python) as among:
            evil = await among.house.started(among.hostile("returns_twice"))
            among.house.connect(evil)
            await until(lambda: evil.pool.core.restarts >= 1, "the breach")
            assert "returned slot 0, which it does not hold" in str(evil.pool.core.last_failure)

    run(work())


def test_a_worker_that_gives_a_request_back_for_ever_is_ended_and_costs_little(
    tmp_path: Path, python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy machine may not come to the usual number of messages.
    monkeypatch.setattr(process_module, "MESSAGES_A_SECOND", 50)
    monkeypatch.setattr(process_module, "MESSAGES_AT_ONCE", 1000)

    async def work() -> None:
        async with neighbours(tmp_path, python) as among:
            evil = await among.house.started(among.hostile("floods"))
            client = among.house.connect(evil)
            client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            begun = time.process_time()
            await until(lambda: evil.pool.core.restarts >= 1, "the breach")
            assert time.process_time() - begun < 10
            assert "messages a second" in str(evil.pool.core.last_failure)
            await among.good_one_answers()
            client.close()

    run(work())


HARMLESS = ["wild_page", "truncates_page", "never_takes", "takes_and_drops", "takes_and_keeps"]


@pytest.mark.parametrize("act", HARMLESS)
def test_what_a_worker_does_to_its_page_and_its_connections_harms_nobody_else(
    tmp_path: Path, python: str, act: str
) -> None:
    async def work() -> None:
        async with neighbours(tmp_path, python) as among:
            before = descriptors()
            evil = await among.house.started(among.hostile(act))
            pid = next(iter(evil.pool.workers.values())).pid
            clients = [among.house.connect(evil) for _ in range(100)]
            begun = time.process_time()
            await asyncio.sleep(0.3)
            assert time.process_time() - begun < 0.2
            await among.good_one_answers()
            for worker in evil.pool.workers.values():
                worker.load()
            assert evil.pool.core.restarts == 0
            assert [worker.pid for worker in evil.pool.ready] == [pid]
            for client in clients:
                client.close()
            evil.stop()
            async with asyncio.timeout(PATIENCE_S):
                await evil.ended()
            await settle(before + 2)
            assert not exists(pid)

    run(work())


def test_a_worker_that_ignores_drain_and_term_is_killed(tmp_path: Path, python: str) -> None:
    async def work() -> None:
        async with neighbours(tmp_path, python) as among:
            evil = await among.house.started(among.hostile("ignores_everything", grace_s=0.2))
            pid = next(iter(evil.pool.workers.values())).pid
            evil.stop()
            async with asyncio.timeout(PATIENCE_S):
                await evil.ended()
            assert not exists(pid)

    run(work())


def test_a_child_that_keeps_the_channel_open_does_not_hide_a_death(tmp_path: Path, python: str) -> None:
    async def work() -> None:
        async with neighbours(tmp_path, python) as among:
            evil = await among.house.started(among.hostile("leaves_a_child_with_the_channel"))
            first = next(iter(evil.pool.workers.values()))
            await until(lambda: evil.pool.core.restarts >= 1, "the death")
            async with asyncio.timeout(PATIENCE_S):
                await first.ended.wait()
            assert "exit status 7" in str(evil.pool.core.last_failure)

    run(work())


FORK_SERVERS = {
    "fork_server_silent": "preload not done within 0.6s",
    "fork_server_garbage": "was not ready: it broke a rule of the channel: unknown message type",
    "fork_server_closes": "was not ready: it ended with signal SIGKILL",
    "fork_server_leaves": "was not ready: it ended with exit status 9",
    "fork_server_attaches": "was not ready|preload not done",
    "fork_server_prepared_twice": "rule of the channel: Prepared from a spawner|end of channel|Bad file descriptor",
    "fork_server_floods": "",
    "fork_server_drowns_reaps": "",
    "fork_server_claims_init": "process 1 is not a child of",
    "fork_server_claims_nobody": "No such process|Invalid argument",
    "fork_server_claims_least": "broke a rule of the channel: Spawned with pid -2147483648",
    "fork_server_claims_daemon": "is not a child of",
    "fork_server_claims_zero": "",
    "fork_server_claims_itself": "is not a child of",
    "fork_server_fails": "Resource temporarily unavailable",
    "fork_server_never_forks": "no worker from the spawner of",
    "fork_server_dies": "it ended with exit status 9",
}


@pytest.mark.parametrize("act", FORK_SERVERS)
def test_a_fork_server_that_breaks_a_rule_fails_its_own_app_only(tmp_path: Path, python: str, act: str) -> None:
    async def work() -> None:
        async with neighbours(tmp_path, python) as among:
            # Only where that is what ends it, and only now: good ones may take their time.
            if act == "fork_server_silent":
                among.house.origins.timings = IMPATIENT._replace(prepare_s=0.6)
            if act == "fork_server_never_forks":
                among.house.origins.timings = IMPATIENT._replace(fork_s=0.6)
            failed = await refused(among, among.hostile(act))
            assert failed.code in ("spawn-failed", "import-failed")
            assert any(part in str(failed) for part in FORK_SERVERS[act].split("|")), failed

    run(work())


def test_a_fork_server_that_never_reaps_holds_up_its_own_app_only(tmp_path: Path, python: str) -> None:
    async def work() -> None:
        async with neighbours(tmp_path, python) as among:
            among.house.origins.timings = IMPATIENT._replace(fork_s=2.0)
            wanted = among.hostile("fork_server_never_reaps", WORKER_ACT="garbage_while_ready")
            evil = await among.house.started(wanted)
            await until(lambda: evil.pool.core.restarts >= 1, "the breach")
            await among.good_one_answers()

    run(work())
