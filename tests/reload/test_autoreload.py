"""Apps start afresh when their code changes; code that does not start is told to whoever asks, until it is fixed."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import PATIENCE_S, Process, daemon, eventually, free_port, get, workers
from support.load import app

pytestmark = pytest.mark.system

BLOCK = """unix/x.sock {{
	python {{
		module_{interface} main:{interface}
		{lines}
	}}
}}
"""
WATCHED = "autoreload {\n debounce 300ms\n }"


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def caddyfile(interface: str, *lines: str) -> str:
    return BLOCK.format(interface=interface, lines="\n\t\t".join(lines))


def ask(folder: Path, **headers: str) -> tuple[int, str]:
    status, body = get("/", path=folder / "x.sock", **headers)
    return status, body.decode()


def version(folder: Path) -> str:
    status, body = ask(folder)
    assert status == 200, body
    return body.split()[0]


def test_an_app_that_does_not_start_any_more_tells_a_browser_why_and_heals_with_the_next_good_save(
    folder: Path, interface: str
) -> None:
    with daemon(folder, caddyfile(interface, "workers 2", WATCHED)) as process:
        assert version(folder) == "1"
        (folder / "main.py").write_text(app("2", "raise LookupError('no <database>')\n"))
        process.wait_for_log("does not start")
        eventually(lambda: not workers(process.pid), process)
        for _ in range(3):
            status, page = ask(folder, Accept="text/html")
            assert status == 500
            assert "LookupError: no &lt;database&gt;" in page
            assert "Traceback" in page
        assert process.log.count("does not start") == 1
        (folder / "main.py").write_text(app("3", "raise LookupError('no table')\n"))
        process.wait_for_log("does not start", 2)
        assert "no table" in ask(folder)[1]
        (folder / "main.py").write_text(app("4"))
        process.wait_for_log("app reloaded")
        assert version(folder) == "4"


def test_a_connection_that_was_told_of_broken_code_is_served_when_it_is_mended(folder: Path) -> None:
    with daemon(folder, caddyfile("wsgi", WATCHED)) as process, socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE_S)
        client.connect(str(folder / "x.sock"))

        def exchange() -> tuple[int, bytes]:
            client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            response = http.client.HTTPResponse(client, method="GET")
            response.begin()
            return response.status, response.read()

        assert exchange()[0] == 200
        (folder / "main.py").write_text(app("2", "1/0\n"))
        process.wait_for_log("does not start")
        assert exchange()[0] == 500
        (folder / "main.py").write_text(app("3"))
        process.wait_for_log("app reloaded")
        assert [exchange()[0], exchange()[0]] == [200, 200]


def test_a_change_while_new_code_hangs_in_its_import_gives_that_up(folder: Path) -> None:
    with daemon(folder, caddyfile("wsgi", WATCHED)) as process:
        (folder / "main.py").write_text(app("2", "import time; open('hangs', 'w').close(); time.sleep(600)\n"))
        eventually((folder / "hangs").exists, process)
        assert version(folder) == "1"
        (folder / "main.py").write_text(app("3"))
        process.wait_for_log("app reloaded")
        assert version(folder) == "3"
        eventually(lambda: len(workers(process.pid)) == len(os.sched_getaffinity(0)), process)


def test_changes_in_files_that_were_asked_for_count(folder: Path) -> None:
    lines = "autoreload {\n debounce 100ms\n watch *.html\n }"
    with daemon(folder, caddyfile("wsgi", lines)) as process:
        (folder / "page.html").write_text("changed")
        process.wait_for_log("app reloaded")
        assert '"changed":"page.html"' in process.log


def test_a_reload_of_everything_heals_too(folder: Path) -> None:
    with daemon(folder, caddyfile("wsgi", "autoreload {\n debounce 20s\n }")) as process:
        (folder / "main.py").write_text(app("2", "1/0\n"))
        process.popen.send_signal(signal.SIGHUP)
        process.wait_for_log("reload refused")
        assert version(folder) == "1"
        (folder / "main.py").write_text(app("3"))
        process.popen.send_signal(signal.SIGHUP)
        process.wait_for_log('"reloaded"')
        assert version(folder) == "3"


def test_a_daemon_that_watches_stops_at_once(folder: Path) -> None:
    with daemon(folder, caddyfile("wsgi", WATCHED)) as process:
        began = time.monotonic()
        assert process.stop() == 0
        assert time.monotonic() - began < 8


def test_without_autoreload_nothing_is_told_and_nothing_reloads(folder: Path) -> None:
    with daemon(folder, caddyfile("wsgi")) as process:
        (folder / "main.py").write_text(app("2"))
        time.sleep(1.0)
        assert version(folder) == "1"
        assert "reloaded" not in process.log


TENANTS = """unix/x.sock {
	python {
		module_wsgi main:wsgi
		working_dir {host}
		autoreload {
			debounce 100ms
		}
	}
}
"""


@pytest.fixture
def tenants(tmp_path: Path) -> Path:
    for name in ("ann.test", "ben.test"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "main.py").write_text(app("1"))
    return tmp_path


def test_a_change_renews_that_tenant_alone(tenants: Path) -> None:
    with daemon(tenants, TENANTS) as process:
        before = {name: ask(tenants, Host=name)[1].split()[3] for name in ("ann.test", "ben.test")}
        (tenants / "ann.test" / "main.py").write_text(app("2"))
        process.wait_for_log("app leaves")
        assert ask(tenants, Host="ann.test")[1].split()[0] == "2"
        assert ask(tenants, Host="ben.test")[1].split()[3] == before["ben.test"]


def test_a_tenant_that_does_not_start_is_tried_again_as_soon_as_it_is_mended(tenants: Path) -> None:
    main = tenants / "ann.test" / "main.py"
    main.write_text(app("1", "raise LookupError('no database')\n"))
    with daemon(tenants, TENANTS) as process:
        status, page = ask(tenants, Host="ann.test", Accept="text/html")
        assert status == 500
        assert "LookupError: no database" in page
        main.write_text(app("2"))
        eventually(lambda: ask(tenants, Host="ann.test")[0] == 200, process)
        assert process.log.count("app does not start") == 1


def test_tracebacks_are_for_development_only(tenants: Path) -> None:
    (tenants / "ann.test" / "main.py").write_text(app("1", "raise LookupError('no database')\n"))
    text = TENANTS[: TENANTS.index("\t\tautoreload")] + "\t}\n}\n"
    with daemon(tenants, text):
        status, page = ask(tenants, Host="ann.test", Accept="text/html")
        assert status == 500
        assert "LookupError" not in page


def test_one_command_serves_and_reloads(folder: Path, stack: contextlib.ExitStack) -> None:
    port = free_port()
    command = [sys.executable, "-m", "caddysnake", "serve", "--autoreload", "-l", f"127.0.0.1:{port}", "main:wsgi"]
    short = stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp"))  # paths of sockets have their limit
    process = Process(command, folder, "serve", {"XDG_RUNTIME_DIR": short})
    try:
        process.wait_for_log(" ready in ")
        assert get("/", port)[1].startswith(b"1 ")
        (folder / "main.py").write_text(app("2"))
        process.wait_for_log("app reloaded")
        assert get("/", port)[1].startswith(b"2 ")
        assert process.stop() == 0
    finally:
        process.close()


def test_the_command_stands_for_a_caddyfile_with_autoreload(folder: Path) -> None:
    command = [sys.executable, "-m", "caddysnake", "serve", "--autoreload", "--print", "main:wsgi"]
    printed = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert "\tautoreload\n" in printed.stdout
