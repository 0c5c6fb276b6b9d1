"""What a fork server has forked is reaped, wanted or not."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.daemon import alive, children
from support.house import House, run, spec, until
from support.worker import PATIENCE_S, SITE

from caddysnake.channel.endpoint import pair
from caddysnake.daemon.apps.spec import StartFailed
from caddysnake.daemon.system import processes
from caddysnake.daemon.system.log.process import logger
from caddysnake.daemon.system.timings import TIMINGS, Timings
from caddysnake.daemon.workers.child.launcher import ForkServerKey, SpawnError
from caddysnake.daemon.workers.forking.fork_server import ForkServer
from caddysnake.daemon.workers.forking.fork_servers import ForkServers
from caddysnake.daemon.workers.launchers import WorkerOrigins


async def only_child(of: ForkServer, pid: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while children(of.pid) != {pid}:  # noqa: ASYNC110 - a zombie is one, too
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("how", ["cancelled", "late"])
def test_a_fork_that_nobody_waits_for_any_more_is_ended_and_reaped(how: str) -> None:
    async def give_up(fork_server: ForkServer) -> None:
        ours, theirs = pair()
        os.kill(fork_server.pid, signal.SIGSTOP)
        try:
            if how == "late":
                fork_server.timings = Timings(fork_s=0.05)
            forking = asyncio.create_task(fork_server.fork(1, theirs.fileno(), 1.0))
            await asyncio.sleep(0.01)  # asked
            if how == "cancelled":
                forking.cancel()
            with pytest.raises(asyncio.CancelledError if how == "cancelled" else SpawnError):
                await forking
        finally:
            fork_server.timings = TIMINGS
            os.kill(fork_server.pid, signal.SIGCONT)
            theirs.close()
        # ``ours`` stays open: the worker does not leave by itself.
        await next_one(fork_server)
        ours.close()

    async def next_one(fork_server: ForkServer) -> None:
        ours, theirs = pair()
        pid, pidfd = await fork_server.fork(2, theirs.fileno(), 1.0)  # forked in turn: the first is there by now
        theirs.close()
        await only_child(fork_server, pid)
        assert fork_server.workers == {2}
        fork_server.end(2, pid, pidfd)
        assert os.waitstatus_to_exitcode(await fork_server.reap(2, pidfd) or 0) == -signal.SIGKILL
        os.close(pidfd)
        ours.close()

    async def work() -> None:
        fork_servers = ForkServers([SITE])
        try:
            fork_server = fork_servers.get(ForkServerKey(sys.executable, "wsgi", (), (), (("HOME", str(Path.home())),)))
            await fork_server.prepared()
            await give_up(fork_server)
        finally:
            await fork_servers.close(patience_s=5.0)

    run(work())


def test_a_number_that_is_anothers_by_now_is_not_signalled() -> None:
    """A fork server may reap its children unasked; what it has said of one then means somebody else."""
    ended = subprocess.Popen(["true"])
    gone = os.pidfd_open(ended.pid)
    ended.wait()
    stranger = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        processes.kill_group(gone, stranger.pid)
        processes._kill_group_by_number(gone, stranger.pid)  # as an older kernel has it
        assert processes.number_of(gone) == -1
        time.sleep(0.1)
        assert stranger.poll() is None
        with contextlib.closing(os.fdopen(os.pidfd_open(stranger.pid))) as own:
            assert processes.number_of(own.fileno()) == stranger.pid
            processes.kill_group(own.fileno(), stranger.pid)
        assert stranger.wait(PATIENCE_S) == -signal.SIGKILL
    finally:
        os.close(gone)
        stranger.kill()
        stranger.wait()


def test_what_a_process_has_started_ends_with_it_where_the_kernel_signals_by_number_too() -> None:
    leader = subprocess.Popen(
        ["sh", "-c", "sleep 600 & echo $!; wait"], start_new_session=True, stdout=subprocess.PIPE, text=True
    )
    assert leader.stdout is not None
    below = os.pidfd_open(int(leader.stdout.readline()))
    own = os.pidfd_open(leader.pid)
    try:
        processes._kill_group_by_number(own, leader.pid)
        assert leader.wait(PATIENCE_S) == -signal.SIGKILL
        assert select.select([below], [], [], PATIENCE_S)[0]
    finally:
        leader.stdout.close()
        os.close(below)
        os.close(own)


class Surprising(WorkerOrigins):
    """Fails for a reason that nobody has thought of."""

    def get(self, key: ForkServerKey) -> ForkServer:
        raise RuntimeError("surprise")


def test_a_start_that_fails_for_any_reason_is_a_failed_start_and_does_not_hold_up_the_end(tmp_path: Path) -> None:
    async def work() -> None:
        async with House() as house:
            house.origins = Surprising([SITE])
            app = house.app(spec("main:app", "wsgi", tmp_path))
            async with asyncio.timeout(PATIENCE_S):
                with pytest.raises(StartFailed, match="RuntimeError: surprise") as caught:
                    await app.start()
                assert caught.value.code == "internal"
                app.stop()
                await app.ended()

    run(work())


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("#!/bin/sh\necho first >&2\necho 'no \033[31mlibpython' >&2\nexit 3\n",
         r"exit status 3, and said at last: no \\x1b\[31mlibpython"),
        ("#!/bin/sh\nkill -SEGV $$\n", "(?m)signal SIGSEGV$"),
        (f"#!{sys.executable}\nimport os, sys\nos.closerange(3, 100)\nimport time; time.sleep(0.2)\nsys.exit(5)\n",
         "(?m)exit status 5$"),
    ],
    ids=["says why", "signal", "closes its channel first"],
)  # fmt: skip
def test_an_early_death_is_told_with_its_status_and_what_was_said_last(tmp_path: Path, program: str, why: str) -> None:
    python = tmp_path / "python"
    python.write_text(program)
    python.chmod(0o755)

    async def work() -> None:
        logger.start()
        fork_servers = ForkServers([SITE])
        try:
            fork_server = fork_servers.get(ForkServerKey(str(python), "wsgi", (), (), ()))
            with pytest.raises(SpawnError, match=why):
                await fork_server.prepared()
        finally:
            await fork_servers.close(patience_s=5.0)
            await logger.close()

    run(work())


def test_who_waits_for_an_interpreter_that_hangs_waits_no_longer_than_an_app_may_take(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec sleep 600\n")
    python.chmod(0o755)

    async def work() -> None:
        async with House() as house:
            app = house.app(spec("main:app", "wsgi", tmp_path, python=str(python), start_timeout_s=0.3))
            async with asyncio.timeout(PATIENCE_S):
                with pytest.raises(StartFailed, match=r"not ready within 0\.3s") as caught:
                    await app.start()
                assert caught.value.code == "start-timeout"
            (pid,) = house.origins.pids()
            await until(lambda: not alive(pid), "the end of what nobody waits for")

    run(work())
