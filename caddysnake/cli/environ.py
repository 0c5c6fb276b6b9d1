"""Print what caddysnake finds around it: versions, folders, and the environment variables it was started with.

Apps see only a few of these variables; a block asks for others with pass_env. The output may hold secrets: mind where
you paste it.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys

from .. import __version__


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are none."""


def _working_directory() -> str:
    from ..config.plan.places import start_folder

    try:
        return start_folder(os.environ)
    except OSError:
        return "has been removed"


def main(args: argparse.Namespace) -> int:
    """Print; always 0."""
    from ..config.plan.places import default_socket_dir
    from ..config.plan.plan import usable_cores

    facts = {
        "caddysnake.Version": __version__,
        "caddysnake.Package": os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
        "caddysnake.SocketDir": default_socket_dir(),
        "python.Version": f"{platform.python_implementation()} {platform.python_version()}",
        "python.Executable": sys.executable,
        "os": f"{platform.system()} {platform.release()}",
        "arch": platform.machine(),
        "cores": str(usable_cores()),
        "caddy": shutil.which("caddy") or "not on PATH",
        "wd": _working_directory(),
    }
    for name, value in facts.items():
        print(f"{name}={value}")
    print()
    for name in sorted(os.environ):
        print(f"{name}={os.environ[name]}")
    return 0
