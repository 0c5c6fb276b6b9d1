"""Print a Caddyfile for an app that another server runs.

What is read: gunicorn.conf.py, uwsgi.ini, hypercorn.toml, a Procfile, a Dockerfile, a unit of systemd, a shell
script, or the command line itself of gunicorn, uvicorn, granian, hypercorn or uWSGI. Nothing of it is run: of a file in
Python the literals are read. Each setting that has no counterpart becomes a comment that says why.

    caddysnake import Procfile > Caddyfile
    caddysnake import /etc/systemd/system/blog.service > Caddyfile
    caddysnake import gunicorn --workers 4 --bind unix:/run/blog.sock blog.wsgi > Caddyfile
"""

from __future__ import annotations

import argparse
import os
import sys

from .importing.reading import READ_BY_SERVERS, imported


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "what",
        nargs=argparse.REMAINDER,
        metavar="FILE | COMMAND",
        help="what starts the app now: a file, or a command with its arguments (default: a file that is here)",
    )


def main(args: argparse.Namespace) -> int:
    """Print it; 1 when there is nothing that is understood."""
    words = args.what[1:] if args.what[:1] == ["--"] else args.what
    known = {name: value for name, value in os.environ.items() if name.startswith(READ_BY_SERVERS)}
    sys.stdout.write(imported(words, known))
    return 0
