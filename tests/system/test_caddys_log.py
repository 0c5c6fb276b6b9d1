"""The log of a Caddy that is supervised: its records go through ours, over an upgrade and a restart of it too."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path

import pytest
from support.admin import command
from support.caddies import caddy as find_caddy
from support.daemon import CADDY, Process, below, daemon, eventually, free_port, get

pytestmark = pytest.mark.system

APP = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'ok']\n"


def text(port: int, level: str, form: str = "") -> str:
    options = f"{{\n\tlog {{\n\t\tlevel {level}\n{form}\t}}\n}}\n"
    return f"{options}http://127.0.0.1:{port} {{\n\tlog\n\tpython main:app\n}}\n"


def caddys(process: Process) -> list[dict[str, object]]:
    found = []
    for line in process.log.splitlines():
        with contextlib.suppress(ValueError):
            record = json.loads(line)
            if record.get("process") == "caddy":
                found.append(record)
    return found


def requests(process: Process) -> list[object]:
    return [each["request"]["uri"] for each in caddys(process) if "request" in each]  # type: ignore[index]


def test_its_records_are_ours_over_an_upgrade_and_a_restart(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(APP)
    port = free_port()
    environ = {"PATH": f"{Path(find_caddy('current')).parent}:{os.environ['PATH']}"}
    with daemon(tmp_path, text(port, "INFO"), "--caddy", environ=environ) as process:
        process.wait_for_log("admin API ready")
        assert get("/one", port) == (200, b"ok")
        eventually(lambda: requests(process) == ["/one"], "the first request's record")
        (record,) = (each for each in caddys(process) if "request" in each)
        assert str(record["logger"]).startswith("http.log.access")
        assert record["status"] == 200
        command(process, tmp_path, "upgrade", check=True)
        assert get("/two", port) == (200, b"ok")
        eventually(lambda: requests(process) == ["/one", "/two"], "the record after an upgrade, once")
        os.kill(min(below(process.pid, CADDY)), signal.SIGKILL)
        process.wait_for_log("caddy ended and is started again")

        def answers() -> bool:
            with contextlib.suppress(OSError):
                return get("/three", port) == (200, b"ok")
            return False

        eventually(answers, "the Caddy that comes again")
        eventually(lambda: requests(process)[-1] == "/three", "its record")
        (tmp_path / "Caddyfile").write_text(text(port, "ERROR", "\t\tformat console\n"))
        command(process, tmp_path, "reload", check=True)
        assert get("/four", port) == (200, b"ok")
    assert requests(process)[-1] == "/three", "the level of the file holds for both"
