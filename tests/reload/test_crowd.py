"""Fifty kept-alive connections and fifty WebSockets, at Caddy and at the socket, while everything is replaced.

``CADDYSNAKE_RELOADS=100`` makes it the long proof, in which the longest stall counts too: it is compared with a stretch
of the same run in which nothing is replaced. (On a machine that does other things as well, that is a matter of luck.)
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from support.crowd import Crowd, source
from support.daemon import Process, caddy, daemon, python_site

pytestmark = pytest.mark.system

TURNS = int(os.environ.get("CADDYSNAKE_RELOADS", "0"))
STALL_S = 0.1


def caddyfile(*lines: str) -> str:
    return python_site("unix/x.sock", "module_asgi main:app", "workers 2", *lines)


async def once(process: Process, folder: Path, kind: str, turn: int, first: str) -> None:
    """Replace the workers for the ``turn``-th time."""
    (folder / "main.py").write_text(source(turn + 1, first))
    said = '"reloaded"'
    if kind == "autoreload":
        said = '"app reloaded"'
    elif kind == "recycling":
        said, turn = "worker is replaced", turn * 2
    elif kind == "change":
        (folder / "Caddyfile").write_text(caddyfile(f"env_var TURN {turn}"))
    if kind in ("signal", "slow", "change"):
        process.popen.send_signal(signal.SIGHUP)
    await asyncio.to_thread(process.wait_for_log, said, turn)


KINDS = {
    "signal": (),
    "slow": (),
    "change": (),
    "autoreload": ("autoreload {", "\tdebounce 100ms", "}"),
    "recycling": ("max_requests 200 50",),
}


@pytest.mark.parametrize("kind", KINDS if TURNS else ["signal", "recycling"])
def test_nothing_fails_and_nobody_waits(tmp_path: Path, kind: str) -> None:
    first = "import time\ntime.sleep(2)\n" if kind == "slow" else ""
    (tmp_path / "main.py").write_text(source(1, first))
    text = caddyfile(*KINDS[kind])
    stock = "http://:{port} {\n\treverse_proxy unix/%s\n}\n" % (tmp_path / "x.sock")
    with daemon(tmp_path, text) as process, caddy(tmp_path, stock) as (_, port):

        async def work() -> None:
            size = 50 if TURNS else 20
            async with Crowd(port, size, size) as crowd, Crowd(tmp_path / "x.sock", size, size, seed=2) as close:
                await asyncio.gather(crowd.more(100), close.more(100))
                quiet_s = await stretch(crowd, close, 10.0) if TURNS else 0.0
                for turn in range(1, (TURNS or 3) + 1):
                    await once(process, tmp_path, kind, turn, first)
                    await asyncio.gather(crowd.more(50), close.more(50))
                busy_s = max(crowd.longest_s, close.longest_s)
            assert crowd.failures == [], process.log
            assert close.failures == [], process.log
            assert crowd.echoed > 0
            if TURNS:
                print(f"{kind}: longest {busy_s * 1000:.0f} ms, without reloads {quiet_s * 1000:.0f} ms")
                assert busy_s < quiet_s + STALL_S

        asyncio.run(work())


async def stretch(crowd: Crowd, close: Crowd, seconds: float) -> float:
    """The longest that anybody waits while nothing is replaced."""
    for each in (crowd, close):
        each.forget()
    await asyncio.sleep(seconds)
    longest = max(crowd.longest_s, close.longest_s)
    for each in (crowd, close):
        each.forget()
    return longest
