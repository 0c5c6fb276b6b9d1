"""The fork server: what it refuses, and that nothing outlives the daemon."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import eventually
from support.probe import ask, exchange, write
from support.worker import PATIENCE_S, ForkServer, Worker, receive, settings

from caddysnake.channel import vitals
from caddysnake.channel.endpoint import Endpoint, pair
from caddysnake.channel.messages import PROTOCOL_VERSION, Configure, Failed, Prepared, Reap, Reaped, Spawn, Spawned
from caddysnake.channel.settings import Settings, seal
from caddysnake.worker.fork_server import undumpable
from caddysnake.worker.process.setup import set_title


@contextlib.contextmanager
def fork_server(**options: object) -> Iterator[ForkServer]:
    made = ForkServer(**options)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        made.close()


def preload(folder: Path, source: str) -> Failed:
    (folder / "warm.py").write_text(source)
    with fork_server(preload=["json", "warm"], path=[str(folder)]) as made:
        assert isinstance(made.first, Failed)
        assert made.process.wait(PATIENCE_S) == 1
        return made.first


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


def wait_until_gone(pid: int) -> None:
    eventually(lambda: not is_alive(pid), f"the end of {pid}")


# -- preloading --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
        "import _thread, time\n_thread.start_new_thread(time.sleep, (60,))",
        "from concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor(1)\npool.submit(int)",
    ],
    ids=["threading", "_thread", "pool"],
)
def test_a_preload_that_leaves_a_thread_is_refused_by_name(tmp_path: Path, source: str) -> None:
    failed = preload(tmp_path, source)
    assert failed.code == "import-failed"
    assert failed.text.startswith("preload warm: importing it started a thread")
    assert "Remove it from `preload`" in failed.text


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("raise ValueError('no luck')", "ValueError: no luck"),
        ("import nowhere", "No module named 'nowhere'"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("def f(:", "SyntaxError"),
        ("import sys; sys.path.clear(); raise RuntimeError('x')", "RuntimeError: x"),
    ],
)
def test_a_preload_that_fails_is_told_with_its_traceback(tmp_path: Path, source: str, expected: str) -> None:
    failed = preload(tmp_path, source)
    assert failed.code == "import-failed"
    assert failed.text.startswith("preload warm:\n")
    assert expected in failed.text
    assert "fork_server.py" not in failed.text


def test_a_preload_may_change_the_path(tmp_path: Path) -> None:
    (tmp_path / "warm.py").write_text(f"import sys\nsys.path.remove({str(tmp_path)!r})\nsys.path.append('/added')")
    with fork_server(preload=["warm"], path=[str(tmp_path)]) as made:
        assert isinstance(made.first, Prepared)


def test_what_is_preloaded_is_shared_and_its_folder_is_not_on_every_workers_path(tmp_path: Path) -> None:
    (tmp_path / "warm").mkdir()
    (tmp_path / "warm" / "heavy.py").write_text("import os\nPID = os.getpid()")
    (tmp_path / "app").mkdir()
    source = "import heavy, os, sys\ndef facts():\n    return [heavy.PID == os.getppid(), sys.path]\n"
    write(tmp_path / "app", source)
    with fork_server(preload=["heavy"], path=[str(tmp_path / "warm")]) as made:
        worker = Worker(made, settings("probe:wsgi", "wsgi", tmp_path / "app"))
        shared, path = ask(worker, "facts")
        assert shared
        assert str(tmp_path / "warm") not in path
        worker.close()


def test_without_our_libraries_for_an_interpreter_the_error_names_what_installs_them(tmp_path: Path) -> None:
    with fork_server(libraries=[str(tmp_path)]) as made:
        assert isinstance(made.first, Failed)
        assert made.first.code == "setup-failed"
        assert f"caddysnake runtime install --python {sys.executable}" in made.first.text


def test_a_fork_server_says_what_it_runs() -> None:
    with fork_server() as made:
        assert made.first == Prepared(PROTOCOL_VERSION, f"CPython {sys.version.split()[0]}")


# -- forking and reaping -------------------------------------------------------------------------------------------


def fork(made: ForkServer, grace_s: float, number: int = 1) -> tuple[Endpoint, int]:
    ours, theirs = pair()
    assert made.endpoint.hand_over(Spawn(number, grace_s), [theirs.fileno()])
    theirs.close()
    spawned = receive(made.endpoint)
    assert isinstance(spawned, Spawned)
    return Endpoint(ours), spawned.pid


def configure(endpoint: Endpoint, wanted: Settings) -> None:
    page_fd, settings_fd = vitals.create("test"), seal(wanted)
    assert endpoint.hand_over(Configure(PROTOCOL_VERSION), [settings_fd, page_fd])
    os.close(page_fd)
    os.close(settings_fd)


def test_a_worker_leads_a_group_of_its_own_and_is_a_child_of_the_fork_server() -> None:
    with fork_server() as made:
        endpoint, pid = fork(made, 5.0)
        deadline = time.monotonic() + PATIENCE_S
        while os.getpgid(pid) != pid and time.monotonic() < deadline:
            time.sleep(0.01)
        assert os.getpgid(pid) == os.getsid(pid) == pid
        assert int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1]) == made.process.pid
        endpoint.close()


def test_a_child_is_reaped_when_that_is_asked_for_and_no_earlier() -> None:
    with fork_server() as made:
        endpoint, pid = fork(made, 5.0)
        os.kill(pid, signal.SIGSEGV)
        wait_until_gone(pid)
        assert Path(f"/proc/{pid}").exists()  # a zombie: its number is its own
        made.endpoint.send(Reap(1))
        assert receive(made.endpoint) == Reaped(1, signal.SIGSEGV)
        assert not Path(f"/proc/{pid}").exists()
        endpoint.close()


def test_a_reap_of_an_unknown_worker_is_ignored() -> None:
    with fork_server() as made:
        made.endpoint.send(Reap(77))
        endpoint, pid = fork(made, 5.0)
        endpoint.close()
        wait_until_gone(pid)


def test_a_fork_that_fails_is_told_and_the_fork_server_goes_on(tmp_path: Path) -> None:
    (tmp_path / "nofork.py").write_text(
        "import errno, os\nreal = os.fork\ndef fork():\n    os.fork = real\n    raise OSError(errno.EAGAIN, 'no')\n"
        "os.fork = fork"
    )
    with fork_server(preload=["nofork"], path=[str(tmp_path)]) as made:
        endpoint, pid = fork(made, 5.0)
        assert pid == -11
        endpoint.close()
        endpoint, pid = fork(made, 5.0, 2)
        assert pid > 0
        endpoint.close()


def test_a_worker_that_is_never_configured_leaves_when_its_channel_ends() -> None:
    with fork_server() as made:
        endpoint, pid = fork(made, 60.0)
        endpoint.close()
        wait_until_gone(pid)


# -- the end of the daemon ---------------------------------------------------------------------------------------

STUCK = {
    "sleeping": "import time\ntime.sleep(600)",
    "computing": "sum(range(10**12))",
    "holding_the_gil": "import ctypes\nctypes.PyDLL(None).sleep(600)",
    "catching_everything": (
        "import time\nwhile True:\n    try:\n        time.sleep(600)\n    except BaseException:\n        pass"
    ),
}


@pytest.mark.parametrize("source", STUCK.values(), ids=STUCK)
def test_a_worker_stuck_in_its_import_dies_with_its_channel(tmp_path: Path, source: str) -> None:
    (tmp_path / "stuck.py").write_text("open('reached', 'w').close()\n" + source)
    with fork_server() as made:
        endpoint, pid = fork(made, 600.0)
        configure(endpoint, settings("stuck:app", "wsgi", tmp_path))
        eventually((tmp_path / "reached").exists)
        time.sleep(0.05)  # into the depth of the statement
        assert is_alive(pid)
        endpoint.close()
        wait_until_gone(pid)


SERVING_STUCK = """
import ctypes, os, subprocess, threading

