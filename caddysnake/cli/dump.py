"""Show the stacks of a worker's threads, and what its tasks wait for: where does it hang?

    caddysnake dump 4711          `caddysnake status APP` has the pids

It goes on as it was. The stacks go to the log, too. A worker in which nothing runs is asked by a signal.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from ..logs.records import printable
from .calling import CallFailed, Target, call, stream
from .finding import add_daemon_arguments, find

_LISTED = 20
_PATIENCE_S = 3.0
_LOOK_S = 0.25
_STACKS = "(most recent call"
"""As ``faulthandler`` heads a stack."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("pid", metavar="PID", type=int, help="a worker's process")
    add_daemon_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Ask, and show what is told; 0 when there is such a worker."""
    since = time.time()
    target = find(args.address, args.config)
    try:
        done = call(target, "POST", f"/workers/{args.pid}/dump")
    except CallFailed as exc:
        if exc.answer.get("code") != "no-such-worker":
            raise
        raise CallFailed(f"{exc}: {_there_are(call(target, 'GET', '/workers'))}") from None
    for text in _told(target, args.pid, since):
        print(printable(text))
    print(f"The stacks of worker {done['pid']} ({printable(done['app'])}) are in the daemon's log")
    return 0


def _told(target: Target, pid: int, since: float) -> list[str]:
    """What the log has of it, once nothing more comes; nothing when that takes too long."""
    until, found = time.monotonic() + _PATIENCE_S, list[str]()
    while time.monotonic() < until:
        time.sleep(_LOOK_S)
        before, found = found, []
        for line in stream(target, f"/logs?{urlencode({'since': f'{since:.6f}'})}"):
            record = json.loads(line)
            text = str(record.get("error") or record.get("msg"))
            if record.get("pid") == pid and _STACKS in text:
                found.append(text)
        if found and found == before:
            break
    return found


def _there_are(answer: Mapping[str, Any]) -> str:
    workers = [f"{each['pid']} ({each['app']})" for each in answer["workers"]]
    more = [f"and {len(workers) - _LISTED} more"] if len(workers) > _LISTED else []
    return "there is " + ", ".join([*workers[:_LISTED], *more]) if workers else "there is none now"
