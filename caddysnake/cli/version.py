"""Print the version of caddysnake and of the Python that runs it."""

from __future__ import annotations

import argparse
import platform

from .. import __version__


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are none."""


def main(args: argparse.Namespace) -> int:
    """Print; always 0."""
    print(f"{__version__} ({platform.python_implementation()} {platform.python_version()})")
    return 0
