"""Somebody sends a worker, or the process of many, SIGTERM: it ends now, but in order, and another takes its place."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from pathlib import Path

import pytest
from support.daemon import PATIENCE_S, below, daemon, eventually
from support.rawhttp import RawClient

APPS = Path(__file__).parents[2] / "worker" / "end_apps.py"
BLOCK = """unix/{folder}/a.sock {{
	python {{
		module_{interface} end_apps:{interface}
		workers 1
		workers_runtime {host}
		runtime {runtime}
		env_var NOTES {folder}/notes
	}}
}}
"""
TITLES = {"process": b"caddysnake: worker", "thread": b"caddysnake: thread host"}
STEPS = {"asgi": ["cancelled", "cleaned up", "shutdown", "atexit"], "wsgi": ["closed", "atexit"]}


@pytest.mark.parametrize("host", ["process", "thread"])
@pytest.mark.parametrize(("interface", "runtime"), [("asgi", "uvloop"), ("asgi", "native"), ("wsgi", "sync")])
def test_it_ends_in_order_and_is_replaced(interface: str, runtime: str, host: str, tmp_path: Path) -> None:
    shutil.copy(APPS, tmp_path)
    text = BLOCK.format(folder=tmp_path, interface=interface, host=host, runtime=runtime)
    notes = tmp_path / "notes"

    def connected() -> RawClient:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE_S)
        sock.connect(str(tmp_path / "a.sock"))
        return RawClient(sock)

    def stream() -> RawClient:
        client = connected()
        client.send(b"GET /loud HTTP/1.1\r\nHost: a\r\n\r\n")
        client.head()
        return client

    with daemon(tmp_path, text) as process, connected() as idle:
        (pid,) = below(process.pid, TITLES[host])
        assert idle.get("/short").body == b"ok"
        with stream():
            os.kill(pid, signal.SIGTERM)
            eventually(lambda: notes.exists() and "atexit" in notes.read_text(), "its end")
            assert notes.read_text().splitlines() == STEPS[interface]
        with stream():
            pass
        assert idle.get("/short").body == b"ok"
        assert "it was told to end by SIGTERM" in process.log
        assert "broke a rule" not in process.log
