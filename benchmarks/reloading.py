"""What a server's users notice of it when its code is changed, or its workers die.

`wrk` makes the load and counts what failed. Beside it, one client asks again and again, and reads in the answers which
version of the code gave them, and which process.
"""

from __future__ import annotations

import http.client
import os
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from .environments import binaries_of, frameworks
from .load import Figures, Wrk
from .processes import tree
from .running import environ_of, free_port, running, start_caddy, wait_for_answer
from .servers import Interface, Launch, Reach, Server

APP = """import asyncio, os, time

time.sleep({import_s})
TOLD = b"Hello, World! {version} %d " % os.getpid()
HEADERS = [("Content-Type", "text/plain"), ("Content-Length", str(len(TOLD)))]


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({{"type": message["type"] + ".complete"}})
            if message["type"] == "lifespan.shutdown":
                return
    while (await receive()).get("more_body"):
        pass
    if scope["path"] == "/pause":
        await asyncio.sleep({pause_s})
    headers = [(name.lower().encode(), value.encode()) for name, value in HEADERS]
    await send({{"type": "http.response.start", "status": 200, "headers": headers}})
    await send({{"type": "http.response.body", "body": TOLD}})


def wsgi(environ, start_response):
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    if environ["PATH_INFO"] == "/pause":
        time.sleep({pause_s})
    start_response("200 OK", list(HEADERS))
    return [TOLD]
"""
CONNECTIONS = 50
WORKERS = 2
PAUSE_S = 0.05
"""So long does a request for `/pause` take: those of a burst then need a connection each."""
BETWEEN_S = 1.5
"""From one change being in force to the next."""
PATIENCE_S = 15.0
"""No change takes longer, else it is given up."""
QUIET_S = 0.5
"""The old code has not been heard of for so long: only the new answers."""
KILL_EVERY_S = 0.2
IDLE_S = 1
"""After so long servers close idle connections, where they can be told so."""
RACE_MS = range(-15, 16)
"""So much before and after that the next requests come."""


@dataclass(frozen=True)
class _Answer:
    at: float
    """By `time.perf_counter`, when it came."""
    version: int
    pid: int


class _Observer:
    """Asks without end, over one kept-alive connection as long as it holds."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._over = threading.Event()
        self._answers: list[_Answer] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    def last(self) -> _Answer | None:
        return self._answers[-1] if self._answers else None

    def since(self, begun: float) -> list[_Answer]:
        return [each for each in self._answers[-5000:] if each.at >= begun]

    def until_only(self, version: int, begun: float) -> float | None:
        """Seconds from `begun` until nothing but `version` answered; None when that does not come to pass."""
        while (now := time.perf_counter()) < begun + PATIENCE_S:
            answers = self.since(begun)
            news = [each.at for each in answers if each.version == version]
            old = max((each.at for each in answers if each.version != version), default=begun)
            first = next((at for at in news if at > old), None)
            if first is not None and now - old > QUIET_S:
                return first - begun
            time.sleep(0.02)
        return None

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S)
        while not self._over.wait(0.004):
            try:
                connection.request("GET", "/")
                said = connection.getresponse().read().split()
            except (OSError, http.client.HTTPException):
                connection.close()
                continue
            if said[:2] == [b"Hello,", b"World!"]:
                self._answers.append(_Answer(time.perf_counter(), int(said[2]), int(said[3])))
        connection.close()


class _Site:
    """One server with an app that can be changed, and a way to it."""

    def __init__(self, server: Server, launch: Launch, pid: int, port: int, import_s: float) -> None:
        self.pid, self.port = pid, port
        self.url = f"http://127.0.0.1:{port}"
        self.observer: _Observer
        self._watches = _watches(server)
        self._file = Path(launch.app_folder, "changing.py")
        self._import_s = import_s
        self._version = 1

    def change(self, begins_with: str = "") -> int:
        """Write the next version, and have it run; which one that is."""
        self._version += 1
        write(self._file, self._version, self._import_s, begins_with)
        if not self._watches:
            os.kill(self.pid, signal.SIGHUP)
        return self._version

    def under_load(self, load: Wrk, seconds: float, meanwhile: Callable[[float], Figures]) -> Figures:
        """What `load` saw while `meanwhile` ran, which is told when to be done, and what that has found."""
        calm = load.run(self.url, 2, None)
        self.observer = _Observer(self.port)
        try:
            with ThreadPoolExecutor(1) as thread:
                loading: Future[Figures] = thread.submit(load.run, self.url, seconds, None)
                found = meanwhile(time.perf_counter() + seconds - 0.5)
                figures = loading.result()
        finally:
            self.observer.close()
        names = ("failed", "p99_ms", "max_ms")
        seen = {name: figures[name] for name in names}
        return {"requests": figures["count"], **seen, "calm_max_ms": calm["max_ms"], **found}


def write(file: Path, version: int, import_s: float = 0.0, begins_with: str = "") -> None:
    """The app. Longer with each version: bytecode is told from its source by size and second."""
    text = APP.format(import_s=import_s, version=version, pause_s=PAUSE_S)
    temporary = file.with_suffix(".new")
    temporary.write_text(begins_with + text + "#" * version + "\n")
    temporary.replace(file)


def _watches(server: Server) -> bool:
    """It has no signal for that, and sees by itself that its code has changed."""
    return Reach.CADDY not in server.reaches


@contextmanager
def _site(server: Server, interface: Interface, import_s: float = 0.0, idle_s: int | None = None) -> Iterator[_Site]:
    """Behind a stock Caddy or, where the server is one, by itself."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        own = folder / "app"
        own.mkdir()
        write(own / "changing.py", 1, import_s)
        environment = frameworks(server.oldest_python)
        environ = environ_of(environment, folder)
        environ["PYTHONPATH"] += f":{own}"
        port, path, log = free_port(), folder / "s", folder / "log"
        watches = _watches(server)
        launch = Launch(
            interface,
            f"changing:{interface.value}",
            WORKERS,
            folder,
            binaries_of(server),
            environment,
            Reach.ITS_CADDY if watches else Reach.CADDY,
            port if watches else 0,
            None if watches else path,
            extra="autoreload" if watches else "",
            app_folder=str(own),
            idle_s=idle_s,
        )
        pid = stack.enter_context(running(server.name, server.command(launch), log, environ=environ))
        wait_for_answer(server.name, pid, log, port=port if watches else 0, path=None if watches else path)
        if not watches:
            caddy = start_caddy(stack, folder, [(port, path)], is_tuned=False)
            wait_for_answer("Caddy", caddy, folder / "caddy.log", port=port)
        yield _Site(server, launch, pid, port, import_s)


