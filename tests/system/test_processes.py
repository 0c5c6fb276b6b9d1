"""Processes beside the workers: kept up, let go at their own pace, carried over an upgrade, and gone with the app."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from support.admin import command
from support.daemon import Process, alive, daemon, eventually

APP = """
def app(environ, start_response):
    start_response("200 OK", [])
    return [b"ok"]
"""
QUEUE = """
import os, signal, sys, time
name = sys.argv[1]
def note(what):
    with open("notes", "a") as file:
        file.write(f"{name} {what} {os.getpid()}\\n")
def leave(*_):
    note("told")
    while not os.path.exists("leave"):
        time.sleep(0.02)
    note("left")
    os._exit(0)
signal.signal(signal.SIGINT, leave)
note("started")
while True:
    time.sleep(1000)
"""


def text(folder: Path, *lines: str) -> str:
    more = "\n".join(lines)
    return f"""
{{
	grace_period 2s
}}
unix/app.sock {{
	python {{
		module_wsgi main:app
		working_dir {folder}
		workers 1
		{more}
	}}
}}
"""


class Notes:
    """What the processes have written."""

    def __init__(self, folder: Path) -> None:
        (folder / "main.py").write_text(APP)
        (folder / "tasks.py").write_text(QUEUE)
        self.path = folder / "notes"
        self.path.touch()

    def pids(self, what: str) -> list[int]:
        lines = [line.rsplit(" ", 1) for line in self.path.read_text().splitlines()]
        return [int(pid) for said, pid in lines if said == what]

    def wait(self, what: str, times: int = 1) -> int:
        eventually(lambda: len(self.pids(what)) >= times, f"{what!r} {times} times")
        return self.pids(what)[-1]


def test_one_that_is_killed_is_started_again_within_a_second(tmp_path: Path) -> None:
    notes = Notes(tmp_path)
    with daemon(tmp_path, text(tmp_path, "process queue python tasks.py a {\n count 2\n env_var A b\n}")) as process:
        notes.wait("a started", 2)
        os.kill(notes.pids("a started")[0], signal.SIGKILL)
        notes.wait("a started", 3)
        process.wait_for_log("process ended; it is started again in 0.")
        environ = Path(f"/proc/{notes.pids('a started')[2]}/environ").read_bytes().split(b"\0")
        assert b"A=b" in environ
        assert b"CADDYSNAKE_PROCESS=queue.1" in environ or b"CADDYSNAKE_PROCESS=queue.2" in environ
    assert not any(alive(pid) for pid in notes.pids("a started"))


def test_a_reload_lets_the_old_end_at_their_own_pace_before_the_new_begin(tmp_path: Path) -> None:
    notes = Notes(tmp_path)
    lines = [
        "process queue python tasks.py a {\n stop_signal INT\n stop_timeout 5m\n}",
        "process beat python tasks.py b {\n stop_signal INT\n stop_timeout 5m\n overlap on\n}",
    ]
    with daemon(tmp_path, text(tmp_path, *lines)) as process:
        old = notes.wait("a started")
        notes.wait("b started")
        begun = time.monotonic()
        for times in (2, 3):
            command(process, tmp_path, "reload", check=True)
            notes.wait("b started", times)  # before it listens, the signal ends it
        assert time.monotonic() - begun < 60, "neither this reload nor the next waits for it"
        notes.wait("a told")
        assert notes.pids("a started") == [old]
        assert alive(old)
        (tmp_path / "leave").touch()
        notes.wait("a started", 2)
        assert notes.pids("a left") == [old]
        assert len(notes.pids("a started")) == 2, "that of the build in between was never wanted"
        assert "never retrieved" not in process.log


def test_what_does_not_listen_is_ended_by_force_with_what_it_has_started(tmp_path: Path) -> None:
    notes = Notes(tmp_path)
    script = "trap '' TERM; sleep 1000 & echo a started $! >> notes; while :; do sleep 1; done"
    line = f"process deaf bash -c `{script}` {{\n stop_timeout 500ms\n}}"
    with daemon(tmp_path, text(tmp_path, line)) as process:
        child = notes.wait("a started")
        (tmp_path / "Caddyfile").write_text(text(tmp_path))
        command(process, tmp_path, "reload", check=True)
        process.wait_for_log("process did not end in its stop_timeout")
        eventually(lambda: not alive(child), "its end")


def test_one_that_ends_again_and_again_costs_its_app_only_and_is_told(tmp_path: Path) -> None:
    notes = Notes(tmp_path)
    lines = ["process bad false", "process once sh -c 'echo a started $$ >> notes' {\n restart on_failure\n}"]
    with daemon(tmp_path, text(tmp_path, *lines)) as process:
        process.wait_for_log("process has failed: it ends again and again")
        process.wait_for_log("process ended, and is not started again: restart on_failure")
        assert process.log.count("process ended; it is started again") == 1, "once a minute"
        assert len(notes.pids("a started")) == 1


def test_an_upgrade_carries_them_with_what_leaves_and_what_waits(tmp_path: Path) -> None:
    notes = Notes(tmp_path)
    line = "process queue python tasks.py a {\n stop_signal INT\n stop_timeout 5m\n}"
    with daemon(tmp_path, text(tmp_path, line, "process beat python tasks.py b")) as process:
        old, beat = notes.wait("a started"), notes.wait("b started")
        command(process, tmp_path, "upgrade", check=True)
        assert alive(old)
        assert alive(beat)
        command(process, tmp_path, "reload", check=True)
        notes.wait("a told")
        beat = notes.wait("b started", 2)
        command(process, tmp_path, "upgrade", check=True)
        assert alive(old)
        assert notes.pids("a started") == [old]
        (tmp_path / "leave").touch()
        notes.wait("a started", 2)
        os.kill(beat, signal.SIGKILL)
        notes.wait("b started", 3)
    left = [pid for what in ("a started", "b started") for pid in notes.pids(what) if alive(pid)]
    assert left == []


def test_those_of_an_app_with_placeholders_live_while_it_is_awake(tmp_path: Path) -> None:
    from support.daemon import get

    home = tmp_path / "anna"
    home.mkdir()
    notes = Notes(home)
    caddyfile = f"""
	http://*.test {{
		bind unix/all.sock
		python {{
			module_wsgi main:app
			working_dir {tmp_path}/{{http.request.host.labels.1}}
			process queue python tasks.py {{http.request.host.labels.1}}
		}}
	}}
	"""
    with daemon(tmp_path, caddyfile) as process:
        assert get("/", path=tmp_path / "all.sock", Host="anna.test")[0] == 200
        first = notes.wait("anna started")
        _evict(process, tmp_path)
        eventually(lambda: not alive(first), "its sleep")
        assert get("/", path=tmp_path / "all.sock", Host="anna.test")[0] == 200
        notes.wait("anna started", 2)


def _evict(process: Process, folder: Path) -> None:
    from support.admin import call

    assert call(process, "DELETE", "/apps/anna%20main:app").status == 200
