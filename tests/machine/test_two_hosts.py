"""Two hosts behind one Caddy, as docs/load-balancing.md has them: each a network namespace, under load."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import machine
from support.caddies import caddy
from support.daemon import Process

pytestmark = [pytest.mark.machine, pytest.mark.timeout(600)]

PAGE = machine.ROOT / "docs" / "load-balancing.md"
HOSTS = {"a": "10.0.0.11", "b": "10.0.0.12"}
APP = '''
import asyncio, socket

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    await asyncio.sleep(0.03)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"HOST VERSION %d" % size})
'''
CLIENTS = '''
import http.client, json, signal, sys, threading, time
ended, lock, done, failed, seen = threading.Event(), threading.Lock(), 0, [], {}

def client(number):
    global done
    method, connection = ("GET", "POST")[number % 2], None
    while not ended.is_set():
        body = None if method == "GET" else b"x" * 3000
        try:
            connection = connection or http.client.HTTPConnection("10.0.0.1", 80, timeout=40)
            connection.request(method, "/", body, {"Host": "example.com"})
            response = connection.getresponse()
            told = response.read().decode()
            if response.status != 200 or not told.endswith(f" {len(body or b'')}"):
                raise OSError(f"{response.status} {response.headers.get('caddysnake-code')} {told[:80]}")
            with lock:
                done += 1
                seen[told.rpartition(" ")[0]] = time.monotonic()
                if done % 100 == 0:
                    print("a hundred", flush=True)
        except (OSError, http.client.HTTPException) as exc:
            failed.append([method, f"{type(exc).__name__} {exc}"])
            connection = None
            time.sleep(0.05)
        if number >= 4 and connection is not None:
            connection.close()

signal.signal(signal.SIGTERM, lambda *_: ended.set())
threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
[each.start() for each in threads]
ended.wait(300)
[each.join() for each in threads]
print(json.dumps({"done": done, "failed": failed, "seen": seen}), flush=True)
'''


def ip(*words: str) -> None:
    machine.run(["ip", *words])


@pytest.fixture
def town() -> Iterator[str]:
    """Three namespaces, ``PREFIX-caddy``, ``-a`` and ``-b``, on one bridge; the prefix."""
    machine.require({"ip": "iproute2"})
    prefix = f"cs{time.monotonic_ns() % 10**6}"
    if subprocess.run(["ip", "netns", "add", f"{prefix}-caddy"], capture_output=True, check=False).returncode:
        pytest.skip("no network namespaces can be made here")
    try:
        front = f"{prefix}-caddy"
        ip("-n", front, "link", "set", "lo", "up")
        ip("-n", front, "link", "add", "bridge", "type", "bridge")
        ip("-n", front, "address", "add", "10.0.0.1/24", "dev", "bridge")
        ip("-n", front, "link", "set", "bridge", "up")
        for name, address in HOSTS.items():
            host = f"{prefix}-{name}"
            ip("netns", "add", host)
            ip("-n", front, "link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", host)
            ip("-n", front, "link", "set", f"to-{name}", "master", "bridge", "up")
            ip("-n", host, "address", "add", f"{address}/24", "dev", "eth0")
            ip("-n", host, "link", "set", "eth0", "up")
            ip("-n", host, "link", "set", "lo", "up")
        yield prefix
    finally:
        for name in ("caddy", *HOSTS):
            subprocess.run(["ip", "netns", "delete", f"{prefix}-{name}"], capture_output=True, check=False)


class Host:
    """A sidecar with the page's file, in a namespace of its own."""

    def __init__(self, town: str, name: str, folder: Path, text: str) -> None:
        self.name, self.folder, self._inside = name, folder, ["ip", "netns", "exec", f"{town}-{name}"]
        folder.mkdir()
        (folder / "Caddyfile").write_text(text.replace("10.0.0.11", HOSTS[name]).replace("/srv/blog", str(folder)))
        self.write("1")
        self.start()

    def write(self, version: str) -> None:
        (self.folder / "main.py").write_text(APP.replace("HOST", self.name).replace("VERSION", version))

    def start(self) -> None:
        command = [*self._inside, sys.executable, "-m", "caddysnake", "run", "--config", str(self.folder / "Caddyfile")]
        self.process = Process(command, self.folder, "daemon")
        self.process.wait_for_log("ready in")

    def end(self, number: signal.Signals) -> None:
        self.process.stop(number)
        self.process.close()

    def reload(self) -> None:
        words = [sys.executable, "-m", "caddysnake", "reload", "--config", str(self.folder / "Caddyfile")]
        machine.run([*self._inside, *words], XDG_RUNTIME_DIR=self.process.runtime_dir, HOME=str(self.folder))


