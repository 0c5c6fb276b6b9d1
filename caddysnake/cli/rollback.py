"""Give the connections back to the build before, or end the trial of a new one.

The build before is there for as long as `keep_previous` says, and takes over within milliseconds. That holds until the
next reload or restart: what is on disk is not touched, and what release commands have done stays done. Without APP: all
apps that have a build to go back to.

    caddysnake rollback blog:app
"""

from __future__ import annotations

import argparse

from .calling import call, path_of
from .finding import add_daemon_arguments, find
from .reading import CommandFailed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("app", metavar="APP", nargs="?", help="its name; `caddysnake status` has them (default: all)")
    add_daemon_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Ask for it; 0 when the build before serves."""
    target, names = find(args.address, args.config), [args.app]
    if args.app is None:
        apps = call(target, "GET", "/apps")["apps"]
        names = [app["key"] for app in apps if app["kept"] is not None or app["trial"] is not None]
    if not names:
        raise CommandFailed("no app has a build to go back to: keep_previous keeps one")
    for name in names:
        done = call(target, "POST", path_of(name, "/rollback"))
        print(f"{done['app']}: build {done['build']} serves again, until the next reload or restart")
    return 0
