"""The whole daemon as a process: signals, deaths, and what is left afterwards."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.daemon import (
    PATIENCE_S,
    Process,
    UnixHTTPConnection,
    alive,
    children,
    cpu_s,
    daemon,
    eventually,
    get,
    python_site,
    workers,
)
from support.leaks import remove_folders_of
from support.probe import write

SOURCE = """
import os, pathlib, subprocess, time
HERE = pathlib.Path(__file__).parent
if (HERE / "slow").exists():
    time.sleep(float((HERE / "slow").read_text()))

def pid():
    return os.getpid()

def hold():
    (HERE / "held").touch()
    while not (HERE / "release").exists():
        time.sleep(0.01)
    return "done"

def start():
    return subprocess.Popen(["sleep", "600"]).pid
"""


def caddyfile(folder: Path, interface: str = "wsgi", workers: int = 2, grace: str = "2s", more: str = "") -> str:
    lines = (f"module_{interface} probe:{interface}", f"workers {workers}", f"grace_period {grace}", more)
    return f"{{\n\tgrace_period {grace}\n}}\n" + python_site(f"unix/{folder}/app.sock", *lines)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, SOURCE)
    return tmp_path


def none_alive(pids: set[int]) -> bool:
    return not any(alive(pid) for pid in pids)


def test_it_stops_in_order_and_leaves_nothing(folder: Path, interface: str) -> None:
    with daemon(folder, caddyfile(folder, interface)) as process:
        below = children(process.pid)
        assert len(workers(process.pid)) == 2
        idle = UnixHTTPConnection(folder / "app.sock")
        idle.request("GET", "/pid")
        assert idle.getresponse().read()
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(get, "/hold", path=folder / "app.sock")
            eventually((folder / "held").exists, "the request")
            process.popen.send_signal(signal.SIGTERM)
            eventually(lambda: not (folder / "app.sock").exists(), "the unlinking")
            assert process.popen.poll() is None
            (folder / "release").touch()
            assert answer.result(PATIENCE_S) == (200, b'"done"')
        assert process.wait() == 0
        assert not (folder / "app.sock").exists()
        assert none_alive(below)
        idle.close()


def test_an_interrupt_stops_it_in_order_too(folder: Path) -> None:
    with daemon(folder, caddyfile(folder)) as process:
        assert process.stop(signal.SIGINT) == 0


def asked_once(path: Path) -> bytes | None:
    """The response to a request on a connection of its own; None: nobody listens, or it ended before it was asked."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE_S)
        try:
            client.connect(str(path))
            client.sendall(b"GET /pid HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        except (ConnectionRefusedError, FileNotFoundError, BrokenPipeError):
            return None
        with client.makefile("rb") as file:
            return file.read()


@pytest.mark.parametrize("via", ["direct", "relay"])
def test_no_request_on_an_accepted_connection_goes_unanswered_in_a_stop(folder: Path, interface: str, via: str) -> None:
    text = caddyfile(folder, interface)
    if via == "relay":
        block = text[text.index("\tpython {") :]
        text = text.replace("\tpython {", "\tpython /other {")
        text = text[: text.rindex("}\n")] + block.replace("python", "python /*", 1)
    with daemon(folder, text) as process, ThreadPoolExecutor(16) as threads:
        path = folder / "app.sock"

        answers: list[bytes] = []

        def ask(_: int) -> None:
            while (answer := asked_once(path)) is not None:
                answers.append(answer)

        runs = [threads.submit(ask, number) for number in range(16)]
        eventually(lambda: len(answers) > 100, "many answers")
        assert process.stop() == 0
        for run in runs:
            run.result(PATIENCE_S)
    odd = [answer for answer in answers if not answer.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 503 "))]
    assert not odd
    assert all(b"caddysnake-code: stopping" in answer for answer in answers if answer.startswith(b"HTTP/1.1 503 "))


def test_a_request_that_outlives_the_grace_does_not_hold_up_the_end(folder: Path, interface: str) -> None:
    with daemon(folder, caddyfile(folder, interface, grace="300ms")) as process:
        below = children(process.pid)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(folder / "app.sock"))
            client.sendall(b"GET /hold HTTP/1.1\r\nHost: test\r\n\r\n")
            eventually((folder / "held").exists, "the request")
            begun = time.monotonic()
            assert process.stop() == 0
            assert time.monotonic() - begun < 20
        assert none_alive(below)


def test_a_second_signal_stops_it_at_once(folder: Path, interface: str) -> None:
    with daemon(folder, caddyfile(folder, interface, grace="60s")) as process:
        below = children(process.pid)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(folder / "app.sock"))
            client.sendall(b"GET /hold HTTP/1.1\r\nHost: test\r\n\r\n")
            eventually((folder / "held").exists, "the request")
            process.popen.send_signal(signal.SIGTERM)
            process.wait_for_log('"stopping"')
            time.sleep(0.4)  # sooner it counts as the same signal, sent to the child and then to its group
            begun = time.monotonic()
            assert process.stop() == 2
            assert time.monotonic() - begun < 15
        assert not (folder / "app.sock").exists()
        assert none_alive(below)


