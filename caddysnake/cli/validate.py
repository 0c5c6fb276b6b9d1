"""Check a Caddyfile: its language, what it says, and what it names on disk.

Nothing is started. Matchers and placeholders are compiled. Directories, virtual environments, modules, env files and
the folders of sockets are looked at as far as files tell; no code of an app is run. Prints every error with its file
and line, and exits with 1 when there is one.
"""

from __future__ import annotations

import argparse
import os
import sys

from .reading import ReadError, add_config_arguments, print_errors, print_warnings, read


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_config_arguments(parser)
    parser.add_argument("--caddy", action="store_true", help="check it as run --caddy would read it")


def main(args: argparse.Namespace) -> int:
    """Validate; 0 when the file can be run."""
    from ..caddyfile.errors import CaddyfileError
    from ..config.adapt import ConfigErrors, load
    from ..config.admin import admin_endpoint
    from ..config.isolation import shared
    from ..config.plan import plan, usable_cores
    from ..config.settled import settle
    from ..config.stock import stock

    try:
        source = read(args.config)
    except ReadError as exc:
        print(f"Error: {exc}", file=sys.stderr)
        return 1
    try:
        if args.caddy:
            _, planned, config = stock(source.content, source.file, os.environ, cores=usable_cores())
        else:
            config = load(source.content, source.file, os.environ)
            planned = plan(config, cores=usable_cores())
    except ConfigErrors as exc:
        print_errors(exc.errors, source)
        return 1
    print_warnings(config.warnings)
    planned, _, errors = settle(config, planned, os.environ, own_sockets=args.caddy)
    try:
        admin_endpoint(config.options, source.file, os.environ, for_caddy=args.caddy)
    except CaddyfileError as exc:
        errors.append(exc)
    if errors:
        print_errors(ConfigErrors(errors).errors, source)
        return 1
    print("Valid configuration")
    for each in shared(planned):
        print(f"Note: {each}", file=sys.stderr)
    return 0
