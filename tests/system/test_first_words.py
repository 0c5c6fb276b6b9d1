"""What the one who starts it is told: on a terminal, and in a log that machines read."""

from __future__ import annotations

import json
import os
import re
import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from support.caddies import caddy as find_caddy
from support.daemon import Process, daemon, eventually, free_port
from support.terminals import on_terminal

pytestmark = pytest.mark.system

APP = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'ok']\n"


def environ(folder: Path) -> dict[str, str]:
    return {"PATH": f"{Path(find_caddy('current')).parent}:{os.environ['PATH']}", "HOME": str(folder)}


def site(address: str, *options: str, app: str = "main:app") -> str:
    block = f"\tpython {{\n\t\tmodule_wsgi {app}\n\t\tworkers 1\n\t}}\n"
    return "{\n" + "".join(f"\t{option}\n" for option in options) + f"}}\n{address} {{\n{block}}}\n"


def fetched(url: str, trusting: ssl.SSLContext) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=60, context=trusting) as answer:
            return bytes(answer.read())
    except urllib.error.URLError:
        return b""


def records(process: Process) -> list[dict[str, object]]:
    return [json.loads(line) for line in process.log.splitlines()]


def test_every_line_of_a_json_log_is_json_with_a_level_caddys_too(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(APP)
    url = f"http://127.0.0.1:{free_port()}"
    with daemon(tmp_path, site(url, "debug"), "--caddy", environ=environ(tmp_path)) as process:
        process.wait_for_log("admin API ready")
    found = records(process)
    assert all({"level", "ts", "logger", "msg"} <= record.keys() for record in found)
    assert [record["level"] for record in found if "ready in" in str(record["msg"])] == ["info"]
    caddys = [record for record in found if record.get("process") == "caddy"]
    assert {"info", "debug"} <= {record["level"] for record in caddys}
    assert "serving initial configuration" in [record["msg"] for record in caddys]


@pytest.mark.parametrize(
    ("text", "app", "message", "detail"),
    [
        pytest.param("a.sock {\n", APP, "Error: Caddyfile:", "", id="file"),
        pytest.param(None, "raise RuntimeError('no database')\n", "does not start", "no database", id="app"),
    ],
)
def test_a_start_that_is_refused_is_a_record_too_with_its_traceback(
    tmp_path: Path, text: str | None, app: str, message: str, detail: str
) -> None:
    (tmp_path / "main.py").write_text(app)
    (tmp_path / "Caddyfile").write_text(text or site(f"unix/{tmp_path}/a.sock"))
    process = Process([sys.executable, "-m", "caddysnake", "run"], tmp_path, "daemon")
    try:
        assert process.wait() == 1
    finally:
        process.close()
    last = records(process)[-1]
    assert last["level"] == "error"
    assert message in str(last["msg"])
    assert detail in str(last.get("error", ""))


def test_a_terminal_is_shown_the_address_last_and_of_caddy_only_what_is_amiss(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(APP)
    url = f"http://127.0.0.1:{free_port()}"
    (tmp_path / "Caddyfile").write_text(site(url))
    words = ("run", "--caddy")
    shown = on_terminal(tmp_path, *words, environ=environ(tmp_path), until=b" ready in ").decode()
    lines = [line for line in shown.splitlines() if line]
    assert re.fullmatch(rf"1 app ready in [\d.]+ s\. {url}/", lines[-1]), shown
    assert "process=caddy" not in shown
    assert "\x1b[34mINFO" in shown
    plain = on_terminal(tmp_path, *words, environ={**environ(tmp_path), "NO_COLOR": "1"}, until=b" ready in ")
    assert b"\x1b[" not in plain
    loud = site(url, "log {\n\t\tlevel INFO\n\t}")
    (tmp_path / "Caddyfile").write_text(loud)
    shown = on_terminal(tmp_path, *words, environ=environ(tmp_path), until=b" ready in ").decode()
    assert re.search(r"^[\d:.]+ \x1b\[34mINFO \x1b\[0m server running  .*process=caddy", shown, re.MULTILINE)


def test_local_https_comes_with_a_word_on_the_root_certificate_that_makes_it_trusted(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(APP)
    url = f"https://localhost:{free_port()}/"
    options = ("skip_install_trust", f"http_port {free_port()}")
    with daemon(tmp_path, site(url.rstrip("/"), *options), "--caddy", environ=environ(tmp_path)) as process:
        told = next(str(each["msg"]) for each in records(process) if "ready in" in str(each["msg"]))
        assert f"s. {url} Caddy signs {url} itself, and its root certificate (" in told
        assert "is not installed here (skip_install_trust): import it where you browse." in told
        root, asked = re.search(r"`curl --cacert (\S+) (\S+)`", told).groups()  # type: ignore[union-attr]
        trusting = ssl.create_default_context(cafile=root)
        eventually(lambda: fetched(asked, trusting) == b"ok", "the certificate, which comes a moment later")
