"""Stop the running daemon, as SIGTERM does, and wait until it has ended.

Requests in flight finish within the grace period.
"""

from __future__ import annotations

import argparse
import os
import select

from ..channel.farewell import END_S
from .calling import call
from .finding import add_daemon_arguments, fault_of, find
from .reading import CommandFailed

_AFTER_GRACE_S = END_S + 30.0


add_arguments = add_daemon_arguments


def main(args: argparse.Namespace) -> int:
    """Stop; 0 when it has ended."""
    done = call(find(args.address, args.config), "POST", "/stop")
    fault_of(args.address, args.config)
    pid, patience_s = done["pid"], done["grace_s"] + _AFTER_GRACE_S
    if not _wait(pid, patience_s):
        raise CommandFailed(f"process {pid} is still there after {patience_s:g} s; `kill {pid}` ends it at once")
    return 0


def _wait(pid: int, patience_s: float) -> bool:
    """Whether ``pid`` has ended by then."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], patience_s)[0])
    finally:
        os.close(fd)
