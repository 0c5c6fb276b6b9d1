"""Records as text: one JSON object a line in Caddy's field names, or console style. Pure."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from .records import Record, printable, printable_json

Format = Callable[[Record], bytes]
"""A record as a line (in console style perhaps several), with its end."""

_COLOURS = {"debug": "35", "info": "34", "warn": "33", "error": "31", "panic": "31", "fatal": "31"}
_PRIORITIES = {"debug": b"<7>", "info": b"<6>", "warn": b"<4>", "error": b"<3>", "panic": b"<2>", "fatal": b"<2>"}


def json_line(record: Record) -> bytes:
    """``{"level":"info","ts":1795359933.58,"logger":"app","msg":"app ready",…}``

    Nothing in it can steer a terminal on which somebody looks at the file.
    """
    level, ts, logger, msg, fields = record
    entry = {"level": level, "ts": ts, "logger": logger, "msg": msg, **fields}
    try:
        line = orjson.dumps(entry, default=str) + b"\n"  # a copy: as it made it, a line that is kept takes 8 KiB
    except TypeError:  # a number over 64 bits, a key that is none, a surrogate
        return printable_json(json.dumps(entry, default=str)).encode() + b"\n"
    if line.isascii() and b"\x7f" not in line:
        return line
    return printable_json(line.decode()).encode()


def journal_line(record: Record) -> bytes:
    """As ``json_line``, with the priority in front, which journald takes off and files it under (sd-daemon(3))."""
    return _PRIORITIES.get(record.level, b"<6>") + json_line(record)


def has_colours(is_terminal: bool, environ: Mapping[str, str]) -> bool:
    """Whether console style is in colours: see https://no-color.org."""
    return is_terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


class Console:
    """``16:04:11.532 INFO  app ready  app=blog:app workers=2``; several lines of text follow indented."""

    def __init__(self, colour: bool) -> None:
        self._colour = colour

    def __call__(self, record: Record) -> bytes:
        """``record`` as ``text`` has it, with a newline, in UTF-8; what has no form in that is escaped."""
        return (self.text(record) + "\n").encode("utf-8", "backslashreplace")

    def text(self, record: Record) -> str:
        """Without the last line's end."""
        level, ts, logger, msg, fields = record
        milliseconds = int(ts * 1000) % 1000
        clock = time.strftime("%H:%M:%S", time.localtime(ts)) + f".{milliseconds:03d}"
        shown = f"{level.upper():<5}"
        if self._colour:
            shown = f"\x1b[{_COLOURS.get(level, '34')}m{shown}\x1b[0m"
        short: list[tuple[str, str]] = []
        long: list[tuple[str, str]] = []
        for name, value in _flat(fields).items():
            text = printable(str(value))
            (long if "\n" in text else short).append((printable(name), text))
        if logger.endswith((".stdout", ".stderr")):
            short.append(("stream", logger))
        line = f"{clock} {shown} " + printable(msg).replace("\n", "\n    ")
        if short:
            line += "  " + " ".join(f"{name}={_quoted(text)}" for name, text in short)
        for _, text in long:
            line += "\n" + "\n".join(f"    {part}" for part in text.splitlines())
        return line


def _flat(fields: dict[str, Any]) -> dict[str, Any]:
    """What a person wants to see of an access record on one line; other fields as they are."""
    request = fields.get("request")
    if not isinstance(request, dict) or "resp_headers" not in fields:
        return fields
    seen = {name: request.get(name, "") for name in ("method", "host", "uri", "client_ip")}
    took = fields.get("duration")
    if isinstance(took, float):
        seen["duration"] = f"{took * 1000:.1f}ms"
    whose: dict[str, Any] = {name: fields[name] for name in ("app", "process") if name in fields}
    return {"status": fields.get("status"), "size": fields.get("size"), **seen, **whose}


def _quoted(text: str) -> str:
    if text and not any(character in text for character in ' "=\t'):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
