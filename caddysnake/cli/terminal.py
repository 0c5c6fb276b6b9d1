"""What a terminal may be shown. Words of the command line, names of files, the environment, answers of a daemon, lines
of a Caddyfile: what a command prints may come from anybody, and a terminal obeys some of it.

So the program's standard output and standard error escape whatever a terminal would act on, in one place for all that
is printed, tracebacks and help included (JSON is escaped before, as JSON has it). A command whose output is a file's
content, to the byte, is in ``VERBATIM``: it is left as it is, unless a terminal is where it goes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any, Final, TextIO, cast

from ..logs.records import printable

VERBATIM: Final = frozenset({"caddyfile", "completion", "exec", "fmt", "import", "manpage", "systemd"})


class Escaping:
    """``stream`` for text that a terminal may be shown. All else of it is as it was."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write ``text``, of which line ends and tabs stay as they are."""
        self.stream.write(printable(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def protect(command: str) -> None:
    """From now on this process prints nothing raw. ``command``: what it is about to do."""
    _open_standard_streams()
    sys.stderr = _escaping(sys.stderr)
    if command not in VERBATIM or sys.stdout.isatty():
        sys.stdout = _escaping(sys.stdout)


def _open_standard_streams() -> None:
    """Those that were closed before we were started lead nowhere: Python has None for them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free: this one
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def _escaping(stream: TextIO) -> TextIO:
    return stream if isinstance(stream, Escaping) else cast(TextIO, Escaping(stream))


def control(sequence: str) -> None:
    """Have the terminal at standard output do something: a control sequence of our own."""
    stream = sys.stdout
    (stream.stream if isinstance(stream, Escaping) else stream).write(sequence)
