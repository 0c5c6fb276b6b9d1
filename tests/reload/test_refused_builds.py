"""Code that imports and does not work takes over nothing, where the block says how to find out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.daemon import Process, daemon, get

CADDYFILE = """
{
	admin unix/admin.sock
}
http://shop.test {
	bind unix/app.sock
	python {
		module_wsgi main:wsgi
		workers 1
		warmup /table
	}
}
"""
GOOD = """
import os
def wsgi(environ, start):
    assert environ["HTTP_HOST"] == "shop.test", environ
    start("200 OK", [])
    return [b"good"]
"""
SICK = """
def query(): raise LookupError("no such table: shop")
def wsgi(environ, start): return query()
"""


def command(process: Process, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    asked = [sys.executable, "-m", "caddysnake", *arguments]
    environ = {"HOME": str(folder), "XDG_RUNTIME_DIR": process.runtime_dir, "PATH": ""}
    return subprocess.run(asked, check=False, cwd=folder, capture_output=True, text=True, env=environ, timeout=60)


def test_a_reload_is_refused_by_a_warm_up_with_answer_and_traceback(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(GOOD)
    with daemon(tmp_path, CADDYFILE) as process:
        (tmp_path / "main.py").write_text(SICK)
        done = command(process, tmp_path, "reload")
        assert done.returncode == 1
        assert "app main:wsgi does not start (warmup-failed)" in done.stderr
        assert "GET /table was answered with 500" in done.stderr
        assert 'in query\n' in done.stderr, "the traceback"
        assert "LookupError: no such table: shop" in done.stderr
        assert get("/", path=tmp_path / "app.sock", Host="shop.test") == (200, b"good")
        (tmp_path / "main.py").write_text(GOOD)
        assert command(process, tmp_path, "reload").returncode == 0
