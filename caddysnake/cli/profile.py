"""Look for some seconds at what an app, or one worker, is at, and write where its time went.

It runs on meanwhile, a few per cent slower at most. The form follows from the name of FILE: .html, a flame graph that
any browser shows; .json, for https://www.speedscope.app; .txt, stacks by processor time for flamegraph.pl and its like.
Without FILE, the functions that took most.

    caddysnake profile blog:app
    caddysnake profile blog:app --seconds 30 -o blog.html
    caddysnake profile 4711 -o worker.json        one worker; `caddysnake status` has the pids
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from urllib.parse import urlencode

from ..logs.records import printable
from .calling import call, path_of
from .finding import add_daemon_arguments, find
from .reading import CommandFailed

_FORMS = (".html", ".json", ".txt")
_HOTTEST = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("app", metavar="APP|PID", help="a name in `caddysnake status`, a tenant's host, or a pid")
    parser.add_argument("--seconds", metavar="N", type=float, default=10.0, help="how long to look (default: 10)")
    parser.add_argument("-o", "--output", metavar="FILE", help="where to write: a name in .html, .json or .txt")
    parser.add_argument("--wall", action="store_true", help="count waiting too, in .txt and where nothing is written")
    add_daemon_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Look, write, and say what was seen; 0 when at least one worker has told something."""
    suffix = ".txt" if args.output is None else os.path.splitext(args.output)[1].lower()
    if suffix not in _FORMS:
        raise CommandFailed(f"{args.output}: the form follows from the name: end it in {', '.join(_FORMS)}")
    if args.output is not None and not os.path.isdir(os.path.dirname(args.output) or "."):
        raise CommandFailed(f"{args.output}: there is no such folder")
    form = "wall" if args.wall and suffix == ".txt" else suffix[1:]
    path = f"/workers/{args.app}" if args.app.isdecimal() else path_of(args.app)
    query = urlencode({"seconds": f"{args.seconds:g}", "format": form})
    seen = call(find(args.address, args.config), "POST", f"{path}/profile?{query}", timeout=None)
    for warning in seen["warnings"]:
        print(f"Warning: {printable(warning)}", file=sys.stderr)
    count = f"{seen['workers']} worker{'' if seen['workers'] == 1 else 's'}"
    about = f"{printable(seen['name'])}, {count}, {seen['seconds']:g} s"
    if args.output is None:
        _show(about, seen["content"], "of all threads and tasks together" if args.wall else "of the processors")
        return 0
    try:
        with open(args.output, "w", encoding="utf-8", errors="replace") as file:
            file.write(seen["content"])
    except OSError as exc:
        raise CommandFailed(f"{args.output}: {exc.strerror}") from None
    print(f"{args.output}: {about}", file=sys.stderr)
    return 0


def _show(about: str, content: str, whose: str) -> None:
    """How much time of ``whose`` was used, and the functions that took most, each for itself."""
    own: Counter[str] = Counter()
    for line in content.splitlines():
        stack, _, took = line.rpartition(" ")
        own[stack.rpartition(";")[2]] += int(took)
    whole = own.total()
    print(f"{about}: {whole / 1e6:.3f} s {whose}{'' if whole else '; --wall counts waiting too'}")
    for name, its in own.most_common(_HOTTEST):
        print(f"{100 * its / whole:6.1f} %  {printable(name)}")
