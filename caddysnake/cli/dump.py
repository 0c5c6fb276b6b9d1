"""Have a worker write the stacks of its threads, and what its tasks wait for, to the log: where does it hang?

    caddysnake dump 4711          `caddysnake status APP` has the pids

It goes on as it was. A worker in which nothing runs is asked by a signal.
"""

from __future__ import annotations

import argparse

from ..logs.records import printable
from .calling import CallFailed, add_address_argument, call, report
from .finding import find
from .reading import add_config_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("pid", metavar="PID", type=int, help="a worker's process")
    add_config_arguments(parser)
    add_address_argument(parser)


def main(args: argparse.Namespace) -> int:
    """Ask; 0 when there is such a worker."""
    try:
        done = call(find(args.address, args.config), "POST", f"/workers/{args.pid}/dump")
    except CallFailed as exc:
        return report(exc)
    print(f"The stacks of worker {done['pid']} ({printable(done['app'])}) are in the daemon's log")
    return 0
