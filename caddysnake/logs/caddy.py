"""A line of Caddy's own log as a record: JSON, or its console style, which has tabs between its parts. Pure."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import orjson

from .records import LEVELS

ACCESS = "http.log.access"
"""Whose records were asked for by a line of the file."""

AS_EXPECTED = (
    "admin endpoint disabled",
    "HTTP/2 skipped because it requires TLS",
    "HTTP/3 skipped because it requires TLS",
    "exiting; byeee",
)
"""Warnings that warn of nothing: so a file is that we wrote, or a site without TLS."""

_OF_OURS = ("Caddyfile input is not formatted", "admin endpoint on open interface")
"""What it has against the file that was made for it, which nobody has written, and against our own door to it."""

_CONSOLE = re.compile(r"[\d/]+ [\d:.]+\t(?:\x1b\[\d+m)?([A-Z]+)(?:\x1b\[0m)?\t(.*)", re.DOTALL)


def read(line: str) -> tuple[str, str, str, dict[str, Any], float | None] | None:
    """Level, logger, message, fields and time; None when it is no record of Caddy's."""
    return _of_json(line) if line.startswith("{") else _of_console(line)


def is_about_us(msg: str, fields: dict[str, Any]) -> bool:
    """Whether it complains of what nobody but us has said."""
    if msg.startswith(_OF_OURS[0]):
        return True
    return msg.startswith(_OF_OURS[1]) and str(fields.get("address", "")).startswith("fd/")


def _of_json(line: str) -> tuple[str, str, str, dict[str, Any], float | None] | None:
    try:
        said = orjson.loads(line)
        level, msg = said.pop("level").lower(), said.pop("msg")
    except (ValueError, KeyError, AttributeError):
        return None
    ts, logger = said.pop("ts", None), said.pop("logger", "caddy")
    if level not in LEVELS or not isinstance(msg, str):
        return None
    return level, str(logger), msg, said, ts if isinstance(ts, float) else None


def _of_console(line: str) -> tuple[str, str, str, dict[str, Any], float | None] | None:
    found = _CONSOLE.match(line)
    if found is None or found[1].lower() not in LEVELS:
        return None
    parts = found[2].split("\t")
    fields: dict[str, Any] = {}
    if len(parts) > 1 and parts[-1].startswith("{"):
        with contextlib.suppress(ValueError):
            fields = orjson.loads(parts[-1])
            parts.pop()
    logger = parts.pop(0) if len(parts) > 1 else "caddy"
    return found[1].lower(), logger, "\t".join(parts), fields, None
