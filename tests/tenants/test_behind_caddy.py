"""Tenants behind a stock Caddy, whose pool mixes the requests of all of them on the same connections."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import random
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.daemon import (
    PATIENCE_S,
    alive,
    below,
    caddy,
    children,
    daemon,
    eventually,
    get,
    wait_for_spare_relay,
    workers,
)
from support.town import block, count, settle, site

pytestmark = pytest.mark.system

TENANTS = int(os.environ.get("CADDYSNAKE_TENANTS", "0"))
"""For the long form: 200, say."""
CLIENTS = 8


def proxy(folder: Path, socket: str = "s.sock") -> str:
    return f":{{port}} {{\n\treverse_proxy unix/{folder}/{socket}\n}}\n"


class Client:
    """One kept-alive connection to Caddy, used for any tenant."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, PATIENCE_S)

    def ask(
        self, host: str, target: str = "/", content: bytes | Iterator[bytes] | None = None, **headers: str
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        method = "GET" if content is None else "POST"
        chunked = content is not None and not isinstance(content, bytes)
        self._connection.request(method, target, content, {"Host": host, **headers}, encode_chunked=chunked)
        response = self._connection.getresponse()
        return response.status, response.read(), response.headers

    def close(self) -> None:
        self._connection.close()


def pieces(content: bytes) -> Iterator[bytes]:
    for at in range(0, len(content), 7000):
        yield content[at : at + 7000]


def tenants_as_threads(root: Path, interface: str) -> str:
    """Those that can share a process: each with a module of its own name, and nothing in the environment."""
    lines = (
        f"module_{interface} {{http.request.host.labels.2}}:app",
        f'working_dir "{root}/{{http.request.host.labels.2}}"',
        "workers_runtime thread",
    )
    return "python {\n" + "".join(f"\t\t{line}\n" for line in lines) + "\t}"


@pytest.mark.parametrize("runtime", ["process", "thread"])
def test_no_answer_is_another_tenants(tmp_path: Path, runtime: str) -> None:
    websockets = pytest.importorskip("websockets.sync.client")
    wanted = TENANTS or (32 if runtime == "process" else 12)
    names = {interface: [f"{interface}{number}" for number in range(wanted // 2)] for interface in ("asgi", "wsgi")}
    text = ""
    for interface, each in names.items():
        root = tmp_path / interface
        for name in each:
            settle(root, name, interface=interface, module=name if runtime == "thread" else "main")
        tenants = tenants_as_threads(root, interface) if runtime == "thread" else block(root, interface=interface)
        text += f"http://*.{interface}.test {{\n\tbind unix/{tmp_path}/s.sock\n\t{tenants}\n}}\n"
    hosts = [f"{name}.{interface}.test" for interface, each in names.items() for name in each]
    asked: Counter[str] = Counter()
    with daemon(tmp_path, text) as process, caddy(tmp_path, proxy(tmp_path)) as (_, port):

        def traffic(seed: int) -> None:
            dice = random.Random(seed)
            client = Client(port)
            for number in range(max(60 if runtime == "process" else 25, len(hosts))):
                # Each starts some of the tenants, so that in the end all are up.
                at = seed + CLIENTS * number
                host = hosts[at] if at < len(hosts) else dice.choice(hosts)
                tenant = host.partition(".")[0]
                content = dice.randbytes(dice.choice((0, 10, 5000, 200_000)))
                told = f"{tenant} {len(content)} {hashlib.sha256(content).hexdigest()}".encode()
                kind = dice.choice(("get", "post", "chunked", "stream"))
                if kind == "get":
                    answer = client.ask(host)
                    told = f"{tenant} 0 {hashlib.sha256().hexdigest()}".encode()
                elif kind == "post":
                    answer = client.ask(host, content=content)
                elif kind == "chunked":
                    answer = client.ask(host, content=pieces(content))
                else:
                    answer = client.ask(host, "/stream")
                    told = b"".join(f"{tenant} {number}\n".encode() for number in range(5))
                assert answer[:2] == (200, told), (host, kind, process.log[-2000:])
                assert answer[2]["Tenant"] == tenant
                asked[kind] += 1
            client.close()

        def talk(seed: int) -> None:
            dice = random.Random(seed)
            for first in range(0, len(names["asgi"]), 6):
                some = names["asgi"][first : first + 6]
                with ExitStack() as stack:
                    open_ = []
                    for tenant in some:
                        sock = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
                        connection = websockets.connect(f"ws://{tenant}.asgi.test/", sock=sock)
                        open_.append((tenant, stack.enter_context(connection)))
                    for number in range(5):
                        dice.shuffle(open_)
                        for tenant, websocket in open_:
                            websocket.send(f"{number} to {tenant}")
                        for tenant, websocket in open_:
                            assert websocket.recv(PATIENCE_S) == f"{tenant} {number} to {tenant}"
                asked["websocket"] += len(some)

        with ThreadPoolExecutor(CLIENTS + 1) as threads:
            for each in [threads.submit(traffic, seed) for seed in range(CLIENTS)] + [threads.submit(talk, 1)]:
                each.result(PATIENCE_S * 3 + len(hosts))
        assert min(asked.values()) > 5, asked
        assert count(process.log, "app ready") == len(hosts)
        if runtime == "process":
            assert "wsgi0 main:app#2" in process.log, "the names of two templates' tenants are told apart"
        assert count(process.log, "app makes room for another") == 0
        if runtime == "process":
            assert len(workers(process.pid)) == len(hosts)


@pytest.mark.parametrize("interface", ["asgi", "wsgi"])
def test_no_request_is_lost_when_tenants_make_room_for_each_other(tmp_path: Path, interface: str) -> None:
    settle(tmp_path / "t", "a", "b", "c", interface=interface)
    text = site("s.sock", block(tmp_path / "t", "max_dynamic_apps 1", interface=interface))
    with daemon(tmp_path, text) as process, caddy(tmp_path, proxy(tmp_path)) as (_, port):
        client = Client(port)
        for number in range(60):
            tenant = "abc"[number % 3]
            status, body, headers = client.ask(f"{tenant}.tenants.test", content=b"x" * number)
            assert (status, headers["Tenant"]) == (200, tenant), (number, body, headers["Caddysnake-Code"], process.log)
        client.close()
        assert count(process.log, "app makes room for another") >= 50


@pytest.mark.parametrize("interface", ["asgi", "wsgi"])
def test_no_request_is_lost_that_comes_when_an_app_falls_asleep(tmp_path: Path, interface: str) -> None:
    names = [f"t{number}" for number in range(10)]
    settle(tmp_path / "t", *names, interface=interface)
    text = site("s.sock", block(tmp_path / "t", "idle_timeout 1s", interface=interface))
    with daemon(tmp_path, text) as process, caddy(tmp_path, proxy(tmp_path)) as (_, port):

        def use(name: str) -> None:
            dice, client = random.Random(name), Client(port)
            for _ in range(9):
                status, _, headers = client.ask(f"{name}.tenants.test", content=b"x")
                assert (status, headers["Tenant"]) == (200, name), (headers["Caddysnake-Code"], process.log)
                time.sleep(dice.uniform(0.9, 2.0))
            client.close()

        with ThreadPoolExecutor(len(names)) as threads:
            for each in [threads.submit(use, name) for name in names]:
                each.result(PATIENCE_S)
        assert count(process.log, "app is idle and put to sleep") > 10


HOSTILE = [
    "..", ".", "...", "a..tenants.test", ".tenants.test", "a/b.tenants.test", "..%2fother.tenants.test",
    "%2e%2e.tenants.test", "foo\\x00.tenants.test", "x" * 300 + ".tenants.test", "[::1]", "[::1]:80", "127.0.0.1", "a",
    "tenants.test", "-.tenants.test", "~root.tenants.test", "a\\b.tenants.test", "a b.tenants.test",
    "$HOME.tenants.test",    "{env.HOME}.tenants.test", "*.tenants.test", "a;b.tenants.test", "a.tenants.test.more",
    ".hidden.tenants.test", "linkless.tenants.test", "file.tenants.test", "os.tenants.test", "é.tenants.test",
]  # fmt: skip


def test_hosts_that_are_no_tenants_are_404_and_touch_nothing(tmp_path: Path) -> None:
    root = tmp_path / "root" / "t"
    settle(root, "a", ".hidden")
    trap = f"open({str(tmp_path / 'trapped')!r}, 'w').close()\n"
    settle(tmp_path, "root", "other", source=trap)
    (root / "main.py").write_text(trap)
    (root / "file").touch()
    (root / "linkless").symlink_to(tmp_path / "nowhere")
    with daemon(tmp_path, site("s.sock", block(root))) as process, caddy(tmp_path, proxy(tmp_path)) as (_, port):
        assert get("/", port, Host="a.tenants.test")[0] == 200
        wait_for_spare_relay(process.pid)
        before = children(process.pid)
        for host in HOSTILE:
            for over in ({"port": port}, {"path": tmp_path / "s.sock"}):
                try:
                    status, _ = get("/", **over, Host=host)  # type: ignore[arg-type]
                except (http.client.HTTPException, UnicodeError):
                    continue
                assert status in (400, 404), host
        assert children(process.pid) == before
        assert not (tmp_path / "trapped").exists()
        assert get("/", port, Host="a.tenants.test")[0] == 200
        records = [json.loads(line) for line in process.log.splitlines() if line.startswith("{")]
        assert not [record for record in records if record["level"] == "error"], process.log


def test_what_names_a_tenant_in_other_spellings_is_the_same_tenant_or_nobody(tmp_path: Path) -> None:
    settle(tmp_path / "t", "a")
    (tmp_path / "t/linked").symlink_to(tmp_path / "t/a")
    with (
        daemon(tmp_path, site("s.sock", block(tmp_path / "t"))) as process,
        caddy(tmp_path, proxy(tmp_path)) as (_, port),
    ):
        client = Client(port)
        assert client.ask("a.tenants.test")[2]["Tenant"] == "a"
        assert client.ask("a.tenants.test:8080")[2]["Tenant"] == "a"
        assert client.ask("linked.tenants.test")[2]["Tenant"] == "linked", "as the operator made it"
        for host in ("A.tenants.test", "a.tenants.test."):
            status, _, headers = client.ask(host)
            assert status == 404 or headers["Tenant"] in ("a", "A")
        client.close()
        assert len(workers(process.pid)) <= 3


@pytest.mark.parametrize(
    "value",
    ["os", "os.path", "a.b.c", "__main__", "main.", ".main", "main:app", "subprocess", "../main", "ma\tin", "", "ma in",
     "main\u00e9", "x" * 300, "caddysnake", "_caddysnake", "sys", "pip"],
)  # fmt: skip
def test_modules_that_are_not_the_tenants_are_not_imported(tmp_path: Path, value: str) -> None:
    settle(tmp_path, "app")
    lines = "module_asgi {header.X-Module}:app", f"working_dir {tmp_path}/app", "env_var TENANT t"
    text = "unix/s.sock {\n\tpython {\n" + "".join(f"\t\t{line}\n" for line in lines) + "\t}\n}\n"
    with daemon(tmp_path, text) as process:
        assert get("/", path=tmp_path / "s.sock", **{"X-Module": "main"})[0] == 200
        wait_for_spare_relay(process.pid)
        before = children(process.pid)
        status, _ = get("/", path=tmp_path / "s.sock", **{"X-Module": value.encode().decode("latin-1")})
        assert status in (400, 404)
        assert children(process.pid) == before


def test_a_route_tells_what_it_took_off_the_path_and_nobody_else_can(tmp_path: Path) -> None:
    for interface in ("asgi", "wsgi"):
        settle(tmp_path, interface, interface=interface)
    blocks = {
        interface: f"python {{\n\t\tmodule_{interface} main:app\n\t\tworking_dir {tmp_path}/{interface}\n"
        f"\t\tenv_var TENANT {interface}\n\t\tworkers 1\n\t}}"
        for interface in ("asgi", "wsgi")
    }
    text = site(
        "s.sock", *(f"handle_path /{name}/* {{\n\t{each}\n\t}}" for name, each in blocks.items()), blocks["asgi"]
    )
    text += "".join(site(f"{name}.sock", each) for name, each in blocks.items())
    with daemon(tmp_path, text):

        def told(target: str, socket: str = "s.sock") -> dict[str, object]:
            forged = {"Caddysnake-Prefix": "/forged", "Caddysnake-Other": "1"}
            status, body = get(target, path=tmp_path / socket, **forged)
            assert status == 200
            found: dict[str, object] = json.loads(body)
            assert "caddysnake" not in str(found.pop("headers")).lower()
            return found

        for _ in range(3):
            assert told("/asgi/scope") == {"path": "/asgi/scope", "root_path": "/asgi"}
            assert told("/wsgi/a%20b/scope") == {"path": "/a b/scope", "root_path": "/wsgi"}
            assert told("/scope") == {"path": "/scope", "root_path": ""}
            assert told("/scope", "asgi.sock") == {"path": "/scope", "root_path": ""}
            assert told("/scope", "wsgi.sock") == {"path": "/scope", "root_path": ""}


def test_an_app_of_a_direct_listener_that_crashes_in_a_loop_is_answered_for_and_heals(tmp_path: Path) -> None:
    settle(tmp_path, "app")
    good = (tmp_path / "app/main.py").read_text()
    text = (
        f"unix/s.sock {{\n\tpython {{\n\t\tmodule_asgi main:app\n\t\tworking_dir {tmp_path}/app\n"
        "\t\tenv_var TENANT t\n\t\tworkers 1\n\t}\n}\n"
    )
    with daemon(tmp_path, text) as process, caddy(tmp_path, proxy(tmp_path)) as (_, port):
        client = Client(port)
        assert client.ask("x")[0] == 200
        assert not below(process.pid, b"relay.main")
        (tmp_path / "app/main.py").write_text("import os\nos._exit(7)\n")
        (pid,) = workers(process.pid)
        os.kill(pid, signal.SIGKILL)
        status, _, headers = client.ask("x", content=b"x")
        if status == 502 and headers["Caddysnake-Code"] is None:  # Caddy's own: the worker died with the connection
            status, _, headers = client.ask("x", content=b"x")
        assert (status, headers["Caddysnake-Code"]) == (503, "crashed")
        assert int(headers["Retry-After"]) > 0
        (tmp_path / "app/main.py").write_text(good)
        eventually(lambda: client.ask("x", content=b"x")[0] == 200, process)
        client.close()


@pytest.mark.parametrize("victim", ["relay", "fork_server", "worker"])
def test_after_a_kill_under_load_all_is_well_again(tmp_path: Path, victim: str) -> None:
    names = [f"t{number}" for number in range(8)]
    settle(tmp_path / "t", *names)
    mark = {"relay": b"caddysnake.relay.main", "fork_server": b"bootstrap.py", "worker": b"caddysnake: worker"}[victim]
    with (
        daemon(tmp_path, site("s.sock", block(tmp_path / "t"))) as process,
        caddy(tmp_path, proxy(tmp_path)) as (_, port),
    ):
        client = Client(port)
        for name in names[:4]:
            assert client.ask(f"{name}.tenants.test")[0] == 200
        over, statuses = threading.Event(), Counter[tuple[str, int]]()

        def load(seed: int) -> None:
            dice = random.Random(seed)
            mine = Client(port)
            while not over.is_set():
                name = dice.choice(names)
                method = dice.choice(("GET", "POST"))
                status, _, headers = mine.ask(f"{name}.tenants.test", content=b"x" if method == "POST" else None)
                assert status != 200 or headers["Tenant"] == name
                statuses[method, status] += 1
            mine.close()

        with ThreadPoolExecutor(4) as threads:
            running = [threads.submit(load, seed) for seed in range(4)]
            time.sleep(0.5)
            killed = min(below(process.pid, mark))
            os.kill(killed, signal.SIGKILL)
            time.sleep(2.0)
            over.set()
            for each in running:
                each.result(PATIENCE_S)
        failed = {kind: number for kind, number in statuses.items() if kind[1] != 200}
        assert set(failed) <= {("POST", 502), ("GET", 502)}, failed
        assert sum(failed.values()) <= (8 if victim == "relay" else 4), (failed, process.log)
        if victim != "relay":
            assert ("GET", 502) not in failed
        assert not alive(killed)
        for name in names:
            assert client.ask(f"{name}.tenants.test", content=b"x")[2]["Tenant"] == name
        client.close()
