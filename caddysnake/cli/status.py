"""Show how the running daemon is: apps and their workers, what runs since when and what was refused, and why.

caddysnake status              a table
caddysnake status blog:app     one app: its workers, where it listens, what ails it
caddysnake status --watch      again every second, with rates, until Ctrl-C
caddysnake status --json       for programs (see the admin API's description)
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from difflib import get_close_matches
from typing import Any

from ..logs.records import printable, printable_json
from .calling import CallFailed, Target, add_address_argument, call, report
from .finding import find
from .overview import one_app, overview
from .reading import add_config_arguments
from .terminal import control

_HOME, _REST, _ALTERNATE, _NORMAL = "\x1b[H", "\x1b[J", "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("app", metavar="APP", nargs="?", help="this app only, by its name or its host")
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
            return _watch(target, max(args.interval, 0.1), args.app, as_json=args.json)
        status = call(target, "GET", "/status")
        key = None if args.app is None else _key_of(args.app, status)
    except CallFailed as exc:
        return report(exc)
    _print(status, key, as_json=args.json)
    return 0


def _key_of(name: str, status: dict[str, Any]) -> str:
    """The key of the app that is called ``name``, or whose it is. Raises ``CallFailed``, with the nearest names."""
    apps = status["apps"]
    for field in ("key", "name"):
        for app in apps:
            if app[field] == name:
                return str(app["key"])
    hosts = [app for app in apps if app["template"] and app["name"].split(" ")[0] == name]
    if len(hosts) == 1:
        return str(hosts[0]["key"])
    names = [app["name"] for app in apps]
    close = get_close_matches(name, names, n=3, cutoff=0.4) or names[:10]
    raise CallFailed(f"there is no app {name}" + (f": there is {', '.join(close)}" if close else ""))


def _print(status: dict[str, Any], key: str | None, *, as_json: bool) -> None:
    if as_json:
        shown = status if key is None else next(app for app in status["apps"] if app["key"] == key)
        print(printable_json(json.dumps(shown)), flush=True)
        return
    width = shutil.get_terminal_size().columns
    print("\n".join(overview(status, width=width) if key is None else one_app(status, key, width)), flush=True)


def _watch(target: Target, interval_s: float, name: str | None, *, as_json: bool) -> int:
    on_terminal = sys.stdout.isatty() and not as_json
    before: dict[str, Any] | None = None
    seen_at = 0.0
    try:
        if on_terminal:
            control(_ALTERNATE)
        while True:
            status, now = call(target, "GET", "/status"), time.monotonic()
            key = None if name is None else _key_of(name, status)
            width, height = shutil.get_terminal_size()
            if as_json:
                _print(status, key, as_json=True)
            elif key is not None:
                _show(one_app(status, key, width), on_terminal=on_terminal)
            else:
                lines_max = height - 1 if on_terminal else None
                _show(overview(status, before, now - seen_at, lines_max, width), on_terminal=on_terminal)
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