def _wrk(method: str) -> Wrk:
    return Wrk(CONNECTIONS, script="post.lua" if method == "POST" else "get.lua")


def reloads(interface: Interface, method: str, seconds: float, import_s: float = 0.0) -> Callable[[Server], Figures]:
    """New code again and again."""

    def run(server: Server) -> Figures:
        with _site(server, interface, import_s) as site:

            def change(end: float) -> Figures:
                took = []
                count = 0
                while time.perf_counter() + BETWEEN_S + import_s < end:
                    begun = time.perf_counter()
                    found = site.observer.until_only(site.change(), begun)
                    count += 1
                    if found is not None:
                        took.append(found)
                    time.sleep(BETWEEN_S)
                return {"reloads": count, **({"new_ms": statistics.median(took) * 1000} if took else {})}

            return site.under_load(_wrk(method), seconds, change)

    return run


def broken(interface: Interface, seconds: float) -> Callable[[Server], Figures]:
    """Code that cannot be imported and, some seconds later, code that can."""

    def run(server: Server) -> Figures:
        with _site(server, interface) as site:

            def change(end: float) -> Figures:
                site.change("raise RuntimeError('this does not import')\n")
                time.sleep(seconds / 2)
                begun = time.perf_counter()
                found = site.observer.until_only(site.change(), begun)
                return {"reloads": 2} if found is None else {"reloads": 2, "new_ms": found * 1000}

            return site.under_load(_wrk("GET"), seconds, change)

    return run


def kills(interface: Interface, method: str, seconds: float) -> Callable[[Server], Figures]:
    """SIGKILL for whoever has answered last."""

    def run(server: Server) -> Figures:
        with _site(server, interface) as site:

            def kill(end: float) -> Figures:
                count = 0
                killed: set[int] = set()
                while time.perf_counter() + 1 < end:
                    time.sleep(KILL_EVERY_S)
                    last = site.observer.last()
                    if last is None or last.pid in killed or last.pid not in tree(site.pid)[1:]:
                        continue
                    os.kill(last.pid, signal.SIGKILL)
                    killed.add(last.pid)
                    count += 1
                begun = time.perf_counter()
                while time.perf_counter() < begun + PATIENCE_S:
                    alive = [each for each in site.observer.since(begun) if each.pid not in killed]
                    if alive:
                        return {"kills": count, "again_ms": (alive[0].at - begun) * 1000}
                    time.sleep(0.02)
                return {"kills": count}

            return site.under_load(_wrk(method), seconds, kill)

    return run


def race(interface: Interface) -> Callable[[Server], Figures]:
    """POSTs that come just when a server closes the connections that have been idle for long enough."""

    def run(server: Server) -> Figures:
        with _site(server, interface, idle_s=IDLE_S) as site, ThreadPoolExecutor(CONNECTIONS) as threads:
            clients = [http.client.HTTPConnection("127.0.0.1", site.port, PATIENCE_S) for _ in range(CONNECTIONS)]
            _burst(threads, clients)
            count = failed = 0
            slowest = 0.0
            for late_ms in RACE_MS:
                time.sleep(IDLE_S + late_ms / 1000)
                for took in _burst(threads, clients):
                    count += 1
                    failed += took is None
                    slowest = max(slowest, took or 0.0)
            for client in clients:
                client.close()
            return {"requests": count, "failed": failed, "max_ms": slowest * 1000}

    return run


def _burst(threads: ThreadPoolExecutor, clients: list[http.client.HTTPConnection]) -> list[float | None]:
    """A POST over each at the same time: the seconds it took, or None when it failed."""

    def post(client: http.client.HTTPConnection) -> float | None:
        begun = time.perf_counter()
        try:
            client.request("POST", "/pause", b"name=value")
            response = client.getresponse()
            response.read()
        except (OSError, http.client.HTTPException):
            client.close()
            return None
        return time.perf_counter() - begun if response.status == 200 else None

    return list(threads.map(post, clients))
