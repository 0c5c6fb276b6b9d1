"""One-off commands: as the app is, at a terminal of their own, with pipes that the daemon does not copy."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.admin import call, command
from support.daemon import PATIENCE_S, Process, alive, cpu_s, daemon, eventually, get, python_site

APP = """
def app(environ, start_response):
    start_response("200 OK", [])
    return [b"ok"]
"""


def text(folder: Path, *lines: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "main.py").write_text(APP)
    return python_site("unix/app.sock", "module_wsgi main:app", f"working_dir {folder}", "workers 1", *lines)


def begun(process: Process, folder: Path, *words: str, **more: int) -> subprocess.Popen[bytes]:
    environ = {**os.environ, "HOME": str(folder), "XDG_RUNTIME_DIR": process.runtime_dir, "TERM": "xterm"}
    asked = [sys.executable, "-m", "caddysnake", "exec", *words]
    return subprocess.Popen(asked, cwd=folder, env=environ, **more)


def test_it_has_what_the_app_has_and_its_status_is_the_commands(tmp_path: Path) -> None:
    with daemon(tmp_path, text(tmp_path / "blog", "env_var COLOUR blue")) as process:
        script = "import os, sys; print(os.getcwd(), os.environ['COLOUR'], sys.argv[1:]); sys.exit(7)"
        done = command(process, tmp_path, "exec", "blog", "python", "-c", script, "--", "--help", "-x")
        assert (done.returncode, done.stdout) == (7, f"{tmp_path}/blog blue ['--', '--help', '-x']\n")
        assert command(process, tmp_path, "exec", "main:app", "sh", "-c", "kill -9 $$").returncode == 137
        assert "3." in command(process, tmp_path, "exec", "main", "python", "--version").stdout
        done = command(process, tmp_path, "exec", "mein:app", "true")
        assert (done.returncode, "Did you mean 'main:app'?" in done.stderr) == (1, True)
        done = command(process, tmp_path, "exec", "blog", "no-such-command")
        assert (done.returncode, "there is no such command" in done.stderr) == (1, True)
    done = subprocess.run([sys.executable, "-m", "caddysnake", "exec", "--address", "127.0.0.1:1", "x"],
                          check=False, capture_output=True, text=True)  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


def test_a_gigabyte_through_its_pipes_costs_the_daemon_nothing(tmp_path: Path) -> None:
    with daemon(tmp_path, text(tmp_path / "blog")) as process:
        before = cpu_s(process.pid)
        copy = begun(process, tmp_path, "blog", "sh", "-c", "head -c 1000000000 /dev/zero", stdout=subprocess.PIPE)
        count = begun(process, tmp_path, "blog", "wc", "-c", stdin=copy.stdout.fileno(), stdout=subprocess.PIPE)  # type: ignore[union-attr]
        assert copy.stdout is not None
        copy.stdout.close()
        assert count.communicate(timeout=PATIENCE_S)[0].strip() == b"1000000000"
        assert copy.wait(PATIENCE_S) == 0
        assert cpu_s(process.pid) - before < 0.3


def test_at_a_terminal_it_has_one_of_its_own(tmp_path: Path) -> None:
    with daemon(tmp_path, text(tmp_path / "blog")) as process:
        ours, theirs = pty.openpty()
        try:
            script = (
                "import os, sys; print('size', *os.get_terminal_size(), os.ttyname(0), os.environ['TERM'], flush=True);"
                "\ntry: print('said', input(), flush=True); input()\nexcept KeyboardInterrupt: sys.exit(9)"
            )
            os.set_inheritable(theirs, True)
            import fcntl
            import struct
            import termios

            fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
            shell = begun(process, tmp_path, "blog", "python", "-c", script, stdin=theirs, stdout=theirs, stderr=theirs)
            seen = b""

            def until(what: bytes) -> None:
                nonlocal seen
                deadline = time.monotonic() + PATIENCE_S
                while what not in seen:
                    assert select.select([ours], [], [], max(0.0, deadline - time.monotonic()))[0], seen
                    seen += os.read(ours, 65536)

            until(b"size 99 33 /dev/pts/")
            until(b"xterm")
            assert os.ttyname(theirs).encode() not in seen, "its terminal is not the caller's"
            os.write(ours, b"hello\r")
            until(b"said hello")
            os.write(ours, b"\x03")
            assert shell.wait(PATIENCE_S) == 9
        finally:
            os.close(ours)
            os.close(theirs)


def test_whoever_interrupts_or_leaves_ends_it(tmp_path: Path) -> None:
    with daemon(tmp_path, text(tmp_path / "blog")) as process:
        noted = tmp_path / "blog" / "pid"
        for number, status in ((signal.SIGINT, 130), (signal.SIGKILL, -9)):
            noted.write_text("")
            waiting = begun(process, tmp_path, "blog", "sh", "-c", "echo $$ > pid; exec sleep 1000",
                            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
            eventually(lambda: noted.read_text().strip(), "the command")
            pid = int(noted.read_text())
            waiting.send_signal(number)
            assert waiting.wait(PATIENCE_S) == status
            eventually(lambda pid=pid: not alive(pid), "its end")  # type: ignore[misc]


def test_the_end_of_the_daemon_leaves_it_the_grace_period_and_no_more(tmp_path: Path) -> None:
    with daemon(tmp_path, "{\n grace_period 3s\n}\n" + text(tmp_path / "blog")) as process:
        polite = "trap 'sleep 1; exit 3' TERM HUP; echo here; while :; do sleep 0.05; done"
        deaf = "trap '' TERM HUP; echo here; while :; do sleep 0.05; done"
        with contextlib.ExitStack() as stack:
            null = subprocess.DEVNULL
            waiting = [
                stack.enter_context(
                    begun(
                        process, tmp_path, "blog", "sh", "-c", script, stdin=null, stderr=null, stdout=subprocess.PIPE
                    )
                )
                for script in (polite, deaf)
            ]
            for each in waiting:
                assert each.stdout is not None
                assert each.stdout.readline() == b"here\n"
            assert process.stop() == 0
            assert [each.wait(PATIENCE_S) for each in waiting] == [3, 137]


def test_an_upgrade_carries_it(tmp_path: Path) -> None:
    with daemon(tmp_path, text(tmp_path / "blog")) as process:
        script = "echo here; while ! test -e go; do sleep 0.05; done; exit 5"
        waiting = begun(process, tmp_path, "blog", "sh", "-c", script, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == b"here\n"
        command(process, tmp_path, "upgrade", check=True)
        (tmp_path / "blog" / "go").touch()
        assert waiting.wait(PATIENCE_S) == 5
        waiting.stdout.close()


def test_a_tenant_is_found_by_its_host_and_sleeps_on(tmp_path: Path) -> None:
    text(tmp_path / "anna")
    caddyfile = f"""
	http://*.test {{
		bind unix/all.sock
		python {{
			module_wsgi main:app
			working_dir {tmp_path}/{{http.request.host.labels.1}}
			schedule nightly "0 3 * * *" sh -c 'echo ran >> ran'
		}}
	}}
	"""
    with daemon(tmp_path, caddyfile) as process:
        assert command(process, tmp_path, "exec", "anna.test", "pwd").stdout == f"{tmp_path}/anna\n"
        done = command(process, tmp_path, "exec", "carl.test", "pwd")
        assert (done.returncode, "there is no app 'carl.test'" in done.stderr) == (1, True)
        done = command(process, tmp_path, "run-schedule", "anna.test", "nightly")
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "anna" / "ran").read_text() == "ran\n"
        assert "0 tenants awake" in process.log or call(process, "GET", "/apps").json["apps"] == []
        assert get("/", path=tmp_path / "all.sock", Host="anna.test")[0] == 200
        assert command(process, tmp_path, "exec", "anna main:app", "true").returncode == 0


def test_a_schedule_is_run_and_a_process_restarted_by_hand(tmp_path: Path) -> None:
    lines = ["schedule nightly `0 3 * * *` sh -c 'exit 4'", "process sleeper sleep 1000"]
    with daemon(tmp_path, text(tmp_path / "blog", *lines)) as process:
        done = command(process, tmp_path, "run-schedule", "blog", "nightly")
        assert (done.returncode, "exit status 4" in done.stderr) == (1, True)
        assert "Did you mean 'nightly'?" in command(process, tmp_path, "run-schedule", "blog", "nihtly").stderr
        process.wait_for_log('"msg":"process started"')
        answer = call(process, "POST", "/apps/main:app/processes/sleeper/restart")
        assert (answer.status, answer.json["count"]) == (200, 1)
        process.wait_for_log('"msg":"process started"', times=2)
        assert call(process, "POST", "/apps/main:app/processes/slepper/restart").json["code"] == "no-such-process"


def test_what_runs_is_not_run_beside_itself_unless_it_may_and_all_of_it_is_carried_and_ended(tmp_path: Path) -> None:
    text(tmp_path / "anna")
    caddyfile = f"""
	http://*.test {{
		bind unix/all.sock
		python {{
			module_wsgi main:app
			working_dir {tmp_path}/{{http.request.host.labels.1}}
			schedule single @yearly sleep 1000
			schedule many @yearly sleep 1000 {{
				overlap allow
			}}
		}}
	}}
	"""
    with daemon(tmp_path, caddyfile) as process, ThreadPoolExecutor() as pool:

        def pids(name: str) -> list[int]:
            (template,) = call(process, "GET", "/status").json["templates"]
            return next(each["running"] for each in template["schedules"] if each["name"] == name)

        for name in ("single", "many", "many"):
            count = len(pids(name))
            pool.submit(command, process, tmp_path, "run-schedule", "anna.test", name)
            eventually(lambda name=name, count=count: len(pids(name)) > count, name)  # type: ignore[misc]
        done = command(process, tmp_path, "run-schedule", "anna.test", "single")
        assert (done.returncode, f"single runs already, as process {pids('single')[0]}" in done.stderr) == (1, True)
        before = {*pids("single"), *pids("many")}
        command(process, tmp_path, "upgrade", check=True)
        assert {*pids("single"), *pids("many")} == before
        assert len(before) == 3
        process.stop()
        assert not any(map(alive, before))


@pytest.mark.parametrize("body", [b"", b"{}", b'{"command": []}', b'{"command": ["a\\u0000b"]}', b"[1]"])
def test_what_is_no_command_is_refused(tmp_path: Path, body: bytes) -> None:
    with daemon(tmp_path, text(tmp_path / "blog")) as process:
        answer = call(process, "POST", "/apps/main:app/exec", body, Upgrade="caddysnake-exec", Connection="Upgrade")
        assert answer.json["code"] == "bad-request"


def test_status_and_metrics_show_processes_and_schedules(tmp_path: Path) -> None:
    lines = ["schedule nightly `0 3 * * *` sh -c 'exit 4'", "process sleeper sleep 1000"]
    with daemon(tmp_path, text(tmp_path / "blog", *lines)) as process:
        process.wait_for_log('"msg":"process started"')
        command(process, tmp_path, "run-schedule", "blog", "nightly")
        (app,) = call(process, "GET", "/apps").json["apps"]
        (sleeper,) = app["processes"]
        assert (sleeper["name"], sleeper["state"], sleeper["restarts"]) == ("sleeper", "running", 0)
        assert alive(sleeper["pid"])
        (nightly,) = app["schedules"]
        assert (nightly["last_run"]["reason"], nightly["last_run"]["ok"]) == ("exit status 4", False)
        assert time.localtime(nightly["next_at"])[3:5] == (3, 0)
        metrics = call(process, "GET", "/metrics").body.decode()
        assert 'caddysnake_processes{app="main:app",process="sleeper",state="running"} 1.0' in metrics
        assert 'caddysnake_schedule_last_run_success{app="main:app",schedule="nightly"} 0.0' in metrics
        for words in (("status",), ("status", "main:app")):
            shown = command(process, tmp_path, *words, check=True).stdout
            assert str(sleeper["pid"]) in shown
            assert "exit status 4" in shown
