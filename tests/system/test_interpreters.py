"""Apps in virtual environments of the daemon's Python version and of others."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support.admin import command
from support.daemon import daemon, get
from support.pythons import VERSIONS, find_python, install_runtime, make_venv

pytestmark = pytest.mark.system

APP = """
import sys
import tenant_library

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    said = f"{version} {sys.prefix} {tenant_library.NAME} {'httptools' in sys.modules}"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": said.encode()})
"""


@pytest.fixture(scope="session")
def runtime_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runtime")


@pytest.mark.parametrize("version", VERSIONS)
def test_an_app_runs_in_the_python_of_its_venv(tmp_path: Path, runtime_folder: Path, version: str) -> None:
    """Another version needs our libraries once, which the error says and the command installs."""
    python = find_python(version)
    make_venv(python, tmp_path / "venv")
    (tmp_path / "blog.py").write_text(APP)
    caddyfile = (
        f"unix/{tmp_path}/app.sock {{\n\tpython {{\n\t\tmodule_asgi blog:app\n\t\tvenv venv\n"
        "\t\tworking_dir .\n\t\tworkers 1\n\t}\n}\n"
    )
    environ = {"CADDYSNAKE_RUNTIME_DIR": str(runtime_folder)}
    command = [sys.executable, "-m", "caddysnake"]
    inside = str(tmp_path / "venv" / "bin" / "python")
    if version != f"{sys.version_info[0]}.{sys.version_info[1]}":
        (tmp_path / "Caddyfile").write_text(caddyfile)
        refused = subprocess.run(
            [*command, "run"],
            cwd=tmp_path,
            env={**os.environ, **environ},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert refused.returncode == 1
        assert "caddysnake runtime install --python" in refused.stderr
        install_runtime(inside, runtime_folder)
    with daemon(tmp_path, caddyfile, environ=environ):
        status, body = get("/", path=tmp_path / "app.sock")
    assert status == 200
    assert body.decode() == f"{version} {tmp_path}/venv from the venv False"


@pytest.mark.parametrize("runtime", ["process", "thread"])
def test_an_app_in_an_archive_on_its_path_runs(tmp_path: Path, runtime: str) -> None:
    with zipfile.ZipFile(tmp_path / "packed.pyz", "w") as archive:
        archive.writestr("__main__.py", "raise SystemExit('this is for a command line')")
        archive.writestr("inside/__init__.py", "")
        archive.writestr(
            "inside/wsgi.py",
            "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [__file__.encode()]\n",
        )
    caddyfile = (
        "unix/app.sock {\n\tpython {\n\t\tmodule_wsgi inside.wsgi:app\n\t\tworkers 1\n"
        f"\t\tworkers_runtime {runtime}\n\t\tenv_var PYTHONPATH {tmp_path}/packed.pyz\n\t}}\n}}\n"
    )
    with daemon(tmp_path, caddyfile):
        status, body = get("/", path=tmp_path / "app.sock")
    assert (status, body.decode()) == (200, f"{tmp_path}/packed.pyz/inside/wsgi.py")


def test_a_script_that_starts_a_python_is_taken_and_is_named_when_it_does_not(tmp_path: Path) -> None:
    shim = tmp_path / "python3"
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    shim.chmod(0o755)
    (tmp_path / "blog.py").write_text(
        APP.replace("tenant_library.NAME", "__name__").replace("import tenant_library\n", "")
    )
    caddyfile = (
        f"unix/app.sock {{\n\tpython {{\n\t\tmodule_asgi blog:app\n\t\tworkers 1\n\t\tpython_path {shim}\n\t}}\n}}\n"
    )
    with daemon(tmp_path, caddyfile) as process:
        assert get("/", path=tmp_path / "app.sock")[0] == 200
        for text in ("echo no such version >&2\nexit 127\n", f'{sys.executable} "$@"\nexit 3\n'):
            shim.write_text(f"#!/bin/sh\n{text}")
            refused = command(process, tmp_path, "reload")
            assert refused.returncode == 1
            assert f"{shim} is a script, which starts an interpreter" in refused.stderr
        assert get("/", path=tmp_path / "app.sock")[0] == 200
