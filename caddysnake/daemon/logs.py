"""The daemon's log: one JSON record a line in Caddy's field names, or console style on a terminal.

``log.info("app ready", extra={"fields": {…}})``: the message is constant, what varies is in the fields. Text from a
worker is escaped for where it goes: it may hold terminal control sequences.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import stat
import sys
import time
from typing import TextIO

import orjson

_READER_MOMENT_MS = 50
_LEVELS = {"WARNING": "warn", "CRITICAL": "fatal"}
_COLOURS = {"debug": "35", "info": "34", "warn": "33", "error": "31", "fatal": "31"}
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F, *range(0x80, 0xA0)) if code not in (0x09, 0x0A)}
# What makes a terminal show text in another order than it is written.
_REORDERING = (0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
_CONTROL |= {code: f"\\u{code:04x}" for code in _REORDERING}


def printable(text: str) -> str:
    """``text`` for a terminal, which obeys nothing in it: control characters escaped, line ends and tabs kept."""
    return text.translate(_CONTROL).encode("utf-8", "backslashreplace").decode()


class JsonFormatter(logging.Formatter):
    """``{"level":"info","ts":1795359933.58,"logger":"app","msg":"app ready",…}``"""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "level": _level(record),
            "ts": record.created,
            "logger": record.name.removeprefix("caddysnake."),
            "msg": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(entry, default=str).decode()
        except TypeError:  # a number over 64 bits, or bytes of a path that are no UTF-8
            return json.dumps(entry, default=str)


class ConsoleFormatter(logging.Formatter):
    """``16:04:11.532 INFO app  app ready  app=blog:app workers=2``; several lines of text follow indented."""

    def __init__(self, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        level = _level(record)
        clock = time.strftime("%H:%M:%S", time.localtime(record.created)) + f".{int(record.msecs):03d}"
        shown = f"{level.upper():<5}"
        if self._colour:
            shown = f"\x1b[{_COLOURS[level]}m{shown}\x1b[0m"
        short: list[tuple[str, str]] = []
        long: list[tuple[str, str]] = []
        for name, value in _fields(record).items():
            text = printable(str(value))
            (long if "\n" in text else short).append((name, text))
        line = f"{clock} {shown} {record.getMessage()}"
        if short:
            line += "  " + " ".join(f"{name}={_quoted(text)}" for name, text in short)
        for _, text in long:
            line += "\n" + "\n".join(f"    {part}" for part in text.splitlines())
        if record.exc_info:
            line += "\n" + printable(self.formatException(record.exc_info))
        return line


def _quoted(text: str) -> str:
    if text and not any(character in text for character in ' "=\t'):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _level(record: logging.LogRecord) -> str:
    return _LEVELS.get(record.levelname, record.levelname.lower())


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields: dict[str, object] = getattr(record, "fields", {})
    return fields


class Handler(logging.Handler):
    """Serving goes on when the disk is full, or the reader of a pipe has left or stands still: the record is lost.

    The workers write to the same pipe and may fill it at any time. It cannot be made non-blocking: that would hold for
    everyone who has it. But a pipe that polls as writable takes ``PIPE_BUF`` bytes (pipe(7)).
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lost = 0
        self._is_torn = False
        self._poll: select.poll | None = None
        with contextlib.suppress(OSError):  # a stream in memory has no descriptor
            self._descriptor = stream.fileno()
            if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
                self._poll = select.poll()
                self._poll.register(self._descriptor, select.POLLOUT)

    def emit(self, record: logging.LogRecord) -> None:
        """Write ``record``, or count it as lost."""
        try:
            if self._lost and self._write(self.format(self._loss())):
                self._lost = 0
            if not self._write(self.format(record)):
                self._lost += 1
        except OSError:
            self._lost += 1
        except Exception:  # what logging itself does with a record that cannot be formatted
            self.handleError(record)

    def _loss(self) -> logging.LogRecord:
        told = logging.LogRecord("caddysnake.daemon", logging.WARNING, "", 0, "log records lost", None, None)
        told.fields = {"count": self._lost}
        return told

    def _write(self, line: str) -> bool:
        if self._poll is None:
            self._stream.write(line + "\n")
            self._stream.flush()
            return True
        rest = (("\n" if self._is_torn else "") + line + "\n").encode("utf-8", "backslashreplace")
        whole = len(rest)
        while rest:
            # A reader that is only slow gets a moment; one that has been given up holds up nothing again.
            if not self._poll.poll(0 if self._lost else _READER_MOMENT_MS):
                self._is_torn = self._is_torn or len(rest) < whole
                return False
            rest = rest[os.write(self._descriptor, rest[: select.PIPE_BUF]) :]
        self._is_torn = False
        return True


def tell(text: str) -> None:
    """Say something to whoever started us, on standard error, if it can still be written to."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        pass


def close_quietly() -> None:
    """Before the interpreter ends: what cannot be flushed would turn its exit status into 120."""
    try:
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def set_up(stream: TextIO | None = None, debug: bool = False) -> None:
    """Send the log to ``stream`` (standard error): console style on a terminal, JSON elsewhere."""
    stream = stream or sys.stderr
    handler = Handler(stream)
    handler.setFormatter(ConsoleFormatter(colour=True) if stream.isatty() else JsonFormatter())
    root = logging.getLogger("caddysnake")
    root.handlers[:] = [handler]
    root.propagate = False
    root.setLevel(logging.DEBUG if debug else logging.INFO)
