"""Apps in virtual environments of the daemon's Python version and of others."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.daemon import daemon, get

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
VERSIONS = ["3.10", "3.11", "3.12", "3.13"]


def find_python(version: str) -> str:
    """A Python of ``version``, on PATH or among pyenv's. Skips the test where there is none."""
    probe = "import sys; print(sys.executable)"
    candidates = sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions").glob(f"{version}.*"))
    for path in [shutil.which(f"python{version}"), *(str(found / "bin" / "python") for found in candidates)]:
        if path is None:
            continue
        result = subprocess.run([path, "-c", probe], capture_output=True, text=True, check=False, timeout=60)
        if result.returncode == 0:
            return result.stdout.strip()
    pytest.skip(f"no Python {version} on PATH or in pyenv")


def make_venv(python: str, folder: Path) -> Path:
    """A virtual environment without pip, holding one library of its own."""
    subprocess.run([python, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=120)
    site = next((folder / "lib").glob("python3*/site-packages"))
    (site / "tenant_library.py").write_text("NAME = 'from the venv'\n")
    return folder


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
        subprocess.run(
            [*command, "runtime", "install", "--python", inside],
            env={**os.environ, **environ},
            check=True,
            timeout=300,
        )
    with daemon(tmp_path, caddyfile, environ=environ):
        status, body = get("/", path=tmp_path / "app.sock")
    assert status == 200
    assert body.decode() == f"{version} {tmp_path}/venv from the venv False"
