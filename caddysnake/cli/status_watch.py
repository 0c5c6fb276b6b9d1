"""What `status` shows: once, or again and again in the place of what was there."""

from __future__ import annotations

import json
import shutil
import sys
import time
from difflib import get_close_matches
from typing import Any

from .. import __version__
from ..logs.records import printable, printable_json
from .calling import CallFailed, Target, call
from .status_table import one_app, overview
from .terminal import control

_HOME, _REST, _ALTERNATE, _NORMAL = "\x1b[H", "\x1b[J", "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


def show(target: Target, name: str | None, *, as_json: bool) -> None:
    """Print how it is, or how the app of that ``name`` is. Raises ``CallFailed``."""
    print(_text(call(target, "GET", "/status"), name, as_json), flush=True)


def names(target: Target) -> int:
    """Print the names of the apps; always 0. Raises ``CallFailed``."""
    for app in call(target, "GET", "/status")["apps"]:
        print(printable(app["name"]))
    return 0


def _key_of(name: str, status: dict[str, Any]) -> str:
    """The key of the app that is called ``name``, or whose it is. Raises ``CallFailed``, with the nearest names."""
    apps = status["apps"]
    for field in ("key", "name"):
        for app in apps:
            if app[field] == name:
                return str(app["key"])
    hosts = [app for app in apps if app["template"] and app["name"].split(" ")[0] == name]
    if len(hosts) == 1:
        return str(hosts[0]["key"])
    names = [app["name"] for app in apps]
    close = get_close_matches(name, names, n=3, cutoff=0.4) or names[:10]
    raise CallFailed(f"there is no app {name}" + (f": there is {', '.join(close)}" if close else ""))


def _text(
    status: dict[str, Any],
    name: str | None,
    as_json: bool,
    before: dict[str, Any] | None = None,
    passed_s: float = 0.0,
    lines_max: int | None = None,
) -> str:
    """See ``overview``. Raises ``CallFailed``."""
    key = None if name is None else _key_of(name, status)
    if as_json:
        return printable_json(json.dumps(next((app for app in status["apps"] if app["key"] == key), status)))
    width = shutil.get_terminal_size().columns
    try:
        lines = overview(status, before, passed_s, lines_max, width) if key is None else one_app(status, key, width)
    except (KeyError, TypeError) as exc:
        version = status.get("daemon", {}).get("version")
        raise CallFailed(
            f"the daemon, caddysnake {version}, does not tell all that caddysnake {__version__} shows (no {exc}): "
            "`caddysnake upgrade` makes them one version, --json shows what it tells"
        ) from None
    return "\n".join(lines)


def watch(target: Target, interval_s: float, name: str | None, *, as_json: bool) -> int:
    """Again every ``interval_s`` seconds, with rates, until Ctrl-C. Raises ``CallFailed``."""
    on_terminal = sys.stdout.isatty() and not as_json
    before: dict[str, Any] | None = None
    seen_at = 0.0
    try:
        if on_terminal:
            control(_ALTERNATE)
        while True:
            status, now = call(target, "GET", "/status"), time.monotonic()
            width, height = shutil.get_terminal_size()
            text = _text(status, name, as_json, before, now - seen_at, height - 1 if on_terminal else None)
            if on_terminal:  # in the place of what was there, as much as it has room for
                shown = [printable(line)[:width] for line in text.split("\n")[: height - 1]]
                control(_HOME + "".join(f"{line}\x1b[K\r\n" for line in shown) + _REST)
                sys.stdout.flush()
            else:
                print(text, end="\n" if as_json else "\n\n", flush=True)
            before, seen_at = status, now
            time.sleep(interval_s)
    except KeyboardInterrupt:
        return 0
    finally:
        if on_terminal:
            control(_NORMAL)
            sys.stdout.flush()
