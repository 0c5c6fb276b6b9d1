"""A record of the log, its level, and text that a terminal may be shown. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

LEVELS = {"debug": 10, "info": 20, "warn": 30, "error": 40, "panic": 45, "fatal": 50}
"""Caddy's names, with the numbers of ``logging``."""

_NAMES = {"WARNING": "warn", "CRITICAL": "fatal"}
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F, *range(0x80, 0xA0)) if code not in (0x09, 0x0A)}
# What makes a terminal show text in another order than it is written.
_REORDERING = (0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
_CONTROL |= {code: f"\\u{code:04x}" for code in _REORDERING}


class Record(NamedTuple):
    """One record. ``ts``: seconds since 1970. ``fields`` follow the message; one of several lines is shown last."""

    level: str
    ts: float
    logger: str
    msg: str
    fields: dict[str, Any]


class Statement(NamedTuple):
    """What is said to whoever started the daemon: as text in console style, else as a record, with ``fields``."""

    text: str
    level: str = "info"
    fields: dict[str, Any] | None = None

    def record(self, ts: float) -> Record:
        """The first line is the message."""
        msg, _, rest = self.text.rstrip("\n").partition("\n")
        fields = {**(self.fields or {}), **({"error": rest} if rest else {})}
        return Record(self.level, ts, "daemon", msg.removesuffix(":") if rest else msg, fields)


def level_name(python_name: str) -> str:
    """Caddy's name for a level of ``logging``."""
    return _NAMES.get(python_name, python_name.lower())


# The same, and as JSON has it: what JSON lets through and a terminal may obey.
_HIDDEN = {code: f"\\u{code:04x}" for code in (0x7F, *range(0x80, 0xA0), *_REORDERING)}


def printable_json(text: str) -> str:
    """``text``, which is JSON, for a terminal, which obeys nothing in it. What it says stays the same."""
    return text.translate(_HIDDEN)


def printable(text: str) -> str:
    """``text`` for a terminal, which obeys nothing in it: control characters escaped, line ends and tabs kept."""
    return text.translate(_CONTROL).encode("utf-8", "backslashreplace").decode()
