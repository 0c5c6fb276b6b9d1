"""Requests that a new worker answers before it counts as ready."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from support.house import House, run, spec, until

from caddysnake.daemon.apps.spec import StartFailed
from caddysnake.daemon.workers.warmup import WarmUp

SOURCE = """
import os, pathlib, time
HERE = pathlib.Path(__file__).parent

def answer(path, host):
    with (HERE / "asked").open("a") as file:
        file.write(f"{host}{path} ")
    if (HERE / "sick").exists():
        raise LookupError("no table")
    if path == "/slow":
        time.sleep(60)
    if path == "/exits":
        os._exit(3)
    return {"/moved": "302 Found", "/gone": "410 Gone", "/late": "503 Service Unavailable"}.get(path, "200 OK")

def wsgi(environ, start):
    status = answer(environ["PATH_INFO"], environ["HTTP_HOST"])
    start(status, [("Content-Type", "text/plain")])
    return [status.encode()]

async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    status = answer(scope["path"], dict(scope["headers"])[b"host"].decode())
    await send({"type": "http.response.start", "status": int(status[:3]), "headers": []})
    await send({"type": "http.response.body", "body": status.encode()})
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "warm.py").write_text(SOURCE)
    return tmp_path


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
@pytest.mark.parametrize("threads", [False, True], ids=["process", "thread"])
def test_a_worker_that_answers_well_is_ready_and_has_been_asked_for_every_path(
    folder: Path, interface: str, threads: bool
) -> None:
    async def work() -> None:
        async with House() as house:
            asked = WarmUp(("/one?a=1", "/moved", "/gone"), "shop.test", expect=("2xx", "3xx", "410"))
            wanted = spec(f"warm:{interface}", interface, folder, shares_process=threads)
            app = await house.started(wanted._replace(warmup=asked))
            assert (folder / "asked").read_text() == "shop.test/one shop.test/moved shop.test/gone "
            assert await house.ask(app, "/") == (200, b"200 OK")

    run(work())


@pytest.mark.parametrize(
    ("interface", "path", "why"),
    [
        ("wsgi", "/late", r"GET /late was answered with 503 Service Unavailable \(expected 2xx\|3xx\): 503 Service"),
        ("asgi", "/gone", r"GET /gone was answered with 410 Gone"),
        ("wsgi", "/slow", r"GET /slow was not answered within 0\.5s"),
        ("asgi", "/slow", r"GET /slow was not answered within 0\.5s"),
    ],
)
def test_a_build_that_answers_badly_is_refused_with_what_it_said(
    folder: Path, interface: str, path: str, why: str
) -> None:
    async def work() -> None:
        async with House() as house:
            wanted = spec(f"warm:{interface}", interface, folder, workers=2, grace_s=0.5)
            app = house.app(wanted._replace(warmup=WarmUp((path,), timeout_s=0.5 if path == "/slow" else 30.0)))
            with pytest.raises(StartFailed, match=why) as caught:
                await app.start()
            assert caught.value.code == "warmup-failed"
            app.kill()
            await until(lambda: not app.pool.workers, "the end of the others")

    run(work())


def test_one_that_ends_meanwhile_is_told_by_its_end(folder: Path) -> None:
    async def work() -> None:
        async with House() as house:
            app = house.app(spec("warm:wsgi", "wsgi", folder)._replace(warmup=WarmUp(("/exits",))))
            with pytest.raises(StartFailed, match="status 3") as caught:
                await app.start()
            assert caught.value.code == "crashed"

    run(work())


def test_a_replacement_is_asked_as_well_and_tried_again_until_it_answers(folder: Path) -> None:
    async def work() -> None:
        async with House() as house:
            app = await house.started(spec("warm:wsgi", "wsgi", folder)._replace(warmup=WarmUp(("/",))))
            (folder / "sick").touch()
            os.kill(app.pool.ready[0].pid, signal.SIGKILL)
            core = app.pool.core
            await until(lambda: getattr(core.last_failure, "code", "") == "warmup-failed", "a sick replacement")
            assert not app.pool.ready
            client = house.connect(app)
            client.sendall(b"GET /hello HTTP/1.1\r\nHost: waits.test\r\n\r\n")
            (folder / "sick").unlink()
            assert (await asyncio.to_thread(client.recv, 100)).startswith(b"HTTP/1.1 200")

    run(work())
