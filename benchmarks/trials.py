"""What is not a steady load: starting, tenants, reloads."""

from __future__ import annotations

import http.client
import os
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from .environments import binaries_of, frameworks
from .load import Figures, Wrk
from .processes import pss_bytes
from .running import environ_of, free_port, running, start_caddy, wait_for_answer
from .servers import OURS, BenchmarkError, Interface, Launch, Reach, Server

TENANT = """from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class Greeting(BaseModel):
    message: str


@app.get("/")
async def hello() -> Greeting:
    return Greeting(message="Hello, World!")
"""
RELOADS_EVERY_S = 1.5
SETTLE_S = 1.0


@dataclass(frozen=True)
class Trial:
    """`run` is called once for each server and round."""

    name: str
    text: str
    """What it is, for people."""
    servers: tuple[str, ...]
    run: Callable[[Server], Figures]
    headline: str
    """The figure that servers are compared by; less is better."""
    columns: tuple[str, ...]
    is_short: bool = True


def ready(app: str) -> Callable[[Server], Figures]:
    """From the start of a server's process to its first answer."""

    def run(server: Server) -> Figures:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
            environment = frameworks(server.oldest_python)
            port = free_port()
            launch = Launch(Interface.ASGI, app, 1, folder, binaries_of(server), environment, port=port)
            begun = time.perf_counter()
            environ = environ_of(environment, folder)
            pid = stack.enter_context(running(server.name, server.command(launch), folder / "log", environ=environ))
            wait_for_answer(server.name, pid, folder / "log", port=port)
            return {"ready_ms": (time.perf_counter() - begun) * 1000}

    return run


def tenants(count: int) -> Callable[[Server], Figures]:
    """`count` FastAPI tenants of one template, each asked once, one after the other."""

    def run(server: Server) -> Figures:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
            environment = frameworks(server.oldest_python)
            for number in range(count + 1):
                (folder / f"t{number}").mkdir()
                (folder / f"t{number}" / "main.py").write_text(TENANT)
            port = free_port()
            launch = Launch(
                Interface.ASGI,
                "main:app",
                1,
                folder,
                binaries_of(server),
                environment,
                Reach.ITS_CADDY,
                port,
                extra=f"max_dynamic_apps {count + 10}" + ("\npreload fastapi" if server.name == OURS else ""),
                app_folder=f"{folder}/{{http.request.host.labels.1}}",
            )
            pid = stack.enter_context(
                running(server.name, server.command(launch), folder / "log", environ=environ_of(environment, folder))
            )
            # The first one also brings what all share: Caddy's own start, the spawner.
            until_answered(port, "t0.localhost", pid, folder / "log")
            time.sleep(SETTLE_S)
            before = pss_bytes(pid)
            times = [first_byte_ms(port, f"t{number}.localhost") for number in range(1, count + 1)]
            time.sleep(SETTLE_S)
            after = pss_bytes(pid)
            memory = {} if before is None or after is None else {"mb_each": (after - before) / count / 1_000_000}
            return {"first_byte_ms": statistics.median(times), "slowest_ms": max(times), **memory}

    return run


def reloads(interface: Interface, method: str, seconds: float) -> Callable[[Server], Figures]:
    """SIGHUP again and again while Caddy forwards kept-alive requests."""

    def run(server: Server) -> Figures:
        app = "bare_asgi:app" if interface is Interface.ASGI else "bare_wsgi:app"
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
            environment = frameworks(server.oldest_python)
            path, port = folder / "s", free_port()
            launch = Launch(interface, app, 2, folder, binaries_of(server), environment, Reach.CADDY, 0, path)
            log = folder / "log"
            environ = environ_of(environment, folder)
            pid = stack.enter_context(running(server.name, server.command(launch), log, environ=environ))
            wait_for_answer(server.name, pid, log, path=path)
            caddy = start_caddy(stack, folder, [(port, path)], is_tuned=False)
            wait_for_answer("Caddy", caddy, folder / "caddy.log", port=port)
            load = Wrk(50, script="post.lua" if method == "POST" else "get.lua")
            calm = load.run(f"http://127.0.0.1:{port}", seconds / 2, None)
            over = threading.Event()
            count = [0]

            def reload() -> None:
                while not over.wait(RELOADS_EVERY_S):
                    os.kill(pid, signal.SIGHUP)
                    count[0] += 1

            reloader = threading.Thread(target=reload)
            reloader.start()
            try:
                figures = load.run(f"http://127.0.0.1:{port}", seconds, None)
            finally:
                over.set()
                reloader.join()
            return {
                "reloads": count[0],
                "requests": figures["count"],
                "failed": figures["failed"],
                "p99_ms": figures["p99_ms"],
                "max_ms": figures["max_ms"],
                "calm_max_ms": calm["max_ms"],
            }

    return run


