"""What apps print, through a real daemon: told with app, process and stream, and never waited for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.daemon import (
    PATIENCE_S,
    Process,
    UnixHTTPConnection,
    alive,
    below,
    children,
    daemon,
    descriptors,
    eventually,
    get,
    python_site,
    workers,
)
from support.leaks import remove_folders_of
from support.probe import write

pytestmark = pytest.mark.system

SOURCE = """
import ctypes, faulthandler, logging, os, pathlib, subprocess, sys, threading
print("imported")

def big():
    for number in range(100_000):
        print("x" * 100, number)
    return "printed"

def everywhere():
    print("printed")
    os.write(2, b"a descriptor \\xff\\n")
    libc = ctypes.CDLL(None)
    libc.puts(b"from C")
    libc.fflush(None)
    subprocess.run(["sh", "-c", "echo a child; echo its error >&2"], check=True)
    pid = os.fork()
    if pid == 0:
        print("a fork")
        os._exit(0)
    os.waitpid(pid, 0)
    thread = threading.Thread(target=print, args=("a thread",))
    thread.start()
    thread.join()
    logging.getLogger("own").warning("a logger")
    try:
        raise ValueError("no luck")
    except ValueError:
        logging.exception("caught")
    faulthandler.dump_traceback(2)
    print("half a line", end="", flush=True)
    return os.getpid()

def fail():
    raise LookupError("nothing here")

def pid():
    return os.getpid()
"""


def caddyfile(folder: Path, interface: str = "wsgi", more: str = "") -> str:
    return python_site(f"unix/{folder}/app.sock", f"module_{interface} probe:{interface}", "workers 1", more)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, SOURCE)
    return tmp_path


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def log_process(pid: int) -> int:
    """The pid of the log process below the daemon ``pid``."""
    (found,) = below(pid, b"caddysnake.logs.main")
    return found


def test_whatever_writes_is_heard_line_by_line(folder: Path) -> None:
    (folder / "warm.py").write_text("import ctypes\nprint('preloaded')\nctypes.CDLL(None).puts(b'preloaded in C')\n")
    environ = {"PYTHONPATH": str(folder)}
    with daemon(folder, caddyfile(folder, more="preload warm\n\t\tpass_env PYTHONPATH"), environ=environ) as process:
        pid = int(get("/everywhere", path=folder / "app.sock")[1])
        process.wait_for_log("half a line")
        found = records(process.log)
    of_app = [record for record in found if record.get("pid") == pid]
    assert all(record["app"] == "probe:wsgi" and record["worker"] == 0 for record in of_app)
    told = {stream: [record["msg"] for record in of_app if record["logger"] == f"app.{stream}"]
            for stream in ("stdout", "stderr")}  # fmt: skip
    assert told["stdout"] == ["imported", "printed", "from C", "a child", "a fork", "a thread", "half a line"]
    assert told["stderr"][:4] == ["a descriptor \\xff", "its error", "a logger", "ERROR:root:caught"]
    assert told["stderr"][4] == "ValueError: no luck"
    trace = next(record for record in of_app if record["msg"] == "ValueError: no luck")
    assert trace["level"] == "error"
    assert trace["error"].startswith("Traceback (most recent call last):\n")
    assert any(record["msg"].endswith("(most recent call first):") for record in of_app)
    assert sorted(record["msg"] for record in found if record["logger"] == "spawner.stdout") == [
        "preloaded", "preloaded in C"
    ]  # fmt: skip


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_an_exception_of_the_app_is_one_record_whatever_serves_it(folder: Path, interface: str) -> None:
    (folder / "raises.py").write_text(
        "def wsgi(environ, start_response):\n    raise LookupError('nothing here')\n\n"
        "async def asgi(scope, receive, send):\n    assert scope['type'] == 'http'\n"
        "    raise LookupError('nothing here')\n"
    )
    with daemon(folder, caddyfile(folder, interface).replace("probe:", "raises:")) as process:
        assert get("/fail?secret=1", path=folder / "app.sock")[0] == 500
        process.wait_for_log("raised an exception")
        (record,) = [record for record in records(process.log) if record["logger"] == "worker"]
    assert record["level"] == "error"
    assert record["msg"] == "the app raised an exception"
    assert (record["app"], record["method"], record["path"]) == (f"raises:{interface}", "GET", "/fail")
    assert record["error"].startswith("Traceback (most recent call last):\n")
    assert record["error"].endswith("LookupError: nothing here")
    assert "asgi_cycle.py" not in record["error"]
    assert "secret" not in process.log


def test_print_waits_for_nobody_while_the_daemon_is_stopped(folder: Path) -> None:
    with daemon(folder, caddyfile(folder)) as process:
        connection = UnixHTTPConnection(folder / "app.sock")
        connection.request("GET", "/pid")
        assert connection.getresponse().read()
        os.kill(process.pid, signal.SIGSTOP)
        try:
            connection.request("GET", "/big")
            assert connection.getresponse().read() == b'"printed"'
            process.wait_for_log("output dropped")
        finally:
            os.kill(process.pid, signal.SIGCONT)
        connection.close()
        dropped = [record for record in records(process.log) if record["msg"].startswith("output dropped")]
        assert sum(record["lines"] for record in dropped) > 0, "as fast as it is printed it is not read"
        assert {record["app"] for record in dropped} == {"probe:wsgi"}
        assert "x" * 100 + " 999" in process.log


@pytest.fixture
def unread(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A daemon whose log goes into a pipe that is read only when the test does."""
    (folder / "Caddyfile").write_text(caddyfile(folder))
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "caddysnake", "run"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=writer,
        stderr=writer,
        start_new_session=True,
    )
    os.close(writer)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not (workers(process.pid) and (folder / "app.sock").exists()):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield process, reader
    finally:
        process.kill()
        process.wait()
        os.close(reader)


