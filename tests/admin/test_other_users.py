"""The admin API and users who are not its own: apps above all."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.admin import socket_of
from support.daemon import PATIENCE_S, daemon, get
from support.tenants import ALICE, BOB, Public, give, needs_root, public_folder

pytestmark = [needs_root, pytest.mark.system]

ASK = """
import socket

def ask(path):
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(path)
            sock.sendall(b"GET /health/live HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n")
            return sock.recv(4096)
        except OSError as exc:
            return type(exc).__name__.encode()
"""
APP = (
    ASK
    + """
def app(environ, start_response):
    start_response("200 OK", [])
    return [ask(environ["QUERY_STRING"])]
"""
)


@pytest.fixture
def folder() -> Iterator[Path]:
    with public_folder() as found:
        (found / "alice").mkdir()
        (found / "alice" / "main.py").write_text(APP)
        give(found / "alice", ALICE)
        yield found


def site(public: Public, folder: Path) -> str:
    return (
        "unix/a.sock {\n\tpython {\n\t\tmodule_wsgi main:app\n\t\tworkers 1\n"
        f"\t\tworking_dir {folder}/alice\n\t\tpython_path {public.python}\n\t\tuser {ALICE}\n\t}}\n}}\n"
    )


def as_bob(public: Public, path: Path) -> str:
    code = f"{ASK}\nimport sys\nprint(ask(sys.argv[1]).decode())"
    done = subprocess.run(
        [public.python, "-c", code, str(path)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
        user=BOB,
        group=BOB,
        cwd="/",
    )
    return done.stdout


def test_nobody_else_reaches_the_default_socket(folder: Path, public: Public) -> None:
    environ = {"PYTHONPATH": public.site, "PYTHONDONTWRITEBYTECODE": "1"}
    with daemon(folder, site(public, folder), environ=environ) as process:
        path = socket_of(process)
        assert get(f"/?{path}", path=folder / "a.sock") == (200, b"PermissionError")
        assert as_bob(public, path).strip() == "PermissionError"


def test_an_app_is_refused_on_a_socket_for_everybody(folder: Path, public: Public) -> None:
    environ = {"PYTHONPATH": public.site, "PYTHONDONTWRITEBYTECODE": "1"}
    text = "{\n\tadmin unix/admin.sock|0666\n}\n" + site(public, folder)
    with daemon(folder, text, environ=environ) as process:
        path = folder / "admin.sock"
        for _ in range(2):
            status, body = get(f"/?{path}", path=folder / "a.sock")
            assert status == 200
            assert body.startswith(b"HTTP/1.1 403 ")
            assert b'"forbidden-user"' in body
        assert process.log.count("tried the admin API") == 1
        assert '"status":"ok"' in as_bob(public, path)
