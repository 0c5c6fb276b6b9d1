"""Tenants over the daemon's own socket: who is started, how often, and what others notice of it."""

from __future__ import annotations

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.daemon import (
    PATIENCE_S,
    Process,
    UnixHTTPConnection,
    alive,
    below,
    children,
    command_line,
    cpu_s,
    daemon,
    eventually,
    get,
    wait_for_spare_relay,
    workers,
)
from support.town import ASGI, block, count, settle, site
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import unix_connect

pytestmark = pytest.mark.system


def ask(folder: Path, tenant: str, target: str = "/", socket: str = "s.sock") -> tuple[int, str]:
    """Status and body of a request of its own connection."""
    status, body = get(target, path=folder / socket, Host=f"{tenant}.tenants.test")
    return status, body.decode()


def answer(folder: Path, tenant: str, method: str = "GET", content: bytes | None = None) -> tuple[int, dict[str, str]]:
    """Status and headers."""
    connection = UnixHTTPConnection(folder / "s.sock")
    try:
        connection.request(method, "/", body=content, headers={"Host": f"{tenant}.tenants.test"})
        response = connection.getresponse()
        response.read()
        return response.status, {name.lower(): value for name, value in response.getheaders()}
    finally:
        connection.close()


def until_log(process: Process, message: str, times: int = 1) -> None:
    process.wait_for_log(f'"msg":"{message}"', times)


@pytest.mark.parametrize("interface", ["asgi", "wsgi"])
def test_a_tenant_is_started_by_its_first_request_and_serves_the_next(tmp_path: Path, interface: str) -> None:
    settle(tmp_path / "t", "a", "b", interface=interface)
    with daemon(tmp_path, site("s.sock", block(tmp_path / "t", interface=interface))) as process:
        assert workers(process.pid) == set()
        first, second = answer(tmp_path, "a"), answer(tmp_path, "a")
        assert first[0] == second[0] == 200
        assert first[1]["tenant"] == second[1]["tenant"] == "a"
        assert first[1]["pid"] == second[1]["pid"]
        assert answer(tmp_path, "b")[1]["tenant"] == "b"
        assert len(workers(process.pid)) == 2
        process.wait_for_log("app ready", 2)
        assert count(process.log, "app ready") == 2


@pytest.mark.parametrize("field", ["module", "variable", "env_file", "bare"])
def test_any_value_may_be_the_requests(tmp_path: Path, field: str) -> None:
    lines = {
        "module": "module_asgi tenant_{header.X-Tenant}.main:app",
        "variable": "module_asgi main:{header.X-Tenant}",
        "env_file": "module_asgi main:app\nenv_file {header.X-Tenant}.env",
        "bare": "module_asgi main:app\nworking_dir {header.X-Tenant}\nenv_var TENANT {header.X-Tenant}",
    }[field].replace("\n", "\n\t\t")
    source = """
import os
def named(name):
    async def app(scope, receive, send):
        if scope["type"] != "http":
            raise NotImplementedError
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": name.encode()})
    return app
"""
    for tenant in "ab":
        if field == "module":
            settle(tmp_path, f"tenant_{tenant}", source=source + f"app = named('{tenant}')\n")
            (tmp_path / f"tenant_{tenant}" / "__init__.py").touch()
        elif field == "bare":
            settle(tmp_path, tenant, source=source + "app = named(os.environ['TENANT'])\n")
    if field in ("variable", "env_file"):
        (tmp_path / "main.py").write_text(
            source + "app = named(os.environ.get('TENANT', ''))\na, b = named('a'), named('b')\n"
        )
        for tenant in "ab":
            (tmp_path / f"{tenant}.env").write_text(f"TENANT={tenant}\n")
    with daemon(tmp_path, f"unix/s.sock {{\n\tpython {{\n\t\t{lines}\n\t}}\n}}\n"):
        for tenant in "abab":
            found = get("/", path=tmp_path / "s.sock", **{"X-Tenant": tenant})
            assert found == (200, tenant.encode())
        assert get("/", path=tmp_path / "s.sock", **{"X-Tenant": "c"})[0] in (404, 500 if field == "variable" else 404)
        assert get("/", path=tmp_path / "s.sock")[0] == 404, "an absent header is nobody"


