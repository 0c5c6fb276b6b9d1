"""How much memory all workers may have: who gives way, and that somebody does."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.daemon import get
from support.house import run, until
from support.serving import composition, serving

from caddysnake.daemon.supervisor.budget import Growth, Relief, Sleeper, relief
from caddysnake.daemon.system.timings import Timings

A, B, C = (Sleeper("t", key, idle_s, 100) for key, idle_s in (("a", 10.0), ("b", 900.0), ("c", 1.0)))


@pytest.mark.parametrize(
    ("excess", "sleepers", "growths", "given_up"),
    [
        (0, [A, B], [Growth("x", 3, 50)], Relief([], [], True)),
        (150, [A, B, C], [Growth("x", 3, 50)], Relief([B, A], [], True)),
        (240, [A, B, C], [Growth("x", 1, 50), Growth("y", 3, 50)], Relief([B, A], ["y"], True)),
        (500, [A, B, C], [Growth("x", 1, 50), Growth("y", 0, 50)], Relief([B, A], ["x"], False)),
    ],
)
def test_who_was_not_asked_for_longest_sleeps_first_and_then_pools_shrink(
    excess: int, sleepers: list[Sleeper], growths: list[Growth], given_up: Relief
) -> None:
    assert relief(excess, sleepers, growths, idle_s=5.0) == given_up


FILE = """
{
	memory_budget 150MB
}
unix/a.sock {
	python {
		module_wsgi main:wsgi
		working_dir {host}
	}
}
unix/b.sock {
	python {
		module_wsgi main:wsgi
		working_dir grown
		workers 1 3
		scale_down_after 1h
	}
}
"""
LARGE = """
BALLAST = b"x" * 60_000_000
def wsgi(environ, start):
    start("200 OK", [])
    return [b"here"]
"""


def test_tenants_sleep_and_a_pool_shrinks_before_the_budget_is_exceeded_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one.test", "two.test", "grown"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "main.py").write_text(LARGE)

    async def ask(host: str) -> bytes:
        return (await asyncio.to_thread(get, "/", path=tmp_path / "a.sock", Host=host))[1]

    async def work() -> None:
        async with serving(composition(tmp_path, FILE), Timings(sleeper_idle_s=0.2, memory_look_s=0.3)) as served:
            (tenants,) = served.running.templates.values()
            grown = served.running.apps["grown/main:wsgi"]
            assert await ask("one.test") == b"here"
            assert await ask("two.test") == b"here"
            await until(lambda: len(tenants.apps) < 2, "one that sleeps")
            assert await ask("one.test") == b"here", "it wakes when it is asked for"
            await until(lambda: len(tenants.apps) < 2, "the other that sleeps")
            grown.pool.resize(3)
            await until(lambda: len(grown.pool.workers) == 1 and grown.scaled.last is not None, "fewer workers")
            assert grown.scaled.last is not None
            assert grown.scaled.last.reason == "memory_budget"
            assert (served.budget.used_bytes or 0) > 60_000_000

    caplog.set_level("INFO")
    run(work())
    assert "put to sleep: memory_budget" in caplog.text