def first_byte_ms(port: int, host: str) -> float:
    """How long the answer to a request for ``host`` takes. Raises BenchmarkError when it is none."""
    begun = time.perf_counter()
    status = _status(port, host)
    took = (time.perf_counter() - begun) * 1000
    if status != 200:
        raise BenchmarkError(f"{host} was answered with {status}")
    return took


def _status(port: int, host: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", "/", headers={"Host": host})
        return connection.getresponse().status
    finally:
        connection.close()


def until_answered(port: int, host: str, pid: int, log: Path) -> None:
    """Wait for the first answer. Raises BenchmarkError, with the end of the log, when there is none for a minute."""
    deadline = time.monotonic() + 60
    answer: object = None
    while time.monotonic() < deadline:
        try:
            answer = _status(port, host)
        except (OSError, http.client.HTTPException) as error:
            answer = error
        if answer == 200:
            return
        time.sleep(0.05)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
    raise BenchmarkError(f"{host} is not answered ({answer}, process {pid}). The log ends with:\n{tail}")


STARTERS = (OURS, "uvicorn", "granian", "hypercorn", "gunicorn-uvicorn")
RELOADERS = (OURS, "uvicorn", "granian", "gunicorn-uvicorn")
TENANT_COLUMNS = ("first_byte_ms", "slowest_ms", "mb_each")
RELOAD_COLUMNS = ("failed", "reloads", "requests", "p99_ms", "max_ms", "calm_max_ms")

TRIALS = {
    trial.name: trial
    for trial in (
        Trial("ready", "From start to first answer, a bare app.", STARTERS, ready("bare_asgi:app"), "ready_ms", ()),
        Trial(
            "ready-fastapi", "Likewise, FastAPI.", STARTERS, ready("hello_fastapi:app"), "ready_ms", (), is_short=False
        ),
        Trial(
            "new-tenant",
            "The first answer to each of 12 new FastAPI tenants through Caddy, and the memory (PSS) of each when idle.",
            (OURS, "go-plugin"),
            tenants(12),
            "first_byte_ms",
            TENANT_COLUMNS,
        ),
        Trial(
            "idle-tenants-200",
            "The same with 200.",
            (OURS, "go-plugin"),
            tenants(200),
            "mb_each",
            TENANT_COLUMNS,
            is_short=False,
        ),
        Trial(
            "reload-get",
            "SIGHUP every 1.5 s under kept-alive GETs through Caddy, two workers.",
            RELOADERS,
            reloads(Interface.ASGI, "GET", 5),
            "max_ms",
            RELOAD_COLUMNS,
        ),
        Trial(
            "reload-post",
            "The same with POSTs.",
            RELOADERS,
            reloads(Interface.ASGI, "POST", 5),
            "max_ms",
            RELOAD_COLUMNS,
            is_short=False,
        ),
        Trial(
            "reload-wsgi-post",
            "The same over WSGI.",
            (OURS, "granian", "gunicorn-gthread"),
            reloads(Interface.WSGI, "POST", 5),
            "max_ms",
            RELOAD_COLUMNS,
            is_short=False,
        ),
    )
}
