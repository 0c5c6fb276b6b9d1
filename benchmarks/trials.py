"""What is not a steady load: starting, tenants and, in `reloading`, changes."""

from __future__ import annotations

import http.client
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .environments import binaries_of, frameworks
from .load import Figures
from .processes import cpu_us, pss_bytes
from .reloading import broken, kills, race, reloads
from .running import environ_of, free_port, ordinary_user, running, wait_for_answer
from .servers import OURS, WITHOUT, BenchmarkError, Interface, Launch, Reach, Server

TENANT = """from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class Greeting(BaseModel):
    message: str


@app.get("/")
async def hello() -> Greeting:
    return Greeting(message="Hello, World!")
"""
CACHE = """import time
from caddysnake import cache


def app(environ, start_response):
    count = int(environ["QUERY_STRING"] or 1)
    begun = time.perf_counter()
    for number in range(count):
        cache.set("key%d" % (number % 100), b"x" * 100)
    took = b"%f" % (time.perf_counter() - begun)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(took)))])
    return [took]
"""
SETS = 20_000
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


def _start(
    stack: ExitStack, server: Server, interface: Interface, app: str, folder: Path, environment: Path, **more: Any
) -> tuple[int, int]:
    """The pid of a server with one worker, and its port; ``more`` is of Launch."""
    port = free_port()
    launch = Launch(interface, app, 1, folder, binaries_of(server), environment, port=port, **more)
    command, environ = server.command(launch), environ_of(environment, folder)
    return stack.enter_context(running(server.name, command, folder / "log", environ=environ)), port


def ready(app: str) -> Callable[[Server], Figures]:
    """From the start of a server's process to its first answer."""

    def run(server: Server) -> Figures:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
            environment = frameworks(server.oldest_python)
            begun = time.perf_counter()
            pid, port = _start(stack, server, Interface.ASGI, app, folder, environment)
            wait_for_answer(server.name, pid, folder / "log", port=port)
            return {"ready_ms": (time.perf_counter() - begun) * 1000}

    return run


def tenants(count: int, feature: str = "") -> Callable[[Server], Figures]:
    """`count` FastAPI tenants of one template, each asked once, one after the other; with a feature, as a user."""

    def run(server: Server) -> Figures:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
            environment = frameworks(server.oldest_python, is_for_everybody=bool(feature))
            folder.chmod(0o755)
            extra = [f"max_dynamic_apps {count + 10}", ordinary_user() if feature else ""]
            extra += [] if server.name == "go-plugin" else ["preload fastapi"]
            for number in range(count + 1):
                (folder / f"t{number}").mkdir()
                (folder / f"t{number}" / "main.py").write_text(TENANT)
            lines = {"extra": "\n".join(extra), "feature": feature}
            place = {"reach": Reach.ITS_CADDY, "app_folder": f"{folder}/{{http.request.host.labels.1}}"}
            pid, port = _start(stack, server, Interface.ASGI, "main:app", folder, environment, **lines, **place)
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


