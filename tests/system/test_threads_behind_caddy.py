"""Flask and FastAPI as threads of one process behind a real Caddy, over changes, reloads and that process's end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from pathlib import Path

import pytest
from support.daemon import Process, alive, below, caddy, daemon, get
from support.load import Load

pytestmark = pytest.mark.system

FLASK = """
import os
from flask import Flask, request
app = Flask(__name__)
VERSION = {version}

@app.get("/")
def index():
    from blog_parts import NAME
    return {{"name": NAME, "version": VERSION, "pid": os.getpid(), "cwd": os.getcwd()}}

@app.route("/p", methods=["GET", "POST"])
def load():
    return f"{{VERSION}} {{request.method}} {{len(request.get_data())}} {{os.getpid()}}"
"""
FASTAPI = """
import os
from contextlib import asynccontextmanager
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse
VERSION = {version}

@asynccontextmanager
async def lifespan(app):
    yield {{"name": "shop"}}

app = FastAPI(lifespan=lifespan)

@app.get("/")
async def index(request: Request):
    return {{"name": request.state.name, "version": VERSION, "pid": os.getpid(), "cwd": os.getcwd()}}

@app.api_route("/p", methods=["GET", "POST"], response_class=PlainTextResponse)
async def load(request: Request):
    return f"{{VERSION}} {{request.method}} {{len(await request.body())}} {{os.getpid()}}"

@app.get("/sync")
def plain():
    return {{"name": "shop", "cwd": os.getcwd()}}
"""
SITES = "".join(
    f"""unix/{name}.sock {{
	python {{
		module_{interface} {name}:app
		working_dir {name}
		workers_runtime thread
		autoreload {{
			debounce 200ms
		}}
	}}
}}
"""
    for name, interface in (("blog", "wsgi"), ("shop", "asgi"))
)


def write(folder: Path, version: int) -> None:
    for name, source in (("blog", FLASK), ("shop", FASTAPI)):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / f"{name}.py").write_text(source.format(version=version))
    (folder / "blog" / "blog_parts.py").write_text("NAME = 'blog'\n")


def ask(port: int, name: str, target: str = "/") -> dict[str, object]:
    status, body = get(target, port=port, Host=f"{name}.test")
    assert status == 200, body
    answer: dict[str, object] = json.loads(body)
    return answer


def hosts(process: Process) -> set[int]:
    return below(process.pid, b"caddysnake: thread")


def test_two_frameworks_in_one_process_outlive_changes_reloads_and_its_end(tmp_path: Path) -> None:
    write(tmp_path, 1)
    stock = "".join(
        f"http://{name}.test:{{port}} {{\n\treverse_proxy unix/{tmp_path / name}.sock\n}}\n"
        for name in ("blog", "shop")
    )
    with daemon(tmp_path, SITES) as process, caddy(tmp_path, stock) as (_, port):
        (host,) = hosts(process)
        for name in ("blog", "shop"):
            expected = {"name": name, "version": 1, "pid": host, "cwd": str(tmp_path / name)}
            assert ask(port, name) == expected
        assert ask(port, "shop", "/sync")["cwd"] == str(tmp_path / "shop")

        async def work() -> None:
            async with Load(port, clients=6, host="blog.test") as blog, Load(port, clients=6, host="shop.test") as shop:
                write(tmp_path, 20)
                await asyncio.to_thread(process.wait_for_log, "app reloaded", 2)
                for _ in range(2):
                    os.kill(process.pid, signal.SIGHUP)
                    before = process.log.count('"reloaded"')
                    await asyncio.to_thread(process.wait_for_log, '"reloaded"', before + 1)
                await asyncio.gather(blog.until("20"), shop.until("20"))
            assert (blog.failures, shop.failures) == ([], [])

        asyncio.run(work())
        assert [ask(port, name)["version"] for name in ("blog", "shop")] == [20, 20]
        killed = hosts(process)
        for pid in killed:
            with contextlib.suppress(ProcessLookupError):  # the one before may be leaving
                os.kill(pid, signal.SIGKILL)
        for name in ("blog", "shop"):
            answer = ask(port, name)
            assert answer["version"] == 20
            assert answer["pid"] not in killed
        deadline = time.monotonic() + 30
        while any(alive(pid) for pid in killed) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert hosts(process).isdisjoint(killed)
