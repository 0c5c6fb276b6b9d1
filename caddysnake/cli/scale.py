"""Give an app another number of workers, without a reload.

It holds until the next reload or restart: what the file says is what stays. `auto` is what the file says, or, where
that has two numbers, as many as it takes.

    caddysnake scale blog:app 4
    caddysnake scale blog:app auto
"""

from __future__ import annotations

import argparse
from urllib.parse import quote

from .calling import call, path_of
from .finding import add_daemon_arguments, find


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("app", metavar="APP", help="its name; `caddysnake status` has them")
    parser.add_argument("workers", metavar="WORKERS", help="a number, or auto")
    add_daemon_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Ask for it; 0 when it is being done."""
    path = path_of(args.app, f"/scale?workers={quote(args.workers, safe='')}")
    done = call(find(args.address, args.config), "POST", path)
    held = ", until the next reload or restart" if done["is_fixed"] else ""
    print(f"{done['app']}: {done['workers']} worker{'' if done['workers'] == 1 else 's'}{held}")
    return 0
