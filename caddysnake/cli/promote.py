"""Let a new build that is on trial (a canary) take over now.

    caddysnake promote blog:app
"""

from __future__ import annotations

import argparse
from urllib.parse import quote

from .calling import call
from .finding import find
from .reading import add_config_arguments
from .target import CallFailed, add_address_argument, report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("app", metavar="APP", help="its name; `caddysnake status` has them")
    add_config_arguments(parser)
    add_address_argument(parser)


def main(args: argparse.Namespace) -> int:
    """Ask for it; 0 when it serves."""
    try:
        target = find(args.address, args.config)
        done = call(target, "POST", f"/apps/{quote(args.app, safe='')}/promote", timeout=None)
    except CallFailed as exc:
        return report(exc)
    print(f"{done['app']}: the new build has taken over")
    return 0