def hold():
    subprocess.Popen(["sleep", "600"])
    threading.Timer(0.05, lambda: ctypes.PyDLL(None).sleep(600)).start()
    return os.getpid()
"""


def children_of(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_a_worker_stuck_while_it_serves_is_killed_with_its_group_after_the_grace(
    tmp_path: Path, interface: str
) -> None:
    write(tmp_path, SERVING_STUCK)
    with fork_server(interface=interface, grace_s=0.3) as made:
        worker = Worker(made, settings(f"probe:{interface}", interface, tmp_path))
        with worker.connect() as client:
            assert exchange(client, "/hold")[1] == b"%d" % worker.pid
        (sleeper,) = children_of(worker.pid)
        time.sleep(0.2)
        worker.drop_duplicates()
        worker.page.close()
        worker.endpoint.close()
        made.endpoint.close()
        for pid in (worker.pid, sleeper):
            wait_until_gone(pid)
        assert made.process.wait(PATIENCE_S) == 0


STARTER = """
import subprocess

def start():
    return subprocess.Popen(["sleep", "600"]).pid
"""


def test_what_a_worker_started_ends_with_it_when_the_daemon_is_gone(tmp_path: Path) -> None:
    write(tmp_path, STARTER)
    with fork_server() as made:
        worker = Worker(made, settings("probe:wsgi", "wsgi", tmp_path))
        sleeper = ask(worker, "start")
        assert is_alive(sleeper)
        worker.page.close()
        worker.endpoint.close()
        made.endpoint.close()
        wait_until_gone(worker.pid)
        wait_until_gone(sleeper)


@pytest.mark.parametrize("source", STUCK.values(), ids=STUCK)
def test_a_fork_server_stuck_in_a_preload_dies_with_its_channel(tmp_path: Path, source: str) -> None:
    (tmp_path / "stuck.py").write_text(f"open({str(tmp_path / 'reached')!r}, 'w').close()\n" + source)
    with fork_server(preload=["stuck"], path=[str(tmp_path)], waits=False) as made:
        eventually((tmp_path / "reached").exists)
        made.endpoint.close()
        assert made.process.wait(PATIENCE_S) == -signal.SIGKILL


def test_a_fork_server_without_workers_leaves_at_once() -> None:
    with fork_server() as made:
        made.endpoint.close()
        assert made.process.wait(PATIENCE_S) == 0


def test_a_fork_server_ends_its_workers_even_if_the_daemon_died_while_it_forked(tmp_path: Path) -> None:
    """Its report of the fork finds nobody to hear it."""
    (tmp_path / "slow.py").write_text(
        "import os, time\nreal = os.fork\ndef fork():\n    pid = real()\n    time.sleep(0.5 if pid else 0)\n"
        "    return pid\nos.fork = fork"
    )
    with fork_server(preload=["slow"], path=[str(tmp_path)]) as made:
        ours, theirs = pair()
        assert made.endpoint.hand_over(Spawn(1, 0.2), [theirs.fileno()])
        eventually(lambda: children_of(made.process.pid))
        (pid,) = children_of(made.process.pid)
        made.endpoint.close()  # and the worker's own channel stays open: it does not know
        wait_until_gone(pid)
        assert made.process.wait(PATIENCE_S) == 0
        ours.close()
        theirs.close()


def test_an_interrupt_from_a_terminal_does_not_end_a_fork_server() -> None:
    with fork_server() as made:
        made.process.send_signal(signal.SIGINT)
        endpoint, _ = fork(made, 1.0)
        endpoint.close()


# -- privacy -----------------------------------------------------------------------------------------------------


def test_fork_server_and_worker_are_closed_to_others_of_the_same_user() -> None:
    with fork_server() as made:
        endpoint, pid = fork(made, 5.0)
        # proc(5): the files of an undumpable process belong to root, whoever runs it.
        for each in (made.process.pid, pid):
            assert Path(f"/proc/{each}/mem").stat().st_uid == 0
            assert is_undumpable(each)
        endpoint.close()


def is_undumpable(pid: int) -> bool:
    """Asked as an ordinary user, when we are root."""
    if os.getuid() != 0:
        try:
            os.readlink(f"/proc/{pid}/cwd")
        except PermissionError:
            return True
        return False
    check = "import os, sys\nos.setresgid(65534, 65534, 65534)\nos.setresuid(65534, 65534, 65534)\n" \
        "print(os.access(f'/proc/{sys.argv[1]}/environ', os.R_OK))"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", check, str(pid)], capture_output=True, text=True, check=True)
    return done.stdout == "False\n"


def test_an_undumpable_process_without_privileges_can_set_its_title() -> None:
    read, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if os.getuid() == 0:
                os.setresuid(65534, 65534, 65534)
            undumpable()
            set_title("caddysnake: worker blog:app")
            os.write(write_end, b"x")
            time.sleep(PATIENCE_S)
        finally:
            os._exit(0)
    assert os.read(read, 1) == b"x"
    assert Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0") == b"caddysnake: worker blog:app"
    assert Path(f"/proc/{pid}/comm").read_text() == "caddysnake\n"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(read)
    os.close(write_end)


def test_a_title_longer_than_the_place_for_it_is_cut() -> None:
    script = (
        "import os\nfrom caddysnake.worker.process.setup import set_title\nset_title('x' * 100_000)\n"
        "print(open('/proc/self/cmdline').read().rstrip(chr(0)))\nprint(os.environ['KEPT'])"
    )
    root = str(Path(__file__).resolve().parents[2])
    environ = {**os.environ, "KEPT": "whole"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=root, env=environ, capture_output=True, text=True, check=True)
    title, kept = done.stdout.split()
    assert set(title) == {"x"}
    assert len(title) < sum(len(argument) + 1 for argument in command)
    assert kept == "whole"
