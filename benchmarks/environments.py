"""The peers' virtual environments: one each, so that no two share a dependency's version."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from .servers import BenchmarkError, Server, our_binaries

FOLDER = Path(__file__).parent / ".venvs"

_VERSIONS = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"


def binaries_of(server: Server) -> Path:
    """The `bin` folder with the server's command, made on first use.

    Raises BenchmarkError when it cannot be made.
    """
    if not server.packages:
        return our_binaries()
    environment = FOLDER / server.name
    stamp = environment / ".installed"
    wanted = "\n".join((sys.version, *server.packages))
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"Installing {', '.join(server.packages)} into {environment}", flush=True)
        _run([sys.executable, "-m", "venv", "--clear", str(environment)])
        pip = [str(environment / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
        _run([*pip, "install", *server.packages])
        stamp.write_text(wanted)
    return environment / "bin"


def versions_in(binaries: Path) -> dict[str, str]:
    """Name to version of every distribution that `binaries`' Python sees."""
    run = subprocess.run([str(binaries / "python"), "-c", _VERSIONS], capture_output=True, text=True, check=True)
    return dict(json.loads(run.stdout))


def _run(command: list[str]) -> None:
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise BenchmarkError(f"{' '.join(command)} failed:\n{run.stdout}{run.stderr}")
