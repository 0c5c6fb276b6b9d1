"""Check a Caddyfile: its language, what it says, and what it names on disk.

Nothing is started. Matchers and placeholders are compiled. Directories, virtual environments, modules, env files and
the folders of sockets are looked at as far as files tell; no code of an app is run. Prints every error with its file
and line, and exits with 1 when there is one.
"""

from __future__ import annotations

import argparse
import os
import sys

from .reading import add_config_arguments, print_warnings, source_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_config_arguments(parser)
    parser.add_argument("--caddy", action="store_true", help="check it as run --caddy would read it")


def main(args: argparse.Namespace) -> int:
    """Validate; 0 when the file can be run."""
    from ..caddyfile.errors import CaddyfileError
    from ..config.adapt import ConfigErrors
    from ..config.admin import admin_endpoint
    from ..config.isolation import shared
    from .planning import planned

    with source_of(args.config) as source:
        config, plan, errors = planned(source, with_caddy=args.caddy)
        print_warnings(config.warnings)
        try:
            admin_endpoint(config.options, source.file, os.environ, for_caddy=args.caddy)
        except CaddyfileError as exc:
            errors.append(exc)
        if errors:
            raise ConfigErrors(errors)
    print("Valid configuration")
    for each in shared(plan):
        print(f"Note: {each}", file=sys.stderr)
    return 0
