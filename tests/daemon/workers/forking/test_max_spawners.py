"""How many fork servers there may be, and which leave."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.daemon import below, daemon, get
from support.house import run
from support.worker import SITE

from caddysnake.daemon.system.timings import TIMINGS, Timings
from caddysnake.daemon.workers.child.launcher import NO_ROOM, ForkServerKey, SpawnError
from caddysnake.daemon.workers.forking.fork_servers import ForkServers


def key(number: int) -> ForkServerKey:
    return ForkServerKey(sys.executable, "wsgi", (), (), (("NUMBER", str(number)),))


def with_fork_servers(work: Callable[[ForkServers], object], timings: Timings = TIMINGS) -> None:
    async def all_of_it() -> None:
        fork_servers = ForkServers([SITE], timings)
        try:
            outcome = work(fork_servers)
            if asyncio.iscoroutine(outcome):
                await outcome
        finally:
            await fork_servers.close(patience_s=5.0)

    run(all_of_it())


def test_one_without_a_worker_makes_room_and_those_that_are_kept_do_not_count() -> None:
    async def work(fork_servers: ForkServers) -> None:
        fork_servers.keep([key(0)], most=1)
        kept, first = fork_servers.get(key(0)), fork_servers.get(key(1))
        with pytest.raises(SpawnError, match="max_spawners 1") as raised:
            fork_servers.get(key(2))  # the first is still being prepared
        assert raised.value.code == NO_ROOM
        await first.prepared()
        second = fork_servers.get(key(2))
        await asyncio.wait_for(first.gone.wait(), 30)
        assert not kept.gone.is_set()
        await second.prepared()
        second.workers.add(7)
        with pytest.raises(SpawnError, match="max_spawners 1"):
            fork_servers.get(key(3))
        second.workers.clear()

    with_fork_servers(work)


def test_one_that_nobody_is_forked_from_leaves_whoever_its_user_is() -> None:
    async def work(fork_servers: ForkServers) -> None:
        fork_servers.keep([key(0)], most=None)
        kept, other = fork_servers.get(key(0)), fork_servers.get(key(1))
        await asyncio.gather(kept.prepared(), other.prepared())
        while not other.gone.is_set():
            fork_servers.sweep()
            await asyncio.sleep(0.05)
        fork_servers.sweep()
        assert not kept.gone.is_set()

    with_fork_servers(work, Timings(fork_server_idle_s=0.2))


@pytest.mark.system
def test_tenants_with_interpreters_of_their_own_take_turns(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(
        "import os\n\ndef app(environ, start_response):\n    start_response('200 OK', [])\n"
        "    return [os.environ['PYTHONHASHSEED'].encode()]\n"
    )
    caddyfile = """{
        max_spawners 1
    }
    unix/x.sock {
        python {
            module_wsgi main:app
            env_var PYTHONHASHSEED {http.request.header.seed}
        }
    }
    """
    with daemon(tmp_path, caddyfile) as process:
        for seed in ("1", "2", "1"):
            assert get("/", path=tmp_path / "x.sock", seed=seed) == (200, seed.encode()), process.log
        assert process.log.count("app makes room for another interpreter") == 2
        assert len(below(process.pid, b"bootstrap")) <= 2
