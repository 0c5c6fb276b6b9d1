"""Show how the running daemon is: apps and their workers, what runs since when and what was refused, and why.

caddysnake status              a table
caddysnake status --watch      again every second, with rates, until Ctrl-C
caddysnake status --json       for programs (see the admin API's description)
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from typing import Any

from ..logs.records import printable, printable_json
from .calling import CallFailed, Target, add_address_argument, call, report
from .finding import find
from .overview import overview
from .reading import add_config_arguments
from .terminal import control

_HOME, _REST, _ALTERNATE, _NORMAL = "\x1b[H", "\x1b[J", "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_config_arguments(parser)
    add_address_argument(parser)
    parser.add_argument("--json", action="store_true", help="what the API answers, as one line")
    parser.add_argument("-w", "--watch", action="store_true", help="again and again, with rates")
    parser.add_argument("--interval", metavar="SECONDS", type=float, default=1.0, help="how often (default: 1)")


def main(args: argparse.Namespace) -> int:
    """Show it; 0 when the daemon answers."""
    try:
        target = find(args.address, args.config)
        if args.watch:
            return _watch(target, max(args.interval, 0.1), as_json=args.json)
        status = call(target, "GET", "/status")
    except CallFailed as exc:
        return report(exc)
    _print(status, as_json=args.json)
    return 0


def _print(status: dict[str, Any], *, as_json: bool) -> None:
    print(printable_json(json.dumps(status)) if as_json else "\n".join(overview(status)), flush=True)


def _watch(target: Target, interval_s: float, *, as_json: bool) -> int:
    on_terminal = sys.stdout.isatty() and not as_json
    before: dict[str, Any] | None = None
    seen_at = 0.0
    try:
        if on_terminal:
            control(_ALTERNATE)
        while True:
            status, now = call(target, "GET", "/status"), time.monotonic()
            if as_json:
                _print(status, as_json=True)
            else:
                lines_max = shutil.get_terminal_size().lines - 1 if on_terminal else None
                _show(overview(status, before, now - seen_at, lines_max), on_terminal=on_terminal)
            before, seen_at = status, now
            time.sleep(interval_s)
    except KeyboardInterrupt:
        return 0
    finally:
        if on_terminal:
            control(_NORMAL)
            sys.stdout.flush()


def _show(lines: list[str], *, on_terminal: bool) -> None:
    """On a terminal in the place of what was there, as much as it has room for."""
    if not on_terminal:
        print("\n".join(lines), end="\n\n", flush=True)
        return
    width, height = shutil.get_terminal_size()
    shown = [printable(line)[:width] for line in lines[: height - 1]]
    control(_HOME + "".join(f"{line}\x1b[K\r\n" for line in shown) + _REST)
    sys.stdout.flush()
