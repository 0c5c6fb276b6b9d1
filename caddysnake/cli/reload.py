"""Have the running daemon carry out its Caddyfile as it is now, with new workers for every app.

Run it after a deploy. New workers take over when they are ready; no request fails. If the file is wrong, nothing
changes. An app that does not start keeps its old build, and the others are reloaded: this says which, why, and exits
with 1. What release commands write is shown as it comes; Ctrl-C cancels the reload.

    caddysnake reload --config /etc/caddysnake/Caddyfile
    caddysnake reload --changed          only apps whose definition in the file has changed
    caddysnake reload --app blog:app     that app alone, with the definition it has
    caddysnake reload --all-or-nothing   nothing changes unless every app starts
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from .calling import CallFailed, Target, call, follow, path_of
from .finding import add_daemon_arguments, file_asked_for, find
from .reading import DEFAULT_FILE, read

_GONE_S, _LOOK_S = 15.0, 0.5
"""How long a daemon may be away that becomes another version of itself, and how often is looked."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_daemon_arguments(parser)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--changed", action="store_true", help="only apps whose definition has changed")
    what.add_argument("--app", metavar="NAME", help="only this app; `caddysnake status` has the names")
    parser.add_argument("--all-or-nothing", action="store_true", help="one app that does not start refuses the whole")
    parser.add_argument(
        "--canary",
        action=argparse.BooleanOptionalAction,
        help="try new builds on a share of the requests first, or not, whatever their blocks say",
    )
    parser.add_argument("-f", "--force", action="store_true", help="accepted and ignored: a reload always reloads")


def main(args: argparse.Namespace) -> int:
    """Reload, and wait for the outcome; 0 when the new workers serve."""
    if args.app is not None:
        query = "" if args.canary is None else f"?canary={str(args.canary).lower()}"
        path, body = path_of(args.app, f"/reload{query}"), None
        change = f"/load?{urlencode({'app': args.app})}"
    else:
        flags = {"changed": args.changed, "all_or_nothing": args.all_or_nothing, "canary": args.canary}
        path, body = _load(args.config, is_addressed=args.address is not None, flags=flags)
        change = "/load"
    target = find(args.address, None if args.config == "-" else args.config)
    try:
        done = follow(target, path, body, _show, change)
    except CallFailed as exc:
        if exc.answer or not _tried:
            raise
        return _verdicts(target, exc)
    for warning in done.get("warnings", []):
        print(f"Warning: {warning}", file=sys.stderr)
    if "app" in done:
        print(f"{done['app']} reloaded in {done['seconds']:.1f} s", file=sys.stderr)
        return 0
    return _tell(done)


_tried: set[str] = set()
"""Apps of which it was heard that a build is tried."""


def _show(app: str, line: str) -> None:
    print(f"{app} | {line}", file=sys.stderr)
    if line.startswith("canary, "):
        _tried.add(app)


def _verdicts(target: Target, failed: CallFailed) -> int:
    """Wait for what becomes of builds on trial over an upgrade; the exit status. Raises ``failed``: no daemon."""
    until = time.monotonic() + _GONE_S
    while True:
        try:
            apps = [each for each in call(target, "GET", "/apps")["apps"] if each["name"] in _tried]
        except CallFailed:
            if time.monotonic() > until:
                raise failed from None
        else:
            if not any(each["trial"] for each in apps):
                break
        time.sleep(_LOOK_S)
    refused = [each for each in apps if each["refused"]]
    for each in refused:
        _refused(each["name"], True, **each["refused"])
    print(f"the daemon was upgraded meanwhile; taken over: {len(apps) - len(refused)} of {len(apps)}", file=sys.stderr)
    return 1 if refused else 0


def _refused(app: str, serves: bool, code: str, error: str, **_: object) -> None:
    goes_on = "its old build keeps serving" if serves else "nothing serves, and it is tried again"
    what = "does not start" if code != "canary-failed" else "is returned"
    print(f"Error: app {app} {what} ({code}); {goes_on}:", file=sys.stderr)
    for line in error.splitlines():
        print(f"  {line}", file=sys.stderr)


def _tell(done: Mapping[str, Any]) -> int:
    """Say what became of each app; the exit status."""
    refused = [each for each in done["outcomes"] if each["result"] == "refused"]
    for each in refused:
        _refused(**each)
    but = f", but for {', '.join(each['app'] for each in refused)}" if refused else ""
    what = f"{done['file']} ({_count(done['apps'], done['templates'])})"
    print(f"{what} reloaded in {done['seconds']:.1f} s{but}", file=sys.stderr)
    return 1 if refused else 0


def _load(config: str | None, *, is_addressed: bool, flags: Mapping[str, bool | None]) -> tuple[str, bytes | None]:
    """Target and body; without a file the daemon reads its own again. Raises ``ReadError``, ``CallFailed``."""
    # What is off is not said, but of what a block may ask for.
    said = {name: value for name, value in flags.items() if value or (name == "canary" and value is not None)}
    parameters = {name: str(value).lower() for name, value in said.items()}
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
