"""Run a command as an app is: its user, folder, environment, limits, its `python` first in PATH.

    caddysnake exec blog python manage.py createsuperuser
    caddysnake exec blog python manage.py dumpdata > dump.json
    caddysnake exec blog                      its Python
    caddysnake exec anna.example.com sh       an app with placeholders, by its host

All after APP is the command's. At a terminal it gets a terminal of its own; pipes and files are passed to it as they
are. The exit status is the command's, 128 and more for a signal.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import stat
import struct
import termios
import tty
from typing import Any

from .calling import CallFailed, Target, path_of, switch
from .finding import add_daemon_arguments, find

_PROTOCOL = "caddysnake-exec"
_CHUNK = 65536
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)
_PTMX = os.makedev(5, 2)
_SECONDS = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_daemon_arguments(parser)
    parser.add_argument("app", metavar="APP", help="its name, as `caddysnake status` has it, or a tenant's host")
    rest = parser.add_argument("command", metavar="COMMAND", nargs=argparse.REMAINDER, help="default: the app's python")
    rest.required = False


def main(args: argparse.Namespace) -> int:
    """Run it; its exit status."""
    target = find(args.address, args.config)
    if not target.path:
        raise CallFailed(f"a command can be run over the admin API's unix socket only, and {target} is none")
    with contextlib.closing(_Shell(target, args.app, args.command or ["python"])) as shell:
        return shell.run()


class _Shell:
    """One command, and what is between it and whoever waits for it."""

    def __init__(self, target: Target, app: str, command: list[str]) -> None:
        self._terminal = [number for number in range(3) if os.isatty(number)]
        asked: dict[str, Any] = {"command": command, "terminal": self._terminal}
        if self._terminal:
            asked |= {"size": _size(self._terminal[0]), "term": os.environ.get("TERM", "")}
        self._sock = switch(target, path_of(app, "/exec"), json.dumps(asked).encode(), _PROTOCOL)
        self._other = -1
        self._said = b""

    def close(self) -> None:
        self._sock.close()
        if self._other >= 0:
            os.close(self._other)

    def run(self) -> int:
        """Hand over what it is to have, and wait for its end."""
        plain = [number for number in range(3) if number not in self._terminal]
        for number in _PASSED_ON:
            signal.signal(number, self._pass_on)
        if not self._terminal:
            socket.send_fds(self._sock, [b"d"], plain)
            return self._await()
        ours, theirs = socket.socketpair()
        with ours:
            socket.send_fds(self._sock, [b"d"], [*plain, theirs.fileno()])
            theirs.close()
            self._other = _received(ours)
        if self._other < 0:
            return self._await()
        signal.signal(signal.SIGWINCH, lambda *_: self._resize())
        self._resize()
        with _raw() if 0 in self._terminal else contextlib.nullcontext():
            self._copy()
        return self._await()

    def _pass_on(self, number: int, _: object) -> None:
        with contextlib.suppress(OSError):
            self._sock.send(json.dumps({"signal": number}).encode() + b"\n")

    def _resize(self) -> None:
        with contextlib.suppress(OSError):
            lines, columns = _size(self._terminal[0])
            fcntl.ioctl(self._other, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def _copy(self) -> None:
        """Between this terminal and that of the command, until nobody has that open any more."""
        sink = next((number for number in (1, 2) if number in self._terminal), 0)
        sources = [self._other, *([0] if 0 in self._terminal else [])]
        while self._other in sources:
            for source in select.select(sources, [], [])[0]:
                try:
                    data = os.read(source, _CHUNK)
                except OSError:  # EIO: the other side is closed
                    data = b""
                if not data:
                    sources.remove(source)
                _write(sink if source == self._other else self._other, data)

    def _await(self) -> int:
        """The exit status, which the daemon says at last. Raises ``CallFailed``."""
        while True:
            *lines, self._said = self._said.split(b"\n")
            for line in lines:
                said: dict[str, Any] = json.loads(line)
                if "error" in said:
                    raise CallFailed(str(said["error"]))
                if "exit" in said:
                    return int(said["exit"])
            data = self._sock.recv(_CHUNK)
            if not data:
                raise CallFailed("the daemon has ended meanwhile, and the command with it: see its log")
            self._said += data


def _received(sock: socket.socket) -> int:
    """The other side of the command's terminal; -1 when it was not executed. What comes is the app's to choose, so
    whatever is no such thing is let go."""
    _, found, _, _ = socket.recv_fds(sock, 1, 1)
    if not found:
        return -1
    info = os.fstat(found[0])
    if stat.S_ISCHR(info.st_mode) and info.st_rdev == _PTMX:
        return found[0]
    os.close(found[0])
    return -1


def _size(terminal: int) -> list[int]:
    try:
        size = os.get_terminal_size(terminal)
    except OSError:
        return [24, 80]
    return [size.lines or 24, size.columns or 80]


@contextlib.contextmanager
def _raw() -> Any:
    """Keys go to the command as they are typed, ^C among them."""
    before = termios.tcgetattr(0)
    try:
        tty.setraw(0)
        yield
    finally:
        # What the command has made this terminal say must not come to the shell as typed.
        termios.tcsetattr(0, termios.TCSAFLUSH, before)


def _write(fd: int, data: bytes) -> None:
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(fd, data) :]
