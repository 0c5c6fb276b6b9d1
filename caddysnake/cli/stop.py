"""Stop the running daemon, as SIGTERM does, and wait until it has ended.

Requests in flight finish within the grace period.
"""

from __future__ import annotations

import argparse
import os
import select
import sys

from ..channel.farewell import END_S
from .calling import call
from .finding import fault_of, find
from .reading import add_config_arguments
from .target import CallFailed, add_address_argument, report

_AFTER_GRACE_S = END_S + 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_config_arguments(parser)
    add_address_argument(parser)


def main(args: argparse.Namespace) -> int:
    """Stop; 0 when it has ended."""
    try:
        done = call(find(args.address, args.config), "POST", "/stop")
    except CallFailed as exc:
        return report(exc)
    fault_of(args.address, args.config)
    pid, patience_s = done["pid"], done["grace_s"] + _AFTER_GRACE_S
    if _wait(pid, patience_s):
        return 0
    print(f"Error: process {pid} is still there after {patience_s:g} s; `kill {pid}` ends it at once", file=sys.stderr)
    return 1


def _wait(pid: int, patience_s: float) -> bool:
    """Whether ``pid`` has ended by then."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(patience_s * 1000))
    finally:
        os.close(fd)
