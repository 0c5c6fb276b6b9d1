"""``caddysnake logs`` of a real daemon."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.admin import call, command
from support.daemon import PATIENCE_S, Process, daemon, eventually, get

pytestmark = pytest.mark.system

APP = """
import sys

def wsgi(environ, start_response):
    print("printed", environ["QUERY_STRING"])
    if environ["PATH_INFO"] == "/fails":
        raise LookupError("no such thing \\x1b[31m")
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""
SITES = """unix/a.sock {
	python {
		module_wsgi one:wsgi
		working_dir a
		workers 1
		log
		process echo sh -c "echo from a copy; exec sleep 1000" {
			count 2
		}
		schedule nightly "0 3 * * *" true
	}
}
unix/t.sock {
	python {
		module_wsgi two:wsgi
		working_dir tenants/{host}
		workers 1
	}
}
"""


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    for place, name in (("a", "one"), ("tenants/ann.test", "two")):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / f"{name}.py").write_text(APP)
    with daemon(tmp_path, SITES) as process:
        process.wait_for_log("admin API ready")
        yield process


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_what_was_logged_is_found_by_app_level_time_and_text(process: Process, tmp_path: Path) -> None:
    get("/?first", path=tmp_path / "a.sock")
    get("/?tenant", path=tmp_path / "t.sock", Host="ann.test")
    get("/fails?second", path=tmp_path / "a.sock")
    process.wait_for_log('"uri":"/fails?second"')
    every = records(command(process, tmp_path, "logs", check=True).stdout)
    assert {"daemon", "worker", "app.stdout", "http.log.access"} <= {each["logger"] for each in every}
    assert [each["ts"] for each in every] == sorted(each["ts"] for each in every)

    def told(*words: str) -> list[str]:
        return [each["msg"] for each in records(command(process, tmp_path, "logs", *words, check=True).stdout)]

    assert "printed tenant" not in told("one:wsgi")
    assert "printed tenant" in told("ann.test")
    assert "printed tenant" in told("ann.test two:wsgi")
    assert told("one:wsgi", "--level", "warn") == ["the app raised an exception", "handled request"]
    assert told("--grep", "first$") == ["printed first"]
    assert told("--grep", "printed", "-n", "1") == ["printed second"]
    assert told("--grep", '"uri":"/\\?first"') == ["handled request"]
    assert told("--since", "1ms") == []
    assert "printed first" in told("--since", "1h30m")


