"""Caddy's active health checks: answered in front of the app, they take a sidecar that is gone out of the balance."""

from __future__ import annotations

import http.client
import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from support.caddies import caddy as find_caddy
from support.daemon import PATIENCE_S, caddy, daemon, eventually, get, workers
from support.town import block, settle, site

pytestmark = pytest.mark.system

ASGI = '''
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    assert scope["path"] != "/healthz", "the app is never asked"
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b"mine " + scope["method"].encode()})
'''
WSGI = '''
def app(environ, start_response):
    assert environ["PATH_INFO"] != "/healthz" or environ["REQUEST_METHOD"] == "POST"
    start_response("404 Not Found", [])
    return [b"mine " + environ["REQUEST_METHOD"].encode()]
'''


@pytest.mark.parametrize("interface", ["asgi", "wsgi"])
def test_a_check_is_answered_in_front_of_the_app(tmp_path: Path, interface: str) -> None:
    (tmp_path / "main.py").write_text({"asgi": ASGI, "wsgi": WSGI}[interface])
    python = f"python {{\n module_{interface} main:app\n workers 1\n health_uri /healthz\n}}"
    # The same app on a socket of its own, and on one that it shares, where a check's host is nobody's.
    text = (
        f"unix/{tmp_path}/direct.sock {{\n{python}\n}}\n"
        f"http://a.test, unix/{tmp_path}/shared.sock {{\nbind unix/{tmp_path}/relayed.sock\n{python}\n}}\n"
        f"http://b.test {{\nbind unix/{tmp_path}/relayed.sock\npython main:app\n}}\n"
    )
    if interface == "asgi":
        text = text.replace("python main:app", "python {\nmodule_asgi main:app\n}")
    with daemon(tmp_path, text) as process:
        for name in ("direct.sock", "relayed.sock"):
            assert get("/healthz", path=tmp_path / name) == (200, b"ok\n"), process.log
            assert get("/healthz?deep=1", path=tmp_path / name)[0] == 200
            assert get("/healthz", path=tmp_path / name, Host="a.test") == (200, b"ok\n")
            assert get("/healthz/x", path=tmp_path / name, Host="a.test") == (404, b"mine GET")
        assert get("/other", path=tmp_path / "relayed.sock", Host="nobody.test")[1] == b"Not Found\n"


def test_a_check_of_dynamic_apps_starts_none(tmp_path: Path) -> None:
    settle(tmp_path / "tenants", "ann")
    text = f"unix/{tmp_path}/s.sock {{\n{block(tmp_path / 'tenants', 'health_uri /healthz')}\n}}\n"
    with daemon(tmp_path, text) as process:
        for host in ("", "127.0.0.1", "localhost", "ann.tenants.test", "eve.tenants.test"):
            assert get("/healthz", path=tmp_path / "s.sock", Host=host)[0] == 200, process.log
        assert not workers(process.pid)


def test_an_app_that_is_down_is_not_healthy(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(ASGI + "import os\nif os.path.exists('broken'): raise RuntimeError('broken')\n")
    text = f"unix/{tmp_path}/s.sock {{\npython {{\n module_asgi main:app\n workers 1\n health_uri /healthz\n}}\n}}\n"
    with daemon(tmp_path, text) as process:
        assert get("/healthz", path=tmp_path / "s.sock")[0] == 200
        (tmp_path / "broken").touch()
        (worker,) = workers(process.pid)
        os.kill(worker, signal.SIGKILL)
        eventually(lambda: get("/healthz", path=tmp_path / "s.sock")[0] >= 500, process)


@pytest.mark.parametrize("kind", ["current", "debian"])
def test_one_of_two_sidecars_goes_and_no_tenant_is_left_without(tmp_path: Path, kind: str) -> None:
    names = [f"t{number}" for number in range(16)]  # a hash of the sockets' paths says who has which: not one has all
    places = [tmp_path / name for name in ("one", "two")]
    texts = []
    for place in places:
        settle(place / "tenants", *names)
        texts.append(site(f"{place}/s.sock", block(place / "tenants", "health_uri /healthz")))
    front = f""":{{port}} {{
    reverse_proxy unix/{places[0]}/s.sock unix/{places[1]}/s.sock {{
        lb_policy header Host
        lb_try_duration 5s
        lb_try_interval 20ms
        health_uri /healthz
        health_interval 100ms
        fail_duration 1s
    }}
}}
"""
    with daemon(places[0], texts[0]) as first, daemon(places[1], texts[1]) as second:
        with caddy(tmp_path, front, find_caddy(kind)) as (_, port):
            homes: dict[str, set[str]] = {name: set() for name in names}
            wrong: Counter[object] = Counter()
            ends = threading.Event()

            def traffic(mine: list[str]) -> None:
                while not ends.is_set():
                    for name in mine:
                        connection = http.client.HTTPConnection("127.0.0.1", port, PATIENCE_S)
                        try:
                            connection.request("GET", "/", headers={"Host": f"{name}.tenants.test"})
                            response = connection.getresponse()
                            content = response.read()
                            if response.status != 200 or not content.startswith(name.encode()):
                                wrong[response.status, content[:60]] += 1
                            else:
                                homes[name].add(response.headers["Pid"])
                        finally:
                            connection.close()

            clients = [threading.Thread(target=traffic, args=(names[at::2],)) for at in range(2)]
            for client in clients:
                client.start()
            try:
                deadline = time.monotonic() + PATIENCE_S
                while not all(homes.values()):
                    assert time.monotonic() < deadline, (homes, wrong, first.log)
                    time.sleep(0.05)
                time.sleep(0.5)
                # Each tenant lives in one place: it is warm there, and takes memory once.
                assert [len(found) for found in homes.values()] == [1] * len(names)
                split = [len(workers(process.pid)) for process in (first, second)]
                assert sum(split) == len(names)
                assert all(split), "one sidecar has every tenant: the test would prove nothing"
                before = {name: set(found) for name, found in homes.items()}
                first.stop()
                eventually(lambda: len(workers(second.pid)) >= len(names), second)
            finally:
                ends.set()
                for client in clients:
                    client.join()
        assert not wrong
        moved = [name for name in names if homes[name] != before[name]]
        assert len(moved) == split[0], "those who lived in the other stayed"