def test_an_app_is_started_once_for_all_who_ask_at_the_same_time(tmp_path: Path) -> None:
    settle(tmp_path / "t", "a")
    (tmp_path / "t/a/main.py").write_text("import time; time.sleep(0.5)\n" + (tmp_path / "t/a/main.py").read_text())
    with daemon(tmp_path, site("s.sock", block(tmp_path / "t"))) as process, ThreadPoolExecutor(30) as threads:
        answers = list(threads.map(lambda _: answer(tmp_path, "a"), range(30)))
        assert {status for status, _ in answers} == {200}
        assert len({headers["pid"] for _, headers in answers}) == 1
        until_log(process, "app ready")
        assert count(process.log, "app ready") == 1


def test_twenty_new_tenants_are_each_served_when_ready(tmp_path: Path) -> None:
    names = [f"t{number}" for number in range(20)]
    settle(tmp_path / "t", *names)
    for name in names:
        main = tmp_path / "t" / name / "main.py"
        main.write_text(
            "import time\nuntil = time.process_time() + 0.2\nwhile time.process_time() < until: pass\n"
            + main.read_text()
        )
    with daemon(tmp_path, site("s.sock", block(tmp_path / "t"))) as process, ThreadPoolExecutor(20) as threads:

        def served(name: str) -> int:
            """How many are ready when it has its answer."""
            assert ask(tmp_path, name)[1].startswith(name + " ")
            return count(process.log, "app ready")

        ready = sorted(threads.map(served, names))
        assert ready[0] < 10
        assert ready[9] < 20


def test_an_unknown_tenant_is_404_at_once_and_costs_no_process(tmp_path: Path) -> None:
    settle(tmp_path / "t", "a")
    with daemon(tmp_path, site("s.sock", block(tmp_path / "t"))) as process:
        assert ask(tmp_path, "a")[0] == 200
        wait_for_spare_relay(process.pid)
        before = children(process.pid)
        assert [answer(tmp_path, "nobody")[0] for _ in range(3)] == [404] * 3
        assert answer(tmp_path, "nobody")[1]["caddysnake-code"] == "no-such-app"
        assert children(process.pid) == before
        process.wait_for_log("no app for this request")
        assert count(process.log, "no app for this request") == 1
        settle(tmp_path / "t", "nobody")
        eventually(lambda: ask(tmp_path, "nobody")[0] == 200)


def resident_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError(pid)


@pytest.mark.once
@pytest.mark.timeout(600)
def test_ten_thousand_random_hosts_start_nothing_and_leave_nothing_behind(tmp_path: Path) -> None:
    settle(tmp_path / "t", "a")
    with daemon(tmp_path, site("s.sock", block(tmp_path / "t"))) as process:
        assert ask(tmp_path, "a")[0] == 200
        wait_for_spare_relay(process.pid)
        before = children(process.pid)
        commands = {pid: command_line(pid) for pid in before}
        (relay,) = (pid for pid, line in commands.items() if b"caddysnake.relay.main" in line and b'"channel"' in line)
        connection = UnixHTTPConnection(tmp_path / "s.sock")

        def flood(first: int, last: int) -> float:
            """How long the daemon and the relay have worked for that."""
            begun = cpu_s(process.pid, relay)
            for number in range(first, last):
                connection.request("GET", "/", headers={"Host": f"x{number}.tenants.test"})
                response = connection.getresponse()
                response.read()
                assert response.status == 404
            return cpu_s(process.pid, relay) - begun

        before_s = flood(0, 5000)
        sizes = {pid: resident_kib(pid) for pid in (process.pid, relay)}
        took_s = flood(5000, 10_000)
        connection.close()
        assert children(process.pid) == before
        for pid, size in sizes.items():
            assert resident_kib(pid) < size + 2048
        assert count(process.log, "no app for this request") < 100
        assert took_s < 2 * before_s
        assert ask(tmp_path, "a")[0] == 200


