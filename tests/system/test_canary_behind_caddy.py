"""Deploys that are judged, by the commands of an operator and a stock Caddy in front: POSTs, WebSockets, no loss."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.daemon import Process, caddy, daemon
from support.load import Load, app
from websockets.asyncio.client import connect

CADDYFILE = """
{
	admin unix/admin.sock
}
unix/app.sock {
	python {
		module_asgi main:asgi
		workers 2
		grace_period 3s
		keep_previous 1m
		canary {
			share 20%
			for 3s
			min_requests 30
		}
		process beside sh -c "echo $$ > pid; exec sleep 1000"
	}
}
"""
SOCKETS = """
_plain = asgi
async def asgi(scope, receive, send):
    if scope["type"] != "websocket":
        return await _plain(scope, receive, send)
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": VERSION})
"""
SICK = """
COUNT = [0]
def sick():
    COUNT[0] += 1
    if COUNT[0] % 10 == 0:
        raise LookupError("no such table: shop")
"""
SLOW = "import time\ndef sick(): time.sleep(0.06)\n"
FAST = "import time\ndef sick(): time.sleep(0.02)\n"


def write(folder: Path, version: str, first: str = FAST) -> None:
    begin = "def answer(method, body):\n"
    (folder / "main.py").write_text(app(version, first).replace(begin, f"{begin}    sick()\n") + SOCKETS)


async def command(process: Process, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    asked = [sys.executable, "-m", "caddysnake", *arguments]
    environ = {"HOME": str(folder), "XDG_RUNTIME_DIR": process.runtime_dir, "PATH": ""}
    return await asyncio.to_thread(
        subprocess.run, asked, check=False, cwd=folder, capture_output=True, text=True, env=environ, timeout=60
    )


@pytest.mark.system
def test_a_deploy_is_judged_under_load_and_the_page_the_log_and_the_status_agree(tmp_path: Path) -> None:
    write(tmp_path, "1")

    async def work(process: Process, port: int) -> None:
        def beside() -> str:
            return (tmp_path / "pid").read_text()

        async with Load(port, 8) as load, connect(f"ws://127.0.0.1:{port}/ws") as old_socket:
            await load.more(50)
            first = beside()

            write(tmp_path, "2")
            done = await command(process, tmp_path, "reload")
            assert done.returncode == 0, done.stderr
            assert "| canary, " in done.stderr, "what it sees while it watches"
            await load.until("2")
            assert load.failures == []
            second = beside()
            assert second != first, "the new build's process began at its promotion"

            async with connect(f"ws://127.0.0.1:{port}/ws") as socket:
                write(tmp_path, "3", SICK)
                done = await command(process, tmp_path, "reload")
                assert done.returncode == 1
                assert "app main:asgi is returned (canary-failed); its old build keeps serving" in done.stderr
                assert "LookupError: no such table: shop" in done.stderr
                await load.until("2")  # its last answers may still be on their way
                assert all("500" in each for each in load.failures), load.failures
                load.failures.clear()

                write(tmp_path, "4", SLOW)
                done = await command(process, tmp_path, "reload")
                assert done.returncode == 1
                assert "times the old build's" in done.stderr
                await load.until("2")
                assert load.failures == []
                assert beside() == second
                await socket.send("which")
                assert await socket.recv() == "2", "it stayed where it was opened"

            done = await command(process, tmp_path, "rollback")
            assert done.returncode == 0, done.stderr
            assert "build 1 serves again, until the next reload or restart" in done.stdout
            await load.until("1")
            assert load.failures == []
            assert old_socket

        found = json.loads((await command(process, tmp_path, "status", "--json")).stdout)["apps"][0]
        assert found["verdicts"] == {"promoted": 1, "returned": 2}
        assert (found["build"]["number"], found["refused"]["code"]) == (1, "rolled-back")
        for told in ("the new build is promoted", "the new build is returned"):
            assert told in process.log

    with daemon(tmp_path, CADDYFILE) as process:
        site = ":{port} {\n\treverse_proxy unix/" + str(tmp_path / "app.sock") + "\n}\n"
        with caddy(tmp_path, site) as (_, port):
            asyncio.run(work(process, port))


@pytest.mark.system
def test_a_trial_goes_on_in_another_image_of_the_daemon(tmp_path: Path) -> None:
    write(tmp_path, "1")
    # Longer than an upgrade takes on a busy machine.
    text = CADDYFILE.replace("for 3s", "for 15s").replace("keep_previous 1m", "keep_previous 5m")
    text = text.replace("workers 2", "workers 1 3")

    async def work(process: Process) -> None:
        async with Load(tmp_path / "app.sock", 6) as load:
            await load.more(50)
            assert (await command(process, tmp_path, "scale", "main:asgi", "2")).returncode == 0
            write(tmp_path, "2")
            asked = asyncio.create_task(command(process, tmp_path, "reload"))
            await asyncio.to_thread(process.wait_for_log, "the new build is on trial")
            done = await command(process, tmp_path, "upgrade")
            assert done.returncode == 0, done.stderr
            whole = await asked
            assert (whole.returncode, "taken over: 1 of 1" in whole.stderr) == (0, True), whole.stderr
            found = json.loads((await command(process, tmp_path, "status", "--json")).stdout)["apps"][0]
            states = {each["state"] for each in found["generations"]}
            assert states in ({"serving", "trial"}, {"serving", "kept"})
            assert (found["trial"] is not None) == ("trial" in states)
            await asyncio.to_thread(process.wait_for_log, "the new build is promoted")
            await load.until("2")
            done = await command(process, tmp_path, "upgrade")
            assert done.returncode == 0, done.stderr
            assert (await command(process, tmp_path, "rollback")).returncode == 0, "what is kept is carried as well"
            await load.until("1")
            assert load.failures == []
            found = json.loads((await command(process, tmp_path, "status", "--json")).stdout)["apps"][0]
            assert (found["workers_ready"], found["workers_wanted"]) == (2, 2)

    with daemon(tmp_path, text) as process:
        asyncio.run(work(process))
