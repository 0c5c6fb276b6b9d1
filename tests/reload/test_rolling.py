"""``reload_strategy rolling``: one worker at a time, so that memory for one more is enough."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest
from support.daemon import PATIENCE_S, Process, daemon, eventually, workers
from support.load import Load, app

pytestmark = pytest.mark.system

TEXT = """{
	reload_strategy rolling
}
unix/x.sock {
	python {
		module_wsgi main:wsgi
		workers 4
	}
}
unix/y.sock {
	python {
		module_asgi main:asgi
		workers 2
	}
}
"""
COUNT = 6


async def rolled(process: Process, before: set[int]) -> int:
    """Wait until none of the workers ``before`` is left and all are there again; the most there were meanwhile."""
    most = 0
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = await asyncio.to_thread(workers, process.pid)
        most = max(most, len(found))
        if len(found) == COUNT and not found & before:
            return most
        assert time.monotonic() < deadline, process.log
        await asyncio.sleep(0.01)


def test_workers_are_replaced_one_at_a_time_and_nothing_is_lost(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(app("1"))
    with daemon(tmp_path, TEXT) as process:

        async def work() -> None:
            async with Load(tmp_path / "x.sock", 8) as load, Load(tmp_path / "y.sock", 4) as other:
                for turn in (2, 3):
                    before = workers(process.pid)
                    (tmp_path / "main.py").write_text(app(str(turn), "import time\ntime.sleep(0.3)\n"))
                    process.popen.send_signal(signal.SIGHUP)
                    most = await rolled(process, before)
                    # One more of each app, and those that are just leaving.
                    assert most <= COUNT + 4
                    await load.until(str(turn))
                    await other.more(20)
            assert load.failures == []
            assert other.failures == []

        asyncio.run(work())
        assert process.log.count('"reloaded"') == 2


def test_a_reload_in_the_middle_of_another_ends_with_the_last(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(app("1"))
    with daemon(tmp_path, TEXT) as process:

        async def work() -> None:
            before = workers(process.pid)
            async with Load(tmp_path / "x.sock", 8) as load:
                for turn in (2, 3, 4):
                    (tmp_path / "main.py").write_text(app(str(turn), "import time\ntime.sleep(0.3)\n"))
                    process.popen.send_signal(signal.SIGHUP)
                    await asyncio.to_thread(process.wait_for_log, '"reloaded"', turn - 1)
                await rolled(process, before)
                await load.until("4")
            assert load.failures == []

        asyncio.run(work())


def test_the_first_worker_decides_whether_a_reload_is_refused(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(app("1"))
    with daemon(tmp_path, TEXT) as process:
        before = workers(process.pid)
        (tmp_path / "main.py").write_text(app("2", "raise LookupError('no database')\n"))
        process.popen.send_signal(signal.SIGHUP)
        process.wait_for_log("reload refused")
        eventually(lambda: workers(process.pid) == before, process)
