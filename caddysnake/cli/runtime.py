"""Install the libraries that workers need for another Python version.

An app's virtual environment may be made with another Python than the one that runs caddysnake. Its workers then need
builds of httptools, uvloop and websockets for that Python, in a folder of ours: nothing is put into the app's
environment. They are fetched by a pip that is here, be it in our environment or the app's, bundled with Python, or on
PATH; each will do. Run this once for each further Python version:

    caddysnake runtime install --python /srv/blog/.venv/bin/python
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from ..config.plan.search import OLDEST_PYTHON, foreign_hand
from ..installation import runtime_folder
from ..libraries import abi_tag
from . import wheels
from .reading import CommandFailed

# The daemon's own versions: one grammar for every process of ours.
_REQUIRED = ("httptools",)
_WANTED = {"uvloop": "workers use asyncio's own loop", "websockets": "WebSocket frames are unmasked in Python"}
"""What is fetched if it can be, and how it is without."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("action", choices=["install", "path"], help="install, or print the folder")
    parser.add_argument("--python", metavar="PATH", help="the interpreter to install for")


def main(args: argparse.Namespace) -> int:
    """Install, or print the folder; 0 when that is done."""
    folder = runtime_folder(os.environ)
    if args.action == "path":
        print(folder)
        return 0
    if args.python is None:
        raise CommandFailed("runtime install needs --python PATH, the interpreter to install for")
    python = os.path.abspath(shutil.which(args.python) or args.python)
    foreign = foreign_hand(python) if os.geteuid() == 0 else None
    if foreign is not None:
        hint = "name the Python that it was made with, which is root's: the libraries are the same"
        raise CommandFailed(f"root must not run {args.python}: {foreign} ({hint})")
    target = wheels.describe(python)
    if target.version < OLDEST_PYTHON:
        has, oldest = (".".join(map(str, version)) for version in (target.version, OLDEST_PYTHON))
        raise CommandFailed(f"{python} is Python {has}; apps need {oldest} or later")
    place = folder / target.suffix
    had, missed = _install(target, place)
    _copy_speedups(target.suffix, place)
    print(f"Installed for {target.suffix}: {', '.join(had)} in {place}")
    for each in missed:
        print(each, file=sys.stderr)
    return 0


def _install(target: wheels.Interpreter, place: Path) -> tuple[list[str], list[str]]:
    """What was installed, and what is to be said of the rest. Raises ``CommandFailed`` where a worker needs it.

    All at once, or, when something is not to be had, each by itself: that is none of the others' business.
    """
    required, every = _versions(_REQUIRED), _versions((*_REQUIRED, *_WANTED))
    try:
        _fetch(target, place, every)
    except CommandFailed:
        pass
    else:
        return every, []
    _fetch(target, place, required)
    had, missed = required, list[str]()
    for name, without in _WANTED.items():
        for wanted in _versions((name,)):
            try:
                _fetch(target, place, [wanted])
                had.append(wanted)
            except CommandFailed as exc:
                missed.append(f"Warning: {exc}\nWithout {name} {without}.")
    return had, missed


def _fetch(target: wheels.Interpreter, place: Path, wanted: list[str]) -> None:
    print(f"Fetching {', '.join(wanted)} …", flush=True)
    wheels.fetch(target, place, wanted)


def _copy_speedups(suffix: str, place: Path) -> None:
    """Add our extension, if it is here: one file for each CPython but free-threaded ones (PEP 384, PEP 703)."""
    spec = find_spec("caddysnake_speedups")
    version, _, machine = suffix.removeprefix("cpython-").partition("-")
    if spec is None or spec.origin is None or ".abi3." not in spec.origin:
        return
    if not version.endswith("t") and machine == abi_tag().split("-", 2)[2]:
        shutil.copy2(spec.origin, place)


def _versions(names: tuple[str, ...]) -> list[str]:
    """Those that are installed here, in the version in which they are."""
    wanted = []
    for name in names:
        try:
            wanted.append(f"{name}=={metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return wanted