def test_a_failing_import_is_500_for_a_while_without_a_new_start_and_then_heals(tmp_path: Path) -> None:
    settle(tmp_path / "t", "a")
    good = (tmp_path / "t/a/main.py").read_text()
    (tmp_path / "t/a/main.py").write_text(
        f"open({str(tmp_path / 'starts')!r}, 'a').write('x')\nraise LookupError('no database')\n"
    )
    with daemon(tmp_path, site("s.sock", block(tmp_path / "t"))) as process:
        begun = time.monotonic()
        status, headers = answer(tmp_path, "a")
        assert (status, headers["caddysnake-code"], headers["retry-after"]) == (500, "import-failed", "5")
        (tmp_path / "t/a/main.py").write_text(good)
        while time.monotonic() - begun < 3.0:
            assert answer(tmp_path, "a", "POST", b"x")[0] == 500
            time.sleep(0.2)
        assert (tmp_path / "starts").read_text() == "x"
        assert "LookupError: no database" in process.log
        eventually(lambda: answer(tmp_path, "a")[0] == 200)


def test_a_hanging_import_is_503_in_time_and_holds_up_neither_others_nor_the_stop(tmp_path: Path) -> None:
    settle(tmp_path / "t", "good")
    hanging = [f"hang{number}" for number in range(6)]
    settle(tmp_path / "t", *hanging, source="import threading; threading.Event().wait()\n")
    with (
        daemon(tmp_path, site("s.sock", block(tmp_path / "t", "start_timeout 6s"))) as process,
        ThreadPoolExecutor(20) as threads,
    ):
        waiting = [threads.submit(answer, tmp_path, name) for name in hanging]
        eventually(lambda: workers(process.pid), "the first of them")
        assert ask(tmp_path, "good")[0] == 200
        assert not all(each.done() for each in waiting)
        for each in waiting:
            status, headers = each.result(PATIENCE_S)
            assert (status, headers["caddysnake-code"]) == (503, "start-timeout")
            assert int(headers["retry-after"]) > 0
        again = time.monotonic()
        assert answer(tmp_path, "hang0")[0] == 503
        assert time.monotonic() - again < 5.0
        time.sleep(5.5)
        late = threads.submit(answer, tmp_path, "hang1")
        time.sleep(0.5)
        stopping = time.monotonic()
        assert process.stop() == 0
        assert time.monotonic() - stopping < 5.0 + 11.0
        try:
            assert late.result(PATIENCE_S)[0] in (502, 503)
        except OSError:
            pass  # or its connection has ended with the daemon


@pytest.mark.once
def test_who_took_long_to_start_but_came_up_is_not_kept_behind_all_who_come_later(tmp_path: Path) -> None:
    spin = "import pathlib, time\nend = time.process_time() + {}\nwhile time.process_time() < end: pass\n"
    seldom = "0 if pathlib.Path('slow').exists() else 2.5"
    settle(tmp_path / "t", "slow", source=spin.format(seldom) + "pathlib.Path('slow').touch()\n" + ASGI)
    cores = os.cpu_count() or 1
    busy, late = [f"busy{number}" for number in range(3 * cores)], [f"late{number}" for number in range(4 * cores)]
    settle(tmp_path / "t", *busy, source=spin.format(0.5) + ASGI)
    settle(tmp_path / "t", *late, source=spin.format(0.1) + ASGI)
    with (
        daemon(tmp_path, site("s.sock", block(tmp_path / "t", "idle_timeout 1s"))) as process,
        ThreadPoolExecutor(1 + len(late)) as threads,
    ):
        served: list[str] = []

        def serve(name: str) -> int:
            status = ask(tmp_path, name)[0]
            served.append(name)
            return status

        def crowd(*names: str) -> None:
            asked = []
            for name in names:
                asked.append(threads.submit(serve, name))
                time.sleep(0.02)  # in this order
            assert {each.result(PATIENCE_S) for each in asked} == {200}

        crowd("slow", *busy)
        until_log(process, "app is idle and put to sleep", 1 + len(busy))
        served.clear()
        crowd(*late[:cores], "slow", *late[cores:])
        assert served.index("slow") < 3 * cores, served


