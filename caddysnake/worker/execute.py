"""The last code of ours before a command that is executed as an app is: its limits, its directory, its terminal.

It runs as the app's user, waits until it is in its cgroup, and says why the command is not executed, if it is not.
Guest code: Python 3.10, standard library only, and of that as little as can be: it is between an operator and a prompt.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import struct
import termios
from typing import Any, NoReturn

from ..channel.gate import GO, GO_GROUPED
from .process import limits

_PR_SET_PDEATHSIG = 1
_FAILED = 127
"""As shells have it of what cannot be executed."""


def main(options: dict[str, Any], command: list[str]) -> NoReturn:
    """Become ``command``. ``options``: ``gate`` (a socket), ``working_dir``, ``limits``, ``death_signal``, and
    ``terminal``: a socket that gets the other side of a terminal for those of its ``streams``.
    """
    gate = socket.socket(fileno=options["gate"])
    word = gate.recv(1)
    if word not in (GO, GO_GROUPED):
        os._exit(_FAILED)  # whoever has started this is gone, or does not want it any more
    # The thread that has started this is gone by now; the signal comes with the end of the daemon itself.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, options["death_signal"], 0, 0, 0)
    if select.select([gate], [], [], 0)[0]:
        os._exit(_FAILED)
    what = "limits"
    try:
        wanted = dict(options["limits"])
        if word == GO_GROUPED:
            wanted.pop("memory", None)
        limits.apply(wanted)
        if "terminal" in options:
            what = "a terminal"
            sink, opened = socket.socket(fileno=options["terminal"]), options.get("opened")
            _enter_terminal(sink, options["streams"], options["size"], opened)
        what = options["working_dir"]
        os.chdir(what)
        os.environ["PWD"] = what
        what = command[0]
        os.set_inheritable(gate.fileno(), False)
        for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, which what it executes would inherit
            signal.signal(ignored, signal.SIG_DFL)
        os.execvpe(command[0], command, os.environ)
    except (OSError, ValueError) as exc:
        number = exc.errno if isinstance(exc, OSError) else None
        problem = {"what": what, "errno": number, "text": getattr(exc, "strerror", None) or str(exc)}
        gate.sendall(json.dumps(problem).encode())
    os._exit(_FAILED)


def _enter_terminal(sink: socket.socket, streams: list[int], size: list[int], opened: int | None) -> None:
    """Make a pseudo-terminal, unless it is ``opened``; control this session by it. Raises ``OSError``."""
    other, ours = os.openpty() if opened is None else (-1, opened)
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", size[0], size[1], 0, 0))
    fcntl.ioctl(ours, termios.TIOCSCTTY, 0)
    if other >= 0:
        socket.send_fds(sink, [b"t"], [other])
        os.close(other)
    sink.close()
    for stream in streams:
        os.dup2(ours, stream)
    if ours > 2:
        os.close(ours)
