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
from ..config.plan.places import default_socket_dir, start_folder
from ..config.plan.plan import usable_cores


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are none."""


def main(args: argparse.Namespace) -> int:
    """Print; always 0."""
    try:
        here = start_folder(os.environ)
    except OSError:
        here = "has been removed"
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
        "wd": here,
    }
    for name, value in facts.items():
        print(f"{name}={value}")
    print()
    for name in sorted(os.environ):
        print(f"{name}={os.environ[name]}")
    return 0
