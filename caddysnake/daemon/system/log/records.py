"""The daemon's own records: ``log.info("app ready", extra={"fields": {…}})``, where what varies is in the fields.

They go to the log process (``logger``) while there is one, and to standard error before and after.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import stat
import sys
import time
from typing import NamedTuple, Protocol, TextIO

from ....logs.formats import Console, Format, has_colours, journal_line, json_line
from ....logs.main import is_journal
from ....logs.records import LEVELS, Record, Statement, level_name, printable

__all__ = ["Formatter", "Handler", "Style", "close_quietly", "printable", "set_up", "tell"]

_READER_MOMENT_MS = 50


class Style(NamedTuple):
    """How the log is written. ``format``: ``json``, ``console``, or ``auto``, which is console style on a terminal."""

    level: str = "info"
    format: str = "auto"
    is_quiet: bool = True
    """Nobody has asked for more: in console style, a Caddy's records begin at ``warn``."""


class Taker(Protocol):
    """The log process."""

    def take(self, record: Record) -> bool:
        """Have ``record`` written; False when it is not there."""

    def take_text(self, told: Statement) -> bool:
        """Have ``told`` written; False when it is not there."""

    def restyle(self, style: Style) -> None:
        """Write in ``style`` from now on."""


def to_record(record: logging.LogRecord) -> Record:
    """A record of ``logging`` as one of ours; the traceback is the field ``error``."""
    fields = dict(getattr(record, "fields", {}))
    if record.exc_info:
        fields["error"] = logging.Formatter().formatException(record.exc_info)
    name = record.name.removeprefix("caddysnake.")
    return Record(level_name(record.levelname), record.created, name, record.getMessage(), fields)


class Formatter(logging.Formatter):
    """Writes records of ``logging`` in a form of ours."""

    def __init__(self, form: Format) -> None:
        super().__init__()
        self.form = form

    def format(self, record: logging.LogRecord) -> str:
        """One or more lines, without the last newline."""
        return self.form(to_record(record)).decode().removesuffix("\n")


class Handler(logging.Handler):
    """Gives records to the log process, or writes them.

    Serving goes on when the disk is full, or the reader of a pipe has left or stands still: the record is lost then,
    and counted. The pipe cannot be made non-blocking, since that would hold for everyone who has it; but one that
    polls as writable takes ``PIPE_BUF`` bytes (pipe(7)).
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.process: Taker | None = None
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
            if self.process is not None and self.process.take(to_record(record)):
                return
            self.say(self.format(record))
        except Exception:  # what logging itself does with a record that cannot be formatted
            self.handleError(record)

    def say(self, text: str) -> None:
        """Write ``text`` ourselves, or count it as lost."""
        try:
            if self._lost and self._write(self.format(self._loss())):
                self._lost = 0
            if not self._write(text):
                self._lost += 1
        except OSError:
            self._lost += 1

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


def tell(text: str, level: str = "info", **fields: str) -> None:
    """Say something to whoever started us, on standard error, if it can still be written to: as it is in console style,
    else as a record, with ``fields``. Nothing in it is obeyed by a terminal.
    """
    told = Statement(printable(text), level, fields)
    shown = told.text
    for handler in logging.getLogger("caddysnake").handlers:
        if isinstance(handler, Handler):
            if handler.process is not None and handler.process.take_text(told):
                return
            if isinstance(handler.formatter, Formatter) and not isinstance(handler.formatter.form, Console):
                shown = handler.formatter.form(told.record(time.time())).decode().removesuffix("\n")
    with contextlib.suppress(OSError):
        print(shown, file=sys.stderr, flush=True)


def close_quietly() -> None:
    """Before the interpreter ends: what cannot be flushed would turn its exit status into 120."""
    try:
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


class _Setting:
    """What was last set: the log of a process is one."""

    style = Style()
    stream: TextIO | None = None
    debug = False


def set_up(stream: TextIO | None = None, debug: bool = False) -> None:
    """Send the log to ``stream``: console style on a terminal, else JSON. ``debug``: all, whatever comes later."""
    stream = stream or sys.stderr
    handler = Handler(stream)
    root = logging.getLogger("caddysnake")
    root.handlers[:] = [handler]
    root.propagate = False
    _Setting.stream, _Setting.debug = stream, debug
    restyle(Style())


def restyle(style: Style) -> None:
    """Write in ``style`` from now on, here and in the log process. A daemon that debugs keeps the level ``debug``."""
    if _Setting.debug:
        style = style._replace(level="debug", is_quiet=False)
    _Setting.style = style
    root = logging.getLogger("caddysnake")
    root.setLevel(min(LEVELS[style.level], logging.CRITICAL))
    for handler in root.handlers:
        if isinstance(handler, Handler):
            handler.setFormatter(Formatter(_form(style.format)))
            if handler.process is not None:
                handler.process.restyle(style)


def is_on_terminal() -> bool:
    """Whether somebody reads the log as it is written."""
    return (_Setting.stream or sys.stderr).isatty()


def attach(process: Taker | None) -> None:
    """From now on ``process`` writes; None: we do."""
    for handler in logging.getLogger("caddysnake").handlers:
        if isinstance(handler, Handler):
            handler.process = process
            if process is not None:
                process.restyle(_Setting.style)


def _form(name: str) -> Format:
    stream = _Setting.stream or sys.stderr
    is_terminal = stream.isatty()
    if name == "console" or (name == "auto" and is_terminal):
        return Console(has_colours(is_terminal, os.environ))
    with contextlib.suppress(OSError):
        if is_journal(dict(os.environ), stream.fileno()):
            return journal_line
    return json_line
