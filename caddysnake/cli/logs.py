"""Show what the daemon, its apps and their requests have logged last: in colours on a terminal, as JSON elsewhere.

The log itself goes where it always goes (journald, a container's log); here is what of it the daemon still has in
memory, some 20,000 records, of each app its share.

    caddysnake logs                             everything
    caddysnake logs blog:app -f                 of one app, and what comes
    caddysnake logs blog:app --process celery   of a process, or a schedule, beside its workers
    caddysnake logs --since 10m --level warn    what went wrong in the last ten minutes
    caddysnake logs blog:app --grep 'GET /cart'
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from ..logs.formats import Console, has_colours
from ..logs.records import LEVELS, Record, printable_json
from .calling import CallFailed, Target, stream
from .finding import add_daemon_arguments, find
from .terminal import control

_TAIL = 100
_AGAIN_S = 0.5
_PATIENCE_S = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("app", metavar="APP", nargs="?", help="only of this app, by its name in `caddysnake status`")
    parser.add_argument("--process", metavar="NAME", help="only of this process, or schedule, beside the workers")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what comes, until Ctrl-C")
    parser.add_argument("--since", metavar="TIME", type=_seconds, help="only of the last 10m, 1h30m, 2d")
    about = "only this and above: debug, info, warn, error"
    parser.add_argument("--level", type=str.lower, choices=LEVELS, metavar="LEVEL", help=about)
    parser.add_argument("--grep", metavar="PATTERN", type=_pattern, help="only where this regular expression is found")
    parser.add_argument("-n", "--lines", metavar="N", type=_count, help="only so many of the last")
    parser.add_argument("--json", action="store_true", help="as JSON, also on a terminal")
    add_daemon_arguments(parser)


def _seconds(text: str) -> float:
    from ..config.language.values import InvalidValue, duration

    try:
        return float(text) if text.isdecimal() else duration(text)
    except InvalidValue:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write 10m, 1h30m or 2d") from None


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as exc:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {exc}") from None


def _count(text: str) -> int:
    if not text.isdecimal() or len(text) > 6:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of lines")
    return int(text)


def main(args: argparse.Namespace) -> int:
    """Show it; 0 when the daemon answers."""
    lines = args.lines if args.lines is not None or args.since is not None or not args.follow else _TAIL
    query: dict[str, Any] = {"app": args.app, "process": args.process, "level": args.level}
    query["lines"] = None if args.grep else lines
    since = time.time() - args.since if args.since is not None else 0.0
    try:
        target = find(args.address, args.config)
        shown = _Shown(args, lines if args.grep else None)
        if args.grep or not args.follow:
            for line, record in _records(target, query, since):
                since = max(since, record.ts)
                shown.take(line, record)
            shown.end()
        if args.follow:
            for line, record in _follow(target, {**query, "follow": "true"}, since):
                shown.take(line, record)
    except KeyboardInterrupt:
        pass
    return 0


def _records(target: Target, query: dict[str, Any], since: float) -> Iterator[tuple[bytes, Record]]:
    """Each as it has come, and what it says."""
    known = {name: value for name, value in query.items() if value is not None}
    for line in stream(target, f"/logs?{urlencode({**known, 'since': since})}"):
        told = json.loads(line)
        level, ts, logger, msg = (told.pop(name) for name in ("level", "ts", "logger", "msg"))
        yield line, Record(level, ts, logger, msg, told)


def _follow(target: Target, query: dict[str, Any], since: float) -> Iterator[tuple[bytes, Record]]:
    """Also over an upgrade of the daemon, which ends every connection. Raises ``CallFailed``."""
    failed_since: float | None = None
    while True:
        try:
            for line, record in _records(target, query, since):
                failed_since = None
                since = max(since, record.ts)
                yield line, record
            query = {**query, "lines": None}
            failed_since = failed_since or time.monotonic()
        except CallFailed as exc:
            if exc.answer or failed_since is None or time.monotonic() - failed_since > _PATIENCE_S:
                raise
        time.sleep(_AGAIN_S)


class _Shown:
    """What is printed. ``last``: only so many of what is there already."""

    def __init__(self, args: argparse.Namespace, last: int | None) -> None:
        is_terminal = sys.stdout.isatty()
        self._is_json = args.json or not is_terminal
        self._console = Console(has_colours(is_terminal, os.environ))
        self._plain = Console(colour=False)
        self._pattern: re.Pattern[str] | None = args.grep
        self._last = last
        self._kept: deque[tuple[bytes, Record]] = deque(maxlen=last)
        self._follows = args.follow

    def take(self, line: bytes, record: Record) -> None:
        """It has come."""
        if self._is_wanted(line, record):
            if self._last is None:
                self._print(line, record)
            else:
                self._kept.append((line, record))

    def _is_wanted(self, line: bytes, record: Record) -> bool:
        if (pattern := self._pattern) is None:
            return True
        forms = (record.msg, self._plain.text(record), line.decode(errors="replace"))
        return any(map(pattern.search, forms))

    def end(self) -> None:
        """All that was there has come."""
        for each in self._kept:
            self._print(*each)
        self._kept.clear()
        self._last = None

    def _print(self, line: bytes, record: Record) -> None:
        if self._is_json:
            print(printable_json(line.decode(errors="replace")), end="", flush=self._follows)
        else:
            control(self._console.text(record) + "\n")  # which lets nothing of an app's through
            if self._follows:
                sys.stdout.flush()