def test_it_can_be_stopped_while_its_apps_start(folder: Path) -> None:
    (folder / "slow").write_text("60")
    (folder / "Caddyfile").write_text(caddyfile(folder))
    process = Process([sys.executable, "-m", "caddysnake", "run"], folder, "daemon")
    try:
        eventually(lambda: len(workers(process.pid)) == 2, "the fork of both")
        below = children(process.pid)
        assert process.stop() == 0
        assert none_alive(below)
        assert not (folder / "app.sock").exists()
    finally:
        process.close()


@pytest.mark.parametrize("state", ["idle", "importing", "stuck"])
def test_when_it_is_killed_no_worker_outlives_the_grace_and_the_next_one_starts_at_once(
    folder: Path, state: str
) -> None:
    text = caddyfile(folder, grace="500ms", more="threads 1")
    with daemon(folder, text) as process:
        below = children(process.pid)
        sleeper = int(get("/start", path=folder / "app.sock")[1])
        if state == "importing":
            (folder / "slow").write_text("60")
            victim = min(workers(process.pid))
            os.kill(victim, signal.SIGKILL)
            eventually(lambda: len(workers(process.pid)) == 2, "the replacement")
            below = children(process.pid)
            (folder / "slow").unlink()
        client = socket.socket(socket.AF_UNIX)
        if state == "stuck":
            client.connect(str(folder / "app.sock"))
            client.sendall(b"GET /hold HTTP/1.1\r\nHost: test\r\n\r\n")
            eventually((folder / "held").exists, "the request")
        process.popen.kill()
        process.popen.wait()
        client.close()
        assert (folder / "app.sock").is_socket()
        with daemon(folder, text) as second:
            assert get("/pid", path=folder / "app.sock")[0] == 200
            eventually(lambda: none_alive(below), "the end of the first one's processes")
            eventually(lambda: not alive(sleeper), "the end of what a worker had started")
            assert second.stop() == 0
        assert not (folder / "app.sock").exists()


def test_a_request_in_flight_is_answered_although_the_daemon_is_killed(folder: Path, interface: str) -> None:
    with daemon(folder, caddyfile(folder, interface, grace="30s")) as process:
        client = UnixHTTPConnection(folder / "app.sock")
        client.request("GET", "/hold")
        eventually((folder / "held").exists, "the request")
        below = children(process.pid)
        process.popen.kill()
        process.popen.wait()
        (folder / "release").touch()
        answer = client.getresponse()
        told = answer.status, answer.read()
        client.close()
        assert told == (200, b'"done"')
        eventually(lambda: none_alive(below), "the end of everybody else")
        remove_folders_of(process.pid)


KILLS = int(os.environ.get("CADDYSNAKE_KILLS", "1"))
"""How many workers are killed, one each 200 ms: 300 take a minute."""