@pytest.mark.parametrize("words", [[], ["--grep", "printed", "-n", "1"]])
def test_it_goes_on_with_what_comes_also_over_an_upgrade(process: Process, tmp_path: Path, words: list[str]) -> None:
    get("/?earlier", path=tmp_path / "a.sock")
    get("/?before", path=tmp_path / "a.sock")
    process.wait_for_log("printed before")
    environ = {**os.environ, "XDG_RUNTIME_DIR": process.runtime_dir, "HOME": str(tmp_path)}
    following = subprocess.Popen(
        [sys.executable, "-m", "caddysnake", "logs", "-f", "one:wsgi", *words],
        cwd=tmp_path,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert following.stdout is not None
    assert following.stderr is not None
    seen = b""

    def until(text: str) -> None:
        nonlocal seen
        deadline = time.monotonic() + PATIENCE_S
        while text.encode() not in seen:
            assert following.stdout is not None
            assert select.select([following.stdout], [], [], deadline - time.monotonic())[0], seen
            seen += os.read(following.stdout.fileno(), 65536)

    try:
        until("printed before")
        get("/?after", path=tmp_path / "a.sock")
        until("printed after")
        assert command(process, tmp_path, "upgrade").returncode == 0
        get("/?upgraded", path=tmp_path / "a.sock")
        until("printed upgraded")
        assert seen.count(b"printed before") == seen.count(b"printed after") == 1
        assert (b"printed earlier" in seen) == (not words)
        assert "printed before" in command(process, tmp_path, "logs", check=True).stdout, "it survives an upgrade"
        following.send_signal(signal.SIGINT)
        assert following.wait(PATIENCE_S) in (0, 130)
        assert following.stderr.read() == b""
    finally:
        following.kill()
        following.wait()
        following.stdout.close()
        following.stderr.close()


def test_readers_that_have_left_are_forgotten(process: Process, tmp_path: Path) -> None:
    def follows() -> bool:
        command = [sys.executable, "-c", FOLLOWS, str(process.runtime_dir)]
        return subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout == b"200"

    for _ in range(40):
        eventually(follows, "room for one who reads")  # that one has left is seen a little later
    eventually(lambda: call(process, "GET", "/logs?lines=1").status == 200, "room for one who reads")


FOLLOWS = """
import glob, socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.connect(glob.glob(sys.argv[1] + "/caddysnake/admin/*.sock")[0])
sock.sendall(b"GET /logs?follow=true&app=one:wsgi HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
print(sock.recv(12).split()[1].decode(), end="")
"""


def test_a_terminal_gets_colours_and_obeys_nothing(process: Process, tmp_path: Path) -> None:
    get("/fails?x", path=tmp_path / "a.sock")
    process.wait_for_log("the app raised an exception")
    primary, secondary = pty.openpty()
    environ = {**os.environ, "XDG_RUNTIME_DIR": process.runtime_dir, "HOME": str(tmp_path)}
    environ |= {"NO_COLOR": "", "TERM": "xterm"}
    words = [sys.executable, "-m", "caddysnake", "logs", "one:wsgi", "--level", "error"]
    with subprocess.Popen(words, cwd=tmp_path, env=environ, stdout=secondary) as shown:
        os.close(secondary)
        seen = b""
        try:
            while piece := os.read(primary, 65536):
                seen += piece
        except OSError:  # its other end is closed
            pass
        finally:
            os.close(primary)
    assert shown.returncode == 0
    assert b"\x1b[31mERROR\x1b[0m the app raised an exception" in seen
    assert b"no such thing \\x1b[31m" in seen
    assert set(re.findall(rb"\x1b\[[0-9;]*m", seen)) == {b"\x1b[31m", b"\x1b[0m"}


def test_the_copies_of_a_process_are_shown_together_or_one_by_itself(process: Process, tmp_path: Path) -> None:
    def shown(name: str) -> list[str]:
        every = records(command(process, tmp_path, "logs", "one:wsgi", "--process", name, check=True).stdout)
        return sorted(each["process"] for each in every if each["msg"] == "from a copy")

    eventually(lambda: shown("echo") == ["echo.1", "echo.2"], "both copies have written")
    assert shown("echo.2") == ["echo.2"]
    assert shown("nightly") == []


def test_what_cannot_be_shown_is_said(process: Process, tmp_path: Path) -> None:
    for words, said in (
        (["on:wsgi"], "Did you mean 'one:wsgi'?"),
        (["one:wsgi", "--process", "nightli"], "there is no process or schedule 'nightli'. Did you mean 'nightly'?"),
        (["one:wsgi", "--process", "echo.3"], "there is no process or schedule 'echo.3'. Did you mean 'echo."),
        (["--since", "yesterday"], "is no time: write 10m"),
        (["--level", "loud"], "invalid choice: 'loud'"),
        (["--grep", "("], "is no regular expression"),
        (["-n", "-1"], "is no number of lines"),
    ):
        done = command(process, tmp_path, "logs", *words)
        assert done.returncode == 1, words
        assert said in done.stderr, done.stderr
    for query in ("level=x", "since=nan", "lines=-1", "lines=x", "follow=perhaps"):
        answer = call(process, "GET", f"/logs?{query}")
        assert (answer.status, answer.json["code"]) == (400, "bad-request"), query
    assert call(process, "HEAD", "/logs?follow=true").status == 200
