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
from .overview import one_app, overview
from .terminal import control

_HOME, _REST, _ALTERNATE, _NORMAL = "\x1b[H", "\x1b[J", "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


def show(target: Target, name: str | None, *, as_json: bool) -> None:
    """Print how it is, or how the app of that ``name`` is. Raises ``CallFailed``."""
    status = call(target, "GET", "/status")
    _print(status, None if name is None else _key_of(name, status), as_json=as_json)


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


def _print(status: dict[str, Any], key: str | None, *, as_json: bool) -> None:
    if as_json:
        shown = status if key is None else next(app for app in status["apps"] if app["key"] == key)
        print(printable_json(json.dumps(shown)), flush=True)
        return
    width = shutil.get_terminal_size().columns
    try:
        lines = overview(status, width=width) if key is None else one_app(status, key, width)
    except (KeyError, TypeError) as exc:
        version = status.get("daemon", {}).get("version")
        raise CallFailed(
            f"the daemon, caddysnake {version}, does not tell all that caddysnake {__version__} shows (no {exc}): "
            "`caddysnake upgrade` makes them one version, --json shows what it tells"
        ) from None
    print("\n".join(lines), flush=True)


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
            key = None if name is None else _key_of(name, status)
            width, height = shutil.get_terminal_size()
            if as_json:
                _print(status, key, as_json=True)
            elif key is not None:
                _show(one_app(status, key, width), on_terminal=on_terminal)
            else:
                lines_max = height - 1 if on_terminal else None
                _show(overview(status, before, now - seen_at, lines_max, width), on_terminal=on_terminal)
            before, seen_at = status, now
            time.sleep(interval_s)
    except KeyboardInterrupt:
        return 0
    finally:
        if on_terminal:
            control(_NORMAL)
            sys.stdout.flush()


def _show(lines: list[str], *, on_terminal: bool) -> None:
    """On a terminal in the place of what was there, as much as it has room for."""
    if not on_terminal:
        print("\n".join(lines), end="\n\n", flush=True)
        return
    width, height = shutil.get_terminal_size()
    shown = [printable(line)[:width] for line in lines[: height - 1]]
    control(_HOME + "".join(f"{line}\x1b[K\r\n" for line in shown) + _REST)
    sys.stdout.flush()
