"""The daemon under a service manager: what it says, what it is passed, and what it leaves there."""

from __future__ import annotations

import os
import signal
import socket
import stat
import threading
import time
from pathlib import Path

import pytest
from support.daemon import Process, alive, children, free_port, get, python_site
from support.leaks import remove_folders_of
from support.manager import Manager
from support.probe import write

pytestmark = pytest.mark.system

APP = """
import os

def environ():
    return sorted(os.environ)

def descriptors():
    return sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if int(fd) > 2)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, APP)
    (tmp_path / "broken.py").write_text("raise RuntimeError('on purpose')\n")
    (tmp_path / "Caddyfile").write_text(site("unix/app.sock"))
    return tmp_path


def site(*addresses: str) -> str:
    lines = ("module_wsgi probe:wsgi", "workers 1", "pass_env *")
    return "".join(python_site(address, *lines) for address in addresses)


def listening(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen()
    return sock


@pytest.mark.parametrize("is_abstract", [False, True])
def test_it_says_when_it_is_ready_reloading_and_stopping(folder: Path, is_abstract: bool) -> None:
    with Manager(folder, is_abstract) as manager, manager.daemon() as process:
        manager.wait_for("READY=1")
        assert f"MAINPID={process.pid}" in manager.said
        assert "STATUS=1 app, 1 worker" in manager.said
        manager.forget()
        before_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        process.popen.send_signal(signal.SIGHUP)
        manager.wait_for("READY=1")
        assert manager.said.index("RELOADING=1") < manager.said.index("READY=1")
        (moment,) = (line for line in manager.said if line.startswith("MONOTONIC_USEC="))
        assert before_us <= int(moment.partition("=")[2]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        manager.forget()
        assert process.stop() == 0
        manager.listen()
        assert "STOPPING=1" in manager.said
        assert "READY=1" not in manager.said


def test_a_reload_that_is_refused_stays_in_the_status(folder: Path) -> None:
    with Manager(folder) as manager, manager.daemon() as process:
        manager.wait_for("READY=1")
        (folder / "Caddyfile").write_text("unix/app.sock {\n\tpython probe:wsgi\n\tpyton\n}\n")
        process.popen.send_signal(signal.SIGHUP)
        manager.wait_for("READY=1", 2)
        assert "; Reload at " in manager.said[-1]
        assert f"refused: {folder}/Caddyfile:3" in manager.said[-1]
        assert get("/environ", path=folder / "app.sock")[0] == 200
        (folder / "Caddyfile").write_text(site("unix/app.sock"))
        process.popen.send_signal(signal.SIGHUP)
        manager.wait_for("READY=1", 3)
        assert manager.said[-1] == "STATUS=1 app, 1 worker"


def test_a_reload_asked_for_during_another_is_done_after_it(folder: Path) -> None:
    (folder / "probe.py").write_text("import time\ntime.sleep(0.5)\n" + (folder / "probe.py").read_text())
    with Manager(folder) as manager, manager.daemon() as process:
        process.popen.send_signal(signal.SIGHUP)
        manager.wait_for("RELOADING=1")
        process.popen.send_signal(signal.SIGHUP)
        process.wait_for_log('"reloaded"', 2)
        manager.wait_for("READY=1", 3)


def test_a_start_that_fails_is_explained_in_the_status(folder: Path) -> None:
    with Manager(folder) as manager:
        for text, told in (
            ("unix/app.sock {\n\tpyton\n}\n", "STATUS=Error: Caddyfile"),
            ("unix/app.sock {\n\tpython broken:app\n}\n", "STATUS=Error: app broken:app does not start"),
        ):
            (folder / "Caddyfile").write_text(text)
            process = manager.start()
            try:
                assert process.wait() == 1
            finally:
                process.close()
            manager.wait_for(told)


def test_while_it_starts_it_asks_for_more_time(folder: Path) -> None:
    (folder / "probe.py").write_text("import time\ntime.sleep(2)\n" + (folder / "probe.py").read_text())
    with Manager(folder) as manager, manager.daemon():
        manager.wait_for("READY=1")
        assert "EXTEND_TIMEOUT_USEC=30000000" in manager.said


def test_the_watchdog_hears_of_it_until_its_loop_stands_still(folder: Path) -> None:
    with Manager(folder) as manager, manager.daemon(WATCHDOG_USEC="1000000") as process:
        manager.wait_for("WATCHDOG=1", 5)
        process.popen.send_signal(signal.SIGSTOP)
        time.sleep(0.3)
        manager.forget()
        time.sleep(1.2)
        manager.listen()
        assert manager.said == []
        process.popen.send_signal(signal.SIGCONT)
        manager.wait_for("WATCHDOG=1")


def test_without_a_watchdog_or_for_another_process_there_are_no_signs_of_life(folder: Path) -> None:
    with Manager(folder) as manager, manager.daemon(WATCHDOG_USEC="400000", WATCHDOG_PID="1"):
        manager.wait_for("READY=1")
        time.sleep(1.5)
        manager.listen()
        assert "WATCHDOG=1" not in manager.said


def test_what_it_was_told_about_itself_reaches_no_app_and_no_descriptor_either(folder: Path) -> None:
    with (
        Manager(folder) as manager,
        listening(folder / "app.sock") as sock,
        manager.daemon({"app.socket": sock.fileno()}, WATCHDOG_USEC="60000000"),
    ):
        names = get("/environ", path=folder / "app.sock")[1].decode()
        assert "PATH" in names
        for variable in ("NOTIFY_SOCKET", "LISTEN_", "WATCHDOG_"):
            assert variable not in names
        inode = os.stat(sock.fileno()).st_ino
        assert f"socket:[{inode}]" not in get("/descriptors", path=folder / "app.sock")[1].decode()


def test_a_passed_socket_is_used_and_stays_where_it_is(folder: Path) -> None:
    (folder / "Caddyfile").write_text(site("unix/app.sock|0600", "unix/other.sock"))
    with Manager(folder) as manager, listening(folder / "app.sock") as sock:
        mode = stat.S_IMODE((folder / "app.sock").stat().st_mode)
        with socket.socket(socket.AF_UNIX) as early:  # connected before there is anybody to accept
            early.connect(str(folder / "app.sock"))
            early.sendall(b"GET /environ HTTP/1.1\r\nHost: test\r\n\r\n")
            with manager.daemon({"caddysnake.socket": sock.fileno()}) as process:
                assert early.recv(15) == b"HTTP/1.1 200 OK"
                assert "listener was passed" in process.log
                manager.wait_for("READY=1")
                assert list(manager.store) == [f"unix/{folder}/other.sock"]
                assert process.stop() == 0
        assert stat.S_IMODE((folder / "app.sock").stat().st_mode) == mode
        with socket.socket(socket.AF_UNIX) as late:
            late.connect(str(folder / "app.sock"))


@pytest.mark.parametrize("written", ["tcp/127.0.0.1:{port}", "tcp/localhost:{port}", "fd/3"])
def test_a_passed_tcp_socket_is_found_by_its_address_or_number(folder: Path, written: str) -> None:
    with socket.socket() as sock, Manager(folder) as manager:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        (folder / "Caddyfile").write_text(site(written.format(port=port)))
        with manager.daemon({"": sock.fileno()}) as process:
            assert get("/environ", port=port)[0] == 200
            assert "no site listens" not in process.log
            manager.wait_for("READY=1")
            assert manager.store == {}


def test_a_passed_socket_that_nobody_wants_is_told(folder: Path) -> None:
    with (
        Manager(folder) as manager,
        listening(folder / "typo.sock") as sock,
        manager.daemon({"caddysnake.socket": sock.fileno()}) as process,
    ):
        assert get("/environ", path=folder / "app.sock")[0] == 200
        assert "a socket was passed that no site listens on" in process.log
        assert f'"socket":"unix/{folder}/typo.sock","from":"caddysnake.socket"' in process.log


def test_a_passed_connection_is_an_error_that_names_the_cause(folder: Path) -> None:
    port = free_port()
    (folder / "Caddyfile").write_text(site(f"tcp/127.0.0.1:{port}"))
    with Manager(folder) as manager, socket.socket() as sock:
        sock.bind(("127.0.0.1", port))
        process = manager.start({"connection": sock.fileno()})
        try:
            assert process.wait() == 1
            assert "Accept=no" in process.log
        finally:
            process.close()


def kill(process: Process) -> None:
    """As a crash does it, and then the service manager: nothing that was started is left."""
    below = children(process.pid)
    process.popen.kill()
    process.wait()
    for pid in below:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
    remove_folders_of(process.pid)


@pytest.mark.parametrize("address", ["unix/app.sock|0640", "tcp/127.0.0.1:{port}"])
def test_who_connects_between_a_crash_and_the_next_start_is_served(folder: Path, address: str) -> None:
    port = free_port()
    (folder / "Caddyfile").write_text(site(address.format(port=port)))
    where = {"path": folder / "app.sock"} if address.startswith("unix") else {"port": port}
    answers = []
    with Manager(folder) as manager:
        with manager.daemon() as process:
            manager.wait_for("READY=1")
            kill(process)
        manager.listen()
        threads = [
            threading.Thread(target=lambda: answers.append(get("/environ", **where)[0]))  # type: ignore[arg-type]
            for _ in range(10)
        ]
        for thread in threads:
            thread.start()
        with manager.daemon() as process:
            for thread in threads:
                thread.join(60)
            assert answers == [200] * 10
            assert "listener taken up again" in process.log
            if "path" in where:
                assert stat.S_IMODE((folder / "app.sock").stat().st_mode) == 0o640
            process.stop()
        # It was told to stop, and not whether to be started again: who comes now waits, until the store is emptied.
        assert (folder / "app.sock").exists() == ("path" in where)
        manager.listen()
        assert len(manager.store) == 1


def test_a_listener_that_is_configured_no_more_leaves_the_store(folder: Path) -> None:
    two = site("unix/app.sock", "unix/b.sock")
    with Manager(folder) as manager:
        (folder / "Caddyfile").write_text(two)
        with manager.daemon() as process:
            manager.wait_for("READY=1")
            assert len(manager.store) == 2
            (folder / "Caddyfile").write_text(site("unix/app.sock"))
            process.popen.send_signal(signal.SIGHUP)
            process.wait_for_log('"reloaded"')
            manager.wait_for("READY=1", 2)
            assert list(manager.store) == [f"unix/{folder}/app.sock"]
            (folder / "Caddyfile").write_text(two)
            process.popen.send_signal(signal.SIGHUP)
            process.wait_for_log('"reloaded"', 2)
            kill(process)
        manager.listen()
        assert len(manager.store) == 2
        (folder / "Caddyfile").write_text(site("unix/app.sock"))
        with manager.daemon() as process:
            assert "a former listener is given up" in process.log
            assert not (folder / "b.sock").exists()
            manager.wait_for("FDSTOREREMOVE", 2)
            assert list(manager.store) == [f"unix/{folder}/app.sock"]


def test_a_socket_whose_path_was_taken_by_another_is_made_anew(folder: Path) -> None:
    with Manager(folder) as manager:
        with manager.daemon() as process:
            manager.wait_for("READY=1")
            kill(process)
        manager.listen()
        (folder / "app.sock").unlink()
        with manager.daemon() as process:
            assert "leads elsewhere" in process.log
            assert get("/environ", path=folder / "app.sock")[0] == 200
            manager.wait_for("READY=1", 2)
            kill(process)
        with manager.daemon():
            assert get("/environ", path=folder / "app.sock")[0] == 200


@pytest.mark.parametrize("text", ["unix/app.sock {\n\tpyton\n}\n", "unix/app.sock {\n\tpython broken:app\n}\n"])
def test_after_a_start_that_fails_clients_are_refused_rather_than_kept_waiting(folder: Path, text: str) -> None:
    with Manager(folder) as manager:
        with manager.daemon() as process:
            manager.wait_for("READY=1")
            kill(process)
        manager.listen()
        (folder / "Caddyfile").write_text(text)
        process = manager.start()
        try:
            assert process.wait() == 1
        finally:
            process.close()
        manager.listen()
        assert manager.store == {}
        assert not (folder / "app.sock").exists()


def test_a_manager_that_does_not_listen_or_is_not_there_holds_up_nothing(folder: Path) -> None:
    with Manager(folder) as manager:
        (folder / "Caddyfile").write_text(site(*(f"unix/{number}.sock" for number in range(30))))
        with manager.daemon() as process:  # its queue is short, and nobody reads it
            assert get("/environ", path=folder / "29.sock")[0] == 200
            manager.wait_for("READY=1")
            manager.wait_for("FDSTORE=1", 30)
            assert len(manager.store) == 30
        address = manager.address
    os.unlink(address)
    with Manager(folder) as manager, manager.daemon(NOTIFY_SOCKET=str(folder / "nobody")) as process:
        assert process.stop() == 0