def test_killing_workers_under_load_fails_only_what_they_had_read(folder: Path, interface: str) -> None:
    enough = threading.Event()
    serving: set[int] = set()

    def hammer(_: int) -> tuple[int, list[int]]:
        """How many were answered, and of those that were not, who had answered on the same connection before (or 0)."""
        done, last, failed = 0, 0, []
        connection = UnixHTTPConnection(folder / "app.sock")
        while not enough.is_set():
            try:
                connection.request("GET", "/pid")
                response = connection.getresponse()
                content = response.read()
                assert response.status == 200, content
                last = int(content)
                serving.add(last)
                done += 1
            except (OSError, http.client.HTTPException):  # the latter for a response cut short
                failed.append(last)
                connection.close()
                connection, last = UnixHTTPConnection(folder / "app.sock"), 0
        connection.close()
        return done, failed

    with daemon(folder, caddyfile(folder, interface)) as process, ThreadPoolExecutor(32) as pool:
        runs = [pool.submit(hammer, number) for number in range(32)]
        victims: set[int] = set()
        try:
            time.sleep(0.5)
            for _ in range(KILLS):
                due = time.monotonic() + 0.2
                eventually(lambda: serving - victims, "an answer by another worker")
                victim = min(serving - victims)
                victims.add(victim)
                os.kill(victim, signal.SIGKILL)
                time.sleep(max(0.0, due - time.monotonic()))
            process.wait_for_log("worker failed")
            eventually(lambda: len(workers(process.pid) - victims) == 2, "the replacements")
            time.sleep(0.3)
        finally:
            enough.set()
        results = [run.result(PATIENCE_S) for run in runs]
        failed = [last for _, each in results for last in each]
        if KILLS > 1:
            print(f"{len(victims)} killed, {sum(done for done, _ in results)} answers, {len(failed)} failed")
        assert all(done for done, _ in results)
        # Whoever was at the victims: each client has at most one request under way.
        assert set(failed) <= {0, *victims}
        assert all(len(each) <= len(victims) for _, each in results)
        assert len(failed) <= 32 * len(victims)


def test_it_idles(folder: Path) -> None:
    with daemon(folder, caddyfile(folder)) as process:
        assert get("/pid", path=folder / "app.sock")[0] == 200
        process.wait_for_log("admin API ready")  # imported when all else is done
        everyone = {process.pid, *children(process.pid)}
        deadline = time.monotonic() + PATIENCE_S
        spent = 1.0
        while spent > 0.03 and time.monotonic() < deadline:  # on a busy machine the end of the start takes its time
            before = cpu_s(*everyone)
            time.sleep(1.0)
            spent = cpu_s(*everyone) - before
        assert spent <= 0.03
        resident = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        (pss_kb,) = (int(line.split()[1]) for line in resident.splitlines() if line.startswith("Pss:"))
        assert pss_kb < 60 * 1024


def test_a_message_on_standard_error_holds_nothing_that_a_terminal_obeys(folder: Path) -> None:
    (folder / "probe.py").write_text("raise ValueError('\\x1b[2J\\x9b31m gone')")
    (folder / "Caddyfile").write_text(caddyfile(folder))
    done = subprocess.run(
        [sys.executable, "-m", "caddysnake", "run"], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "gone" in done.stderr
    assert "\x1b" not in done.stderr
    assert "\x9b" not in done.stderr


def test_it_shows_no_secret_of_its_own_to_an_app(folder: Path) -> None:
    write(folder, SOURCE + "\ndef environment():\n    return dict(os.environ)\n")
    secrets = {"AWS_SECRET_ACCESS_KEY": "hush", "NOTIFY_SOCKET": "/nowhere", "LISTEN_FDS": "0", "LISTEN_PID": "1"}
    with daemon(folder, caddyfile(folder, more="env_var OWN value"), environ=secrets) as process:
        body = get("/environment", path=folder / "app.sock")[1].decode()
        assert "hush" not in body
        assert "NOTIFY_SOCKET" not in body
        assert "LISTEN" not in body
        assert '"OWN": "value"' in body
        for pid in children(process.pid):
            assert b"hush" not in Path(f"/proc/{pid}/environ").read_bytes()
            assert b"OWN" not in Path(f"/proc/{pid}/environ").read_bytes()


def test_a_start_that_takes_long_is_told_while_it_lasts(folder: Path) -> None:
    (folder / "slow").write_text("1")
    environ = {"CADDYSNAKE_START_TIMEOUT_WARN_AFTER": "200ms"}
    with daemon(folder, caddyfile(folder, workers=1), environ=environ) as process:
        assert process.log.count("app is taking a long time to load") == 1
        assert process.log.index("taking a long time") < process.log.index("app ready")


def test_a_time_for_slow_starts_that_is_none_is_passed_over(folder: Path) -> None:
    environ = {"CADDYSNAKE_START_TIMEOUT_WARN_AFTER": "soon"}
    with daemon(folder, caddyfile(folder, workers=1), environ=environ) as process:
        assert "taking a long time" not in process.log
