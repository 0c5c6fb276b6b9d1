"""Wheels for another interpreter, unpacked into a folder: by whichever pip there is.

Nothing requires any: a virtual environment may be without, as those of uv are, and an old pip cannot run in a newer
Python, which is what its own option ``--python`` makes it do. So the target is described in tags (PEP 425), and the pip
that fetches runs in its own interpreter, or out of the wheel that ``ensurepip`` keeps.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from .reading import CommandFailed

_ASKING_S = 60.0
_FETCHING_S = 600.0
_DESCRIBE = """
import json, os, sys, sysconfig
from importlib.machinery import EXTENSION_SUFFIXES
try:
    libc = os.confstr("CS_GNU_LIBC_VERSION")
except (ValueError, OSError, AttributeError):
    libc = None
print(json.dumps({
    "suffix": EXTENSION_SUFFIXES[0].strip(".").rpartition(".so")[0],
    "version": list(sys.version_info[:2]),
    "name": sys.implementation.name,
    "soabi": sysconfig.get_config_var("SOABI") or "",
    "machine": sysconfig.get_platform().partition("-")[2],
    "libc": libc or "",
    "wide": sys.maxsize > 2 ** 32,
}))
"""
_BUNDLED = """
import ensurepip, glob, os
places = [os.path.join(os.path.dirname(ensurepip.__file__), "_bundled"), getattr(ensurepip, "_WHEEL_PKG_DIR", None)]
found = [path for place in places if place for path in sorted(glob.glob(os.path.join(place, "pip-*.whl")))]
print(found[-1])
"""
_NARROW = {"x86_64": "i686", "aarch64": "armv7l"}


class Interpreter(NamedTuple):
    """An interpreter, as far as wheels for it are concerned."""

    path: str
    suffix: str
    """Of its extension modules, such as ``cpython-313-x86_64-linux-gnu``."""
    version: tuple[int, ...]
    tags: tuple[str, ...]
    """Options by which a pip in another interpreter is told of it; empty where only its own knows."""


def describe(path: str) -> Interpreter:
    """What ``path`` (absolute) is. Raises ``CommandFailed``."""
    try:
        told = json.loads(_told_by([path, "-I", "-c", _DESCRIBE]))
    except subprocess.CalledProcessError as exc:
        raise CommandFailed(f"{path} does not run as Python 3 does: exit status {exc.returncode}") from None
    except (OSError, subprocess.SubprocessError, ValueError) as exc:
        raise CommandFailed(f"{path} does not run, or is no Python: {exc}") from None
    tags = _tags(told) if told["name"] == "cpython" else ()
    return Interpreter(path, told["suffix"], tuple(told["version"]), tags)


def _tags(told: dict[str, Any]) -> tuple[str, ...]:
    """PEP 600 and PEP 656: whoever has a newer C library takes what was built for an older one."""
    abi = "cp" + told["soabi"].split("-")[1] if "-" in told["soabi"] else ""
    machine = told["machine"] if told["wide"] else _NARROW.get(told["machine"], told["machine"])
    major, _, minor = told["libc"].rpartition(" ")[2].partition(".")
    if major == "2" and minor.isdecimal():
        platforms = [f"manylinux_2_{each}_{machine}" for each in range(int(minor), 4, -1)]
        platforms += [f"manylinux{each}_{machine}" for each in ("2014", "2010", "1")]
    else:
        platforms = [f"musllinux_1_{each}_{machine}" for each in range(2, -1, -1)]
    options = ["--implementation", "cp", "--python-version", ".".join(map(str, told["version"]))]
    for each in (abi, "abi3", "none"):
        options += ["--abi", each] if each else []
    for each in (*platforms, f"linux_{machine}"):
        options += ["--platform", each]
    return tuple(options)


def fetch(target: Interpreter, folder: Path, wanted: list[str]) -> None:
    """Unpack ``wanted``, such as ``httptools==0.6.4``, for ``target``, into ``folder``. Raises ``CommandFailed``."""
    command = _fetcher(target)
    if command is None:
        raise CommandFailed(
            f"there is no pip to fetch {' '.join(wanted)} with: neither {sys.executable} nor {target.path} has pip or "
            "ensurepip, and there is neither pip nor uv on PATH. Install one, such as python3-pip or python3-venv"
        )
    words = [*command, "--no-deps", "--upgrade", "--only-binary=:all:", "--target", str(folder), *wanted]
    shown = None if sys.stdout.isatty() else subprocess.DEVNULL
    try:
        done = subprocess.run(words, stdout=shown, stderr=subprocess.PIPE, timeout=_FETCHING_S, check=False, cwd="/")
    except subprocess.TimeoutExpired:
        raise CommandFailed(f"{words[0]} did not fetch {' '.join(wanted)} within {_FETCHING_S:g}s") from None
    except OSError as exc:
        raise CommandFailed(f"cannot run {words[0]}: {exc.strerror}") from None
    if done.returncode:
        raise CommandFailed(_explained(target, wanted, done.stderr.decode(errors="replace")))


def _explained(target: Interpreter, wanted: list[str], said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    told = [line for line in lines if line.lower().startswith(("error", "×"))] or lines[-1:] or ["no reason given"]
    version = ".".join(map(str, target.version))
    return (
        f"cannot fetch {' '.join(wanted)} for Python {version}: {told[-1]}\n"
        f"Without a network: have `pip download --no-deps --only-binary=:all: --python-version {version} "
        f"{' '.join(wanted)}` run on a machine like this one that has one, bring the folder here, and call this with "
        "PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER in the environment"
    )


@cache
def _fetcher(target: Interpreter) -> tuple[str, ...] | None:
    """The best command; to look for it takes as long as to fetch something."""
    return next(map(tuple, _fetchers(target)), None)


def _fetchers(target: Interpreter) -> Iterator[list[str]]:
    """Commands that install for ``target``, best first: each has just been seen to run."""
    own = ["install", *([] if sys.stdout.isatty() else ["--quiet"]), "--disable-pip-version-check"]
    foreign = [*own, *target.tags]
    for python, words in ((sys.executable, foreign if target.tags else None), (target.path, own)):
        if words is None:
            continue
        for pip in ([python, "-m", "pip"], _bundled(python)):
            if pip is not None and _runs(pip):
                yield [*pip, *words]
    if (pip_there := shutil.which("pip") or shutil.which("pip3")) and target.tags and _runs([pip_there]):
        yield [pip_there, *foreign]
    if (uv := shutil.which("uv")) and _runs([uv]):
        yield [uv, "pip", "install", "--quiet", "--python", target.path]


def _bundled(python: str) -> list[str] | None:
    """The pip that ``python``, or its distribution, keeps for new virtual environments: it runs out of its wheel."""
    try:
        return [python, f"{_told_by([python, '-I', '-c', _BUNDLED]).strip()}/pip"]
    except (OSError, subprocess.SubprocessError):
        return None


def _runs(command: list[str]) -> bool:
    try:
        _told_by([*command, "--version"])
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _told_by(command: list[str]) -> str:
    """What ``command`` prints. Raises ``OSError``, ``subprocess.SubprocessError``."""
    return subprocess.run(command, capture_output=True, text=True, timeout=_ASKING_S, check=True, cwd="/").stdout
