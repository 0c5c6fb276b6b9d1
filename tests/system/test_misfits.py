"""Apps that do not go together with how they are run, and what gets into an app by its environment."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support.daemon import PATIENCE_S, as_text, daemon, get, python_site

pytestmark = pytest.mark.system

APP = """
import builtins

def app(environ, start_response):
    start_response("200 OK", [])
    return [repr(getattr(builtins, "HOOKED", None)).encode()]
"""


def block(folder: Path, *lines: str) -> str:
    return python_site(f"unix/{folder}/a.sock", *lines)


@pytest.mark.parametrize("runtime", ["process", "thread"])
def test_a_sitecustomize_of_the_apps_python_path_is_run_or_it_is_said_why_not(tmp_path: Path, runtime: str) -> None:
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text("import builtins, os\nbuiltins.HOOKED = os.environ['NAME']\n")
    (tmp_path / "main.py").write_text(APP)
    lines = (f"env_var PYTHONPATH {tmp_path}/hook", "env_var NAME blog", f"workers_runtime {runtime}")
    with daemon(tmp_path, block(tmp_path, "module_wsgi main:app", "workers 1", *lines)) as process:
        body = get("/", path=tmp_path / "a.sock")[1]
        if runtime == "process":
            assert body == b"'blog'"
        else:
            assert body == b"None"
            assert "sitecustomize of PYTHONPATH is not imported: threads of apps share" in as_text(process.log)


def test_one_that_raises_is_told_and_the_app_serves(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("raise LookupError('no agent')\n")
    (tmp_path / "main.py").write_text(APP)
    lines = (f"env_var PYTHONPATH {tmp_path}", "workers 1")
    with daemon(tmp_path, block(tmp_path, "module_wsgi main:app", *lines)) as process:
        assert get("/", path=tmp_path / "a.sock") == (200, b"None")
        process.wait_for_log("LookupError: no agent")


def test_what_calls_itself_a_plugin_of_pydantic_is_loaded_by_the_app_and_not_by_the_daemon(tmp_path: Path) -> None:
    (tmp_path / "site" / "plug-1.dist-info").mkdir(parents=True)
    (tmp_path / "site" / "plug-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: plug\nVersion: 1\n")
    (tmp_path / "site" / "plug-1.dist-info" / "entry_points.txt").write_text("[pydantic]\nplug = plug:plugin\n")
    loads = "import builtins, os\nbuiltins.HOOKED = os.getpid()\nopen('loaders', 'a').write(f'{os.getpid()} ')\n"
    (tmp_path / "site" / "plug.py").write_text(loads + "class plugin: new_schema_validator = lambda *_: (None,) * 3\n")
    (tmp_path / "main.py").write_text("import pydantic\nclass Model(pydantic.BaseModel): a: int\n" + APP)
    lines = ("module_wsgi main:app", "workers 1", "pass_env *", f"env_var PYTHONPATH {tmp_path}/site")
    with daemon(tmp_path, block(tmp_path, *lines), environ={"PYTHONPATH": f"{tmp_path}/site"}):
        worker = get("/", path=tmp_path / "a.sock")[1].decode()
        assert (tmp_path / "loaders").read_text().split() == [worker]


def test_a_preload_that_leaves_a_socket_open_is_refused_with_where_it_leads(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        (tmp_path / "db.py").write_text(f"import socket\nc = socket.create_connection(('127.0.0.1', {port}))\n")
        (tmp_path / "main.py").write_text(APP)
        (tmp_path / "Caddyfile").write_text(block(tmp_path, "module_wsgi main:app", "preload db"))
        done = subprocess.run(
            [sys.executable, "-m", "caddysnake", "run"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    assert done.returncode == 1
    assert f"preload db: importing it left a socket open (to 127.0.0.1:{port})" in as_text(done.stderr)


def test_a_thread_that_holds_up_a_stop_is_named_with_its_app_and_its_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    thread = f"import threading\ndef poll():\n    open({str(tmp_path / 'go')!r}).read()\n"
    thread += "threading.Thread(target=poll, name='poller').start()\n"
    (tmp_path / "main.py").write_text(thread + APP)
    with daemon(tmp_path, block(tmp_path, "module_wsgi main:app", "workers 1")) as process:
        process.popen.terminate()
        told = f"the app's thread poller holds up the end, at {tmp_path}/main.py:3 in poll: end it when"
        process.wait_for_log(told)
        (tmp_path / "go").write_bytes(b"")
        assert process.wait() == 0
        assert '"app":"main:app"' in next(line for line in process.log.splitlines() if told in line)


@pytest.mark.parametrize(
    ("lines", "is_told"),
    [(("workers 1",), False), (("workers 2",), True), (("workers 2", "affinity cookie"), False)],
)
def test_a_socketio_server_that_polls_is_told_that_its_clients_must_come_back(
    tmp_path: Path, lines: tuple[str, ...], is_told: bool
) -> None:
    (tmp_path / "main.py").write_text(
        "import socketio\napp = socketio.ASGIApp(socketio.AsyncServer(async_mode='asgi'))\n"
    )
    with daemon(tmp_path, block(tmp_path, "module_asgi main:app", *lines)) as process:
        told = "Socket.IO with HTTP polling keeps its clients' state in one process: with 2 workers they lose it. Write"
        assert (told in process.log) == is_told
