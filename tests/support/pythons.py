"""Pythons of other versions, and virtual environments of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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


def make_venv(python: str, folder: Path, *options: str, name: str = "from the venv") -> Path:
    """A virtual environment without pip, holding one library of its own, which has ``name`` in it."""
    subprocess.run([python, "-m", "venv", "--without-pip", *options, str(folder)], check=True, timeout=120)
    (site_of(folder) / "tenant_library.py").write_text(f"NAME = {name!r}\n")
    return folder


def site_of(venv: Path) -> Path:
    """Its ``site-packages``."""
    return next((venv / "lib").glob("python3*/site-packages"))


def another_version() -> str:
    """The path of a Python of another version than ours. Skips the test where there is none."""
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    for version in VERSIONS:
        if version != own:
            with contextlib.suppress(pytest.skip.Exception):
                return find_python(version)
    pytest.skip("only one Python is here")


def install_runtime(python: str, folder: Path) -> None:
    """Our libraries for ``python``, into ``folder``: ``CADDYSNAKE_RUNTIME_DIR``."""
    subprocess.run(
        [sys.executable, "-m", "caddysnake", "runtime", "install", "--python", python],
        env={**os.environ, "CADDYSNAKE_RUNTIME_DIR": str(folder)},
        check=True,
        capture_output=True,
        timeout=300,
    )
