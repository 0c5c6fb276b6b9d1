"""Have the running daemon carry out its Caddyfile as it is now, with new workers for every app.

Run it after a deploy. The new workers are started, and ready, before anything changes; no request fails. If the file is
wrong, or an app does not start, nothing changes, this says why, and exits with 1.

    caddysnake reload --config /etc/caddysnake/Caddyfile
    caddysnake reload --changed          only apps whose definition in the file has changed
    caddysnake reload --app blog:app     that app alone, with the definition it has
"""

from __future__ import annotations

import argparse
import os
import sys
from urllib.parse import quote, urlencode

from .calling import CallFailed, add_address_argument, call, report
from .finding import file_asked_for, find
from .reading import DEFAULT_FILE, ReadError, add_config_arguments, read


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_config_arguments(parser)
    add_address_argument(parser)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--changed", action="store_true", help="only apps whose definition has changed")
    what.add_argument("--app", metavar="NAME", help="only this app; `caddysnake status` has the names")
    parser.add_argument("-f", "--force", action="store_true", help="accepted and ignored: a reload always reloads")


def main(args: argparse.Namespace) -> int:
    """Reload, and wait for the outcome; 0 when the new workers serve."""
    try:
        if args.app is not None:
            path, body = f"/apps/{quote(args.app, safe='')}/reload", None
        else:
            path, body = _load(args.config, is_addressed=args.address is not None, changed=args.changed)
        target = find(args.address, None if args.config == "-" else args.config)
        done = call(target, "POST", path, body, timeout=None)
    except ReadError as exc:
        print(f"Error: {exc}", file=sys.stderr)
        return 1
    except CallFailed as exc:
        return report(exc)
    for warning in done.get("warnings", []):
        print(f"Warning: {warning}", file=sys.stderr)
    what = done["app"] if "app" in done else f"{done['file']} ({_count(done['apps'], done['templates'])})"
    print(f"{what} reloaded in {done['seconds']:.1f} s", file=sys.stderr)
    return 0


def _load(config: str | None, *, is_addressed: bool, changed: bool) -> tuple[str, bytes | None]:
    """Target and body of the request. Without a file the daemon reads its own again, if it is that of this directory.

    Raises ``ReadError``, ``CallFailed``.
    """
    parameters = {"changed": "true"} if changed else {}
    if config is None:
        if not is_addressed and os.path.exists(DEFAULT_FILE):
            parameters["file"] = file_asked_for(None)
        return f"/load?{urlencode(parameters)}", None
    source = read(config)
    if config != "-":
        parameters["file"] = file_asked_for(config)
    return f"/load?{urlencode(parameters)}", source.content


def _count(apps: int, templates: int) -> str:
    parts = [f"{apps} app{'' if apps == 1 else 's'}"] if apps or not templates else []
    if templates:
        parts.append(f"{templates} template{'' if templates == 1 else 's'} of apps")
    return " and ".join(parts)
