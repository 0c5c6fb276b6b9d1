"""Have a worker write the stacks of its threads, and what its tasks wait for, to the log: where does it hang?

    caddysnake dump 4711          `caddysnake status APP` has the pids

It goes on as it was. A worker in which nothing runs is asked by a signal.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from ..logs.records import printable
from .calling import CallFailed, add_address_argument, call, report
from .finding import find
from .reading import add_config_arguments

_LISTED = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("pid", metavar="PID", type=int, help="a worker's process")
    add_config_arguments(parser)
    add_address_argument(parser)


def main(args: argparse.Namespace) -> int:
    """Ask; 0 when there is such a worker."""
    try:
        target = find(args.address, args.config)
        try:
            done = call(target, "POST", f"/workers/{args.pid}/dump")
        except CallFailed as exc:
            if exc.answer.get("code") != "no-such-worker":
                raise
            raise CallFailed(f"{exc}: {_there_are(call(target, 'GET', '/workers'))}") from None
    except CallFailed as exc:
        return report(exc)
    print(f"The stacks of worker {done['pid']} ({printable(done['app'])}) are in the daemon's log")
    return 0


def _there_are(answer: Mapping[str, Any]) -> str:
    workers = [f"{each['pid']} ({each['app']})" for each in answer["workers"]]
    more = [f"and {len(workers) - _LISTED} more"] if len(workers) > _LISTED else []
    return "there is " + ", ".join([*workers[:_LISTED], *more]) if workers else "there is none now"
