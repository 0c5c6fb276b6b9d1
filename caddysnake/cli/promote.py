"""Let a new build that is on trial (a canary) take over now.

    caddysnake promote blog:app
"""

from __future__ import annotations

import argparse

from .calling import call, path_of
from .finding import add_daemon_arguments, find


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("app", metavar="APP", help="its name; `caddysnake status` has them")
    add_daemon_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Ask for it; 0 when it serves."""
    done = call(find(args.address, args.config), "POST", path_of(args.app, "/promote"), timeout=None)
    print(f"{done['app']}: the new build has taken over")
    return 0
