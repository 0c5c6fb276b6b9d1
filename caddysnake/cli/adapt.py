"""Print what a Caddyfile means, as JSON: options, sites, routes and apps, and which sockets follow from them.

For each socket it says whether connections are handed to the workers directly or go through the relay, and why. Values
that are the default are left out. Nothing is started and nothing on disk is looked at but imported files.
"""

from __future__ import annotations

import argparse
import json
import os

from ..config.language.adapt import load, to_json
from ..logs.records import printable_json
from .reading import add_config_arguments, print_warnings, source_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_config_arguments(parser)
    parser.add_argument("-p", "--pretty", action="store_true", help="indent the output")


def main(args: argparse.Namespace) -> int:
    """Adapt; 0 when the file can be understood."""
    with source_of(args.config) as source:
        config = load(source.content, source.file, os.environ)
    print_warnings(config.warnings)
    text = json.dumps(to_json(config), indent="\t" if args.pretty else None, ensure_ascii=False)
    print(printable_json(text))
    return 0
