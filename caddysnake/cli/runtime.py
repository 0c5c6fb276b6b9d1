"""Install the libraries that workers need for another Python version.

An app's virtual environment may be made with another Python than the one that runs caddysnake. Its workers then need
builds of httptools, uvloop and websockets for that Python, in a folder of ours: nothing is put into the app's
environment. Run this once for each further Python version:

    caddysnake runtime install --python /srv/blog/.venv/bin/python
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from ..config.ownership import foreign_hand
from ..daemon.workers.forking.fork_server import runtime_folder

# The daemon's own versions: one grammar for every process of ours.
_REQUIRED = ("httptools",)
_WANTED = ("uvloop", "websockets")


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
        print("Error: runtime install needs --python PATH, the interpreter to install for", file=sys.stderr)
        return 1
    foreign = foreign_hand(os.path.abspath(shutil.which(args.python) or args.python)) if os.geteuid() == 0 else None
    if foreign is not None:
        hint = "name the Python that it was made with, which is root's: the libraries are the same"
        print(f"Error: root must not run {args.python}: {foreign} ({hint})", file=sys.stderr)
        return 1
    tag = _abi_tag(args.python)
    if tag is None:
        return 1
    target = folder / tag
    status = _install(args.python, target, _REQUIRED)
    if status == 0 and _install(args.python, target, _WANTED) != 0:
        print("Without uvloop or websockets: workers use asyncio's own loop.", file=sys.stderr)
    if status == 0:
        print(f"Installed for {tag}: {target}")
    return status


def _abi_tag(python: str) -> str | None:
    code = "from importlib.machinery import EXTENSION_SUFFIXES as s; print(s[0].strip('.').removesuffix('.so'))"
    try:
        result = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as exc:
        print(f"Error: {python} does not run: {exc}", file=sys.stderr)
        return None
    return result.stdout.strip()


def _install(python: str, target: Path, names: tuple[str, ...]) -> int:
    wanted = []
    for name in names:
        try:
            wanted.append(f"{name}=={metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    if not wanted:
        return 0
    command = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "--quiet"]
    command += ["install", "--no-deps", "--upgrade", "--only-binary=:all:", "--target", str(target), *wanted]
    return subprocess.run(command, check=False).returncode