def test_print_waits_for_nobody_while_nobody_reads_the_log(
    folder: Path, unread: tuple[subprocess.Popen[bytes], int]
) -> None:
    """As when a terminal is stopped, or journald stands still. Neither does the daemon, nor its end."""
    process, reader = unread
    for _ in range(2):
        assert get("/big", path=folder / "app.sock") == (200, b'"printed"')
    process.terminate()
    assert process.wait(PATIENCE_S) == 0
    said = b""
    while data := os.read(reader, 1 << 20):
        said += data
    assert b"imported" in said


def test_the_log_process_is_started_again_and_nothing_fails(folder: Path) -> None:
    with daemon(folder, caddyfile(folder)) as process:
        first = log_process(process.pid)
        os.kill(first, signal.SIGKILL)
        assert get("/big", path=folder / "app.sock") == (200, b'"printed"')
        process.wait_for_log("the log process ended and is started again")
        get("/fail", path=folder / "app.sock")
        process.wait_for_log("LookupError")
        assert log_process(process.pid) != first


def test_a_log_process_that_is_stopped_is_ended_and_started_again(folder: Path) -> None:
    with daemon(folder, caddyfile(folder)) as process:
        first = log_process(process.pid)
        os.kill(first, signal.SIGSTOP)
        assert get("/big", path=folder / "app.sock") == (200, b'"printed"')  # more than the pipe holds
        process.wait_for_log("the log process is stopped")
        process.wait_for_log("the log process ended and is started again")
        get("/fail", path=folder / "app.sock")
        process.wait_for_log("LookupError")
        assert log_process(process.pid) != first


def test_pipes_that_a_helper_keeps_are_given_back_when_its_worker_has_ended(folder: Path) -> None:
    with (folder / "probe.py").open("a") as file:
        file.write(
            "\nhelpers = []\n\ndef detach():\n"
            "    helpers.append(subprocess.Popen(['sleep', '60'], start_new_session=True))\n    return os.getpid()\n"
        )
    with daemon(folder, caddyfile(folder)) as process:
        log = log_process(process.pid)
        pid = int(get("/pid", path=folder / "app.sock")[1])
        before = len(os.listdir(f"/proc/{log}/fd"))
        ours = len(os.listdir(f"/proc/{process.pid}/fd"))
        for _ in range(4):
            pid = int(get("/detach", path=folder / "app.sock")[1])
            os.kill(pid, signal.SIGKILL)
            eventually(lambda gone=(b"", b"%d" % pid): get("/pid", path=folder / "app.sock")[1] not in gone)
        eventually(lambda: descriptors(log) <= before and descriptors(process.pid) <= ours + 2)
        left = below(process.pid, b"sleep\0")
        assert len(left) == 4
        for child in left:
            os.kill(child, signal.SIGKILL)


