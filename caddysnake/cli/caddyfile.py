"""Print a Caddyfile as a stock Caddy needs it.

Every python block becomes a reverse_proxy to that block's own socket; sites whose address is a socket, and global
options that only caddysnake knows, are left out; the rest stays as it is, comments included. An import that brings a
python block is written out, and paths of other imported files become absolute. Where the caddy on PATH knows it, the
global option `servers` gets `enable_full_duplex`, so that a large answer to an upload that the app does not read comes
whole over HTTP/1.1.

Run Caddy on the output and caddysnake on the file itself, with the same --socket-dir and environment:

    caddysnake caddyfile --config Caddyfile > /etc/caddy/Caddyfile
    caddysnake run --config Caddyfile
"""

from __future__ import annotations

import argparse
import os
import sys

from ..config.plan.places import default_socket_dir
from ..config.stock.stock import stock
from ..daemon.supervisor.caddy.binary import find_caddy, knows_full_duplex
from .reading import add_config_arguments, print_warnings, source_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_config_arguments(parser)
    parser.add_argument(
        "--socket-dir", metavar="DIR", help=f"the folder of the blocks' sockets (default: {default_socket_dir()})"
    )


def main(args: argparse.Namespace) -> int:
    """Print it; 0 when the file can be understood."""
    caddy = find_caddy(os.environ)
    full_duplex = caddy is not None and knows_full_duplex(caddy)
    with source_of(args.config) as source:
        split = stock(source.content, source.file, os.environ, socket_dir=args.socket_dir, full_duplex=full_duplex)
    print_warnings(split.config.warnings)
    sys.stdout.write(split.text)
    return 0