def test_a_worker_that_is_killed_while_it_starts_is_started_again_for_those_who_wait(tmp_path: Path) -> None:
    source = "import os, pathlib\nif not pathlib.Path('tried').exists():\n    pathlib.Path('tried').touch()\n"
    settle(tmp_path / "t", "once", source=source + "    os.kill(os.getpid(), 9)\nfrom good import app\n")
    settle(tmp_path / "t", "always", source="import os\nos.kill(os.getpid(), 9)\n")
    (tmp_path / "t/once/good.py").write_text(ASGI)
    with daemon(tmp_path, site("s.sock", block(tmp_path / "t"))):
        assert ask(tmp_path, "once")[0] == 200
        status, headers = answer(tmp_path, "always")
        assert (status, headers["caddysnake-code"]) == (503, "crashed")


def test_room_is_made_by_the_least_recently_used(tmp_path: Path) -> None:
    settle(tmp_path / "t", "a", "b", "c")
    with daemon(tmp_path, site("s.sock", block(tmp_path / "t", "max_dynamic_apps 2"))) as process:
        a, b = answer(tmp_path, "a")[1]["pid"], answer(tmp_path, "b")[1]["pid"]
        assert answer(tmp_path, "a")[1]["pid"] == a
        time.sleep(3)  # workers publish their counts now and then; this use was over a link that was there
        assert answer(tmp_path, "c")[0] == 200
        assert answer(tmp_path, "a")[1]["pid"] == a
        eventually(lambda: not alive(int(b)))
        assert len(workers(process.pid)) == 2


def test_when_all_are_busy_there_is_no_room(tmp_path: Path) -> None:
    settle(tmp_path / "t", "a", "b", "c")
    with (
        daemon(tmp_path, site("s.sock", block(tmp_path / "t", "max_dynamic_apps 2"))) as process,
        ThreadPoolExecutor(4) as threads,
    ):
        held = [threads.submit(ask, tmp_path, name, "/hold") for name in "ab"]
        for name in "ab":
            eventually((tmp_path / "t" / name / "held").exists, process)
        status, headers = answer(tmp_path, "c")
        assert (status, headers["caddysnake-code"]) == (503, "capacity")
        assert int(headers["retry-after"]) > 0
        (tmp_path / "t/a/release").touch()
        assert held[0].result(PATIENCE_S) == (200, "a")
        assert answer(tmp_path, "c")[0] == 200
        (tmp_path / "t/b/release").touch()
        assert held[1].result(PATIENCE_S) == (200, "b")


@pytest.mark.parametrize("interface", ["asgi", "wsgi"])
def test_an_app_sleeps_when_nobody_asks_for_it_and_wakes_up_when_somebody_does(tmp_path: Path, interface: str) -> None:
    settle(tmp_path / "t", "a", interface=interface)
    with daemon(tmp_path, site("s.sock", block(tmp_path / "t", "idle_timeout 1s", interface=interface))) as process:
        connection = UnixHTTPConnection(tmp_path / "s.sock")
        pids = set()
        for round_ in range(1, 4):
            # Over one connection, and a link, that outlives the app.
            connection.request("POST", "/", body=b"x" * round_, headers={"Host": "a.tenants.test"})
            response = connection.getresponse()
            assert response.read().decode().startswith(f"a {round_} ")
            pids.add(response.headers["Pid"])
            until_log(process, "app is idle and put to sleep", round_)
            eventually(lambda: not workers(process.pid))
        connection.close()
        assert len(pids) == 3


def test_what_is_being_answered_keeps_an_app_awake(tmp_path: Path) -> None:
    settle(tmp_path / "t", "a")
    with (
        daemon(tmp_path, site("s.sock", block(tmp_path / "t", "idle_timeout 1s"))) as process,
        ThreadPoolExecutor(1) as threads,
    ):
        held = threads.submit(ask, tmp_path, "a", "/hold")
        time.sleep(3.5)
        assert count(process.log, "app is idle and put to sleep") == 0
        (tmp_path / "t/a/release").touch()
        assert held.result(PATIENCE_S) == (200, "a")
        until_log(process, "app is idle and put to sleep")