def cache_set(server: Server) -> Figures:
    """Calls of the store that workers share, one after the other, by one worker."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        (folder / "storing.py").write_text(CACHE)
        if (module := binaries_of(server).parent / "wheel" / "caddysnake").exists():
            (folder / "caddysnake").symlink_to(module)  # the plugin's own; ours is given to workers
        environment, place = frameworks(server.oldest_python), {"reach": Reach.ITS_CADDY, "app_folder": str(folder)}
        pid, port = _start(stack, server, Interface.WSGI, "storing:app", folder, environment, **place)
        until_answered(port, "localhost", pid, folder / "log")
        before = cpu_us(pid)
        took_s = float(_answer(port, "localhost", f"/?{SETS}")[1])
        return {"call_us": took_s * 1_000_000 / SETS, "cpu_us": (cpu_us(pid) - before) / SETS}


def first_byte_ms(port: int, host: str) -> float:
    """How long the answer to a request for ``host`` takes. Raises BenchmarkError when it is none."""
    begun = time.perf_counter()
    status, _ = _answer(port, host)
    took = (time.perf_counter() - begun) * 1000
    if status != 200:
        raise BenchmarkError(f"{host} was answered with {status}")
    return took


def _answer(port: int, host: str, target: str = "/") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", target, headers={"Host": host})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def until_answered(port: int, host: str, pid: int, log: Path) -> None:
    """Wait for the first answer. Raises BenchmarkError, with the end of the log, when there is none for a minute."""
    deadline = time.monotonic() + 60
    answer: object = None
    while time.monotonic() < deadline:
        try:
            answer = _answer(port, host)[0]
        except (OSError, http.client.HTTPException) as error:
            answer = error
        if answer == 200:
            return
        time.sleep(0.05)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
    raise BenchmarkError(f"{host} is not answered ({answer}, process {pid}). The log ends with:\n{tail}")


STARTERS = (OURS, "uvicorn", "granian", "hypercorn", "gunicorn-uvicorn")
ASGI_RELOADERS = (OURS, "uvicorn", "granian", "hypercorn", "gunicorn-uvicorn", "go-plugin")
WSGI_RELOADERS = (OURS, "granian", "gunicorn-gthread", "go-plugin")
TENANT_COLUMNS = ("first_byte_ms", "slowest_ms", "mb_each")
RELOAD_COLUMNS = ("failed", "reloads", "requests", "p99_ms", "max_ms", "calm_max_ms", "new_ms")

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
            "new-tenant-sandbox",
            "The first answer to each of 12 new FastAPI tenants in a sandbox, and without one.",
            (OURS, WITHOUT),
            tenants(12, "sandbox on"),
            "first_byte_ms",
            TENANT_COLUMNS,
            is_short=False,
        ),
        Trial(
            "cache-set",
            f"{SETS:,} times `cache.set` in a row by one worker, 100 bytes each; CPU time of all processes.",
            (OURS, "go-plugin"),
            cache_set,
            "call_us",
            ("cpu_us",),
            is_short=False,
        ),
        Trial(
            "reload-get",
            "New code every 1.5 s or so under kept-alive GETs through Caddy, two workers.",
            ASGI_RELOADERS,
            reloads(Interface.ASGI, "GET", 6),
            "max_ms",
            RELOAD_COLUMNS,
        ),
        Trial(
            "reload-post",
            "The same with POSTs.",
            ASGI_RELOADERS,
            reloads(Interface.ASGI, "POST", 10),
            "max_ms",
            RELOAD_COLUMNS,
            is_short=False,
        ),
        Trial(
            "reload-wsgi-get",
            "GETs over WSGI.",
            WSGI_RELOADERS,
            reloads(Interface.WSGI, "GET", 10),
            "max_ms",
            RELOAD_COLUMNS,
            is_short=False,
        ),
        Trial(
            "reload-wsgi-post",
            "POSTs over WSGI.",
            WSGI_RELOADERS,
            reloads(Interface.WSGI, "POST", 10),
            "max_ms",
            RELOAD_COLUMNS,
            is_short=False,
        ),
        Trial(
            "reload-slow-import",
            "POSTs, and new code that takes 2 s to import.",
            ASGI_RELOADERS,
            reloads(Interface.ASGI, "POST", 20, import_s=2),
            "max_ms",
            RELOAD_COLUMNS,
            is_short=False,
        ),
        Trial(
            "reload-broken",
            "GETs, new code that does not import and, 4 s later, code that does.",
            ASGI_RELOADERS,
            broken(Interface.ASGI, 8),
            "failed",
            RELOAD_COLUMNS,
            is_short=False,
        ),
        Trial(
            "reload-wsgi-broken",
            "The same over WSGI.",
            WSGI_RELOADERS,
            broken(Interface.WSGI, 8),
            "failed",
            RELOAD_COLUMNS,
            is_short=False,
        ),
        Trial(
            "reload-idle-race",
            "Some 1,500 POSTs through Caddy, in bursts that come just when idle connections end: 1 s after the last.",
            (OURS, "uvicorn", "granian", "hypercorn", "gunicorn-uvicorn"),
            race(Interface.ASGI),
            "failed",
            ("failed", "requests", "max_ms"),
            is_short=False,
        ),
        Trial(
            "reload-kills",
            "SIGKILL for a worker every 200 ms for 10 s, POSTs through Caddy, two workers.",
            ASGI_RELOADERS,
            kills(Interface.ASGI, "POST", 10),
            "failed",
            ("failed", "kills", "requests", "p99_ms", "max_ms", "calm_max_ms", "again_ms"),
            is_short=False,
        ),
    )
}
