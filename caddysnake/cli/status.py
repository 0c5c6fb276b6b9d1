"""Show how the running daemon is: apps and their workers, what runs since when and what was refused, and why.

caddysnake status                 a table
caddysnake status blog:app        one app: its workers, where it listens, what ails it
caddysnake status --watch         again every second, with rates, until Ctrl-C
caddysnake status --json          for programs (see the admin API's description)
caddysnake status --names         only the names of the apps, one a line
caddysnake status --check         exits with 1 unless every app is served: for deploy scripts and readiness
caddysnake status --check APP     unless that app is
caddysnake status --check --any   unless something is: for liveness, where one broken app must restart no other
"""

from __future__ import annotations

import argparse
import sys

from .calling import CallFailed, Target, call, path_of
from .finding import add_daemon_arguments, fault_of, find
from .reading import CommandFailed

_CHECK_S = 5.0
_LONGEST_S = 3600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("app", metavar="APP", nargs="?", help="this app only, by its name or its host")
    add_daemon_arguments(parser)
    parser.add_argument("--json", action="store_true", help="what the API answers, as one line")
    parser.add_argument("--names", action="store_true", help="only the names of the apps, one a line")
    parser.add_argument("-w", "--watch", action="store_true", help="again and again, with rates")
    parser.add_argument("--interval", metavar="SECONDS", type=float, default=1.0, help="how often (default: 1)")
    parser.add_argument("--check", action="store_true", help="only say whether every app, or APP, is served; 1 if not")
    parser.add_argument("--any", action="store_true", help="with --check: whether the daemon answers and one app is")


def main(args: argparse.Namespace) -> int:
    """Show it; 0 when the daemon answers, with ``--check`` when it serves."""
    if args.any and (args.app is not None or not args.check):
        raise CommandFailed("--any is for --check, and for no app in particular")
    target = find(args.address, args.config)
    if args.check:
        return _check(target, args.app, is_any=args.any)
    from .status_watch import names, show, watch

    if args.names:
        return names(target)
    if args.watch:
        return watch(target, min(max(0.1, args.interval), _LONGEST_S), args.app, as_json=args.json)
    show(target, args.app, as_json=args.json)
    if not args.json:
        fault_of(args.address, args.config)
    return 0


def _check(target: Target, app: str | None, *, is_any: bool) -> int:
    if app is not None:
        why = _why_not(target, app)
        print(f"{app} is not served: {why}" if why else f"{app} is served", file=sys.stderr if why else sys.stdout)
        return int(bool(why))
    health = call(target, "GET", "/health/ready", _CHECK_S)
    failed = health.get("failed", {})
    without = dict.fromkeys(health.get("apps_without_worker", ()), health.get("status", "?")) | failed
    told = ", ".join(f"{name} ({why})" for name, why in sorted(without.items()))
    if not health.get("serves_any"):
        print(f"nothing is served: {told or health.get('status', '?')}", file=sys.stderr)
        return 1
    if is_any:
        print(f"something is served; not: {told}" if told else "every app is served")
        return 0
    if told or health["status"] != "ok":
        print(f"not every app is served: {told or health['status']}", file=sys.stderr)
        return 1
    print("every app is served")
    return 0


def _why_not(target: Target, app: str) -> str:
    """Why ``app`` is not served; empty when it is, or would be when it is asked for."""
    try:
        found = call(target, "GET", path_of(app), _CHECK_S)
    except CallFailed as exc:
        code = exc.answer.get("code")
        if code == "asleep":
            return ""  # whoever asks for it next wakes it
        if code == "template":
            return str(call(target, "GET", "/health/ready", _CHECK_S).get("failed", {}).get(app, ""))
        if exc.answer:
            return str(exc)
        raise
    if found["workers_ready"] and found["state"] == "serving":
        return ""
    failure = found["last_failure"]
    return found["state"] if failure is None or failure["over_at"] else f"{found['state']}, {failure['code']}"