def test_an_open_websocket_keeps_an_app_awake_and_is_told_when_the_daemon_stops(tmp_path: Path) -> None:
    """At once, not at the end of the grace period."""
    settle(tmp_path / "t", "a")
    lines = ("idle_timeout 1s", "grace_period 60s")
    with (
        daemon(tmp_path, site("s.sock", block(tmp_path / "t", *lines))) as process,
        unix_connect(str(tmp_path / "s.sock"), uri="ws://a.tenants.test/") as websocket,
    ):
        time.sleep(3.5)
        websocket.send("1")
        assert websocket.recv(PATIENCE_S) == "a 1"
        assert count(process.log, "app is idle and put to sleep") == 0
        begun = time.monotonic()
        process.popen.terminate()
        with pytest.raises(ConnectionClosed) as closed:
            websocket.recv(timeout=PATIENCE_S)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        assert process.wait() == 0
        assert time.monotonic() - begun < 20
    assert "connections are cut" not in process.log


def test_only_so_many_wait_for_one_app(tmp_path: Path) -> None:
    settle(tmp_path / "t", "a", "b")
    main = tmp_path / "t/a/main.py"
    main.write_text(
        f"import os, time\nwhile not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.02)\n" + main.read_text()
    )
    with (
        daemon(tmp_path, site("s.sock", block(tmp_path / "t", "max_queue 5"))),
        ThreadPoolExecutor(12) as threads,
    ):
        waiting = [threads.submit(answer, tmp_path, "a") for _ in range(12)]
        eventually(lambda: sum(each.done() for each in waiting) >= 7)
        assert answer(tmp_path, "b")[0] == 200
        (tmp_path / "go").touch()
        answers = [each.result(PATIENCE_S) for each in waiting]
        assert sorted(status for status, _ in answers) == [200] * 5 + [503] * 7
        assert {headers["caddysnake-code"] for status, headers in answers if status == 503} == {"queue-full"}
        assert all(int(headers["retry-after"]) > 0 for status, headers in answers if status == 503)


def test_a_killed_worker_comes_back_and_its_tenants_next_request_waits_for_it(tmp_path: Path) -> None:
    settle(tmp_path / "t", "a", "b")
    with daemon(tmp_path, site("s.sock", block(tmp_path / "t"))):
        pid = int(answer(tmp_path, "a")[1]["pid"])
        other = answer(tmp_path, "b")[1]["pid"]
        os.kill(pid, signal.SIGKILL)
        status, headers = answer(tmp_path, "a", "POST", b"x")
        if status == 502:  # it got there before the daemon knew
            status, headers = answer(tmp_path, "a", "POST", b"x")
        assert status == 200
        assert headers["pid"] != str(pid)
        assert answer(tmp_path, "b")[1]["pid"] == other


def test_of_a_worker_killed_within_its_requests_the_gets_are_repeated(tmp_path: Path) -> None:
    settle(tmp_path / "t", "a")
    main = tmp_path / "t/a/main.py"
    main.write_text(
        main.read_text().replace(
            'elif path.endswith("/hold"):',
            """elif path.endswith("/once"):
        seen = HERE / ("seen-" + scope["method"])
        first = not seen.exists()
        seen.touch()
        while first:
            await asyncio.sleep(1)
        await start()
        await end(TENANT.encode())
    elif path.endswith("/hold"):""",
        )
    )
    with daemon(tmp_path, site("s.sock", block(tmp_path / "t"))) as process, ThreadPoolExecutor(2) as threads:
        assert ask(tmp_path, "a")[0] == 200

        def post() -> tuple[int, str | None]:
            connection = UnixHTTPConnection(tmp_path / "s.sock")
            connection.request("POST", "/once", body=b"x", headers={"Host": "a.tenants.test"})
            response = connection.getresponse()
            response.read()
            connection.close()
            return response.status, response.headers["caddysnake-code"]

        got, posted = threads.submit(ask, tmp_path, "a", "/once"), threads.submit(post)
        eventually(lambda: len(list((tmp_path / "t/a").glob("seen-*"))) >= 2)
        (pid,) = workers(process.pid)
        os.kill(pid, signal.SIGKILL)
        assert posted.result(PATIENCE_S) == (502, "worker-gone")
        assert got.result(PATIENCE_S) == (200, "a")


