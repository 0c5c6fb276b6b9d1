"""Print a Caddyfile as a stock Caddy needs it.

Every python block becomes a reverse_proxy to that block's own socket; sites whose address is a socket, and global
options that only caddysnake knows, are left out; the rest stays as it is, comments included. An import that brings a
python block is written out, and paths of other imported files become absolute.

Run Caddy on the output and caddysnake on the file itself, with the same --socket-dir and environment:

    caddysnake caddyfile --config Caddyfile > /etc/caddy/Caddyfile
    caddysnake run --config Caddyfile
"""

from __future__ import annotations

import argparse
import os
import sys

from .reading import add_config_arguments, print_warnings, source_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    from ..config.plan import default_socket_dir

    add_config_arguments(parser)
    parser.add_argument(
        "--socket-dir", metavar="DIR", help=f"the folder of the blocks' sockets (default: {default_socket_dir()})"
    )


def main(args: argparse.Namespace) -> int:
    """Print it; 0 when the file can be understood."""
    from ..config.stock import stock

    with source_of(args.config) as source:
        split = stock(source.content, source.file, os.environ, socket_dir=args.socket_dir)
    print_warnings(split.config.warnings)
    sys.stdout.write(split.text)
    return 0
