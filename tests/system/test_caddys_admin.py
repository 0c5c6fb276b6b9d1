"""The admin API of a Caddy that the daemon supervises, and an app of the daemon's own user that looks for it."""

from __future__ import annotations

import ast
import os
import signal
from pathlib import Path

import pytest
from support.caddies import caddy as find_caddy
from support.daemon import Process, children, daemon, free_port, get

pytestmark = pytest.mark.system

APP = """
import glob, os, socket

def reached(path):
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(path)
            sock.sendall(b"GET /config/ HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n")
            return b" 200 " in sock.recv(65536)
        except OSError:
            return False

def app(environ, start_response):
    start_response("200 OK", [])
    places = tuple(environ["QUERY_STRING"].split(","))
    named = [line.split()[-1] for line in open("/proc/net/unix") if "/" in line]
    known = [path for path in named + glob.glob("/proc/[0-9]*/fd/*") if path.startswith(places)]
    found = [path for path in known if reached(path)]
    return [b"WORD ", repr(found).encode()]
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "caddy").symlink_to(find_caddy("current"))
    return {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}


def site(folder: Path, port: int, word: str) -> str:
    (folder / f"app_{word}.py").write_text(APP.replace("WORD", word))
    block = f"\tpython {{\n\t\tmodule_wsgi app_{word}:app\n\t\tworkers 1\n\t}}\n"
    return f"http://127.0.0.1:{port} {{\n\tbind 127.0.0.1\n\theader X-Word {word}\n{block}}}\n"


def found_by_app(port: int, word: str, process: Process) -> list[str]:
    """Where the app, of this ``word``, gets to the API. Root could look into the daemon, which is closed to others."""
    places = [process.runtime_dir, *(f"/proc/{pid}/" for pid in children(process.pid))]
    status, body = get(f"/?{','.join(places)}", port)
    said, _, found = body.decode().partition(" ")
    assert (status, said) == (200, word)
    return list(ast.literal_eval(found))


def test_no_app_reaches_it_and_reloads_do(tmp_path: Path, environ: dict[str, str]) -> None:
    port = free_port()
    (tmp_path / "options").write_text("{\n\tgrace_period 5s\n}\n")  # in which no line can be put
    text = f"import options\n{site(tmp_path, port, 'one')}"
    with daemon(tmp_path, text, "--caddy", environ=environ) as process:
        assert found_by_app(port, "one", process) == []
        for times, word in enumerate(("two", "three", "four"), 1):
            if word == "four":
                os.kill(process.pid, signal.SIGUSR2)
                process.wait_for_log('"msg":"upgraded"')
            text = site(tmp_path, port, word)
            (tmp_path / "Caddyfile").write_text(text if word == "two" else f"import options\n{text}")
            os.kill(process.pid, signal.SIGHUP)
            process.wait_for_log('"msg":"reloaded"', times)
            assert found_by_app(port, word, process) == []
        wrong = site(tmp_path, port, "five").replace("header X-Word", "respond one two three")
        (tmp_path / "Caddyfile").write_text(wrong)
        os.kill(process.pid, signal.SIGHUP)
        process.wait_for_log("caddy refuses its part of the file")
        assert found_by_app(port, "four", process) == []
        assert '"address":"localhost:2019"' not in process.log
