"""What a spawner has forked is reaped, wanted or not."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from support.daemon import children
from support.house import run
from support.worker import PATIENCE_S, SITE

from caddysnake.channel.endpoint import pair
from caddysnake.daemon.workers.child.launcher import SpawnerKey, SpawnError
from caddysnake.daemon.workers.forking import fork_server as spawners_module
from caddysnake.daemon.workers.forking.fork_server import Spawner, Spawners


async def only_child(of: Spawner, pid: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while children(of.pid) != {pid}:  # noqa: ASYNC110 - a zombie is one, too
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("how", ["cancelled", "late"])
def test_a_fork_that_nobody_waits_for_any_more_is_ended_and_reaped(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def give_up(spawner: Spawner) -> None:
        ours, theirs = pair()
        os.kill(spawner.pid, signal.SIGSTOP)
        try:
            with monkeypatch.context() as patience:
                if how == "late":
                    patience.setattr(spawners_module, "_FORK_TIMEOUT_S", 0.05)
                forking = asyncio.create_task(spawner.fork(1, theirs.fileno(), 1.0))
                await asyncio.sleep(0.01)  # asked
                if how == "cancelled":
                    forking.cancel()
                with pytest.raises(asyncio.CancelledError if how == "cancelled" else SpawnError):
                    await forking
        finally:
            os.kill(spawner.pid, signal.SIGCONT)
            theirs.close()
        # ``ours`` stays open: the worker does not leave by itself.
        await next_one(spawner)
        ours.close()

    async def next_one(spawner: Spawner) -> None:
        ours, theirs = pair()
        pid, pidfd = await spawner.fork(2, theirs.fileno(), 1.0)  # forked in turn: the first is there by now
        theirs.close()
        await only_child(spawner, pid)
        assert spawner.workers == {2}
        spawner.end(2, pid)
        assert os.waitstatus_to_exitcode(await spawner.reap(2, pid) or 0) == -signal.SIGKILL
        os.close(pidfd)
        ours.close()

    async def work() -> None:
        spawners = Spawners([SITE])
        try:
            spawner = spawners.get(SpawnerKey(sys.executable, "wsgi", (), (), (("HOME", str(Path.home())),)))
            await spawner.prepared()
            await give_up(spawner)
        finally:
            await spawners.close(patience_s=5.0)

    run(work())
