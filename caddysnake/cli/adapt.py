"""Print what a Caddyfile means, as JSON: options, sites, routes and apps, and which sockets follow from them.

For each socket it says whether connections are handed to the workers directly or go through the relay, and why. Values
that are the default are left out. Nothing is started and nothing on disk is looked at but imported files.
"""

from __future__ import annotations

import argparse
import os
import sys

from .reading import ReadError, add_config_arguments, print_errors, print_warnings, read


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_config_arguments(parser)
    parser.add_argument("-p", "--pretty", action="store_true", help="indent the output")


def main(args: argparse.Namespace) -> int:
    """Adapt; 0 when the file can be understood."""
    import json

    from ..config.adapt import ConfigErrors, load, to_json

    try:
        source = read(args.config)
    except ReadError as exc:
        print(f"Error: {exc}", file=sys.stderr)
        return 1
    try:
        config = load(source.content, source.file, os.environ)
    except ConfigErrors as exc:
        print_errors(exc.errors, source)
        return 1
    print_warnings(config.warnings)
    found = to_json(config)
    text = json.dumps(found, indent="\t", ensure_ascii=False) if args.pretty else json.dumps(found, ensure_ascii=False)
    print(text)
    return 0
