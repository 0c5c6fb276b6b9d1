"""A schedule runs its command when it is due, once for its app, and what came of it is known."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from support.house import until
from support.worker import PATIENCE_S

from caddysnake.channel.settings import Settings
from caddysnake.config.language.models import ScheduleLine
from caddysnake.daemon.apps.spec import Identity, PoolSpec
from caddysnake.daemon.commands import execution
from caddysnake.daemon.commands.background import Background
from caddysnake.daemon.commands.spec import Commands
from caddysnake.daemon.commands.surroundings import BuildSurroundings, Surroundings
from caddysnake.daemon.sockets.refusals import NO_SUCH_APP, Refusal
from caddysnake.daemon.tenants.known_apps import KnownApps
from caddysnake.daemon.tenants.schedules import TenantSchedules
from caddysnake.daemon.tenants.tenant import TemplateSpec, TenantTable
from caddysnake.daemon.workers.child.launcher import ForkServerKey

MINUTELY = "* * * * *"
BEGUN = (time.time() // 60 + 120) * 60


def around(folder: Path) -> BuildSurroundings:
    settings = Settings("blog", "wsgi", "blog", "app", str(folder), {"PATH": os.environ["PATH"]})
    key = ForkServerKey(sys.executable, "wsgi", (), (), ())
    return BuildSurroundings(lambda: Surroundings.of(settings, key, str(folder)))


def spec(script: str, name: str = "job", line: str = MINUTELY, **more: Any) -> ScheduleLine:
    return ScheduleLine(name, line, ("sh", "-c", script), **more)


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())
    assert execution.pids() == set()


def minute(number: int) -> float:
    """A moment within a minute to come, always the same one."""
    return BEGUN + number * 60 + 1.0


async def at_end(background: Background) -> None:
    background.end()
    await asyncio.wait_for(background.ended(), PATIENCE_S)


def test_it_runs_once_in_each_of_its_minutes_and_its_result_is_known(tmp_path: Path) -> None:
    async def work() -> None:
        background = Background("blog")
        background.switch_over(Commands(schedules=(spec("echo ran >> log; exit 3"),)), around(tmp_path))
        job = background.schedules["job"]
        for number in (0, 0, 1):
            background.look(minute(number))
            await until(lambda: not job.is_busy)
        assert (tmp_path / "log").read_text() == "ran\nran\n"
        assert job.last_run is not None
        assert (job.last_run.reason, job.last_run.is_good) == ("exit status 3", False)
        assert job.next_at == minute(2) - 1.0
        await at_end(background)

    run(work)


@pytest.mark.parametrize(("overlap", "runs", "skipped"), [(False, 1, 1), (True, 2, 0)])
def test_while_its_last_run_goes_on_it_is_skipped_unless_it_may_overlap(
    tmp_path: Path, overlap: bool, runs: int, skipped: int
) -> None:
    async def work() -> None:
        background = Background("blog")
        job = spec("echo ran >> log; while ! test -e go; do sleep 0.02; done", overlap=overlap)
        background.switch_over(Commands(schedules=(job,)), around(tmp_path))
        schedule = background.schedules["job"]
        background.look(minute(0))
        await until(lambda: len(schedule.runs) == 1)
        background.look(minute(1))
        await until(lambda: (tmp_path / "log").exists() and (tmp_path / "log").read_text().count("ran") == runs)
        assert schedule.skipped == skipped
        (tmp_path / "go").touch()
        await until(lambda: not schedule.is_busy)
        await at_end(background)

    run(work)


def test_one_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    async def work() -> None:
        background = Background("blog")
        background.switch_over(Commands(schedules=(spec("sleep 1000", timeout_s=0.2),)), around(tmp_path))
        background.look(minute(0))
        job = background.schedules["job"]
        await until(lambda: job.last_run is not None)
        assert job.last_run is not None
        assert job.last_run.reason == "not done within 0.2s (signal SIGTERM)"
        await at_end(background)

    run(work)


def test_a_reload_neither_ends_a_run_nor_runs_a_minute_twice(tmp_path: Path) -> None:
    async def work() -> None:
        background = Background("blog")
        slow = spec("echo ran >> log; while ! test -e go; do sleep 0.02; done", name="slow", line="*/1 * * * *")
        background.switch_over(Commands(schedules=(spec("echo ran >> quick"), slow)), around(tmp_path))
        background.look(minute(0))
        await until(lambda: (tmp_path / "log").exists() and (tmp_path / "quick").exists())
        background.switch_over(Commands(schedules=(spec("echo ran >> quick"),)), around(tmp_path))
        background.look(minute(0))
        assert [each.spec.name for each in background.closed] == ["slow"]
        assert not background.schedules["job"].is_busy or len(background.schedules["job"].runs) <= 1
        (tmp_path / "go").touch()
        await until(lambda: not background.closed[0].is_busy and not background.schedules["job"].is_busy)
        assert (tmp_path / "quick").read_text() == "ran\n"
        background.look(minute(1))
        await until(lambda: (tmp_path / "quick").read_text() == "ran\nran\n")
        assert background.closed == []
        await at_end(background)

    run(work)


def test_what_cannot_be_run_is_its_last_result(tmp_path: Path) -> None:
    async def work() -> None:
        background = Background("blog")
        lost = ScheduleLine("job", MINUTELY, ("no-such-command",))
        background.switch_over(Commands(schedules=(lost,)), around(tmp_path))
        background.look(minute(0))
        job = background.schedules["job"]
        await until(lambda: job.last_run is not None)
        assert job.last_run is not None
        assert job.last_run.reason.startswith("no-such-command: there is no such command")
        await at_end(background)

    run(work)


def test_an_upgrade_carries_a_run_and_the_next_times(tmp_path: Path) -> None:
    async def work() -> None:
        first = Background("blog")
        commands = Commands(schedules=(spec("echo ran >> log; while ! test -e go; do sleep 0.02; done"),))
        first.switch_over(commands, around(tmp_path))
        first.look(minute(0))
        await until(lambda: bool(first.schedules["job"].runs) and (tmp_path / "log").exists())
        (old,) = first.schedules["job"].runs
        assert first.is_settled
        asyncio.get_running_loop().remove_reader(old.snapshot().pidfd)
        later = Background("blog")
        later.restore(first.snapshot(), commands, around(tmp_path))
        job = later.schedules["job"]
        await until(lambda: [each.pid for each in job.runs] == [old.pid])
        later.look(minute(0))
        later.look(minute(1))
        assert job.skipped == 1
        (tmp_path / "go").touch()
        await until(lambda: not job.is_busy)
        assert (tmp_path / "log").read_text() == "ran\n"
        first.schedules["job"].close()
        old.ending.set_result(await job_ending())
        old._process.wait()
        await at_end(first)
        await at_end(later)

    async def job_ending() -> execution.Ending:
        return execution.Ending(0, 0.0, "exit status 0")

    run(work)


def test_a_thousand_schedules_take_little_memory(tmp_path: Path) -> None:
    import tracemalloc

    async def work() -> None:
        background = Background("blog")
        many = tuple(spec("true", name=f"job{number}", line=f"{number % 60} 3 * * *") for number in range(1000))
        shared = around(tmp_path)
        tracemalloc.start()
        background.switch_over(Commands(schedules=many), shared)
        background.look(time.time())
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert taken < 1_000_000, taken
        await at_end(background)

    run(work)


def test_whom_the_last_daemon_has_started_is_known_to_the_next_and_sleeps_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    job = spec("echo ran >> ran")
    settings = Settings("anna", "wsgi", "blog", "app", str(tmp_path), {"PATH": os.environ["PATH"]})
    key = ForkServerKey(sys.executable, "wsgi", (), (), ())

    def resolve(name: str) -> PoolSpec | Refusal:
        if name != "anna":
            return NO_SUCH_APP
        return PoolSpec(name, settings, 1, key, 9.0, 9.0, commands=Commands(schedules=(job,)))

    template = TemplateSpec("blog", resolve, 8, 8, None, Identity(None, None), schedules=(job,), keeps="apps.json")

    def table() -> TenantTable:
        nothing: Any = None
        return TenantTable(template, nothing, nothing, nothing)

    async def first() -> None:
        tenants = table()
        TenantSchedules(tenants)
        for name in ("anna", "gone"):
            tenants.known.saw(name)
        await tenants.known.close()

    async def second() -> None:
        tenants = table()
        schedules = TenantSchedules(tenants)
        await until(lambda: tenants.known.is_read)
        schedules.look(minute(0))
        await until(lambda: (tmp_path / "ran").exists() and not schedules.active)
        assert (tmp_path / "ran").read_text() == "ran\n"
        assert list(tenants.known) == ["anna", "gone"], "a disk may be mounted late"
        assert tenants.all_apps() == []
        schedules.end()
        await schedules.ended()
        await tenants.known.close()

    run(first)
    run(second)
    assert (tmp_path / "state" / "apps.json").stat().st_mode & 0o777 == 0o600


def test_one_that_is_gone_for_a_week_is_known_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    known = KnownApps()
    known.saw("anna")
    known.saw("bert")
    later = time.time() + 9 * 86_400
    monkeypatch.setattr(time, "time", lambda: later)
    known.saw("bert")
    known.missed("anna")
    known.missed("bert")
    assert list(known) == ["bert"]
