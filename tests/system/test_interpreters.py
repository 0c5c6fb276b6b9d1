"""Apps in virtual environments of the daemon's Python version and of others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
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
