"""Apps that are not ready, and never will be, or that crash: where they stood is said, soon."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

import pytest
from support.daemon import Process, as_text, daemon, free_port, get, python_site

pytestmark = pytest.mark.system

SERVERS = {
    "uvicorn": "import uvicorn\nasync def app(scope, receive, send): ...\nuvicorn.run(app, port={port})\n",
    "flask": "from flask import Flask\napp = Flask(__name__)\ndef main():\n    app.run(port={port})\nmain()\n",
}


def site(folder: Path, kind: str = "wsgi", runtime: str = "process") -> str:
    return python_site(
        f"unix/{folder}/a.sock", f"module_{kind} main:app", "workers 1", f"workers_runtime {runtime}"
    )


@pytest.mark.parametrize(("server", "runtime"), [("uvicorn", "process"), ("flask", "process"), ("flask", "thread")])
def test_an_app_that_runs_a_server_of_its_own_is_refused_soon_with_its_line(
    tmp_path: Path, server: str, runtime: str
) -> None:
    (tmp_path / "main.py").write_text(SERVERS[server].format(port=free_port()))
    (tmp_path / "Caddyfile").write_text(site(tmp_path, "asgi" if server == "uvicorn" else "wsgi", runtime))
    begun = time.monotonic()
    process = Process([sys.executable, "-m", "caddysnake", "run"], tmp_path, "daemon")
    try:
        assert process.wait() == 1
        said = as_text(process.log)
    finally:
        process.close()
    line = 3 if server == "uvicorn" else 4
    assert f"{tmp_path}/main.py:{line} in " in said
    assert f"runs {server}'s run() while it is imported, which never returns" in said
    assert 'put that under `if __name__ == "__main__":`' in said
    assert time.monotonic() - begun < 30, "not after a start_timeout of two minutes"


def test_a_crash_by_a_signal_leaves_the_stack_of_the_app(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("import ctypes\n\ndef app(environ, start_response):\n    ctypes.string_at(0)\n")
    with daemon(tmp_path, site(tmp_path)) as process:
        with contextlib.suppress(ConnectionError):  # Caddy would ask again
            assert get("/", path=tmp_path / "a.sock")[0] == 502
        process.wait_for_log("SIGSEGV, and its Python stack is in the log")
        assert f'File "{tmp_path}/main.py", line 4 in app' in as_text(process.log)