class Crowd:
    """Clients of Caddy, without end: four keep their connections; every second one sends content."""

    def __init__(self, town: str, folder: Path) -> None:
        command = ["ip", "netns", "exec", f"{town}-caddy", sys.executable, "-c", CLIENTS]
        self._process = Process(command, folder, f"clients-{time.monotonic_ns()}")

    def more(self, hundreds: int = 2) -> None:
        self._process.wait_for_log("a hundred", self._process.log.count("a hundred") + hundreds)

    def end(self) -> tuple[list[str], list[str], dict[str, float]]:
        """What failed: of requests that may be sent again, of others; and who answered, and when last."""
        assert self._process.stop() == 0
        told = json.loads(self._process.log.strip().rpartition("\n")[2])
        self._process.close()
        failed = [(method, what) for method, what in told["failed"]]
        return [w for m, w in failed if m == "GET"], [w for m, w in failed if m != "GET"], told["seen"]


@contextlib.contextmanager
def running(town: str, tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    front, sidecar = re.findall(r"```caddyfile\n(.*?)```", PAGE.read_text(), re.DOTALL)[:2]
    assert front.startswith("example.com {")
    hosts = [Host(town, name, tmp_path / name, sidecar) for name in HOSTS]
    (tmp_path / "Caddyfile").write_text(f"http://{front}")
    command = ["ip", "netns", "exec", f"{town}-caddy", caddy("current"), "run", "--config", str(tmp_path / "Caddyfile")]
    process = Process(command, tmp_path, "caddy", {"XDG_DATA_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)})
    try:
        process.wait_for_log("serving initial configuration")
        yield hosts[0], hosts[1]
    finally:
        process.close()
        for host in hosts:
            host.process.close()


def test_of_two_hosts_one_may_go_in_any_way_and_no_request_is_lost_that_need_not_be(town: str, tmp_path: Path) -> None:
    with running(town, tmp_path) as (first, second):
        # Told to end: it finishes what it was asked, and the other one does the rest.
        crowd = Crowd(town, tmp_path)
        crowd.more()
        first.end(signal.SIGTERM)
        crowd.more()
        first.start()
        crowd.more(6)
        gets, posts, seen = crowd.end()
        assert len(gets + posts) <= 4, (gets, posts)
        assert all("503 stopping" in each for each in gets + posts), (gets, posts)
        assert len(seen) == 2, seen

        # Killed: what it was being asked is lost, unless it may be sent again.
        crowd = Crowd(town, tmp_path)
        crowd.more()
        second.end(signal.SIGKILL)
        crowd.more()
        second.start()
        crowd.more()
        gets, posts, _ = crowd.end()
        assert gets == []
        assert len(posts) <= 4, posts

        # Cut off for some seconds, with all its connections.
        crowd = Crowd(town, tmp_path)
        crowd.more()
        ip("-n", f"{town}-caddy", "link", "set", "to-a", "down")
        time.sleep(5)
        ip("-n", f"{town}-caddy", "link", "set", "to-a", "up")
        crowd.more()
        gets, posts, _ = crowd.end()
        assert (gets, posts) == ([], [])

        # New code, one host after the other.
        crowd = Crowd(town, tmp_path)
        crowd.more()
        for host in (first, second):
            host.write("22")
            host.reload()
            crowd.more()
        crowd.more(4)
        gets, posts, seen = crowd.end()
        assert (gets, posts) == ([], [])
        assert {"a 22", "b 22"} <= seen.keys()


def test_requests_wait_for_two_hosts_that_are_down_at_once_and_come_back(town: str, tmp_path: Path) -> None:
    with running(town, tmp_path) as hosts:
        crowd = Crowd(town, tmp_path)
        crowd.more()
        for host in hosts:
            host.end(signal.SIGTERM)
        for host in hosts:
            host.start()
        crowd.more()
        gets, posts, _ = crowd.end()
        assert len(gets) <= 4, gets
        assert all("503 stopping" in each for each in gets + posts), (gets, posts)
