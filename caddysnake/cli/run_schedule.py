"""Run a schedule of an app now, and wait for its end. What it writes is in the daemon's log.

    caddysnake run-schedule blog clearsessions

Exits with 0 when its command did.
"""

from __future__ import annotations

import argparse
import sys
from urllib.parse import quote

from .calling import call, path_of
from .finding import add_daemon_arguments, find


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_daemon_arguments(parser)
    parser.add_argument("app", metavar="APP", help="its name, as `caddysnake status` has it, or a tenant's host")
    parser.add_argument("name", metavar="NAME", help="the schedule's")


def main(args: argparse.Namespace) -> int:
    """Run it; 0 when its command has ended well."""
    path = path_of(args.app, f"/schedules/{quote(args.name, safe='')}/run")
    done = call(find(args.address, args.config), "POST", path, timeout=None)
    print(f"{args.name} has ended in {done['seconds']:.1f} s: {done['reason']}", file=sys.stderr)
    return 0 if done["ok"] else 1