def test_when_the_daemon_is_killed_the_log_process_is_the_last_to_leave(folder: Path) -> None:
    with daemon(folder, caddyfile(folder)) as process:
        below = children(process.pid)
        log = log_process(process.pid)
        process.popen.kill()
        deadline = time.monotonic() + PATIENCE_S
        while any(alive(pid) for pid in below):
            assert time.monotonic() < deadline
            assert alive(log) or not any(alive(pid) for pid in below)
            time.sleep(0.02)
        remove_folders_of(process.pid)


def test_what_is_told_of_a_failed_start_comes_last(folder: Path) -> None:
    write(folder, "print('about to fail')\nraise ValueError('broken')\n")
    (folder / "Caddyfile").write_text(caddyfile(folder))
    process = Process([sys.executable, "-m", "caddysnake", "run"], folder, "daemon")
    try:
        assert process.wait() == 1
        log = process.log
        assert log.index("about to fail") < log.index("Error: app probe:wsgi does not start (import-failed)")
        assert '"app":"probe:wsgi","code":"import-failed"' in log.splitlines()[-1]
    finally:
        process.close()


def test_threads_of_a_host_are_told_apart(tmp_path: Path) -> None:
    text = ""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"app_{name}.py").write_text(
            f"import os, threading\nprint('{name} is imported')\n"
            "def app(environ, start_response):\n"
            f"    print('{name}', 'prints', 4, 'pieces')\n"
            f"    thread = threading.Thread(target=print, args=('a thread of {name}',))\n"
            "    thread.start()\n    thread.join()\n"
            f"    os.write(1, b'{name} by descriptor\\n')\n"
            "    if environ['PATH_INFO'] == '/raise':\n        raise ValueError('no')\n"
            "    start_response('200 OK', [])\n    return [b'ok']\n"
        )
        text += (
            f"unix/{tmp_path}/{name}.sock {{\n\tpython {{\n\t\tmodule_wsgi app_{name}:app\n\t\tworkers 1\n\t\tlog\n"
            f"\t\tworking_dir {tmp_path}/{name}\n\t\tworkers_runtime thread\n\t}}\n}}\n"
        )
    with daemon(tmp_path, text) as process:
        for name in ("one", "two"):
            assert get("/", path=tmp_path / f"{name}.sock") == (200, b"ok")
            assert get("/raise", path=tmp_path / f"{name}.sock")[0] == 500
        process.wait_for_log("handled request", 4)
        process.wait_for_log("two by descriptor", 2)
        found = records(process.log)
    for name in ("one", "two"):
        of_app = [record for record in found if record.get("app") == f"app_{name}:app"]
        told = [record["msg"] for record in of_app if record["logger"] == "app.stdout"]
        assert told == [f"{name} is imported", *[f"{name} prints 4 pieces", f"a thread of {name}"] * 2]
        assert [record["msg"] for record in of_app if record["logger"] == "worker"] == ["the app raised an exception"]
        assert [record["status"] for record in of_app if record["msg"] == "handled request"] == [200, 500]
    assert {record["app"] for record in found if "by descriptor" in record["msg"]} == {"thread host"}


def test_level_and_format_are_the_files_and_a_reload_changes_them(folder: Path) -> None:
    with daemon(folder, "{\n\tlog {\n\t\tlevel ERROR\n\t\tformat console\n\t}\n}\n" + caddyfile(folder)) as process:
        assert get("/fail", path=folder / "app.sock")[0] == 500
        process.wait_for_log("the app raised an exception")
        assert "imported" not in process.log
        assert "ERROR the app raised an exception  app=probe:wsgi method=GET path=/fail" in process.log
        assert "\n    Traceback (most recent call last):\n" in process.log
        (folder / "Caddyfile").write_text("{\n\tdebug\n}\n" + caddyfile(folder))
        process.popen.send_signal(signal.SIGHUP)
        process.wait_for_log('"msg":"reloaded"')
        get("/big", path=folder / "app.sock")
        process.wait_for_log('"logger":"app.stdout"')