def test_a_killed_relay_and_a_killed_fork_server_come_back(tmp_path: Path) -> None:
    names = [f"t{number}" for number in range(6)]
    settle(tmp_path / "t", *names)
    with daemon(tmp_path, site("s.sock", block(tmp_path / "t"))) as process:
        pids = {name: answer(tmp_path, name)[1]["pid"] for name in names[:2]}
        for what in (b"caddysnake.relay.main", b"bootstrap.py"):
            # The oldest of its kind: a second relay stands by.
            victim = min(below(process.pid, what))
            os.kill(victim, signal.SIGKILL)
            eventually(lambda victim=victim: not alive(victim))
            for name in names[:4] if what != b"bootstrap.py" else names:
                status, headers = answer(tmp_path, name)
                assert (status, headers["tenant"]) == (200, name)
                assert pids.setdefault(name, headers["pid"]) == headers["pid"], "the workers go on"


def test_an_app_that_does_not_stay_up_is_let_go(tmp_path: Path) -> None:
    settle(tmp_path / "t", "a")
    with daemon(tmp_path, site("s.sock", block(tmp_path / "t"))) as process:
        pid = int(answer(tmp_path, "a")[1]["pid"])
        good = (tmp_path / "t/a/main.py").read_text()
        (tmp_path / "t/a/main.py").write_text("raise LookupError('no database')\n")
        os.kill(pid, signal.SIGKILL)
        status, headers = answer(tmp_path, "a")
        assert (status, headers["caddysnake-code"]) == (500, "import-failed")
        (tmp_path / "t/a/main.py").write_text(good)
        eventually(lambda: answer(tmp_path, "a")[0] == 200, process)


def test_everything_is_gone_when_the_daemon_has_stopped(tmp_path: Path) -> None:
    settle(tmp_path / "t", "a", "b", "c")
    with daemon(tmp_path, site("s.sock", block(tmp_path / "t"))) as process:
        for name in "abc":
            assert ask(tmp_path, name)[0] == 200
        everybody = children(process.pid)
        assert process.stop() == 0
        assert not [pid for pid in everybody if alive(pid)]
        assert not (tmp_path / "s.sock").exists()
        for line in process.log.splitlines():
            if line.startswith("{"):
                assert json.loads(line)["level"] != "error", line


@pytest.mark.parametrize(
    ("line", "is_warm"),
    [
        ("preload json", True),
        ("env_var A {header.A}", True),
        ("env_var PYTHONHASHSEED 1", True),
        ("venv {header.A}", False),
    ],
)
def test_what_tenants_are_forked_from_is_ready_before_the_first_of_them(
    tmp_path: Path, line: str, is_warm: bool
) -> None:
    settle(tmp_path / "t", "a")
    with daemon(tmp_path, site("s.sock", block(tmp_path / "t", line))) as process:

        def fork_servers() -> set[int]:
            return below(process.pid, b"bootstrap.py")

        before = fork_servers()
        assert len(before) == is_warm
        if is_warm:
            assert ask(tmp_path, "a")[0] == 200
            assert fork_servers() == before


def test_a_preload_that_fails_is_told_at_the_start(tmp_path: Path) -> None:
    settle(tmp_path / "t", "a")
    with daemon(tmp_path, site("s.sock", block(tmp_path / "t", "preload this_is_missing_nowhere"))) as process:
        until_log(process, "apps of this template cannot be started")
        assert answer(tmp_path, "a")[0] in (404, 500, 503)
