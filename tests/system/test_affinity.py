"""Clients that come back to the same worker: by a cookie or a header field, over kills, reloads and restarts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import socketio
from support.admin import call, command
from support.daemon import PATIENCE_S, Process, UnixHTTPConnection, caddy, daemon, eventually, python_site, workers

pytestmark = pytest.mark.system

WSGI = """
import os, time

def app(environ, start_response):
    while environ["PATH_INFO"] == "/slow" and not os.path.exists("go"):
        time.sleep(0.05)
    said = environ.get("HTTP_CADDYSNAKE_AFFINITY", "")
    start_response("200 OK", [("X-Worker", str(os.getpid())), ("X-Said", said), ("Content-Length", "2")])
    return [b"ok"]
"""

ASGI = """
import asyncio, os

async def app(scope, receive, send):
    while scope["path"] == "/slow" and not os.path.exists("go"):
        await asyncio.sleep(0.05)
    said = dict(scope["headers"]).get(b"caddysnake-affinity", b"")
    fields = [(b"x-worker", str(os.getpid()).encode()), (b"x-said", said), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": b"ok"})
"""

SOCKETIO = """
import socketio

server = socketio.AsyncServer(async_mode="asgi", ping_interval=1)
app = socketio.ASGIApp(server)

@server.event
async def add(sid, number):
    async with server.session(sid) as session:
        session["sum"] = session.get("sum", 0) + number
        return session["sum"]
"""


class Client:
    """One with cookies, or with a field, over connections that come and go."""

    def __init__(self, path: Path, **fields: str) -> None:
        self._path = path
        self.fields = fields
        self.cookie = ""
        self.given: list[str] = []

    def get(self, target: str = "/", **fields: str) -> tuple[str, str]:
        """The worker's pid, and what the app was told."""
        connection = UnixHTTPConnection(self._path)
        try:
            sent = {name.replace("_", "-"): value for name, value in {**self.fields, **fields}.items()}
            if self.cookie:
                sent["Cookie"] = f"other=1; {self.cookie}; more=2"
            connection.request("GET", target, headers=sent)
            response = connection.getresponse()
            assert response.read() == b"ok", response.status
            set_cookie = response.headers["Set-Cookie"]
            if set_cookie:
                self.given.append(set_cookie)
                self.cookie = set_cookie.partition(";")[0]
            return response.headers["X-Worker"], response.headers["X-Said"]
        finally:
            connection.close()


@contextlib.contextmanager
def running(folder: Path, line: str, interface: str = "asgi", *lines: str) -> Iterator[tuple[Process, Path]]:
    (folder / "main.py").write_text(WSGI if interface == "wsgi" else ASGI)
    said = (f"module_{interface} main:app", "workers 4", f"affinity {line}", *lines)
    text = python_site(f"unix/{folder}/s.sock", *said)
    with daemon(
        folder, text, environ={"XDG_STATE_HOME": str(folder / "state"), "STATE_DIRECTORY": str(folder)}
    ) as process:
        yield process, folder / "s.sock"


def known_workers(process: Process) -> list[str]:
    return [str(each["pid"]) for each in call(process, "GET", "/workers").json["workers"]]


@pytest.mark.parametrize("interface", ["asgi", "wsgi"])
def test_clients_with_a_cookie_stay_and_are_spread_evenly(interface: str, tmp_path: Path) -> None:
    with running(tmp_path, "cookie", interface) as (process, path):
        clients = [Client(path) for _ in range(100)]
        homes = [client.get()[0] for client in clients]
        assert max(Counter(homes).values()) <= 27
        assert len(set(homes)) == 4
        for _ in range(3):
            assert [client.get() for client in clients] == [(home, "") for home in homes]
        assert all(len(client.given) == 1 for client in clients), "one mark is enough"
        given = clients[0].given[0]
        assert given.startswith("caddysnake-")
        assert given.endswith("; Path=/; HttpOnly; SameSite=Lax")
        secure = Client(path)
        secure.get(X_Forwarded_Proto="https")
        assert secure.given[0].endswith("; SameSite=Lax; Secure")

        os.kill(int(homes[0]), signal.SIGKILL)
        eventually(lambda: len(workers(process.pid)) == 4 and int(homes[0]) not in workers(process.pid), "another")
        for client, home in zip(clients, homes, strict=True):
            first, again = client.get(), client.get()
            if home == homes[0]:
                assert first[0] != home
                assert first[1] == "lost"
                assert again == (first[0], ""), "told once"
                assert len(client.given) == 2
            else:
                assert first == again == (home, "")
        now = Counter(client.get()[0] for client in clients)
        assert max(now.values()) <= 35, "those who lost theirs go to whoever has the fewest"


def test_a_cookie_that_is_not_ours_is_none(tmp_path: Path) -> None:
    with running(tmp_path, "cookie who") as (_, path):
        client = Client(path)
        home, _ = client.get()
        name, _, value = client.cookie.partition("=")
        assert name == "who"
        epoch, worker, known, signature = value.split(".")
        forged = [
            f"who={epoch}.{worker}.{known}.{signature[:-1]}{'A' if signature[-1] != 'A' else 'B'}",
            f"who={epoch}.{int(worker, 16) + 1:x}.{known}.{signature}",
            "who=", "who=...", f"who={'x' * 5000}",
        ]  # fmt: skip
        for cookie in forged:
            other = Client(path)
            other.cookie = cookie
            assert other.get()[1] == "", "nothing was lost"
            assert len(other.given) == 1
        assert client.get() == (home, "")


def test_a_mark_is_of_one_app_and_of_one_life_of_the_daemon(tmp_path: Path) -> None:
    with running(tmp_path, "cookie who") as (_, path):
        client = Client(path)
        client.get()
    with running(tmp_path, "cookie who") as (_, path):
        assert client.get()[1] == "lost", "the key is the same, and its worker is gone"
        assert client.get()[1] == ""
    (tmp_path / "other.py").write_text(ASGI)
    text = python_site(f"unix/{tmp_path}/s.sock", "module_asgi other:app", "workers 2", "affinity cookie who")
    with daemon(tmp_path, text, environ={"STATE_DIRECTORY": str(tmp_path)}):
        assert client.get()[1] == "", "another app's mark says nothing"
        assert len(client.given) == 3


def test_clients_with_a_field_stay_by_what_it_says(tmp_path: Path) -> None:
    with running(tmp_path, "header X-User") as (process, path):
        clients = [Client(path, X_User=f"user {number}") for number in range(40)]
        homes = [client.get()[0] for client in clients]
        assert sorted(Counter(homes).values()) == [10, 10, 10, 10]
        assert [client.get()[0] for client in clients] == homes
        assert not any(client.given for client in clients)
        assert len({Client(path).get()[0] for _ in range(8)}) > 1, "without the field it is anybody's"
        os.kill(int(homes[0]), signal.SIGKILL)
        eventually(lambda: len(workers(process.pid)) == 4 and int(homes[0]) not in workers(process.pid), "another")
        assert {client.get()[1] for client, home in zip(clients, homes, strict=True) if home == homes[0]} == {"lost"}
        assert {client.get()[1] for client, home in zip(clients, homes, strict=True) if home != homes[0]} == {""}


@pytest.mark.parametrize("interface", ["asgi", "wsgi"])
def test_at_a_reload_a_client_stays_while_its_worker_is_there(interface: str, tmp_path: Path) -> None:
    with running(tmp_path, "cookie", interface, "grace_period 60s") as (process, path):
        client = Client(path)
        home, _ = client.get()
        slow: list[tuple[str, str]] = []
        holds = threading.Thread(target=lambda: slow.append(client.get("/slow")))
        holds.start()
        eventually(lambda: call(process, "GET", "/apps").json["apps"][0]["in_flight"] == 1, "the slow request")
        done = command(process, tmp_path, "reload")
        assert done.returncode == 0, done.stderr
        assert client.get() == (home, ""), "it is draining, and there"
        (tmp_path / "go").touch()
        holds.join(PATIENCE_S)
        assert slow == [(home, "")]
        eventually(lambda: home not in known_workers(process), "the end of the old worker, which the daemon knows of")
        for _ in range(2):  # by which the relay comes to what it was told
            Client(path).get()
        moved, said = client.get()
        assert moved != home
        assert said == "lost"
        assert client.get() == (moved, "")


def test_while_a_build_is_tried_new_clients_are_shared_out_and_those_of_a_returned_one_move(tmp_path: Path) -> None:
    canary = ("canary {", "share 20%", "for 10m", "min_requests 5000", "}", "keep_previous 10m", "grace_period 60s")
    with running(tmp_path, "cookie", "asgi", *canary) as (process, path):
        known = [Client(path) for _ in range(20)]
        homes = [client.get()[0] for client in known]
        reload = threading.Thread(target=lambda: command(process, tmp_path, "reload"))
        reload.start()
        process.wait_for_log("the new build is on trial")
        fresh = [Client(path) for _ in range(100)]
        given = [client.get()[0] for client in fresh]
        tried = [(client, home) for client, home in zip(fresh, given, strict=True) if home not in homes]
        assert 15 <= len(tried) <= 21
        assert [client.get()[0] for client in fresh] == given
        assert [client.get() for client in known] == [(home, "") for home in homes]
        client = tried[0][0]
        holds = threading.Thread(target=client.get, args=("/slow",))
        holds.start()
        eventually(lambda: call(process, "GET", "/apps").json["apps"][0]["in_flight"] == 1, "the slow request")
        assert command(process, tmp_path, "rollback").returncode == 0
        reload.join(PATIENCE_S)
        for client, _ in tried[1:]:
            moved, said = client.get()
            assert moved in homes, "also while the returned worker has something to do"
            assert said == "lost"
            assert client.get() == (moved, "")
        (tmp_path / "go").touch()
        holds.join(PATIENCE_S)

        assert command(process, tmp_path, "reload", "--no-canary").returncode == 0
        assert {client.get()[1] for client in known} == {"lost"}, "a build that is kept keeps no clients"


def test_socketio_polls_over_four_workers_and_nobody_is_refused(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(SOCKETIO)
    text = python_site(f"unix/{tmp_path}/s.sock", "module_asgi main:app", "workers 4", "affinity cookie")
    stock = f"http://localhost:{{port}} {{\n\tbind 127.0.0.1\n\treverse_proxy unix/{tmp_path}/s.sock\n}}\n"
    environ = {"STATE_DIRECTORY": str(tmp_path)}
    with daemon(tmp_path, text, environ=environ) as process, caddy(tmp_path, stock) as (_, port):

        def statuses() -> list[int]:
            return list(call(process, "GET", "/apps").json["apps"][0]["traffic"]["responses"])

        found = asyncio.run(_poll(f"http://localhost:{port}", statuses, clients=24, times=8))
        assert found[1] > 24 * 8
        assert found[2:] == [0, 0, 0]


async def _poll(url: str, statuses: Callable[[], list[int]], clients: int, times: int) -> list[int]:
    done = asyncio.Event()
    busy = set(range(clients))
    found: list[int] = []

    async def one(number: int) -> None:
        async with socketio.AsyncSimpleClient() as client:
            # By a name: cookies of an address are dropped by the client's library.
            await client.connect(url, transports=["polling"], wait_timeout=60)
            for time in range(1, times + 1):
                assert await client.call("add", number, timeout=60) == number * time
            busy.discard(number)
            if not busy:  # before any leaves: a poll that is on its way then is refused
                found.extend(await asyncio.to_thread(statuses))
                done.set()
            await done.wait()

    await asyncio.gather(*(one(number) for number in range(clients)))
    return found
